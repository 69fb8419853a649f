"""The Core ML backend: the interpreter where there is no Mac, a pretended predictor where there is one."""

import importlib.util
import re
import subprocess
import sys
import types as python_types
from typing import ClassVar

import numpy as np
import pytest

pytest.importorskip("coremltools")

from mil_programs import ct, loop_program, mb, save_program, spec, types

from hrm_edge.errors import InputError
from hrm_edge.exporters.audit import compare_products
from hrm_edge.packages import install
from hrm_edge.runtimes.base import CompiledProduct
from hrm_edge.runtimes.coreml import BACKEND
from hrm_edge.runtimes.coreml import backend as coreml
from hrm_edge.runtimes.coreml.interpreter import load_program

FEEDS = {"x": np.random.default_rng(1).standard_normal((2, 8)).astype(np.float32), "count": np.array(3, np.int32)}
VERSION = ct.__version__


def test_usable_wherever_coremltools_is(monkeypatch):
    usable, version, why_not, _ = BACKEND.available()
    assert (usable, why_not) == (True, None)
    assert version == f"{VERSION} (interpreted: Core ML runs on macOS only)"
    assert BACKEND.engine_name() == "coreml (interpreted)"
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(coreml.platform, "mac_ver", lambda: ("15.1", ("", "", ""), "arm64"))
    assert BACKEND.available()[:3] == (True, f"{VERSION}, macOS 15.1", None)
    assert BACKEND.engine_name() == "coreml"
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "coremltools" else found(name))
    assert BACKEND.available() == (False, None, "coremltools is not installed", install("coreml"))


def test_a_broken_install_is_reported_not_raised(monkeypatch):
    def broken(name):
        raise ImportError("no module google.protobuf\nand a second line")

    monkeypatch.setattr(importlib, "import_module", broken)
    usable, version, why_not, _ = BACKEND.available()
    assert (usable, version) == (False, VERSION)
    assert why_not == "coremltools does not load here (no module google.protobuf)"


def test_a_graph_takes_a_scalar_where_one_number_is_declared(tmp_path):
    path, _ = loop_program(tmp_path / "p.mlpackage")
    got = BACKEND.load_graph(path, threads=1)(FEEDS)
    assert got["rounds"].tolist() == [3]
    assert got["y"].dtype == np.float32


def test_a_graph_that_is_no_graph_gives_one_line(tmp_path):
    with pytest.raises(InputError, match="not a Core ML package") as caught:
        BACKEND.load_graph(tmp_path / "p.mlpackage", None)
    assert "\n" not in str(caught.value)


# The pretended Mac: predictions come from the interpreter, checked and shaped as Core ML wants them.


class FakeState(dict):
    pass


class FakeModel:
    """Stands in for coremltools' MLModel: strict about inputs, and a little less exact."""

    made: ClassVar[list] = []
    offset = 0.0

    def __init__(self, path):
        if "broken" in path:
            raise RuntimeError("Error compiling model: unknown\nand a second line")
        self.program = load_program(path)
        FakeModel.made.append(path)

    def make_state(self):
        return FakeState(self.program.new_states())

    def predict(self, data, state=None):
        for value in self.program.inputs:
            if data[value.name].shape != (value.shape or (1,)):
                raise RuntimeError(f"MultiArray shape {data[value.name].shape} does not match")
        outputs = self.program(data, state)
        return {
            name: (v + self.offset).astype(np.float16) if v.dtype.kind == "f" else v for name, v in outputs.items()
        }


@pytest.fixture
def mac(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(FakeModel, "made", [])
    fake = python_types.SimpleNamespace(models=python_types.SimpleNamespace(MLModel=FakeModel))
    monkeypatch.setattr(coreml, "_coremltools", lambda: fake)
    return monkeypatch


def test_on_a_mac_core_ml_itself_runs(mac, tmp_path):
    path, _ = loop_program(tmp_path / "p.mlpackage")
    got = BACKEND.load_graph(path, threads=None)(FEEDS)
    assert FakeModel.made == [str(path)]
    assert got["y"].dtype == np.float32
    assert np.allclose(got["y"], load_program(path)(FEEDS)["y"], atol=1e-3)
    assert FakeModel.made == [str(path)]
    assert got["rounds"].tolist() == [3]


def test_on_a_mac_what_core_ml_raises_is_one_line(mac, tmp_path):
    path, _ = loop_program(tmp_path / "broken.mlpackage")
    with pytest.raises(InputError, match=r"Core ML can not load it \(Error compiling model: unknown\)") as caught:
        BACKEND.load_graph(path, None)
    assert "\n" not in str(caught.value)
    path, _ = loop_program(tmp_path / "p.mlpackage")
    with pytest.raises(InputError, match=r"Core ML can not run it \(MultiArray shape"):
        BACKEND.load_graph(path, None)({**FEEDS, "x": FEEDS["x"][:1]})


@pytest.mark.slow
def test_importing_coremltools_is_quiet():
    script = "from hrm_edge.runtimes.coreml.backend import _coremltools; print(_coremltools().__version__)"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (result.stdout.strip(), result.stderr) == (VERSION, "")


# Slots: state = (fresh ? start : state) + tokens; logits and q tell of it.


def stateful_program(path, identifiers=False):
    start = np.array([[10.0, 20.0, 30.0]], np.float16)

    def think(tokens, fresh, z_H, z_L, ids=None):
        flag = mb.greater(x=mb.expand_dims(x=fresh, axes=[1]), y=np.float32(0.5))
        h = mb.select(cond=flag, a=start, b=mb.read_state(input=z_H))
        low = mb.select(cond=flag, a=np.zeros((1, 3), np.float16), b=mb.read_state(input=z_L))
        h = mb.add(x=h, y=mb.cast(x=tokens, dtype="fp16"))
        if ids is not None:
            h = mb.add(x=h, y=mb.expand_dims(x=mb.cast(x=ids, dtype="fp16"), axes=[1]))
        h = mb.coreml_update_state(state=z_H, value=h)
        low = mb.coreml_update_state(state=z_L, value=mb.add(x=low, y=np.float16(1)))
        logits = mb.expand_dims(x=mb.cast(x=h, dtype="fp32"), axes=[2], name="logits")
        return logits, mb.cast(x=mb.slice_by_index(x=low, begin=[0, 0], end=[2, 2]), dtype="fp32", name="q")

    states = [mb.StateTensorSpec((2, 3), dtype=types.fp16) for _ in range(2)]
    specs = [spec((2, 3), "int32"), spec((2,)), *states]
    if identifiers:

        def program(tokens, fresh, z_H, z_L, puzzle_identifiers):
            return think(tokens, fresh, z_H, z_L, puzzle_identifiers)

        return save_program(path, program, [*specs, spec((2,), "int32")], ios=18)

    def program(tokens, fresh, z_H, z_L):
        return think(tokens, fresh, z_H, z_L)

    return save_program(path, program, specs, ios=18)


def rows(*values):
    return np.array(values, np.int32)


def check_slots(make):
    slots, other = make(), make()
    slots.put(np.array([0, 1]), rows([1, 2, 3], [4, 5, 6]), None)
    logits, q = slots.think()
    assert logits[..., 0].tolist() == [[11, 22, 33], [14, 25, 36]]
    assert q.tolist() == [[1, 1], [1, 1]]
    assert slots.think()[0][..., 0].tolist() == [[12, 24, 36], [18, 30, 42]]
    slots.put(np.array([1]), rows([0, 0, 7]), None)  # the other slot thinks on
    logits, q = slots.think()
    assert logits[..., 0].tolist() == [[13, 26, 39], [10, 20, 37]]
    assert q.tolist() == [[3, 3], [1, 1]]
    other.put(np.array([0]), rows([1, 1, 1]), None)
    assert other.think()[0][0, :, 0].tolist() == [11, 21, 31]
    assert slots.think()[0][..., 0].tolist() == [[14, 28, 42], [10, 20, 44]]


def test_slots_keep_their_own_states(tmp_path):
    check_slots(coreml.load_stateful(stateful_program(tmp_path / "p.mlpackage")))


def test_slots_keep_their_own_states_on_a_mac(mac, tmp_path):
    check_slots(coreml.load_stateful(stateful_program(tmp_path / "p.mlpackage")))
    assert len(FakeModel.made) == 1


def test_slots_are_told_the_puzzles_identifiers(tmp_path):
    slots = coreml.load_stateful(stateful_program(tmp_path / "p.mlpackage", identifiers=True))()
    slots.put(np.array([1]), rows([0, 0, 0]), np.array([5], np.int32))
    assert slots.think()[0][1, :, 0].tolist() == [15, 25, 35]
    slots.put(np.array([1]), rows([0, 0, 0]), None)
    assert slots.think()[0][1, :, 0].tolist() == [10, 20, 30]


def test_a_graph_without_slots_is_refused(tmp_path):
    path, _ = loop_program(tmp_path / "p.mlpackage")
    with pytest.raises(InputError, match=r"does not take tokens\[B, S\] and fresh\[B\]"):
        coreml.load_stateful(path)


# What the audit sees


def test_products_and_what_they_multiply(tmp_path):
    weight = np.random.default_rng(0).standard_normal((8, 8)).astype(np.float32)
    codes = (weight * 20).astype(np.int8)
    nibbles = np.clip(weight * 3, -8, 7).astype(np.int8).astype(types.np_int4_dtype)
    table = np.linspace(-1, 1, 16, dtype=np.float32).reshape(1, 1, 16, 1)
    entries = (codes & 15).astype(np.uint8).astype(types.np_uint4_dtype)
    scale = np.full((8, 1), 0.05, np.float32)

    def program(x):
        shift = mb.constexpr_blockwise_shift_scale
        stored = shift(data=codes, scale=scale)
        small = shift(data=nibbles, scale=scale)
        palette = mb.constexpr_lut_to_dense(indices=entries, lut=table)

        def body(h):
            near = mb.quantize(input=h, scale=np.float32(0.1), output_dtype="int8")
            near = mb.dequantize(input=near, scale=np.float32(0.1))
            a = mb.linear(x=near, weight=stored, name="L_level_layers_0_up_proj")
            b = mb.linear(x=a, weight=small, name="small")
            c = mb.matmul(
                x=mb.reshape(x=near, shape=[2, 8]), y=mb.transpose(x=palette, perm=[1, 0]), name="palette"
            )
            return mb.silu(x=mb.add(x=mb.linear(x=b, weight=weight, name="plain"), y=c))

        def going(h):
            return mb.less(x=mb.reduce_max(x=h), y=np.float32(9))

        y = mb.while_loop(_cond=going, _body=body, loop_vars=(x,))
        return mb.matmul(x=y, y=y, transpose_y=True, name="scores")

    path = save_program(tmp_path / "p.mlpackage", program, [spec((2, 8))], ios=18)
    assert BACKEND.compiled_products(path) == [
        CompiledProduct("L_level_layers_0_up_proj", "int8", "int8"),
        CompiledProduct("small", "float32", "int4"),
        CompiledProduct("palette", "int8", "palette4"),
        CompiledProduct("plain", "float32", "float32"),
        CompiledProduct("scores", "float32", "float32"),
    ]


def test_the_audit_finds_our_names_in_a_float16_program(tmp_path):
    names = ["L_level.layers.0.mlp.up_proj", "2/down"]

    def program(x):
        for name in names:
            x = mb.linear(x=x, weight=np.eye(8, dtype=np.float32), name=BACKEND.compiled_name(name))
        return mb.silu(x=x)

    path = save_program(tmp_path / "p.mlpackage", program, [spec((2, 8))], half=True, passes=True)
    products = BACKEND.compiled_products(path)
    assert [p.name for p in products] == [BACKEND.compiled_name(name) for name in names]
    assert {(p.left, p.right) for p in products} == {("float16", "float16")}
    told = compare_products(products, "int8-weights", [BACKEND.compiled_name(name) for name in names])
    assert told.found == 0
    assert len(told.missing) == 2


@pytest.mark.parametrize("name", ["L_level.layers.0.mlp.up_proj/3", "plain", "0start", "a b-c"])
def test_names_are_written_as_coremltools_writes_them(name):
    from coremltools.converters.mil.mil.passes.defs.preprocess import NameSanitizer

    assert BACKEND.compiled_name(name) == NameSanitizer().sanitize_name(name)
    assert re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", BACKEND.compiled_name(name))
