// The first puzzle of a file: a board, a line, or a row of a table, whose answer is never taken for the puzzle.

import { PuzzleError } from "../lib/task.js";

/** What columns of puzzles are called: `hrm_edge.data.formats.base.QUESTION`. */
export const QUESTION = ["question", "puzzle", "quizzes", "questions", "puzzles", "quiz", "sudoku", "sudokus", "unsolved",
  "problem", "clues", "givens", "grid", "board", "maze"];
const READ = "a file holds a board as text, a puzzle a line, or a table (CSV, TSV)";
const COMMENT = /^\s*(?:#|\/\/|%|sep=)/;

/** PuzzleError says why there is none. @param {string} text @param {import("../lib/task.js").Task} task @returns {Int32Array} */
export function firstPuzzle(text, task) {
  if (!text.trim()) throw new PuzzleError(`is empty; ${READ}`);
  const whole = read(text, task);
  if (whole.tokens) return whole.tokens;
  const lines = text.split(/\r?\n/).map((line, index) => [line, index + 1]).filter(([line]) => line.trim());
  const header = titled(lines);
  if (!header) {
    for (const [line] of lines) {
      const { tokens } = read(line, task);
      if (tokens) return tokens;
    }
  }
  for (const [line, number] of header ? lines.slice(header.after) : lines) {
    const fields = line.split(header?.mark ?? /[,;\t]/).map((field) => field.replace(/^\s*"(.*)"\s*$/, "$1"));
    const boards = (header ? header.columns.map((column) => fields[column] ?? "") : fields)
      .map((field) => read(field, task)).filter(({ tokens }) => tokens);
    const asked = boards.filter(({ tokens }) => header || mayBeAsked(tokens, task));
    if (new Set(asked.map(({ tokens }) => tokens.join())).size === 1) return asked[0].tokens;
    if (boards.length) throw new PuzzleError(`line ${number}: which field is the puzzle is not clear; name its column 'question'`);
    if (header) throw new PuzzleError(`line ${number}: ${read(fields[header.columns[0]] ?? "", task).error.message}`);
  }
  throw new PuzzleError(`${/^\s*[{[]/.test(text) ? "holds JSON" : whole.error.message}; ${READ}`);
}

function read(text, task) {
  try {
    return { tokens: task.parse(text) };
  } catch (error) {
    return { error };
  }
}

/** The header that names columns of puzzles, if there is one: those columns, the mark between them, and the lines up to it. */
function titled(lines) {
  const first = lines.findIndex(([line]) => !COMMENT.test(line));
  for (const mark of first < 0 ? [] : [",", ";", "\t"]) {
    const names = lines[first][0].split(mark).map((name) => name.toLowerCase().replace(/[\s_"\ufeff-]/g, ""));
    const columns = QUESTION.map((name) => names.indexOf(name)).filter((column) => column >= 0);
    if (names.length > 1 && columns.length) return { columns, mark, after: first + 1 };
  }
  return null;
}

/** An answer has no blanks, or symbols that no puzzle has. */
function mayBeAsked(tokens, { facts }) {
  return tokens.every((token) => facts.question_tokens.includes(token)) && (facts.blank === null || tokens.includes(facts.blank));
}
