// Thinking: one segment after the other until the halting rule, or the limit, says stop. No DOM; any engine.

/** @typedef {import("./task.js").Task} Task */
/** @typedef {import("./task.js").Tokens} Tokens */
/**
 * @typedef {object} Engine what runs a bundle's graphs, for one puzzle at a time
 * @property {(question: Tokens, puzzleRow: number) => Promise<any>} [start] of a host loop: the state before thinking
 * @property {(state: any) => Promise<{state: any, logits: Float32Array, q: ArrayLike<number>}>} [segment] one more segment
 * @property {(question: Tokens, steps: number, halt: string, puzzleRow: number) =>
 *   Promise<{answer: Tokens, steps: number, q: ArrayLike<number>}>} [answer] of a graph loop: so many segments at most
 */
/**
 * @typedef {object} Segment what is seen after a segment
 * @property {number} step counted from 1
 * @property {Tokens} guess
 * @property {?Float32Array} logits [S × V]; null where the graph keeps them to itself
 * @property {number[]} q (halt, continue)
 * @property {number} margin by how much the halting head says stop
 * @property {boolean} stopped whether the halting rule ended it here
 * @property {boolean} last
 * @property {number} ms
 */
/**
 * @typedef {object} Options
 * @property {number} [maxThinkSteps] as many as in training by default
 * @property {"learned" | "verified" | "fixed"} [halt] the model's own head, as soon as the rules are met, or never
 * @property {number} [identifier] of the puzzle in the training data, where the model was trained with several
 * @property {() => boolean} [cancelled] asked between segments
 */

export const HALT_MODES = ["learned", "verified", "fixed"];

/** The guess: the likeliest token of each cell, the lowest where several are. @param {Float32Array} logits @param {Task} task @returns {Tokens} */
export function guessOf(logits, task) {
  const size = task.vocabulary.length;
  return Int32Array.from({ length: task.length }, (_, cell) => {
    let best = 0;
    for (let token = 1; token < size; token++) {
      if (logits[cell * size + token] > logits[cell * size + best]) best = token;
    }
    return best;
  });
}

/**
 * The likeliest tokens of each cell and the softmax of their logits, best first and of equals the guess: `count` a cell.
 * @param {Float32Array} logits @param {Tokens} guess @param {Task} task @param {number} count
 * @returns {{tokens: Int32Array, odds: Float32Array}}
 */
export function likeliest(logits, guess, task, count) {
  const size = task.vocabulary.length;
  const tokens = new Int32Array(task.length * count);
  const odds = new Float32Array(task.length * count);
  const order = Array.from({ length: size }, (_, token) => token);
  for (let cell = 0; cell < task.length; cell++) {
    const values = logits.subarray(cell * size, (cell + 1) * size);
    const best = order.toSorted((a, b) => values[b] - values[a] || Number(b === guess[cell]) - Number(a === guess[cell]) || a - b);
    const sum = values.reduce((total, value) => total + Math.exp(value - values[best[0]]), 0);
    for (let place = 0; place < Math.min(count, size); place++) {
      tokens[cell * count + place] = best[place];
      odds[cell * count + place] = Math.exp(values[best[place]] - values[best[0]]) / sum;
    }
  }
  return { tokens, odds };
}

/** By how much the halting head says stop. @param {ArrayLike<number>} q @param {Task} task */
export function margin(q, task) {
  return q[0] - (task.facts.halting.no_ACT_continue ? 0 : q[1]);
}

/**
 * Think over one question, and show every segment.
 * @param {Engine} engine @param {Task} task @param {Tokens} question @param {Options} [options]
 * @returns {AsyncGenerator<Segment, void>}
 */
export async function* think(engine, task, question, options = {}) {
  const { maxThinkSteps = task.facts.halting.max_think_steps, halt = "learned", identifier = 0 } = options;
  check(task, question, maxThinkSteps, halt);
  const row = task.puzzleRow(identifier);
  const next = engine.segment ? await fromState(engine, task, question, row) : fromAnswers(engine, question, row);
  for (let step = 1; step <= maxThinkSteps; step++) {
    if (options.cancelled?.()) return;
    const begin = performance.now();
    const { guess, logits, q } = await next(step);
    const ms = performance.now() - begin;
    const says = margin(q, task);
    const stopped = stops(task, halt, question, guess, says);
    yield { step, guess, logits, q: Array.from(q), margin: says, stopped, last: stopped || step === maxThinkSteps, ms };
    if (stopped) return;
  }
}

function check(task, question, maxThinkSteps, halt) {
  task.check(question);
  if (!Number.isInteger(maxThinkSteps) || maxThinkSteps < 1) {
    throw new RangeError(`maxThinkSteps must be a whole number of segments, at least 1, not ${maxThinkSteps}`);
  }
  if (!HALT_MODES.includes(halt)) throw new RangeError(`halt must be one of ${HALT_MODES.join(", ")}, not ${halt}`);
  if (halt === "verified" && !task.rules) throw new RangeError(`${task.facts.task} has no rules, so nothing is ever verified`);
}

function stops(task, halt, question, guess, says) {
  return (halt === "learned" && says > 0) || (halt === "verified" && task.verify(question, guess) === true);
}

/** Segments of a loop on the host. */
async function fromState(engine, task, question, puzzleRow) {
  let state = await engine.start(question, puzzleRow);
  return async () => {
    const { state: after, logits, q } = await engine.segment(state);
    state = after;
    return { guess: guessOf(logits, task), logits, q };
  };
}

/** Segments of a graph that shows its answers only: asked again for 1, 2, … segments, exact as nothing in it is random. */
function fromAnswers(engine, question, puzzleRow) {
  return async (step) => {
    const { answer, q } = await engine.answer(question, step, "fixed", puzzleRow);
    return { guess: answer, logits: null, q };
  };
}

/**
 * The answer of one question: its last guess, `steps`, `halted`, and `verified` (null where no rules tell).
 * @param {Engine} engine @param {Task} task @param {Tokens} question @param {Options} [options]
 * @returns {Promise<{answer: Tokens, steps: number, halted: boolean, q: number[], verified: ?boolean}>}
 */
export async function solve(engine, task, question, options = {}) {
  const { maxThinkSteps = task.facts.halting.max_think_steps, halt = "learned", identifier = 0 } = options;
  if (engine.answer && halt in task.facts.halting.modes) {
    check(task, question, maxThinkSteps, halt);
    const { answer, steps, q } = await engine.answer(question, maxThinkSteps, halt, task.puzzleRow(identifier));
    const halted = stops(task, halt, question, answer, margin(q, task));
    return { answer, steps, halted, q: Array.from(q), verified: task.verify(question, answer) };
  }
  let last = null;
  for await (const segment of think(engine, task, question, options)) last = segment;
  return { answer: last.guess, steps: last.step, halted: last.stopped, q: last.q, verified: task.verify(question, last.guess) };
}
