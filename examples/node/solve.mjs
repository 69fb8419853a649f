// Solves puzzles with an ONNX bundle, and tests the bundle on its own examples; onnxruntime-node, or -web, thinks.
//
//   node solve.mjs BUNDLE                                  answers the bundle's examples, and compares with Python
//   node solve.mjs BUNDLE PUZZLE … [--retries 8] [--halt verified] [--max-think-steps 16]

import { readFile } from "node:fs/promises";
import { parseArgs } from "node:util";
import { pathToFileURL } from "node:url";

// Whatever is wrong is said in one line.
process.on("uncaughtException", (error) => {
  console.error(`solve: ${error.message.split("\n", 1)[0]}`);
  process.exit(2);
});

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    halt: { type: "string", default: "learned" },
    retries: { type: "string", default: "0" },
    "max-think-steps": { type: "string" },
  },
});
const [folder, ...puzzles] = positionals;
if (!folder) throw new Error("give a bundle's folder, and puzzles: node solve.mjs BUNDLE [PUZZLE …]");

// The bundle brings its own reader: text, rules, halting loop and retries.
const bundle = pathToFileURL(`${folder}/`);
const { Task } = await import(new URL("web/task.js", bundle));
const { ortEngine } = await import(new URL("web/ort.js", bundle));
const { solveWithRetries } = await import(new URL("web/retries.js", bundle));

const { ort, name } = await runtime();
const facts = JSON.parse(await readFile(new URL("facts.json", bundle), "utf8"));
const task = new Task(facts);
const engine = await ortEngine(ort, facts, (file) => readFile(new URL(file, bundle)));
process.exitCode = puzzles.length ? await solveAll(puzzles) : await selftest();

/** The native runtime where it is installed, else the one for browsers, which Node runs too. */
async function runtime() {
  for (const name of ["onnxruntime-node", "onnxruntime-web"]) {
    const found = await import(name).catch(() => null);
    if (found) return { ort: found.default?.InferenceSession ? found.default : found, name };
  }
  throw new Error("install onnxruntime-node or onnxruntime-web here; README.md says how");
}

async function solveAll(texts) {
  const options = { halt: values.halt, retries: Number(values.retries) };
  if (values["max-think-steps"]) options.maxThinkSteps = Number(values["max-think-steps"]);
  for (const text of texts) {
    const begin = performance.now();
    const { answer, steps, verified, variant } = await solveWithRetries(engine, task, task.parse(text), options);
    const worth = verified === null ? "not verified: no rules" : verified ? "verified" : "NOT verified";
    const again = variant ? `, as symmetric variant ${variant}` : "";
    console.log(`${task.format(answer)}  ${worth}, ${steps} segments${again}, ${(performance.now() - begin).toFixed(1)} ms`);
  }
  return 0;
}

/** Each example must have the answer, the segments and, within its tolerance, the q that Python saw at the gate. */
async function selftest() {
  const { halt, max_think_steps: maxThinkSteps, q_tolerance: tolerance } = facts.asked ?? {};
  if (!facts.examples.length) throw new Error("the bundle has no examples: it was exported without its gate");
  let equal = 0;
  for (const example of facts.examples) {
    const question = Int32Array.from(example.question_tokens);
    const { answer, steps, q } = await solveWithRetries(engine, task, question, { halt, maxThinkSteps, identifier: example.puzzle_identifier });
    const near = !example.q || q.every((value, index) => Math.abs(value - example.q[index]) <= tolerance);
    equal += Number(task.format(answer) === example.answer && steps === example.steps && near);
  }
  console.log(`${name}: ${equal} of ${facts.examples.length} examples answered as in Python (answer, segments, q within ${tolerance})`);
  return equal === facts.examples.length ? 0 : 1;
}
