// The texts that boards come in. Each form reads as Python's `Task.parse` does, or refuses what Python also takes:
// boards whose blanks are spaces, tables with answers beside puzzles, sections of other programs' files.

import { PAD, PuzzleError } from "./task.js";

// Lines and white space as Python's `splitlines` and `split` know them.
const LINE_END = /\r\n|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]/;
const SPACE = /[\t-\r\x1c-\x20\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+/;

/** @typedef {import("./task.js").Task} Task */
/** @typedef {{parse: (text: string) => Int32Array}} BoardText */

/** How boards of a task are read: told by its symbols. @param {Task} task @returns {BoardText} */
export function boardText(task) {
  if (task.onCanvas) return new CanvasText(task);
  if (task.vocabulary.includes(" ")) return new PlacesText(task);
  if (task.facts.grid?.box_rows && digitsInOrder(task)) return new BoxesText(task);
  return new SymbolsText(task);
}

/** Whether the tokens are a blank and then the digits: another's boxes may hold symbols of its own. @param {Task} task */
const digitsInOrder = (task) => task.vocabulary.slice(1).every((symbol, i) => symbol === (i ? DIGITS[i] : "."));

const words = (text) => text.split(SPACE).filter(Boolean);

function lines(text) {
  const found = text.split(LINE_END);
  if (found.at(-1) === "") found.pop();
  return found;
}

/** One token a symbol. @param {Task} task @param {string[]} cells */
function tokensOf(task, cells, otherwise = `no symbol of ${task.facts.task}`) {
  const symbols = new Map(Object.entries(task.facts.symbols));
  return Int32Array.from(cells, (cell, index) => {
    const token = symbols.get(cell);
    if (token === undefined) throw new PuzzleError(`'${cell}' at ${task.where(index)} is ${otherwise}`);
    return token;
  });
}

/** Symbols one after the other, with spaces between them where they are longer than a character. */
class SymbolsText {
  /** @param {Task} task */
  constructor(task) {
    this.task = task;
  }

  parse(text) {
    const { task } = this;
    const cells = task.facts.separator === " " ? words(text) : Array.from(words(text).join(""));
    if (cells.length !== task.length) {
      const grid = task.rows === 1 ? "" : ` (${task.rows} rows of ${task.columns})`;
      throw new PuzzleError(`a ${task.facts.task} puzzle has ${task.length} symbols${grid}, not ${cells.length}`);
    }
    return tokensOf(task, cells);
  }
}

/** A character a cell, spaces among them, on one line or a row a line, framed or not. */
class PlacesText {
  /** @param {Task} task */
  constructor(task) {
    this.task = task;
    this.row = new RegExp(`^\\s*[│|](.{${task.columns}})[│|]\\s*$`, "u");
  }

  parse(text) {
    const { task } = this;
    const rows = lines(text).map((line) => this.#unframed(line));
    while (rows.length && rows[0] === "") rows.shift();
    while (rows.length && rows.at(-1) === "") rows.pop();
    if (rows.length > 1) {
      const short = rows.findIndex((row) => Array.from(row).length !== task.columns);
      if (short >= 0) {
        throw new PuzzleError(`row ${short + 1} of the maze has ${Array.from(rows[short]).length} characters, expected ${task.columns} ('.' also stands for an open cell, where spaces get lost)`);
      }
    }
    const cells = Array.from(rows.join(""));
    if (cells.length !== task.length) {
      throw new PuzzleError(`maze has ${cells.length} characters, expected ${task.length} (${task.rows} rows of ${task.columns})`);
    }
    return tokensOf(task, cells, "not one of '#', ' ' (or '.'), 'S', 'G', 'o'");
  }

  /** A line without a frame around it; the frame's top and bottom become empty lines. */
  #unframed(line) {
    if (/^\s*[┌└+][─-]+[┐┘+]\s*$/.test(line)) return "";
    return this.row.exec(line)?.[1] ?? line;
  }
}

/** A grid on a canvas: rows of colours, or every cell of the canvas on one line. */
class CanvasText {
  /** @param {Task} task */
  constructor(task) {
    this.task = task;
  }

  parse(text) {
    const { task } = this;
    const rows = words(text);
    if (rows.length === 1 && Array.from(rows[0]).length === task.length && task.length > 1) {
      return tokensOf(task, Array.from(rows[0]), "no colour 0 to 9, '|' or '?'");
    }
    if (!rows.length || !rows.every((row) => /^[0-9]+$/.test(row))) {
      throw new PuzzleError(`a grid is rows of digits, or ${task.length} characters of 0 to 9, '|' and '?'`);
    }
    const width = rows[0].length;
    if (rows.some((row) => row.length !== width)) throw new PuzzleError("the rows of a grid must be of one length");
    if (width > task.columns || rows.length > task.rows) {
      throw new PuzzleError(`a grid has 1 to ${task.rows} rows and columns, not ${rows.length} and ${width}`);
    }
    const end = task.facts.symbols["|"];
    const canvas = new Int32Array(task.length).fill(PAD);
    rows.forEach((row, y) => {
      Array.from(row).forEach((colour, x) => (canvas[y * task.columns + x] = task.facts.symbols[colour]));
      if (width < task.columns) canvas[y * task.columns + width] = end;
    });
    if (rows.length < task.rows) canvas.fill(end, rows.length * task.columns, rows.length * task.columns + width);
    return canvas;
  }
}

// Of Sudokus: what stands between cells, rulers, and rows as our terminal draws them ("5·" was answered).
const SEPARATORS = /[\t-\r\x1c-\x20\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000|+=,;/:'"─-╿]+/u;
const ALL_SEPARATORS = new RegExp(SEPARATORS.source, "gu");
const RULER = /^(?:[|+.:*'`,\s]?(?:[-=─-╿_]{2,}[|+.:*'`,\s]{1,3})*[-=─-╿_]{2,}[|+.:*'`,\s]{0,3}|[\s|+=─-╿]*[-+=─━═┄┈╌][\s|+=─-╿]*)$/u;
const DRAWN_ROW = /^[│|](?:(?: \S[ ·'*!])+[│|])+$/u;
const CAPTION = /^(?:NOT )?verified\b.*, \d+ segments?, [\d.]+ ms.*$/;
const LEGEND = /^(?:\S[·'!]? (?:given|answered|breaks a rule)(?: {3})?)+$/u;
const BLANKS = new Set([".", "*", "_", "-"]);
// Each of these is a blank only where no other mark is one, as it may be a slip there.
const ODD_BLANKS = new Set(Array.from("xX?·•∙⋅□–—−"));
const DIGITS = "0123456789ABCDEFG";

/** Digits in boxes: S cells on a line, or a row a line, ruled or not; `#` starts a comment. */
class BoxesText {
  /** @param {Task} task */
  constructor(task) {
    this.task = task;
    this.side = task.columns;
  }

  parse(text) {
    const { side, task } = this;
    const rows = [];
    const gaps = []; // after how many rows an empty line came
    for (const raw of lines(text.replaceAll("\ufeff", ""))) {
      const line = raw.trim();
      if (!line) {
        if (rows.length && rows.length < side) gaps.push(rows.length);
        continue;
      }
      if (/^(?:#|\/\/|%)/.test(line) || CAPTION.test(line) || LEGEND.test(line)) continue;
      if (RULER.test(line)) {
        // A line of dashes may as well be a row of blanks: Python looks at the rest of the board, here it is refused.
        if (line.replace(ALL_SEPARATORS, "").length === side && !line.includes("+")) {
          throw new PuzzleError("a line of dashes may be a row or a ruler; write blanks as dots");
        }
        continue;
      }
      const whole = this.#cells(line, task.length);
      const row = whole ? null : this.#drawn(line) ?? this.#boxed(line) ?? this.#cells(line, side);
      if (!whole && !row) {
        const cells = Array.from(line.replace(ALL_SEPARATORS, "")).length;
        if (rows.length) throw new PuzzleError(`row ${rows.length + 1} has ${cells} cells, expected ${side}`);
        throw new PuzzleError(this.#wrongLength(cells));
      }
      rows.push(...(whole ? Array.from({ length: side }, (_, r) => whole.slice(r * side, (r + 1) * side)) : [row]));
    }
    const bands = Array.from({ length: task.rows / task.facts.grid.box_rows - 1 }, (_, band) => (band + 1) * task.facts.grid.box_rows);
    if (gaps.length && gaps.join() !== bands.join()) {
      throw new PuzzleError("the empty lines in this board do not stand between its bands of boxes; leave them out");
    }
    if (rows.length > side) throw new PuzzleError("several puzzles where one is asked for");
    const cells = rows.flat();
    if (cells.length !== task.length) throw new PuzzleError(this.#wrongLength(cells.length));
    return this.#tokens(cells.map((cell) => (/^0[0-9]$/.test(cell) ? cell[1] : cell)));
  }

  #wrongLength(count) {
    return `puzzle has ${count} characters, expected ${this.task.length} (${this.side} rows of ${this.side}; '.' or 0 for a blank)`;
  }

  /** So many cells: fields of a table, or characters with anything between them. */
  #cells(line, count) {
    for (const mark of [",", ";", "\t"]) {
      let fields = line.split(mark).map((field) => field.replace(/^[ "']+|[ "']+$/g, ""));
      if (count === this.side && fields.length === count + 1 && fields.at(-1) === "") fields = fields.slice(0, -1);
      if (fields.length === count && fields.every(isCell)) return fields;
    }
    const apart = words(line.replaceAll(",", " "));
    if (count === this.side && apart.length === count && apart.every(isCell)) return apart;
    const cells = Array.from(line.replace(ALL_SEPARATORS, ""));
    const lengths = new Set(line.split(SEPARATORS).filter(Boolean).map((field) => field.length));
    // Numbers of two digits are not taken apart.
    return cells.length === count && (this.side < 10 || lengths.size === 1) ? cells : null;
  }

  /** A row of a board that our terminal drew, answers included. */
  #drawn(line) {
    const left = line.split(/(?<=[│|]) {2}(?=[│|])/u)[0];
    if (!DRAWN_ROW.test(left)) return null;
    const cells = Array.from(left.matchAll(/ (\S)[ ·'*!]/gu), (found) => found[1]);
    return cells.length === this.side ? cells : null;
  }

  /** A row whose cells have bars between them, blanks being marks or nothing. */
  #boxed(line) {
    const fields = line.replace(/^[|│║┃┆┊]|[|│║┃┆┊]$/gu, "").split(/[|│║┃┆┊]/u).map((field) => field.trim());
    return fields.length === this.side && fields.every(isCell) ? fields : null;
  }

  /** Symbols are 1-9 A-G, 0-9 A-F or A-P, told by which of them are there. */
  #tokens(cells) {
    const { blank } = this.task.facts;
    const used = new Set(cells);
    const marks = [...used].filter((cell) => cell === "" || BLANKS.has(cell) || ODD_BLANKS.has(cell));
    const kinds = new Set([...marks, ...(used.has("0") && this.side < 10 ? ["0"] : [])].filter(Boolean)
      .map((mark) => (mark === "X" ? "x" : mark)));
    const odd = cells.findIndex((cell) => ODD_BLANKS.has(cell));
    if (odd >= 0 && kinds.size > 1) throw this.#wrong(cells, odd);
    const readings = this.#bases(used.has("0") && marks.length > 0).map((basis) =>
      cells.map((cell) => (marks.includes(cell) ? blank : basis.get(cell))));
    const right = readings.find((tokens) => !tokens.includes(undefined));
    if (!right) throw this.#wrong(cells, Math.max(0, readings[0].indexOf(undefined)));
    return Int32Array.from(right);
  }

  /** Symbol to token, in each way that boards of this side are written. Beside other blanks a 0 is a symbol, of large boards. */
  #bases(zeroIsSymbol) {
    const { side, task } = this;
    const basis = (symbols, first) => {
      const found = new Map();
      Array.from(symbols).forEach((symbol, value) => found.set(symbol, value + 2).set(symbol.toLowerCase(), value + 2));
      if (first !== null) for (let number = 10; number < side + first; number++) found.set(String(number), number - first + 2);
      return found.has("0") ? found : found.set("0", task.facts.blank);
    };
    const ours = basis(DIGITS.slice(1, side + 1), 1);
    if (side < 10) return [ours];
    const fromZero = basis(DIGITS.slice(0, side), 0);
    if (zeroIsSymbol) return [fromZero];
    return [ours, basis("ABCDEFGHIJKLMNOP".slice(0, side), null)];
  }

  #wrong(cells, cell) {
    const what = this.side < 10 ? `a digit 1-${this.side}` : `one of 1-9 A-${DIGITS[this.side]}`;
    return new PuzzleError(`'${cells[cell]}' at ${this.task.where(cell)} is not ${what} or a blank ('.' or 0)`);
  }
}

const isCell = (field) =>
  field === "" || BLANKS.has(field) || ODD_BLANKS.has(field) || /^(?:[0-9A-Za-z]|[0-9]{2})$/.test(field);
