// An engine over ONNX Runtime: pass in `onnxruntime-web` or `onnxruntime-node`, whose interface is the same.

/** @typedef {import("./task.js").Facts} Facts */

/**
 * The engine of an ONNX bundle. Each call thinks about one puzzle; a bundle of a fixed batch gets copies of it.
 * @param {any} ort onnxruntime-web or onnxruntime-node
 * @param {Facts} facts @param {(file: string) => Promise<any>} read a graph's file: its bytes, or its path
 * @param {Record<string, any>} [options] of the sessions
 * @returns {Promise<import("./loop.js").Engine>}
 */
export async function ortEngine(ort, facts, read, options = {}) {
  const sessions = {};
  for (const [graph, { file }] of Object.entries(facts.graphs)) {
    sessions[graph] = await ort.InferenceSession.create(await read(file), options);
  }
  const rows = typeof facts.batch === "number" ? facts.batch : 1;
  const repeated = (values) => Int32Array.from({ length: rows * values.length }, (_, index) => values[index % values.length]);
  const asked = (question, puzzleRow) => ({
    tokens: new ort.Tensor("int32", repeated(question), [rows, question.length]),
    ...(facts.puzzle_identifiers && {
      puzzle_identifiers: new ort.Tensor("int32", repeated([puzzleRow]), [rows]),
    }),
  });

  if (facts.loop === "graph") {
    const number = (value) => new ort.Tensor("int32", Int32Array.of(value), []);
    return {
      async answer(question, steps, halt, puzzleRow) {
        const given = { ...asked(question, puzzleRow), max_think_steps: number(steps), halt: number(facts.halting.modes[halt]) };
        const { answer, steps: taken, q } = await sessions.model.run(given);
        return { answer: Int32Array.from(answer.data.subarray(0, facts.seq_len)), steps: taken.data[0], q: q.data.slice(0, 2) };
      },
    };
  }
  return {
    async start(question, puzzleRow) {
      return sessions.start.run(asked(question, puzzleRow));
    },
    async segment(state) {
      const given = Object.fromEntries(facts.graphs.segment.inputs.map(({ name }) => [name, state[name]]));
      const found = await sessions.segment.run(given);
      const after = { ...state };
      for (const [name, output] of Object.entries(facts.next)) after[name] = found[output];
      const logits = Float32Array.from(found.logits.data.subarray(0, facts.seq_len * facts.vocabulary.length));
      return { state: after, logits, q: found.q.data.slice(0, 2) };
    },
  };
}
