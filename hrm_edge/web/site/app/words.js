// Numbers and names as people read them.

export const plural = (count, one) => `${count} ${one}${count === 1 ? "" : "s"}`;
export const percent = (odds) => `${(100 * odds).toFixed(odds > 0.0995 && odds < 0.9995 ? 0 : 1)} %`;
export const milliseconds = (ms) => (ms < 1000 ? `${ms.toFixed(ms < 10 ? 1 : 0)} ms` : `${(ms / 1000).toFixed(1)} s`);

/** A token for people: some symbols are not seen. @param {import("../lib/task.js").Task} task @param {number} token */
export function shownAs(task, token) {
  if (token === 0) return "nothing";
  if (task.onCanvas && token === 1) return "end";
  if (task.rules?.kind === "maze") {
    const { wall, open, path } = task.rules;
    return new Map([[wall, "wall"], [open, "open"], [path, "path"]]).get(token) ?? task.symbol(token);
  }
  return token === task.facts.blank ? "blank" : task.symbol(token);
}

/** "sudoku-9x9" as a heading. @param {string} name */
export const heading = (name) => name.replace(/^[a-z]/, (letter) => letter.toUpperCase()).replace(/-(?=\d)/, " ").replace(/(\d)x(?=\d)/g, "$1 × ");
export const size = (bytes) => (bytes < 1e6 ? `${Math.round(bytes / 1e3)} kB` : `${(bytes / 1e6).toFixed(1)} MB`);
