// Thinks beside the page, so that the page never waits: loads the engine once, and sends every segment as it comes.

import { loadEngine } from "./engine.js";
import { likeliest } from "../lib/loop.js";
import { thinkWithRetries } from "../lib/retries.js";
import { Task } from "../lib/task.js";
import { CANDIDATES } from "./candidates.js";

let task;
let engine;
let current = 0; // the question that is thought about; any other is cancelled

self.addEventListener("message", async ({ data }) => {
  try {
    if (data.kind === "load") await load(data.base);
    if (data.kind === "think") await thinkAbout(data);
    if (data.kind === "stop") current = 0;
  } catch (error) {
    self.postMessage({ kind: "failed", id: data.id ?? 0, why: error instanceof Error ? error.message : String(error) });
  }
});

async function load(base) {
  const read = async (file) => {
    const answer = await fetch(new URL(file, base));
    if (!answer.ok) throw new Error(`${file} could not be loaded (${answer.status})`);
    return answer;
  };
  const [facts, site] = await Promise.all(["facts.json", "site.json"].map(async (file) => (await read(file)).json()));
  task = new Task(facts);
  const loaded = await loadEngine(site.engine, facts, base, async (file) => new Uint8Array(await (await read(file)).arrayBuffer()));
  engine = loaded.engine;
  self.postMessage({ kind: "ready", on: loaded.on });
}

async function thinkAbout({ id, question, options }) {
  current = id;
  const cancelled = () => current !== id;
  let count = 0;
  for await (const segment of thinkWithRetries(engine, task, question, { ...options, cancelled })) {
    const { guess, logits, q, margin, stopped, ms, attempt } = segment;
    const likely = logits && likeliest(logits, guess, task, CANDIDATES);
    self.postMessage({ kind: "segment", id, segment: { guess, q, margin, stopped, ms, attempt, likely } });
    count++;
    await new Promise((resolve) => setTimeout(resolve, 0)); // a wish to stop is heard between segments
    if (cancelled()) break;
  }
  self.postMessage({ kind: "end", id, count });
}
