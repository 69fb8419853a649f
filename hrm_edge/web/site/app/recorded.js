// A recorded trace to look at: no engine, no network, everything in the page.

import { Task } from "../lib/task.js";
import { byId } from "./dom.js";
import { followTheme } from "./theme.js";
import { Viewer, showEnd } from "./viewer.js";
import { heading } from "./words.js";

const { facts, runs, subtitle, about } = JSON.parse(byId("recorded").textContent);
const task = new Task(facts);
const viewer = new Viewer(task, false);

followTheme(byId("theme"));
byId("title").textContent = heading(facts.task);
byId("subtitle").textContent = subtitle;
byId("about").textContent = about;
document.title = `${heading(facts.task)} · how it was thought over`;
viewer.addEventListener("end", () => showEnd(viewer));

function open(number) {
  const { question, segments, limit } = runs[number];
  viewer.open({
    question: Int32Array.from(question),
    segments: segments.map((each) => ({
      ...each,
      guess: Int32Array.from(each.guess),
      likely: each.likely && { tokens: Int32Array.from(each.likely.tokens), odds: Float32Array.from(each.likely.odds) },
    })),
    done: true,
    limit,
  });
  viewer.goTo(viewer.verdict().at);
}

const chosen = byId("chosen");
chosen.hidden = runs.length < 2;
chosen.append(...runs.map((_, number) => Object.assign(document.createElement("option"), { value: String(number), textContent: `Puzzle ${number + 1} of ${runs.length}` })));
chosen.addEventListener("change", () => open(Number(chosen.value)));
open(0);
