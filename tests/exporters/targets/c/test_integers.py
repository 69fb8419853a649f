"""Integer products in C against numpy, to the last bit: halves to even, clamps, scales, several kernels."""

import subprocess

import numpy as np
import onnx
import pytest
from c_sources import ARM_CC, ARM_EMULATOR, ARM_FLAGS, ARM_MISSING, DOTTED, UNDOTTED
from onnx import TensorProto, helper

from hrm_edge.exporters.graph.edit import tensor_of
from hrm_edge.exporters.targets.c.source import write_source
from hrm_edge.runtimes.c import BACKEND, compiler
from hrm_edge.runtimes.c.library import STATE, Library, facts_of
from hrm_edge.tasks import get_task

TASK = get_task("sudoku-4x4")
# Rows and columns that do and do not fill a vector, a tile, or whole words of four.
SHAPES = {"a": (16, 19), "b": (7, 64), "c": (1, 5)}
RNG = np.random.default_rng(0)
WEIGHTS = {name: RNG.integers(-127, 128, (K, K)).astype(np.int8) for name, (_, K) in SHAPES.items()}
SCALES = {name: RNG.uniform(0.001, 0.01, K).astype(np.float32) for name, (_, K) in SHAPES.items()}
STEP = np.float32(0.37)
# Takes each state as it comes in, and gives what a segment makes of it.
DRIVER = """
#include <stdio.h>
#include "hrm.h"
static hrm_state state;
int main(void)
{
    size_t moved = 0;
%s    hrm_segment(&state);
%s    return moved ? 0 : 1;
}
"""


def graphs(unsigned):
    """Each state's next value is its product with a quantized weight, all else is zero."""
    info = helper.make_tensor_value_info
    states = [info(name, TensorProto.FLOAT, [1, *shape]) for name, shape in SHAPES.items()]
    nexts = [info(f"{name}_next", TensorProto.FLOAT, [1, *shape]) for name, shape in SHAPES.items()]
    e = info("e", TensorProto.FLOAT, [1, TASK.seq_len])
    logits, q = (
        info("logits", TensorProto.FLOAT, [1, TASK.seq_len, TASK.vocab_size]),
        info("q", TensorProto.FLOAT, [1, 2]),
    )
    zeros = [tensor_of(np.zeros([d.dim_value for d in v.type.tensor_type.shape.dim], np.float32), f"no_{v.name}")
             for v in (*states, logits, q)]  # fmt: skip
    begin = [helper.make_node("Cast", ["tokens"], ["e"], to=TensorProto.FLOAT)]
    begin += [helper.make_node("Identity", [f"no_{name}"], [name]) for name in SHAPES]
    tokens = info("tokens", TensorProto.INT32, [1, TASK.seq_len])
    start = helper.make_graph(begin, "start", [tokens], [e, *states], zeros[: len(SHAPES)])
    nodes = [helper.make_node("Identity", [f"no_{name}"], [name]) for name in ("logits", "q")]
    zero = np.array(128, np.uint8) if unsigned else np.array(0, np.int8)
    stored = [*zeros[len(SHAPES) :], tensor_of(zero, "zero"), tensor_of(np.array(STEP), "step")]
    for name in SHAPES:
        stored += [tensor_of(WEIGHTS[name], f"{name}.w"), tensor_of(SCALES[name], f"{name}.s")]
        nodes += [
            helper.make_node("QuantizeLinear", [name, "step", "zero"], [f"{name}.quantized"]),
            helper.make_node("DequantizeLinear", [f"{name}.quantized", "step", "zero"], [f"{name}.in"]),
            helper.make_node("DequantizeLinear", [f"{name}.w", f"{name}.s"], [f"{name}.weight"], axis=1),
            helper.make_node("MatMul", [f"{name}.in", f"{name}.weight"], [f"{name}_next"], name=f"{name}/0"),
        ]
    segment = helper.make_graph(nodes, "segment", [*states, e], [*nexts, logits, q], stored)
    opset = [helper.make_opsetid("", 20)]
    return [helper.make_model(graph, opset_imports=opset) for graph in (start, segment)]


def given(name):
    """Values on every edge of the rounding, beyond both clamps, and between."""
    edges = (np.arange(-300, 300) + 0.5).astype(np.float32) * STEP
    some = RNG.choice(edges, SHAPES[name]) + RNG.choice([0, 0, 1e-3], SHAPES[name])
    return some.astype(np.float32)


def product(name, values):
    steps = np.clip(np.rint(values / STEP), -128, 127).astype(np.int32)
    sums = steps @ WEIGHTS[name].astype(np.int32)
    return sums.astype(np.float32) * (STEP * SCALES[name])


@pytest.mark.skipif(not compiler.find()[0], reason="there is no C compiler")
@pytest.mark.parametrize("options", ["", "-DHRM_PLAIN", "-mno-avx512vnni"])
def test_products_are_numpys_to_the_last_bit(options, tmp_path, monkeypatch):
    monkeypatch.setenv("HRM_EDGE_CACHE", str(tmp_path))
    monkeypatch.setenv("CC", f"{compiler.find()[0][0]} {options}")
    made = write_source(
        *graphs(unsigned=not options), TASK, name="integers", max_think_steps=1, no_ACT_continue=True
    )
    (tmp_path / "hrm.c").write_text(made.source)
    assert {(p.name, p.left, p.right) for p in BACKEND.compiled_products(tmp_path / "hrm.c")} == {
        (f"{name}/0", "int8", "int8") for name in SHAPES
    }
    try:
        built = compiler.compiled(made.header.encode(), made.source.encode(), "the kernels")
    except compiler.InputError as error:
        pytest.skip(f"not for this machine: {error}")
    library = Library(built, facts_of(made.header)["fields"])
    with library.states.one() as state:
        inputs = {name: given(name) for name in SHAPES}
        for name, values in inputs.items():
            begin, size = library.fields[STATE + name]
            state.view(np.float32)[begin : begin + size] = values.ravel()
        library.segment(state.ctypes.data)
        for name, values in inputs.items():
            found = library.member(state, STATE + name, SHAPES[name])
            np.testing.assert_array_equal(found, product(name, values))


@pytest.mark.skipif(bool(ARM_MISSING), reason=f"not installed: {', '.join(ARM_MISSING)}")
@pytest.mark.parametrize("core", [DOTTED, UNDOTTED])
def test_products_are_numpys_on_an_arm_core(core, tmp_path):
    made = write_source(*graphs(unsigned=False), TASK, name="integers", max_think_steps=1, no_ACT_continue=True)
    sizes = {f"state.{STATE}{name}": np.prod(shape) for name, shape in SHAPES.items()}
    moved = [
        "".join(f"    moved += {call}({member}, 4, {size}, {file});\n" for member, size in sizes.items())
        for call, file in (("fread", "stdin"), ("fwrite", "stdout"))
    ]
    for name, text in (("hrm.h", made.header), ("hrm.c", made.source), ("driver.c", DRIVER % tuple(moved))):
        (tmp_path / name).write_text(text)
    command = [ARM_CC, "-std=c99", "-Wall", "-Wextra", "-pedantic", "-Werror", *ARM_FLAGS, core]
    subprocess.run([*command, "driver.c", "hrm.c", "-o", "driver", "-lm"], cwd=tmp_path, check=True)
    subprocess.run([*command, "-S", "hrm.c"], cwd=tmp_path, check=True)
    assert ("sdot" in (tmp_path / "hrm.s").read_text()) == (core == DOTTED)
    inputs = {name: given(name) for name in SHAPES}
    said = subprocess.run(
        [ARM_EMULATOR, tmp_path / "driver"],
        input=b"".join(values.tobytes() for values in inputs.values()),
        capture_output=True,
        check=True,
    )
    wanted = [product(name, values).ravel() for name, values in inputs.items()]
    np.testing.assert_array_equal(np.frombuffer(said.stdout, np.float32), np.concatenate(wanted))


def test_weights_are_stored_once_and_in_bytes():
    made = write_source(*graphs(unsigned=False), TASK, name="integers", max_think_steps=1, no_ACT_continue=True)
    padded = sum(-(-K // 4) * 4 * -(-K // 16) * 16 for _, K in SHAPES.values())
    others = 4 * sum(K for _, K in SHAPES.values())
    assert padded <= made.sizes.weights <= padded + others + 4 * (16 * 19 + 7 * 64 + 5 + 16 * 6 + 2)
    assert onnx.__version__
