// Thinking again: what does not verify is asked as other boards of the same puzzle, as `--retries` does.

import { solve, think } from "./loop.js";

/** @typedef {import("./loop.js").Segment} Segment */

/** How many retries there can be. @param {import("./task.js").Task} task @param {number} retries */
function checked(task, retries) {
  if (!Number.isInteger(retries) || retries < 0) throw new RangeError(`retries must be a whole number, not ${retries}`);
  if (retries && !task.rules) throw new RangeError(`${task.facts.task} has no rules: nothing tells which of several attempts is right`);
  return Math.min(retries, task.facts.variants.length);
}

/**
 * Every segment of every attempt, until one verifies. `attempt` is 0 for the board as asked and k for variant k, whose
 * guesses are brought back to the board as asked.
 * @param {import("./loop.js").Engine} engine @param {import("./task.js").Task} task @param {Int32Array} question
 * @param {import("./loop.js").Options & {retries?: number}} [options]
 * @returns {AsyncGenerator<Segment & {attempt: number}, void>}
 */
export async function* thinkWithRetries(engine, task, question, options = {}) {
  const retries = checked(task, options.retries ?? 0);
  for (let attempt = 0; attempt <= retries; attempt++) {
    const variant = attempt ? task.variant(attempt - 1) : null;
    let last = null;
    for await (const segment of think(engine, task, variant ? variant.apply(question) : question, options)) {
      last = { ...segment, attempt };
      if (variant) {
        last.guess = variant.invert(segment.guess);
        last.logits = segment.logits && variant.invertLogits(segment.logits);
      }
      yield last;
    }
    if (!last || task.verify(question, last.guess)) return;
  }
}

/**
 * The answer of the first attempt that verifies, or of the board as asked; `segments` counts those of all attempts.
 * @param {import("./loop.js").Engine} engine @param {import("./task.js").Task} task @param {Int32Array} question
 * @param {import("./loop.js").Options & {retries?: number}} [options]
 */
export async function solveWithRetries(engine, task, question, options = {}) {
  const retries = checked(task, options.retries ?? 0);
  const first = await solve(engine, task, question, options);
  let segments = first.steps;
  if (first.verified !== false) return { ...first, variant: 0, segments };
  for (let number = 1; number <= retries; number++) {
    const variant = task.variant(number - 1);
    const again = await solve(engine, task, variant.apply(question), options);
    const answer = variant.invert(again.answer);
    segments += again.steps;
    if (task.verify(question, answer)) return { ...again, answer, verified: true, variant: number, segments };
  }
  return { ...first, variant: 0, segments };
}
