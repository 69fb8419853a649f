"""A new target is two files, which lie here as text: `exporters/targets/NAME.py` and `runtimes/NAME.py`.

Nothing else names it (its packages get an extra in pyproject.toml): the command line, the gate, the audit, the
search for a quantization plan, `hrm-edge bench` and `hrm-edge env` find it by its files.
"""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from commands import exit_code as command
from small_networks import TASK
from traced_networks import expected_products

import hrm_edge.exporters.targets
import hrm_edge.runtimes
from hrm_edge.bundle import open_bundle
from hrm_edge.data.puzzles import generate_puzzles
from hrm_edge.errors import InputError
from hrm_edge.export import GateOptions, export_bundle
from hrm_edge.exporters.options import ExportOptions
from hrm_edge.exporters.targets import all_targets
from hrm_edge.models import load_checkpoint
from hrm_edge.models.engine import TorchEngine
from hrm_edge.runtimes import backends, load_engine

pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.usefixtures("untrained", "patient_exports")

BUILT_IN = list(all_targets())

# -- a target that is given ONNX graphs ------------------------------------------------------------------

TARGET = '''
"""Target toy: the ONNX graphs, for a runtime that is onnxruntime under another name."""

from .base import Context, Target, Written, as_in_graphs
from .onnx import write_graph


class Toy(Target):
    name = "toy"
    precisions = ("fp32", "int8")
    unsigned_int8 = True

    def write(self, graphs: dict, context: Context) -> Written:
        return as_in_graphs({stem: write_graph(m, context.folder, stem) for stem, m in graphs.items()}, graphs)


TARGET = Toy()
'''

BACKEND = '''
"""The toy runtime."""

from pathlib import Path

from .base import Available, Backend, CompiledProduct, Graph
from .onnx import BACKEND as ONNX


class Toy(Backend):
    name, title = "toy", "Toy Runtime"

    def available(self) -> Available:
        return Available(True, "1.0", None, "")

    def load_graph(self, path: Path, threads: int | None) -> Graph:
        return ONNX.load_graph(path, threads)

    def compiled_products(self, path: Path) -> list[CompiledProduct]:
        return ONNX.compiled_products(path)


BACKEND = Toy()
'''

# -- a target that is given the torch program, as ExecuTorch and LiteRT take it ---------------------------

TORCH_TARGET = '''
"""Target torchtoy: programs of torch.export, of fixed shapes."""

from .base import Context, Target, Written


class TorchToy(Target):
    name = "torchtoy"
    packages = ("torch",)
    loops, default_loop, default_batch = ("host",), "host", 3
    wants = "torch"

    def write(self, graphs: dict, context: Context) -> Written:
        import torch

        from ...bundle import TensorSpec

        def specs(names, tensors):
            pairs = zip(names, tensors, strict=True)
            return tuple(TensorSpec(name, str(t.dtype)[6:], tuple(t.shape)) for name, t in pairs)

        files, inputs, outputs = {}, {}, {}
        for stem, program in graphs.items():
            files[stem] = f"{stem}.pt2"
            examples = tuple(program.inputs.values())
            torch.export.save(torch.export.export(program.module, examples), context.folder / files[stem])
            inputs[stem] = specs(program.inputs, examples)
            outputs[stem] = specs(program.outputs, program.module(*examples))
        return Written(files, inputs, outputs)


TARGET = TorchToy()
'''

TORCH_BACKEND = '''
"""Runs programs of torch.export."""

from pathlib import Path

from .base import Available, Backend, Graph

OUTPUTS = {"start": ("e", "z_H", "z_L"), "segment": ("z_H_next", "z_L_next", "logits", "q")}


class TorchToy(Backend):
    name, title = "torchtoy", "Torch Toy"

    def available(self) -> Available:
        return Available(True, "1.0", None, "")

    def load_graph(self, path: Path, threads: int | None) -> Graph:
        import torch

        module = torch.export.load(path).module()

        def run(feeds):
            with torch.inference_mode():
                made = module(*(torch.from_numpy(array) for array in feeds.values()))
            return dict(zip(OUTPUTS[path.stem], (tensor.numpy() for tensor in made), strict=True))

        return run


BACKEND = TorchToy()
'''


@pytest.fixture
def new_target(tmp_path, monkeypatch):
    """Puts the two files where the packages look, and takes them out again."""
    rooms = {"targets": hrm_edge.exporters.targets, "runtimes": hrm_edge.runtimes}
    for name, package in rooms.items():
        (tmp_path / name).mkdir()
        monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path / name)])
    added = []

    def add(name, target, backend):
        (tmp_path / "targets" / f"{name}.py").write_text(target)
        (tmp_path / "runtimes" / f"{name}.py").write_text(backend)
        added.append(name)
        return name

    yield add
    for package in rooms.values():
        for name in added:
            sys.modules.pop(f"{package.__name__}.{name}", None)
            vars(package).pop(name, None)


@pytest.mark.parametrize("flags", [("--precision", "fp32"), ("--precision", "int8", "--loop", "host")])
def test_a_target_of_two_files_exports_is_gated_opens_and_solves(new_target, patient, capsys, flags):
    name = new_target("toy", TARGET, BACKEND)
    assert list(all_targets())[-1] == list(backends())[-1] == name
    quick = ["--calibration", 8, "--sensitivity", 0] if "int8" in flags else []
    gate = ["--gate-puzzles", 12, "--max-drop", 100, "--threads", 1]
    assert command("export", patient, "--target", name, *flags, *quick, *gate, "-o", "b") == 0
    out = capsys.readouterr().out
    assert f"{name} {flags[1]}, {flags[-1] if '--loop' in flags else 'graph'} loop, any number of rows" in out
    assert "gate passed on n=12" in out
    manifest = open_bundle("b").manifest
    assert (manifest.target, manifest.gate.passed, manifest.gate.reason) == (name, True, None)
    if "int8" in flags:
        products = len(expected_products(load_checkpoint(patient).model))
        assert f"{products} of {products} int8 products compiled as such" in out
        assert "Toy Runtime" in Path("b/report.md").read_text("utf-8")
    questions = generate_puzzles(TASK, 4, 9, "ordinary").questions
    answers = load_engine("b", threads=1).solve(questions)
    expected = TorchEngine(load_checkpoint(patient)).solve(questions)
    assert (answers.tokens == expected.tokens).mean() > 0.95


def test_what_asks_for_every_target_finds_it(new_target, patient, capsys):
    name = new_target("toy", TARGET, BACKEND)
    command("env", "--json")
    rows = {(row["role"], row["name"]): row for row in json.loads(capsys.readouterr().out)["backends"]}
    assert rows["run", name]["usable"]
    assert rows["export", name]["why_not"] is None
    assert command("export", patient, "--target", "toys") == 2
    assert f"choose {' or '.join(BUILT_IN)} or toy" in capsys.readouterr().err
    assert command("export", patient, "--target", name, "--precision", "fp16") == 2
    assert "--precision fp16: not for toy; choose fp32 or int8" in capsys.readouterr().err
    assert command("export", patient, "--target", name, "--ios", 18) == 2
    assert "--ios: has no meaning with --target toy, only with coreml" in capsys.readouterr().err


def test_nothing_is_left_of_it_afterwards():
    assert list(all_targets()) == list(backends()) == BUILT_IN


def test_a_target_may_be_given_the_torch_program(new_target, patient, tmp_path):
    name = new_target("torchtoy", TORCH_TARGET, TORCH_BACKEND)
    options = ExportOptions.for_target(name)
    assert (options.loop, options.batch, options.suffix) == ("host", 3, "torchtoy-fp32-host")
    checkpoint = load_checkpoint(patient)
    puzzles = generate_puzzles(TASK, 7, 5, "ordinary")
    made = export_bundle(checkpoint, options, tmp_path / "b", GateOptions(puzzles), threads=1)
    assert made.gate.passed
    assert made.manifest.tools["torch"]
    assert [spec.shape[0] for spec in made.manifest.inputs["segment"]] == [3, 3, 3]
    answers = load_engine(tmp_path / "b").solve(puzzles.questions)
    np.testing.assert_array_equal(answers.tokens, TorchEngine(checkpoint).solve(puzzles.questions).tokens)
    with pytest.raises(InputError, match="--loop graph: not for torchtoy; choose host"):
        ExportOptions.for_target(name, loop="graph")
