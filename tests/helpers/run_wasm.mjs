// Solves boards with a bundle of C compiled to WebAssembly: standard input is {facts, module, questions, options}.
import { readFileSync } from "node:fs";

const library = new URL("../../hrm_edge/portable/js/", import.meta.url);
const { solve } = await import(new URL("loop.js", library));
const { Task } = await import(new URL("task.js", library));
const { wasmEngine } = await import(new URL("wasm.js", library));

const { facts, module, questions, options } = JSON.parse(readFileSync(0, "utf8"));
const engine = await wasmEngine(readFileSync(module), facts);
const task = new Task(facts);
const answers = [];
for (const question of questions) {
  const { answer, steps, q } = await solve(engine, task, Int32Array.from(question), options);
  answers.push({ answer: Array.from(answer), steps, q });
}
const first = await engine.start(Int32Array.from(questions[0]), 0);
await engine.start(Int32Array.from(questions[1]), 0);
const refused = await engine.segment(first).then(() => null, (error) => error.message);
process.stdout.write(JSON.stringify({ answers, refused }));
