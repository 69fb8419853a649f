// What a site says of itself: read once by the page and once by its worker, and refused in one line where it is damaged.

import { Task } from "../lib/task.js";

/**
 * @typedef {object} Site `site.json`
 * @property {object} engine what `engine.js` loads
 * @property {string} subtitle
 * @property {string} about
 * @property {number} bytes of all of it
 * @property {Record<string, string>} files SHA-256 of each
 */

/** A file of the site. @param {string} file @param {string | URL} base of the site @returns {Promise<Uint8Array>} */
export async function read(file, base) {
  const answer = await fetch(new URL(file, base));
  if (!answer.ok) throw new Error(`${file} could not be loaded (${answer.status})`);
  return new Uint8Array(await answer.arrayBuffer());
}

/** @param {string | URL} base @returns {Promise<{facts: import("../lib/task.js").Facts, task: Task, site: Site}>} */
export async function readSite(base) {
  const [told, content] = await Promise.all([read("site.json", base), read("facts.json", base)]);
  const site = parsed(told);
  if (!isSite(site)) throw damaged("site.json");
  const facts = parsed(content);
  // Where the page does not come by https or from this machine, browsers compute no digest.
  const digest = globalThis.crypto?.subtle && hex(await crypto.subtle.digest("SHA-256", content));
  if (!facts || (digest && digest !== site.files["facts.json"])) throw damaged("facts.json");
  return { facts, task: new Task(facts), site };
}

function damaged(file) {
  return new Error(`${file} is damaged; write the site again with hrm-edge web`);
}

/** The object that JSON tells, or null. */
function parsed(content) {
  try {
    const found = JSON.parse(new TextDecoder().decode(content));
    return typeof found === "object" ? found : null;
  } catch {
    return null;
  }
}

function isSite(site) {
  const isText = (value) => typeof value === "string";
  const isRuntime = (each) => isText(each?.module) && isText(each.wasm);
  const { engine, subtitle, about, bytes, files } = site ?? {};
  if (!isText(subtitle) || !isText(about) || !Number.isFinite(bytes) || typeof (files ?? 0) !== "object") return false;
  if (engine?.kind === "c") return isText(engine.module);
  return engine?.kind === "onnx" && isRuntime(engine.cpu) && (engine.gpu === undefined || isRuntime(engine.gpu));
}

function hex(buffer) {
  return Array.from(new Uint8Array(buffer), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
