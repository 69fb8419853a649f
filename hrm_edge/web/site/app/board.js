// A board as a grid of cells: drawn, walked through by keys, typed into and painted on. What strangers wrote is text.

import { shownAs } from "./words.js";

/** @typedef {import("../lib/task.js").Task} Task */
/**
 * @typedef {object} Shown what a board shows
 * @property {Int32Array} question
 * @property {Int32Array} tokens what stands in the cells
 * @property {?Int32Array} previous the guess before, of which the changes are marked
 * @property {?Float32Array} sure how sure each cell is, 0 to 1
 * @property {boolean[]} wrong cells that break a rule
 */

// Cells on a line of a board that is no grid: of short ones fewer, to be read more easily.
const LINES = [10, 20];
const SWIPE = 40; // pixels that a finger goes aside, and more than twice as far as up or down

export class Board extends EventTarget {
  /** @param {HTMLElement} place @param {Task} task @param {boolean} editable */
  constructor(place, task, editable) {
    super();
    this.task = task;
    this.columns = task.facts.grid ? task.columns : Math.min(task.length, LINES[Number(task.length > 60)]);
    this.rows = Math.ceil(task.length / this.columns);
    this.paints = Object.keys(task.facts.fills).length > 0;
    this.brush = null;
    this.current = 0;
    this.place = place;
    this.cells = this.#made(editable);
    place.addEventListener("keydown", (event) => this.#onKey(event, editable));
    place.addEventListener("pointerdown", (event) => this.#onPointer(event, editable));
    place.addEventListener("pointermove", (event) => this.#onPaint(event));
    place.addEventListener("pointerup", (event) => this.#onLifted(event));
    place.addEventListener("pointercancel", () => (this.painting = this.touched = null));
    place.addEventListener("focusin", (event) => this.#select(this.cells.indexOf(event.target)));
  }

  #made(editable) {
    const { place, task, rows, columns } = this;
    place.replaceChildren();
    place.setAttribute("role", "grid");
    place.setAttribute("aria-label", `${task.facts.task}, ${rows} rows of ${columns}`);
    place.setAttribute("aria-readonly", String(!editable));
    place.classList.toggle("filled", this.paints);
    place.classList.toggle("editable", editable);
    place.style.setProperty("--columns", columns);
    place.style.setProperty("--rows", rows);
    const longest = Math.max(...task.vocabulary.slice(1).map((symbol) => symbol.length));
    place.style.setProperty("--symbol", String(longest > 1 ? 0.95 / longest : 0.56));
    const found = [];
    const { box_rows: high, box_columns: wide } = task.facts.grid ?? {};
    for (let row = 0; row < rows; row++) {
      const line = document.createElement("div");
      line.setAttribute("role", "row");
      for (let column = 0; column < columns && found.length < task.length; column++) {
        const cell = document.createElement("div");
        cell.className = "cell";
        cell.setAttribute("role", "gridcell");
        cell.tabIndex = found.length ? -1 : 0;
        if (high && row % high === 0 && row) cell.classList.add("band");
        if (wide && column % wide === 0 && column) cell.classList.add("stack");
        const symbol = document.createElement("span");
        cell.append(symbol);
        line.append(cell);
        found.push(cell);
      }
      place.append(line);
    }
    return found;
  }

  /** @param {Shown} shown */
  draw(shown) {
    const { question, tokens, previous, sure, wrong } = shown;
    const isQuestion = tokens === question;
    this.place.classList.toggle("silent", sure === null);
    tokens.forEach((token, index) => {
      const cell = this.cells[index];
      const given = isQuestion || this.task.isGiven(question[index]);
      const state = {
        given: given && token !== this.task.facts.blank,
        blank: token === this.task.facts.blank || token === 0,
        answered: !given && token !== this.task.facts.blank,
        changed: previous !== null && previous[index] !== token,
        wrong: wrong[index] === true,
      };
      cell.className = ["cell", ...["band", "stack"].filter((name) => cell.classList.contains(name)),
        ...Object.keys(state).filter((name) => state[name])].join(" ");
      this.#fill(cell, token);
      cell.style.setProperty("--sure", sure && !given ? String(sure[index]) : "1");
      cell.setAttribute("aria-label", this.#told(index, token, state, sure && !given ? sure[index] : null));
    });
  }

  #fill(cell, token) {
    const symbol = this.task.symbol(token);
    const fill = token ? this.task.facts.fills[symbol] : undefined;
    const coloured = /^#[0-9a-f]{6}$/i.test(fill ?? "");
    cell.classList.toggle("wall", fill === "wall");
    cell.classList.toggle("way", fill === "way");
    cell.classList.toggle("coloured", coloured);
    if (coloured) cell.style.setProperty("--fill", fill);
    const hidden = token === this.task.facts.blank || token === 0 || fill !== undefined;
    cell.firstChild.textContent = hidden ? "" : symbol;
  }

  #told(index, token, state, sure) {
    const place = this.task.facts.grid ? `row ${Math.floor(index / this.columns) + 1}, column ${(index % this.columns) + 1}` : `cell ${index + 1}`;
    const symbol = shownAs(this.task, token);
    const what = state.blank ? "blank" : state.given ? `given ${symbol}` : symbol;
    const more = [sure === null ? "" : `${Math.round(100 * sure)} percent sure`, state.changed ? "changed" : "", state.wrong ? "breaks a rule" : ""];
    return [place, what, ...more.filter(Boolean)].join(", ");
  }

  // -- where the reader is -------------------------------------------------------------------------------------

  #select(index) {
    if (index < 0) return;
    this.cells[this.current].tabIndex = -1;
    this.current = index;
    this.cells[index].tabIndex = 0;
    this.dispatchEvent(new CustomEvent("select", { detail: index }));
  }

  /** Goes on, or back where it is negative: whoever listens shows another segment. @param {number} by */
  #step(by) {
    this.dispatchEvent(new CustomEvent("step", { detail: by }));
  }

  /** Puts a token into a cell: whoever listens changes the puzzle. @param {number} index @param {number} token */
  put(index, token) {
    this.dispatchEvent(new CustomEvent("put", { detail: { index, token } }));
  }

  #onKey(event, editable) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const { columns, current } = this;
    const last = this.cells.length - 1;
    const start = current - (current % columns);
    const to = { ArrowLeft: current - 1, ArrowRight: current + 1, ArrowUp: current - columns, ArrowDown: current + columns,
      Home: start, End: Math.min(start + columns - 1, last) }[event.key];
    if (to !== undefined) {
      event.preventDefault();
      if (to >= 0 && to <= last) this.cells[to].focus();
      return;
    }
    if (event.key === "PageUp" || event.key === "PageDown") {
      event.preventDefault();
      this.#step(event.key === "PageDown" ? 1 : -1);
      return;
    }
    const token = editable ? this.#tokenOf(event.key) : undefined;
    if (token === undefined) return;
    event.preventDefault();
    this.put(current, token);
  }

  /** The token that a key means. */
  #tokenOf(key) {
    const { facts } = this.task;
    if (key === "Backspace" || key === "Delete") return facts.blank ?? 0;
    if (key.length !== 1) return undefined;
    const found = Object.hasOwn(facts.symbols, key) ? facts.symbols[key] : Object.hasOwn(facts.symbols, key.toUpperCase()) ? facts.symbols[key.toUpperCase()] : undefined;
    return facts.question_tokens.includes(found) ? found : undefined;
  }

  #at(event) {
    const cell = document.elementFromPoint(event.clientX, event.clientY)?.closest(".cell");
    return cell ? this.cells.indexOf(cell) : -1;
  }

  #onPointer(event, editable) {
    const index = this.#at(event);
    if (index < 0) return;
    event.preventDefault();
    this.cells[index].focus({ preventScroll: true });
    if (!editable || this.brush === null) {
      this.touched = event.pointerType === "mouse" || !event.isPrimary ? null : event;
      return;
    }
    this.painting = this.paints;
    this.put(index, this.brush);
    // A touch is captured by the cell it began on, and painting goes over many.
    if (event.target.hasPointerCapture?.(event.pointerId)) event.target.releasePointerCapture(event.pointerId);
  }

  /** A finger that has swept aside steps through the segments. */
  #onLifted({ pointerId, clientX, clientY }) {
    const from = this.touched;
    this.painting = this.touched = null;
    if (from?.pointerId !== pointerId) return;
    const across = clientX - from.clientX;
    if (Math.abs(across) > Math.max(SWIPE, 2 * Math.abs(clientY - from.clientY))) this.#step(across < 0 ? 1 : -1);
  }

  #onPaint(event) {
    if (!this.painting || !event.buttons) return;
    const index = this.#at(event);
    if (index >= 0 && index !== this.current) {
      this.#select(index);
      this.put(index, this.brush);
    }
  }
}
