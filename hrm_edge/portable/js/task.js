// A task as `facts.json` tells it: text to tokens and back, its rules, its variants. No DOM, no engine.

import { boardText } from "./text.js";

/**
 * @typedef {object} Facts `facts.json` of a bundle; `hrm_edge.portable.facts` says what each fact is
 * @property {string} task
 * @property {string} title
 * @property {number} seq_len
 * @property {?{rows: number, columns: number, box_rows: ?number, box_columns: ?number}} grid
 * @property {string[]} vocabulary
 * @property {Record<string, number>} symbols
 * @property {?string} separator
 * @property {string} padding
 * @property {boolean} by_example
 * @property {Record<string, string>} fills
 * @property {?number} blank
 * @property {number[]} question_tokens
 * @property {number[]} answer_tokens
 * @property {?{kind: string, groups?: number[][], values?: number[], wall?: number, open?: number, start?: number,
 *   goal?: number, path?: number}} rules
 * @property {{cells: number[], tokens: number[]}[]} variants
 * @property {{max_think_steps: number, rule: string, no_ACT_continue: boolean, modes: Record<string, number>}} halting
 * @property {string} loop
 * @property {number | string} batch
 * @property {Record<string, {file: string, inputs: Tensor[], outputs: Tensor[]}>} graphs
 * @property {Record<string, string>} next
 * @property {?{count: number, kept: ?number[][]}} puzzle_identifiers
 * @property {?Record<string, any>} asked
 * @property {Record<string, any>[]} examples
 */
/** @typedef {{name: string, dtype: string, shape: (number | string)[]}} Tensor */
/** @typedef {Int32Array} Tokens one token a cell, row by row */

export const PAD = 0;

/** What is wrong with a puzzle: one line that says what, and where. */
export class PuzzleError extends Error {}

export class Task {
  /** @param {Facts} facts */
  constructor(facts) {
    this.facts = facts;
    this.length = facts.seq_len;
    this.vocabulary = facts.vocabulary;
    this.rules = facts.rules;
    this.columns = facts.grid ? facts.grid.columns : facts.seq_len;
    this.rows = facts.grid ? facts.grid.rows : 1;
    /** @type {boolean} whether one grid stands on a canvas, its end marked (ARC): padding may be asked */
    this.onCanvas = facts.by_example;
  }

  /** What a token is shown as. @param {number} token */
  symbol(token) {
    return token ? this.vocabulary[token] : this.facts.padding;
  }

  /** One puzzle from text. PuzzleError says which character is wrong, and where. @param {string} text @returns {Tokens} */
  parse(text) {
    return boardText(this).parse(text);
  }

  /** The one-line form that `parse` reads back. @param {ArrayLike<number>} tokens */
  format(tokens) {
    return Array.from(tokens, (token) => this.symbol(token)).join(this.facts.separator ?? "");
  }

  /** `row 2, column 3`, counted from 1. @param {number} cell */
  where(cell) {
    if (this.rows === 1) return `position ${cell + 1}`;
    return `position ${cell + 1} (row ${Math.floor(cell / this.columns) + 1}, column ${(cell % this.columns) + 1})`;
  }

  /**
   * The row of the model's table that is this puzzle's, 0 where it has one row only. RangeError where it has none:
   * some exports kept the rows of a few puzzles.
   * @param {number} identifier of the training data
   */
  puzzleRow(identifier) {
    if (!this.facts.puzzle_identifiers) return 0;
    const { count, kept } = this.facts.puzzle_identifiers;
    let row = 0;
    for (const [first, last] of kept ?? [[0, count - 1]]) {
      if (Number.isInteger(identifier) && identifier >= first && identifier <= last) return row + identifier - first;
      row += last - first + 1;
    }
    throw new RangeError(`this model knows no puzzle ${identifier}`);
  }

  /** Whether a right answer leaves a cell of the question as it is. @param {number} token */
  isGiven(token) {
    return this.facts.blank !== null && token !== this.facts.blank;
  }

  // -- rules -------------------------------------------------------------------------------------------------

  /** PuzzleError where `question` can be no puzzle: a token out of range, an open contradiction. @param {Tokens} question */
  check(question) {
    if (question.length !== this.length) {
      throw new PuzzleError(`a ${this.facts.task} puzzle has ${this.length} cells, not ${question.length}`);
    }
    const lowest = this.rules ? 1 : 0;
    const wrong = question.findIndex((token) => !(token >= lowest && token < this.vocabulary.length));
    if (wrong >= 0) throw new PuzzleError(`token ${question[wrong]} at ${this.where(wrong)} is none of ${this.facts.task}`);
    if (this.onCanvas && !question.some((token) => token > 1)) throw new PuzzleError("the puzzle holds no grid");
    if (this.rules?.kind === "groups") {
      const free = question.findIndex((token, cell) => token === this.facts.blank && !this.rules.groups.some((cells) => cells.includes(cell)));
      const clash = free < 0 ? this.#clash(question) : `the blank at ${this.where(free)} is in no group, so nothing tells what belongs there`;
      if (clash) throw new PuzzleError(clash);
    }
    if (this.rules?.kind === "maze") this.#checkMaze(question);
  }

  #checkMaze(question) {
    for (const what of ["start", "goal"]) {
      const token = this.rules[what];
      const count = question.reduce((sum, each) => sum + Number(each === token), 0);
      if (count !== 1) {
        const told = count ? `${count} cells are marked ${what}` : `the maze has no ${what}`;
        throw new PuzzleError(`${told}; mark one cell '${this.symbol(token)}'`);
      }
    }
    const drawn = question.indexOf(this.rules.path);
    if (drawn >= 0) throw new PuzzleError(`the maze already has a path: '${this.symbol(this.rules.path)}' at ${this.where(drawn)}`);
  }

  /** The first value that stands twice in a group, in words; null where none does. @param {Tokens} tokens */
  #clash(tokens) {
    const { groups, values } = this.rules;
    for (const cells of groups) {
      const seen = new Map();
      for (const cell of cells) {
        const token = tokens[cell];
        if (token === this.facts.blank) continue;
        if (!values.includes(token)) return `'${this.symbol(token)}' at ${this.where(cell)} is no value of its group`;
        if (seen.has(token)) {
          return `'${this.symbol(token)}' stands twice, at ${this.where(seen.get(token))} and at ${this.where(cell)}: it may stand there only once`;
        }
        seen.set(token, cell);
      }
    }
    return null;
  }

  /**
   * Whether `answer` obeys the rules and keeps what is given; null where nothing here tells.
   * @param {Tokens} question @param {Tokens} answer @returns {?boolean}
   */
  verify(question, answer) {
    if (!this.rules) return null;
    if (this.rules.kind === "maze") return this.#verifyMaze(question, answer);
    const { groups, values } = this.rules;
    if (question.some((token, cell) => this.isGiven(token) && answer[cell] !== token)) return false;
    return groups.every((cells) => {
      const held = new Set(cells.map((cell) => answer[cell]));
      return cells.length === values.length && values.every((value) => held.has(value));
    });
  }

  #verifyMaze(question, answer) {
    const { wall, open, start, goal, path } = this.rules;
    const count = (token) => question.reduce((sum, each) => sum + Number(each === token), 0);
    if (count(start) !== 1 || count(goal) !== 1) return false;
    if (!question.every((token) => [wall, open, start, goal].includes(token))) return false;
    const drawn = question.map((token, cell) => Number(token === open && answer[cell] === path));
    if (!question.every((token, cell) => drawn[cell] || answer[cell] === token)) return false;
    // A path is connected and shortest when it alone leads to the goal as fast as all open cells do.
    const isEnd = (cell) => question[cell] === start || question[cell] === goal;
    const moves = this.#moves(question, (cell) => isEnd(cell) || question[cell] === open);
    const along = this.#moves(question, (cell) => isEnd(cell) || drawn[cell] === 1);
    return moves > 0 && along === moves && drawn.reduce((sum, each) => sum + each, 0) === moves - 1;
  }

  /** Moves from start to goal over the free cells, -1 where there is no way. @param {Tokens} question @param {(cell: number) => boolean} free */
  #moves(question, free) {
    const goal = question.indexOf(this.rules.goal);
    let edge = [question.indexOf(this.rules.start)];
    const seen = new Set(edge);
    for (let moves = 0; edge.length; moves++) {
      if (edge.includes(goal)) return moves;
      const next = [];
      for (const cell of edge) {
        for (const other of this.#neighbours(cell)) {
          if (!seen.has(other) && free(other)) {
            seen.add(other);
            next.push(other);
          }
        }
      }
      edge = next;
    }
    return -1;
  }

  #neighbours(cell) {
    const column = cell % this.columns;
    const found = [cell - this.columns, cell + this.columns].filter((other) => other >= 0 && other < this.length);
    if (column) found.push(cell - 1);
    if (column + 1 < this.columns) found.push(cell + 1);
    return found;
  }

  /**
   * Cells that by themselves show an answer to be wrong: a changed given, a value twice in a group, a symbol that no
   * answer may hold. A given is at fault only where it was changed.
   * @param {Tokens} question @param {Tokens} answer @returns {boolean[]}
   */
  wrongCells(question, answer) {
    if (!this.rules) return new Array(this.length).fill(false);
    const given = Array.from(question, (token) => this.isGiven(token));
    const wrong = Array.from(answer, (token, cell) =>
      given[cell] ? token !== question[cell] : !this.facts.answer_tokens.includes(token));
    for (const cells of this.rules.groups ?? []) {
      for (const cell of cells) {
        if (!given[cell] && cells.some((other) => other !== cell && answer[other] === answer[cell])) wrong[cell] = true;
      }
    }
    return wrong;
  }

  /** The first thing wrong with an answer that does not verify. @param {Tokens} question @param {Tokens} answer */
  whyWrong(question, answer) {
    const changed = question.findIndex((token, cell) => this.isGiven(token) && answer[cell] !== token);
    if (changed >= 0) return `it changes the given '${this.symbol(question[changed])}' at ${this.where(changed)}`;
    if (this.rules?.kind === "groups") {
      const empty = answer.indexOf(this.facts.blank);
      return this.#clash(answer) ?? `no value at ${this.where(Math.max(empty, 0))}`;
    }
    if (this.rules?.kind !== "maze") return "the task has no rules";
    const strange = answer.findIndex((token, cell) => token !== question[cell] && token !== this.rules.path);
    if (strange >= 0) return `it turns an open cell into '${this.symbol(answer[strange])}' at ${this.where(strange)}`;
    return "its path is not a shortest one from start to goal";
  }

  // -- variants ----------------------------------------------------------------------------------------------

  /** The k-th other board of the same puzzle, as `retries` asks it. @param {number} number from 0 */
  variant(number) {
    const { cells, tokens } = this.facts.variants[number];
    const old = new Int32Array(tokens.length);
    tokens.forEach((token, index) => (old[token] = index));
    return {
      /** @param {Tokens} question @returns {Tokens} */
      apply: (question) => Int32Array.from(cells, (cell) => tokens[question[cell]]),
      /** What came of the variant, on the board as it was asked. @param {Tokens} answer @returns {Tokens} */
      invert: (answer) => {
        const back = new Int32Array(answer.length);
        cells.forEach((cell, index) => (back[cell] = old[answer[index]]));
        return back;
      },
      /** The same for the logits [S × V] of the variant. @param {Float32Array} logits */
      invertLogits: (logits) => {
        const back = new Float32Array(logits.length);
        const size = tokens.length;
        cells.forEach((cell, index) => {
          for (let token = 0; token < size; token++) back[cell * size + old[token]] = logits[index * size + token];
        });
        return back;
      },
    };
  }
}
