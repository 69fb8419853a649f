// The page: a puzzle, a worker that thinks about it, and the viewer that shows what came.

import { byId } from "./dom.js";
import { Editor } from "./editor.js";
import { readSite } from "./site.js";
import { followTheme } from "./theme.js";
import { Viewer, showEnd, showVerdict } from "./viewer.js";
import { heading, size } from "./words.js";

const base = new URL("../", import.meta.url);

followTheme(byId("theme"));
start().catch((error) => showVerdict("bad", `The page could not be loaded: ${error.message}`));

async function start() {
  const { facts, task, site } = await readSite(base);
  byId("title").textContent = heading(facts.task);
  byId("subtitle").textContent = site.subtitle;
  document.title = `${heading(facts.task)} · hrm-edge`;
  new Page(task, site).open();
  // Where a browser or a server allows no worker of this kind the page works, and needs the network.
  if ("serviceWorker" in navigator) navigator.serviceWorker.register(new URL("sw.js", base)).catch(() => undefined);
}

class Page {
  constructor(task, site) {
    this.task = task;
    this.site = site;
    this.viewer = new Viewer(task, true);
    this.editor = new Editor(task, this.viewer.board);
    this.id = 0;
    this.ready = false;
    this.busy = false;
    this.worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
    this.worker.addEventListener("message", ({ data }) => this.#onMessage(data));
    this.worker.addEventListener("error", () => this.#onFailed("the worker that thinks could not be started"));
    this.editor.addEventListener("question", (event) => this.#onQuestion(event.detail));
    this.editor.addEventListener("refused", (event) => this.#onRefused(event.detail));
    this.viewer.addEventListener("end", () => this.editor.wrong || showEnd(this.viewer, this.#compared()));
    this.#prepareControls();
  }

  /** The example that is thought about longest: of those that come to an answer, where any does. */
  #telling(examples) {
    const asked = examples.filter((each) => each.question_tokens.length).sort((one, other) => other.steps - one.steps);
    return asked.find((each) => !this.task.rules || this.task.verify(each.question_tokens, each.answer_tokens)) ?? asked[0];
  }

  open() {
    const { examples } = this.task.facts;
    const begun = examples.indexOf(this.#telling(examples));
    if (begun >= 0) this.editor.pick(begun);
    else this.editor.ask(this.editor.question);
    this.#tellAbout();
    showVerdict("busy", "Loading the model", [size(this.site.bytes)]);
    this.worker.postMessage({ kind: "load", base: base.href });
  }

  #prepareControls() {
    const { halting, puzzle_identifiers: identifiers, variants } = this.task.facts;
    const limit = byId("limit");
    limit.max = String(2 * halting.max_think_steps);
    limit.value = String(halting.max_think_steps);
    const tell = () => (byId("limit-text").textContent = limit.value);
    limit.addEventListener("input", tell);
    tell();
    if (!this.task.rules) byId("halt").querySelector("[value=verified]").remove();
    byId("retries-field").hidden = !variants.length;
    byId("retries").max = String(variants.length);
    byId("retries").addEventListener("change", () => this.#count("retries"));
    byId("identifier-field").hidden = !identifiers;
    byId("think").addEventListener("click", () => (this.busy ? this.#stop() : this.think()));
    document.addEventListener("keydown", (event) => {
      const asked = event.key === "Enter" && !event.repeat && (event.ctrlKey || event.metaKey || event.target.closest(".cell"));
      if (asked && !this.busy && !byId("think").disabled) this.think();
    });
  }

  #onQuestion({ question, identifier }) {
    if (this.busy) this.#stop();
    if (identifier !== undefined) byId("identifier").value = String(identifier);
    this.viewer.open({ question, segments: [], done: true, limit: Number(byId("limit").value) });
    if (this.ready) this.#tellReady();
  }

  /** What came is no puzzle: a text is mended before anything is thought about, as the board shows another. */
  #onRefused(why) {
    if (this.busy && this.editor.wrong) this.#stop();
    if (!this.ready || this.busy) return;
    byId("think").disabled ||= this.editor.wrong;
    showVerdict("bad", this.editor.wrong ? "The text is no puzzle" : "The file gave no puzzle", [why, "the board shows the one before"]);
  }

  #tellReady() {
    if (this.editor.wrong) {
      this.#onRefused(byId("problem").textContent);
      return;
    }
    let wrong = "";
    try {
      this.task.check(this.editor.question);
    } catch (error) {
      wrong = error.message;
    }
    byId("think").disabled = wrong !== "";
    if (wrong) showVerdict("bad", `Not a puzzle yet: ${wrong}`);
    else showVerdict("idle", "Ready to think", [`${this.on} on this device, nothing is sent`]);
  }

  think() {
    const options = { maxThinkSteps: this.#count("limit"), halt: byId("halt").value, retries: this.#count("retries"),
      identifier: Number(byId("identifier").value) };
    this.#setBusy(true);
    this.id += 1;
    this.viewer.open({ question: this.editor.question, segments: [], done: false, limit: options.maxThinkSteps, identifier: options.identifier });
    showVerdict("busy", "Thinking");
    this.worker.postMessage({ kind: "think", id: this.id, question: this.editor.question, options });
  }

  /** The whole number in a field, within its limits; the field then shows what is used. @param {string} id */
  #count(id) {
    const field = byId(id);
    const count = Math.min(Math.max(Number(field.min), Math.trunc(Number(field.value)) || 0), Number(field.max));
    field.value = String(count);
    return count;
  }

  #stop() {
    this.worker.postMessage({ kind: "stop" });
    this.id += 1; // what still comes is of no account
    this.#setBusy(false);
    this.viewer.run.interrupted = true;
    this.viewer.end();
    if (this.viewer.run.segments.length) showEnd(this.viewer);
    else this.#tellReady();
  }

  #setBusy(busy) {
    this.busy = busy;
    byId("think").textContent = busy ? "Stop" : "Think";
    byId("think").classList.toggle("stop", busy);
  }

  // -- what the worker says ------------------------------------------------------------------------------------

  #onMessage(data) {
    if (data.kind === "ready") {
      this.ready = true;
      this.on = data.on;
      this.#setBusy(false);
      this.#tellReady();
      this.#tellAbout();
    } else if (data.kind === "failed" && (data.id === 0 || data.id === this.id)) this.#onFailed(data.why);
    else if (data.id === this.id && data.kind === "segment") {
      this.viewer.run.segments.push(data.segment);
      this.viewer.follow();
    } else if (data.id === this.id && data.kind === "end") this.#onEnd();
  }

  #onEnd() {
    this.#setBusy(false);
    this.viewer.end();
  }

  #onFailed(why) {
    this.#setBusy(false);
    byId("think").disabled = !this.ready;
    showVerdict("bad", this.ready ? `Thinking failed: ${why}` : `The model could not be loaded: ${why}`);
  }

  /** Whether an example is answered as it was where the bundle was gated. */
  #compared() {
    const { examples, asked } = this.task.facts;
    const { question, limit, identifier, interrupted } = this.viewer.run;
    const example = examples.find((each) => each.puzzle_identifier === identifier && each.question_tokens.length
      && each.question_tokens.every((token, cell) => token === question[cell]));
    const { answer, steps, attempt } = this.viewer.verdict();
    if (!example || attempt || interrupted || byId("halt").value !== asked?.halt || limit !== asked.max_think_steps) return [];
    const same = example.answer_tokens.every((token, cell) => token === answer[cell]) && example.steps === steps;
    return [same ? "answer and segments as in Python" : "Python answered otherwise"];
  }

  #tellAbout() {

    const parts = [`The model thinks in this page${this.on ? `, by ${this.on}` : ""}; what you ask stays here.`, this.site.about, `${size(this.site.bytes)} in all, kept for use without a network.`];
    byId("about").textContent = parts.filter(Boolean).join(" ");
  }
}
