// One question after the other: engines run one segment at a time, and a new question waits until the segment of the
// one before has ended.

import { likeliest } from "../lib/loop.js";
import { thinkWithRetries } from "../lib/retries.js";
import { CANDIDATES } from "./candidates.js";

export class Thinker {
  #current = 0; // the question that is thought about; any other is cancelled
  #before = Promise.resolve();

  /** @param {import("../lib/loop.js").Engine} engine @param {import("../lib/task.js").Task} task @param {(told: object) => void} say */
  constructor(engine, task, say) {
    this.engine = engine;
    this.task = task;
    this.say = say;
  }

  stop() {
    this.#current = 0;
  }

  /** @param {{id: number, question: Int32Array, options: object}} asked */
  think(asked) {
    this.#current = asked.id;
    const turn = this.#before.then(() => this.#segments(asked));
    this.#before = turn.catch(() => undefined);
    return turn;
  }

  async #segments({ id, question, options }) {
    const cancelled = () => this.#current !== id;
    let count = 0;
    if (!cancelled()) {
      for await (const segment of thinkWithRetries(this.engine, this.task, question, { ...options, cancelled })) {
        const { guess, logits, q, margin, stopped, ms, attempt } = segment;
        const likely = logits && likeliest(logits, guess, this.task, CANDIDATES);
        this.say({ kind: "segment", id, segment: { guess, q, margin, stopped, ms, attempt, likely } });
        count++;
        await new Promise((resolve) => setTimeout(resolve, 0)); // a wish to stop is heard between segments
        if (cancelled()) break;
      }
    }
    this.say({ kind: "end", id, count });
  }
}
