// The engine that a site names: ONNX Runtime with a bundle's graphs, or a bundle's own C as WebAssembly.

import { ortEngine } from "../lib/ort.js";
import { wasmEngine } from "../lib/wasm.js";

/** @typedef {{module: string, wasm: string}} Runtime files of ONNX Runtime in the site */

/**
 * @param {{kind: "c", module: string} | {kind: "onnx", cpu: Runtime, gpu?: Runtime}} named in site.json
 * @param {import("../lib/task.js").Facts} facts @param {string} base of the site
 * @param {(file: string) => Promise<Uint8Array>} read
 * @returns {Promise<{engine: import("../lib/loop.js").Engine, on: string}>}
 */
export async function loadEngine(named, facts, base, read) {
  if (named.kind === "c") return { engine: await wasmEngine(await read(named.module), facts), on: "WebAssembly" };
  const graph = (file) => read(`model/${file}`);
  const adapter = named.gpu ? await navigator.gpu?.requestAdapter().catch(() => null) : null;
  if (adapter) {
    try {
      const ort = await runtime(named.gpu, base);
      const options = { executionProviders: ["webgpu"], logSeverityLevel: 3 }; // not which nodes are left to the CPU
      return { engine: await ortEngine(ort, facts, graph, options), on: "WebGPU" };
    } catch {
      // A graph that the GPU cannot take is thought over on the CPU.
    }
  }
  const ort = await runtime(named.cpu, base);
  return { engine: await ortEngine(ort, facts, graph, { executionProviders: ["wasm"] }), on: "WebAssembly" };
}

/** @param {Runtime} files @param {string} base */
async function runtime(files, base) {
  const ort = await import(new URL(files.module, base));
  ort.env.wasm.wasmPaths = { wasm: new URL(files.wasm, base).href };
  ort.env.wasm.numThreads = 1; // more need headers that a plain file server does not send
  return ort;
}
