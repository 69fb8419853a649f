// Thinks beside the page, so that the page never waits: loads the engine once, and sends every segment as it comes.

import { loadEngine } from "./engine.js";
import { read, readSite } from "./site.js";
import { Thinker } from "./thinker.js";

let thinker;

self.addEventListener("message", async ({ data }) => {
  try {
    if (data.kind === "load") await load(data.base);
    if (data.kind === "think") await thinker.think(data);
    if (data.kind === "stop") thinker?.stop();
  } catch (error) {
    self.postMessage({ kind: "failed", id: data.id ?? 0, why: error instanceof Error ? error.message : String(error) });
  }
});

async function load(base) {
  const { facts, task, site } = await readSite(base);
  const { engine, on } = await loadEngine(site.engine, facts, base, (file) => read(file, base));
  thinker = new Thinker(engine, task, (told) => self.postMessage(told));
  self.postMessage({ kind: "ready", on });
}
