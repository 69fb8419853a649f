// An engine over a bundle of C that was compiled to WebAssembly: no runtime beside it, weights included.

/**
 * The engine of a compiled bundle, which thinks about one puzzle at a time.
 * @param {BufferSource} bytes of the module @param {import("./task.js").Facts} facts
 * @returns {Promise<import("./loop.js").Engine>}
 */
export async function wasmEngine(bytes, facts) {
  const { instance } = await WebAssembly.instantiate(bytes, {});
  const c = instance.exports;
  const [size, symbols] = [c.hrm_wasm_seq_len(), c.hrm_wasm_vocab()];
  if (size !== facts.seq_len || symbols !== facts.vocabulary.length) {
    throw new Error(`the module is of ${size} cells and ${symbols} symbols, and ${facts.task} has others`);
  }
  let begun = 0; // the memory of one caller holds one puzzle
  return {
    async start(question, puzzleRow) {
      new Int32Array(c.memory.buffer, c.hrm_wasm_tokens(), size).set(question);
      c.hrm_begin(c.hrm_wasm_state(), c.hrm_wasm_tokens(), puzzleRow);
      return ++begun;
    },
    async segment(state) {
      if (state !== begun) throw new Error("another puzzle was begun with this engine; take one engine for each");
      c.hrm_segment(c.hrm_wasm_state());
      c.hrm_q(c.hrm_wasm_state(), c.hrm_wasm_q());
      const values = (place, count) => new Float32Array(c.memory.buffer, place, count).slice();
      return { state, logits: values(c.hrm_logits(c.hrm_wasm_state()), size * symbols), q: values(c.hrm_wasm_q(), 2) };
    },
  };
}
