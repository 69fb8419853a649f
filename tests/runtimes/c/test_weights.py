"""Bundles of C whose weights are a file: mapped, refused when they are not the source's, and called as it says."""

import hashlib
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("onnxscript")

import shared_traces
from small_networks import TASK, checkpoint, network
from traced_networks import CONFIGS

from hrm_edge.bundle import open_bundle, seal_bundle
from hrm_edge.errors import InputError
from hrm_edge.export import GateOptions, export_bundle
from hrm_edge.exporters import build
from hrm_edge.exporters.options import ExportOptions
from hrm_edge.exporters.targets.c import source, wasm
from hrm_edge.runtimes import load_engine
from hrm_edge.runtimes.c import compiler
from hrm_edge.runtimes.c.weights import HEAD, WEIGHTS

pytestmark = pytest.mark.skipif(not compiler.find()[0], reason="there is no C compiler")
QUESTIONS = TASK.generate(7, np.random.default_rng(5))[0]


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    """The same network in both forms."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HRM_EDGE_CACHE", str(tmp_path_factory.mktemp("cache")))
        for name in ("trace_start", "trace_segment"):
            patch.setattr(build, name, getattr(shared_traces, name))
        folder = tmp_path_factory.mktemp("bundles")
        model = checkpoint(network(**CONFIGS["grid"]))
        for form, most in (("arrays", source.MOST_NUMBERS), ("file", 0)):
            patch.setattr(source, "MOST_NUMBERS", most)
            export_bundle(model, ExportOptions.for_target("c"), folder / form, GateOptions(None))
        yield folder


@pytest.fixture
def changed(bundles, tmp_path):
    """A copy of the one with a file, and what seals it again."""
    shutil.copytree(bundles / "file", tmp_path / "b")
    return tmp_path / "b", lambda: seal_bundle(tmp_path / "b", open_bundle(bundles / "file").manifest)


def test_both_forms_answer_the_same(bundles):
    for threads in (1, 3):
        arrays, file = (load_engine(bundles / form, threads).solve(QUESTIONS) for form in ("arrays", "file"))
        for name in ("tokens", "steps", "halted", "q"):
            np.testing.assert_array_equal(getattr(arrays, name), getattr(file, name))
    assert WEIGHTS in open_bundle(bundles / "file").manifest.files
    assert WEIGHTS not in open_bundle(bundles / "arrays").manifest.files


def test_weights_that_are_not_the_sources_are_refused_in_a_line(changed, bundles):
    folder, seal = changed
    file = folder / WEIGHTS
    whole = file.read_bytes()
    other = bytearray(whole)
    other[HEAD] ^= 1
    for content in (b"", whole[:40], whole[:-64], bytes(other)):
        file.write_bytes(content)
        with pytest.raises(InputError, match=r"changed|bytes instead"):
            load_engine(folder)
        seal()
        with pytest.raises(InputError, match=r"weights\.bin: .*export the bundle again") as told:
            load_engine(folder)
        assert "\n" not in str(told.value)
    file.write_bytes(whole[:16] + hashlib.sha256(bytes(other[HEAD:])).digest() + whole[48:64] + bytes(other[HEAD:]))
    seal()
    with pytest.raises(InputError, match=r"hrm\.c: its weights are another model's"):
        load_engine(folder)
    file.unlink()
    seal()
    with pytest.raises(InputError, match=r"weights\.bin: is not readable"):
        load_engine(folder)


def test_a_header_that_is_none_of_ours_is_told_in_a_line(changed, monkeypatch):
    monkeypatch.setenv("HRM_EDGE_TRUST_SOURCE", "1")
    folder, seal = changed
    header = (folder / "hrm.h").read_text()
    for old, new in (
        ("#define HRM_ARENA_BYTES", "#define HRM_ARENA"),
        ("[HRM_ARENA_BYTES / 4]", "[HRM_NOTHING / 4]"),
        ("typedef struct hrm_state {", "typedef struct state {"),
        ("float logits[", "float logits_["),
        ("float q[2]", "float q[3]"),
        ("float state_z_H[", "float state_z_H[9"),
        ("#define HRM_SEQ_LEN 16", "#define HRM_SEQ_LEN 15"),
        ("HRM_SEQ_LEN", ""),
        (header, ""),
    ):
        assert old in header
        (folder / "hrm.h").write_text(header.replace(old, new))
        seal()
        with pytest.raises(InputError, match=r"hrm\.[hc]") as told:
            load_engine(folder)
        assert "\n" not in str(told.value)
    (folder / "hrm.h").write_text(header)
    text = (folder / "hrm.c").read_text()
    (folder / "hrm.c").write_text(re.sub(r"hrm_guess\(", "hrm_guessed(", text))
    seal()
    with pytest.raises(InputError, match=r"hrm\.c: "):
        load_engine(folder)


def test_a_page_holds_no_weights_of_a_file(bundles, tmp_path, monkeypatch):
    monkeypatch.setattr(wasm, "missing", lambda: None)
    with pytest.raises(InputError, match=r"too many for a module .* export for onnx"):
        wasm.build(bundles / "file", tmp_path / "hrm.wasm")


@pytest.mark.parametrize("form", ["arrays", "file"])
def test_the_readmes_code_answers_as_python_does(bundles, form, tmp_path):
    folder = tmp_path / "b"
    shutil.copytree(bundles / form, folder)
    text = (folder / "README.md").read_text()
    assert "inside `hrm_solve`" in text
    assert (f"`{WEIGHTS}`" in text) == (form == "file")
    code = dict(re.findall(r"```(\w+)\n(.*?)\n```", text, re.DOTALL))
    (folder / "this.c").write_text(code["c"])
    (folder / "this.py").write_text(code["python"])
    command, _ = compiler.find()
    flags = [*command, "-std=c99", "-O1", "-Wall", "-Werror"]
    subprocess.run([*flags, "-Wno-comment", "this.c", "hrm.c", "-lm", "-o", "this"], cwd=folder, check=True)
    subprocess.run([*flags, "-fPIC", "-shared", "hrm.c", "-lm", "-o", "hrm.so"], cwd=folder, check=True)
    blank = np.full((1, TASK.seq_len), TASK.blank, np.int32)
    wanted = load_engine(bundles / form).solve(blank)
    for call in ([folder / "this"], [sys.executable, "this.py"]):
        done = subprocess.run(list(map(str, call)), cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stdout.split()[:2] == [TASK.format(wanted.tokens[0]), str(wanted.steps[0])]
