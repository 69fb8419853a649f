// Answers questions about a task, as JSON: standard input is {facts, asked: [[method, ...arguments], …]}.
import { readFileSync } from "node:fs";

const library = new URL("../../hrm_edge/portable/js/", import.meta.url);
const { PuzzleError, Task } = await import(new URL("task.js", library));
const { guessOf, solve, think } = await import(new URL("loop.js", library));
const { solveWithRetries } = await import(new URL("retries.js", library));

const { facts, asked, memory } = JSON.parse(readFileSync(0, "utf8"));
const task = new Task(facts);

/** An engine that answers by heart: the logits and q of each segment of each question. */
const byHeart = {
  async start(question) {
    return { known: memory[Array.from(question).join()], at: 0 };
  },
  async segment({ known, at }) {
    const { logits, q } = known[at];
    return { state: { known, at: at + 1 }, logits: Float32Array.from(logits), q };
  },
};
const tokens = (values) => Int32Array.from(values);
const methods = {
  parse: (text) => Array.from(task.parse(text)),
  row: (identifier) => task.puzzleRow(identifier),
  format: (board) => task.format(board),
  check: (board) => task.check(tokens(board)) ?? null,
  verify: (question, answer) => task.verify(tokens(question), tokens(answer)),
  wrong: (question, answer) => task.wrongCells(tokens(question), tokens(answer)),
  why: (question, answer) => task.whyWrong(tokens(question), tokens(answer)),
  there: (number, board) => Array.from(task.variant(number).apply(tokens(board))),
  back: (number, board) => Array.from(task.variant(number).invert(task.variant(number).apply(tokens(board)))),
  async solve(question, options) {
    const found = await (options.retries === undefined ? solve : solveWithRetries)(byHeart, task, tokens(question), options);
    return { ...found, answer: Array.from(found.answer) };
  },
  async think(question, options) {
    const segments = [];
    for await (const { guess, stopped } of think(byHeart, task, tokens(question), options)) segments.push([Array.from(guess), stopped]);
    return segments;
  },
  guess: (logits) => Array.from(guessOf(Float32Array.from(logits), task)),
};

const answers = [];
for (const [method, ...given] of asked) {
  try {
    answers.push({ is: (await methods[method](...given)) ?? null });
  } catch (error) {
    if (!(error instanceof PuzzleError || error instanceof RangeError)) throw error;
    answers.push({ refused: error.message });
  }
}
process.stdout.write(JSON.stringify(answers));
