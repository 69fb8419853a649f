// The halting head's wish to stop, segment by segment, with how many cells each segment changed below it.

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 420;
const TOP = { from: 14, to: 132 };
const BARS = { from: 152, to: 190 };
const SIDES = { from: 66, to: WIDTH - 14 };

function made(name, attributes, text) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

/** @typedef {{margin: number, changed: number, stopped: boolean, attempt: number}} Point */

export class Curve extends EventTarget {
  /** @param {HTMLElement} place */
  constructor(place) {
    super();
    this.place = place;
    this.place.addEventListener("click", (event) => {
      const hit = event.target.closest("[data-segment]");
      if (hit) this.dispatchEvent(new CustomEvent("go", { detail: Number(hit.dataset.segment) }));
    });
  }

  /** @param {Point[]} points @param {number} at the segment shown, from 1 @param {number} limit */
  draw(points, at, limit) {
    const count = Math.max(points.length, Math.min(limit, 8), 2);
    const x = (index) => SIDES.from + ((index + 0.5) / count) * (SIDES.to - SIDES.from);
    const reach = Math.max(1, ...points.map((point) => Math.abs(point.margin))) * 1.12;
    const middle = (TOP.from + TOP.to) / 2;
    const y = (margin) => middle - (margin / reach) * ((TOP.to - TOP.from) / 2);
    const svg = made("svg", { viewBox: `0 0 ${WIDTH} 212`, role: "img", "aria-label": told(points) });
    svg.append(
      made("rect", { class: "stop-zone", x: SIDES.from, y: TOP.from, width: SIDES.to - SIDES.from, height: middle - TOP.from }),
      made("line", { class: "axis", x1: SIDES.from, x2: SIDES.to, y1: middle, y2: middle }),
      made("text", { class: "axis-text", x: SIDES.from - 8, y: TOP.from + 10, "text-anchor": "end" }, "stop"),
      made("text", { class: "axis-text", x: SIDES.from - 8, y: TOP.to, "text-anchor": "end" }, "think"),
      made("text", { class: "axis-text", x: SIDES.from - 8, y: BARS.to, "text-anchor": "end" }, "changed"),
      made("line", { class: "axis", x1: SIDES.from, x2: SIDES.to, y1: BARS.to, y2: BARS.to }),
    );
    const most = Math.max(1, ...points.map((point) => point.changed));
    const wide = Math.min(22, ((SIDES.to - SIDES.from) / count) * 0.62);
    points.forEach((point, index) => {
      const tall = (point.changed / most) * (BARS.to - BARS.from);
      svg.append(made("rect", { class: index + 1 === at ? "bar at" : "bar", x: x(index) - wide / 2, y: BARS.to - tall, width: wide, height: tall, rx: 2 }));
      if (index && point.attempt !== points[index - 1].attempt) {
        const between = (x(index - 1) + x(index)) / 2;
        svg.append(made("line", { class: "retry", x1: between, x2: between, y1: TOP.from, y2: BARS.to }));
      }
    });
    for (const group of attempts(points)) {
      svg.append(made("polyline", { class: "line", points: group.map(([index, point]) => `${x(index)},${y(point.margin)}`).join(" ") }));
    }
    points.forEach((point, index) => {
      const classes = ["dot", point.margin > 0 ? "yes" : "", index + 1 === at ? "at" : ""].filter(Boolean).join(" ");
      svg.append(made("circle", { class: classes, cx: x(index), cy: y(point.margin), r: (index + 1 === at ? 6.5 : 4.5) * (count > 24 ? 0.6 : 1) }));
      if (point.stopped) {
        const end = x(index) > (SIDES.from + SIDES.to) / 2; // there is room for the words on one side at least
        svg.append(made("text", { class: "decision", x: x(index) + (end ? -11 : 11), y: y(point.margin) + 4, "text-anchor": end ? "end" : "start" }, "stops here"));
      }
    });
    const every = Math.ceil(count / (count < 100 ? 16 : 10)); // labels do not touch
    for (let index = 0; index < count; index++) {
      if (index % every === 0) svg.append(made("text", { class: "axis-text", x: x(index), y: 206, "text-anchor": "middle" }, String(index + 1)));
    }
    points.forEach((_, index) => {
      const half = (SIDES.to - SIDES.from) / count / 2;
      svg.append(made("rect", { class: "hit", "data-segment": index + 1, x: x(index) - half, y: TOP.from, width: 2 * half, height: BARS.to - TOP.from }));
    });
    this.place.replaceChildren(svg);
  }
}

function attempts(points) {
  const groups = new Map();
  points.forEach((point, index) => {
    if (!groups.has(point.attempt)) groups.set(point.attempt, []);
    groups.get(point.attempt).push([index, point]);
  });
  return groups.values();
}

function told(points) {
  if (!points.length) return "No segment yet";
  const wishes = points.map((point, index) => `${index + 1}: ${point.margin > 0 ? "stop" : "think on"} by ${Math.abs(point.margin).toFixed(1)}, ${point.changed} cells changed`);
  return `What the halting head says after each segment. ${wishes.join("; ")}`;
}
