// How a puzzle comes onto the page: picked, typed, pasted, dropped, or drawn with the symbols of the palette.

import { byId } from "./dom.js";
import { firstPuzzle } from "./dropped.js";
import { shownAs } from "./words.js";

const LARGEST = 2 ** 20; // bytes of a file that is read

export class Editor extends EventTarget {
  /** @param {import("../lib/task.js").Task} task @param {import("./board.js").Board} board */
  constructor(task, board) {
    super();
    this.task = task;
    this.board = board;
    this.question = new Int32Array(task.length).fill(task.facts.blank ?? 0);
    this.wrong = false; // whether the text field holds what is no puzzle, and the board another
    byId("text").rows = this.#isDrawn ? Math.min(task.rows, 16) : 5;
    this.#fillExamples();
    this.#fillPalette();
    board.addEventListener("put", (event) => this.#put(event.detail.index, event.detail.token));
    byId("text").addEventListener("input", (event) => this.read(event.target.value));
    byId("examples").addEventListener("change", (event) => event.target.value && this.pick(Number(event.target.value)));
    byId("clear").addEventListener("click", () => this.#own(new Int32Array(task.length).fill(task.facts.blank ?? 0)));
    byId("open").addEventListener("click", () => byId("file").click());
    byId("file").addEventListener("change", (event) => this.#open(event.target.files[0]));
    document.addEventListener("dragover", (event) => event.preventDefault());
    document.addEventListener("drop", (event) => this.#drop(event));
  }

  /** A puzzle that came from outside the text field. @param {Int32Array} question @param {number} [identifier] */
  ask(question, identifier) {
    this.question = question;
    byId("text").value = this.#text(question);
    this.#taken(question, identifier);
  }

  /** A puzzle that is none of the examples. */
  #own(question) {
    byId("examples").value = "";
    this.ask(question);
  }

  /** @param {number} index of the bundle's examples */
  pick(index) {
    const example = this.task.facts.examples[index];
    byId("examples").value = String(index);
    this.ask(Int32Array.from(example.question_tokens), example.puzzle_identifier);
  }

  /** The first puzzle in a text, or what is wrong with it. @param {string} text @param {string} [from] what it was in, if not the text field */
  read(text, from) {
    const { task } = this;
    if (!from && !text.trim()) {
      if (this.wrong) this.#taken(this.question); // what was wrong is gone, and the board counts again
      return;
    }
    let question;
    try {
      question = from ? firstPuzzle(text, task) : task.parse(text);
    } catch (error) {
      this.#refused(error.message, from);
      return;
    }
    if (from) byId("text").value = this.#text(question);
    byId("examples").value = "";
    this.#taken(question);
  }

  #taken(question, identifier) {
    this.question = question;
    this.wrong = false;
    this.#tell("");
    this.dispatchEvent(new CustomEvent("question", { detail: { question, identifier } }));
  }

  /** The board stays; a text that is wrong stays too, to be mended, where a file leaves no trace. */
  #refused(why, from) {
    this.wrong ||= !from;
    this.#tell(from ? `${from}: ${why}` : why);
    this.dispatchEvent(new CustomEvent("refused", { detail: byId("problem").textContent }));
  }

  /** Whether the text field shows a puzzle as rows. */
  get #isDrawn() {
    return this.task.rows > 1 && this.task.facts.separator === "";
  }

  #text(question) {
    const { task } = this;
    const line = task.format(question);
    if (!this.#isDrawn) return line;
    const cells = Array.from(line);
    return Array.from({ length: task.rows }, (_, row) => cells.slice(row * task.columns, (row + 1) * task.columns).join("")).join("\n");
  }

  #tell(why) {
    byId("problem").textContent = why;
    byId("text").setAttribute("aria-invalid", String(this.wrong));
  }

  #put(index, token) {
    const question = this.question.slice();
    const { start, goal } = this.task.rules?.kind === "maze" ? this.task.rules : {};
    // There is one start and one goal: it moves.
    if (token === start || token === goal) question.forEach((each, cell) => each === token && (question[cell] = this.task.facts.blank));
    question[index] = token;
    this.#own(question);
  }

  // -- files ---------------------------------------------------------------------------------------------------

  #drop(event) {
    event.preventDefault();
    const file = event.dataTransfer.files[0];
    if (file) this.#open(file);
    else this.read(event.dataTransfer.getData("text/plain"), "what was dropped");
  }

  async #open(file) {
    byId("file").value = "";
    if (!file) return;
    if (file.size > LARGEST) this.#refused(`has ${file.size} bytes, and at most ${LARGEST} are read`, file.name);
    else this.read(await file.text(), file.name);
  }

  // -- what can be picked --------------------------------------------------------------------------------------

  #fillExamples() {
    const { examples } = this.task.facts;
    const option = (value, words) => Object.assign(document.createElement("option"), { value, textContent: words });
    const choices = examples.map((example, index) => [example, index]).filter(([example]) => example.question_tokens.length)
      .map(([example, index]) => option(String(index), `Example ${index + 1} · ${example.steps} segment${example.steps === 1 ? "" : "s"}`));
    byId("examples").replaceChildren(option("", "Your own puzzle"), ...choices);
    byId("examples").hidden = !choices.length;
  }

  #fillPalette() {
    const { task, board } = this;
    const { blank, question_tokens: tokens, fills } = task.facts;
    const own = [...tokens.filter((token) => token !== blank && token !== 0), ...tokens.filter((token) => token === blank || token === 0)];
    const place = byId("palette");
    place.hidden = own.length > 64;
    place.replaceChildren(...own.map((token) => {
      const button = document.createElement("button");
      button.type = "button";
      const symbol = task.symbol(token);
      const fill = fills[symbol] ?? "";
      button.dataset.token = String(token);
      const name = token === 0 ? "nothing" : shownAs(task, token);
      button.setAttribute("aria-label", name);
      button.title = name;
      if (/^#[0-9a-f]{6}$/i.test(fill)) {
        button.className = "colour";
        button.style.setProperty("--fill", fill);
      } else button.textContent = token === blank || token === 0 ? (board.paints ? name : "⌫") : board.paints ? name : symbol;
      button.addEventListener("click", () => this.#onPalette(token));
      return button;
    }));
  }

  /** Paints with it from now on or, where boards are typed into, writes it into the cell under the cursor. */
  #onPalette(token) {
    if (!this.board.paints) {
      this.#put(this.board.current, token);
      return;
    }
    this.board.brush = this.board.brush === token ? null : token;
    for (const button of byId("palette").children) {
      button.setAttribute("aria-pressed", String(Number(button.dataset.token) === this.board.brush));
    }
    this.board.place.classList.toggle("painting", this.board.brush !== null);
  }
}
