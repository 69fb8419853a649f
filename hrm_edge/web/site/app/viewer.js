// One run as it is looked at: its segments back and forth on the board, the curve, the cell under the cursor.

import { Board } from "./board.js";
import { CANDIDATES } from "./candidates.js";
import { Curve } from "./curve.js";
import { byId } from "./dom.js";
import { milliseconds, percent, plural, shownAs } from "./words.js";

/**
 * @typedef {object} Seen a segment as it is shown
 * @property {Int32Array} guess
 * @property {number[]} q
 * @property {number} margin
 * @property {boolean} stopped
 * @property {?number} ms
 * @property {number} attempt 0 for the board as asked, k for its k-th variant
 * @property {?{tokens: Int32Array, odds: Float32Array}} likely the likeliest tokens of each cell, CANDIDATES a cell
 */
/** @typedef {{question: Int32Array, segments: Seen[], done: boolean, limit: number, interrupted?: boolean}} Run */


const PACE = 520; // milliseconds that a segment is shown for, however fast it was
const WHOLE = 5000; // and all of them together

const calm = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

export class Viewer extends EventTarget {
  /** @param {import("../lib/task.js").Task} task @param {boolean} editable */
  constructor(task, editable) {
    super();
    this.task = task;
    this.board = new Board(byId("board"), task, editable);
    this.curve = new Curve(byId("curve"));
    this.at = 0;
    this.held = false; // whether somebody looks at a segment of their choice, and new ones are not shown
    this.told = false; // whether the end of this run was told
    /** @type {Run} */
    this.run = { question: new Int32Array(task.length), segments: [], done: true, limit: 2 };
    this.curve.addEventListener("go", (event) => this.goTo(event.detail));
    this.board.addEventListener("step", (event) => this.goTo(this.at + event.detail));
    this.board.addEventListener("select", () => this.#drawDetail());
    byId("at").addEventListener("input", (event) => this.goTo(Number(event.target.value)));
    byId("first").addEventListener("click", () => this.goTo(0));
    byId("previous").addEventListener("click", () => this.goTo(this.at - 1));
    byId("next").addEventListener("click", () => this.goTo(this.at + 1));
    byId("play").addEventListener("click", () => this.play());
  }

  /** A run to look at, from its question on. @param {Run} run */
  open(run) {
    this.#pause();
    this.run = run;
    this.at = 0;
    this.held = this.told = false;
    this.draw();
  }

  /** @param {number} at 0 for the question, else a segment */
  goTo(at) {
    this.#pause();
    this.#move(at);
    this.held = this.at < this.run.segments.length; // who looks at a segment is not taken away from it
    if (this.run.done) this.#tellEnd();
  }

  #move(at) {
    this.at = Math.max(0, Math.min(at, this.run.segments.length));
    this.draw();
  }

  /** No further segment comes: that is told once, when all are shown or somebody looks at one. */
  end() {
    this.run.done = true;
    if (this.held) this.#tellEnd();
    else this.follow();
  }

  /** The segment that the verdict is about: the last, except where no attempt of several verifies. */
  #showAnswer() {
    if (!this.run.segments.length) return;
    const { at } = this.verdict();
    if (at !== this.at) this.#move(at);
    this.#tellEnd();
  }

  #tellEnd() {
    if (this.told || !this.run.segments.length) return;
    this.told = true;
    this.dispatchEvent(new Event("end"));
  }

  /** From the start to the end at a pace that can be followed; at once for who wants no motion. */
  play() {
    this.#pause();
    this.held = false;
    if (!calm()) this.#move(0);
    this.follow();
  }

  /** Shows segments as they come, each for a while. */
  follow() {
    if (this.held) this.draw(); // there are more to go to
    if (this.timer !== undefined || this.held) return;
    const tick = () => {
      this.timer = undefined;
      if (this.at < this.run.segments.length) this.#move(calm() ? this.run.segments.length : this.at + 1);
      if (this.at < this.run.segments.length || !this.run.done) {
        this.timer = setTimeout(tick, calm() ? 0 : Math.min(PACE, WHOLE / Math.max(1, this.run.segments.length)));
      } else this.#showAnswer();
    };
    this.timer = setTimeout(tick, 0);
  }

  #pause() {
    clearTimeout(this.timer);
    this.timer = undefined;
  }

  /** What changed in a segment, beside the one before. @param {number} index from 0 */
  changed(index) {
    const before = this.before(index);
    return this.run.segments[index].guess.reduce((sum, token, cell) => sum + Number(token !== before[cell]), 0);
  }

  /** The guess before a segment; the question, where it is the first of an attempt. @param {number} index */
  before(index) {
    const { segments, question } = this.run;
    return index && segments[index - 1].attempt === segments[index].attempt ? segments[index - 1].guess : question;
  }

  draw() {
    const { question, segments, limit } = this.run;
    const seen = segments[this.at - 1];
    this.board.draw({
      question,
      tokens: seen?.guess ?? question,
      previous: seen ? this.before(this.at - 1) : null,
      sure: seen?.likely ? seen.likely.odds.filter((_, index) => index % CANDIDATES === 0) : null,
      wrong: seen ? this.task.wrongCells(question, seen.guess) : this.#clashing(),
    });
    this.curve.draw(segments.map((each, index) => ({ ...each, changed: this.changed(index) })), this.at, limit);
    this.#drawTransport(seen);
    this.#drawLegend(segments.some((each) => each.likely));
    this.#drawDetail();
    this.#drawTable();
  }

  /** The givens of the puzzle as asked that stand twice in a group: no answer can keep them. */
  #clashing() {
    const { question } = this.run;
    const groups = this.task.rules?.groups ?? [];
    return Array.from(question, (token, cell) => this.task.isGiven(token)
      && groups.some((cells) => cells.includes(cell) && cells.some((other) => other !== cell && question[other] === token)));
  }

  #drawTransport(seen) {
    const { segments } = this.run;
    const slider = byId("at");
    slider.max = String(segments.length);
    slider.value = String(this.at);
    slider.disabled = !segments.length;
    const wrong = seen ? this.task.wrongCells(this.run.question, seen.guess).filter(Boolean).length : 0;
    const words = !seen
      ? segments.length ? "The puzzle as asked" : "Not thought about yet"
      : [`Segment ${this.at} of ${segments.length}`, seen.attempt ? `retry ${seen.attempt}` : "", `${plural(this.changed(this.at - 1), "cell")} changed`,
        wrong ? `${wrong} break a rule` : "", seen.ms === null ? "" : `${milliseconds(seen.ms)}`].filter(Boolean).join(" · ");
    slider.setAttribute("aria-valuetext", words);
    byId("now").textContent = words;
    for (const id of ["first", "previous"]) byId(id).disabled = this.at === 0;
    byId("next").disabled = this.at === segments.length;
    byId("play").disabled = !segments.length;
  }

  /** What the model thinks of the cell under the cursor. */
  #drawDetail() {
    const { task, board, run } = this;
    const cell = board.current;
    const likely = run.segments[this.at - 1]?.likely;
    const place = byId("detail");
    const name = document.createElement("span");
    name.className = "place";
    name.textContent = task.facts.grid ? `row ${Math.floor(cell / task.columns) + 1}, column ${(cell % task.columns) + 1}` : `cell ${cell + 1}`;
    place.replaceChildren(name);
    if (!likely) {
      const note = document.createElement("span");
      note.textContent = run.segments.length && this.at ? "this bundle keeps its confidence to itself" : this.#asked(cell);
      place.append(note);
      return;
    }
    for (let index = cell * CANDIDATES; index < (cell + 1) * CANDIDATES; index++) {
      const item = document.createElement("span");
      item.className = "candidate";
      item.style.setProperty("--odds", String(likely.odds[index]));
      const symbol = document.createElement("b");
      symbol.textContent = shownAs(task, likely.tokens[index]);
      item.append(symbol, ` ${percent(likely.odds[index])}`);
      place.append(item);
    }
  }

  #asked(cell) {
    const token = this.run.question[cell];
    return token === this.task.facts.blank || token === 0 ? "blank" : `given ${shownAs(this.task, token)}`;
  }

  #drawLegend(isSure) {
    const changed = ["changed", "changed in this segment"];
    const items = this.board.paints
      ? [isSure ? ["changed", `${changed[1]}; smaller or paler where it is less sure`] : changed]
      : [["given", "given"], isSure ? ["answered sure", "answered, the bar its confidence"] : ["answered", "answered"], changed];
    if (this.task.rules?.groups) items.push(["wrong", "breaks a rule"]);
    byId("legend").replaceChildren(...items.map(([kind, words]) => {
      const item = document.createElement("li");
      const key = document.createElement("i");
      key.className = `key ${kind}`;
      item.append(key, words);
      return item;
    }));
  }

  #drawTable() {
    const rows = this.run.segments.map((seen, index) => [index + 1, this.changed(index),
      this.task.rules ? this.task.wrongCells(this.run.question, seen.guess).filter(Boolean).length : "–",
      seen.q[0].toFixed(2), seen.q[1].toFixed(2), seen.ms === null ? "–" : seen.ms.toFixed(1)]);
    const line = (values, tag) => {
      const row = document.createElement("tr");
      row.append(...values.map((value) => Object.assign(document.createElement(tag), { textContent: String(value) })));
      return row;
    };
    byId("table").replaceChildren(line(["seg\u00adment", "changed", "break a rule", "q halt", "q con\u00adtinue", "ms"], "th"), ...rows.map((row) => line(row, "td")));
  }

  /** What came of the run, in words: whether it is right, and why it ended. Of several attempts the first counts, unless the last verifies. */
  verdict() {
    const { segments, question } = this.run;
    const final = segments.at(-1);
    const attempt = this.task.verify(question, final.guess) ? final.attempt : 0;
    const own = segments.filter((seen) => seen.attempt === attempt);
    const last = own.at(-1);
    const verified = this.task.verify(question, last.guess);
    const total = segments.reduce((sum, seen) => sum + (seen.ms ?? 0), 0);
    const ended = this.run.interrupted ? "stopped by you" : last.stopped ? "it decided to stop" : "the limit ended it";
    const others = attempt ? `as symmetric board ${attempt}` : final.attempt ? `nor did ${plural(final.attempt, "symmetric board")}` : "";
    return {
      verified,
      answer: last.guess,
      at: segments.lastIndexOf(last) + 1,
      steps: own.length,
      attempt,
      words: verified === null ? "Not verified: no rules to check by" : verified ? "Verified" : "Not verified",
      facts: [verified === false ? (final === last ? "" : "in the first answer: ") + this.task.whyWrong(question, last.guess) : "", `${plural(own.length, "segment")}, ${ended}`,
        others && `${others}, ${segments.length} segments in all`,
        segments.every((seen) => seen.ms !== null) ? `${milliseconds(total)}, ${milliseconds(total / segments.length)} a segment` : ""].filter(Boolean),
    };
  }
}

/** Shows a verdict. @param {"idle" | "busy" | "good" | "bad" | "open"} state @param {string} words @param {string[]} facts */
export function showVerdict(state, words, facts = []) {
  byId("verdict").dataset.state = state;
  byId("state").textContent = words;
  byId("facts").textContent = facts.join(" · ");
}

/** The end of a run, shown. @param {Viewer} viewer @param {string[]} more */
export function showEnd(viewer, more = []) {
  const { verified, words, facts } = viewer.verdict();
  showVerdict(verified === null ? "open" : verified ? "good" : "bad", words, [...facts, ...more]);
}
