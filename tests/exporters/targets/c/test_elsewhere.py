"""The same source off this machine: in WebAssembly under Node, and on an emulated Cortex-M7 in a board's memory."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from c_sources import COMPILERS, SEGMENTS, answers, compiled, expected, graphs, written
from traced_networks import calibration

from hrm_edge.exporters.targets.c import emulated, wasm
from hrm_edge.runtimes.c.trust import trust
from hrm_edge.tasks import get_task

TASK = get_task("sudoku-4x4")
NAME = "grid"
EXAMPLE = Path(__file__).parents[4] / "examples" / "cortex-m"
ARM = ("arm-none-eabi-gcc", "qemu-system-arm", "make")
SCRIPT = """
import { readFileSync } from "node:fs";
const module = await WebAssembly.compile(readFileSync(process.argv[2]));
if (WebAssembly.Module.imports(module).length) throw new Error("it imports");
const hrm = (await WebAssembly.instantiate(module)).exports;
const tokens = new Int32Array(hrm.memory.buffer, hrm.hrm_wasm_tokens(), hrm.hrm_wasm_seq_len());
tokens.set(JSON.parse(process.argv[3]));
hrm.hrm_begin(hrm.hrm_wasm_state(), hrm.hrm_wasm_tokens(), 0);
const size = tokens.length * hrm.hrm_wasm_vocab();
for (let k = 0; k < Number(process.argv[4]); k++) {
  hrm.hrm_segment(hrm.hrm_wasm_state());
  hrm.hrm_q(hrm.hrm_wasm_state(), hrm.hrm_wasm_q());
  const logits = new Float32Array(hrm.memory.buffer, hrm.hrm_logits(hrm.hrm_wasm_state()), size);
  console.log(JSON.stringify([...new Float32Array(hrm.memory.buffer, hrm.hrm_wasm_q(), 2), ...logits]));
}
const steps = hrm.hrm_solve(hrm.hrm_wasm_state(), hrm.hrm_wasm_tokens(), 0, 3, 1, hrm.hrm_wasm_answer());
console.log(JSON.stringify([steps, ...new Int32Array(hrm.memory.buffer, hrm.hrm_wasm_answer(), tokens.length)]));
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The source of a small network as a bundle has it."""
    monkeypatch.setenv("HRM_EDGE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "bundle").mkdir()
    _fill(tmp_path / "bundle", written(NAME))
    return tmp_path / "bundle"


def _fill(bundle, source):
    for name, text in (("hrm.h", source.header), ("hrm.c", source.source)):
        (bundle / name).write_text(text)
    trust(source.header.encode(), source.source.encode())


@pytest.mark.skipif(
    wasm.missing() is not None or not shutil.which("node"), reason="clang, wasm-ld or node is absent"
)
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_webassembly_imports_nothing_and_computes_the_same(precision, folder, tmp_path):
    """In INT8 to the last bit."""
    _fill(folder, written(NAME, precision))
    size = wasm.build(folder, tmp_path / "hrm.wasm")
    assert size == (tmp_path / "hrm.wasm").stat().st_size
    (tmp_path / "think.mjs").write_text(SCRIPT)
    question = calibration().questions[0]
    command = ["node", "think.mjs", "hrm.wasm", json.dumps(question.tolist()), str(SEGMENTS)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    *segments, answer = map(json.loads, done.stdout.splitlines())
    if precision == "int8":
        (tmp_path / "native").mkdir()
        wanted, _ = answers(compiled(tmp_path / "native", written(NAME, precision), COMPILERS[0], "-O3"), question)
        np.testing.assert_array_equal(np.array(segments, np.float32), wanted)
    else:
        wanted = expected(*graphs(NAME), question)
        np.testing.assert_allclose(np.array(segments, np.float32), wanted, atol=2e-4)
    assert answer == [3, *wanted[2, 2:].reshape(TASK.seq_len, -1).argmax(-1).tolist()]


def test_nothing_is_counted_where_nothing_counts(folder, monkeypatch):
    monkeypatch.setattr(emulated, "_QEMU", "no-such-emulator")
    assert emulated.instructions(folder) is None
    (folder / "hrm.c").write_text("int nothing;")
    monkeypatch.undo()
    assert emulated.instructions(folder) is None


@pytest.mark.skipif(any(shutil.which(tool) is None for tool in ARM), reason=f"one of {', '.join(ARM)} is absent")
def test_a_cortex_m_answers_the_same_in_a_boards_memory(folder, tmp_path):
    assert COMPILERS
    model, start, segment = graphs(NAME)
    examples = []
    for question in calibration().questions[:2]:
        numbers = expected(model, start, segment, question)
        stops = np.append(numbers[:, 0] > (0 if model.config.no_ACT_continue else numbers[:, 1]), True)
        steps = min(int(stops.argmax()) + 1, SEGMENTS)
        answer = numbers[steps - 1, 2:].reshape(TASK.seq_len, -1).argmax(-1)
        examples.append(
            {"question_tokens": question.tolist(), "answer_tokens": answer.tolist(), "steps": steps}
            | {"puzzle_identifier": 0}
        )
    (folder / "facts.json").write_text(json.dumps({"examples": examples}))
    header = (folder / "hrm.h").read_text()
    (folder / "hrm.h").write_text(re.sub(r"(MAX_THINK_STEPS) \d+", rf"\1 {SEGMENTS}", header))
    command = ["make", "-C", str(EXAMPLE), f"BUNDLE={folder}", f"BUILD={tmp_path / 'build'}", "run"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "warning" not in done.stderr
    said = done.stdout + done.stderr  # where semihosting prints depends on the terminal
    told = re.findall(r"segments (\d+)  instructions ([1-9]\d+)  as expected", said)
    assert len(told) == len(examples)
    # What the benchmark counts is one segment of these, which begin the puzzle, guess and judge besides.
    counted = emulated.instructions(folder)
    for steps, taken in ((int(a), int(b)) for a, b in told):
        assert 0.7 * taken < steps * counted < taken
    assert counted == emulated.instructions(folder)
