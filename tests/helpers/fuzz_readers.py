"""What reads files of strangers, each with right files to begin with. A new reader is a function here."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import json
import random
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fuzz_changes import binary, header, lines, structure, zipped

Read = Callable[[bytes, int], object]
# In an empty folder: right files, and what reads a changed one, told which of them it was.
Prepare = Callable[[Path], tuple[list[bytes], Read]]
Mutate = Callable[[random.Random, bytes, list[bytes]], bytes]


@dataclass(frozen=True)
class Reader:
    prepare: Prepare
    mutate: Mutate
    share: float = 1.0  # of the inputs: readers that compile networks take a hundred times as long
    crashes: bool = False  # whether what reads it is known to end the process, which is counted and no finding


READERS: dict[str, Reader] = {}


def reader(name: str, mutate: Mutate, share: float = 1.0, crashes: bool = False) -> Callable[[Prepare], Prepare]:
    def register(prepare: Prepare) -> Prepare:
        READERS[name] = Reader(prepare, mutate, share, crashes)
        return prepare

    return register


def _to(file: Path, read: Callable[[Path], object]) -> Read:
    """Read what was put into one file."""

    def put(content: bytes, _: int) -> object:
        file.write_bytes(content)
        return read(file)

    return put


def _canonical(content: dict[str, Any]) -> str:
    return json.dumps(content, indent=2, sort_keys=True) + "\n"


def _resealed(content: bytes, digest: Callable[[dict[str, Any]], str]) -> bytes:
    """With the digest that the content would have, if it is one at all: what a forger would do."""
    try:
        tree = json.loads(content)
        tree.pop("digest", None)
        return _canonical({**tree, "digest": digest(tree)}).encode()
    except (ValueError, AttributeError, RecursionError, TypeError):
        return content


@reader("manifest", structure)
def _manifest(folder: Path) -> tuple[list[bytes], Read]:
    import toys

    from hrm_edge.bundle import open_bundle
    from hrm_edge.runtimes.loader import load_engine

    seeds, loops = [], ("host", "graph")
    for loop in loops:
        bundle = toys.write_hollow_bundle(folder / loop, loop=loop)
        seeds.append((bundle / "manifest.json").read_bytes())

    def read(content: bytes, which: int) -> object:
        path = folder / loops[which]
        sealed = _resealed(content, lambda tree: hashlib.sha256(_canonical(tree).encode()).hexdigest())
        (path / "manifest.json").write_bytes(sealed)
        opened = open_bundle(path)
        return load_engine(opened, stand_in=("nothing", lambda file, threads: lambda feeds: {}))

    return seeds, read


@reader("accuracy", structure)
def _accuracy(folder: Path) -> tuple[list[bytes], Read]:
    import sample_report
    import toys

    from hrm_edge.bundle import ACCURACY, open_bundle

    path = toys.write_hollow_bundle(folder / "b")
    gate = sample_report.parts()["gate"]
    manifest = json.loads((path / "manifest.json").read_text())

    def read(content: bytes, which: int) -> object:
        with contextlib.suppress(ValueError, RecursionError):
            content = _canonical(json.loads(content)).encode()
        (path / ACCURACY).write_bytes(content)
        manifest["files"][ACCURACY] = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
        digest = lambda tree: hashlib.sha256(_canonical(tree).encode()).hexdigest()  # noqa: E731
        (path / "manifest.json").write_bytes(_resealed(json.dumps(manifest).encode(), digest))
        return open_bundle(path).accuracy

    return [_canonical(gate).encode(), (path / ACCURACY).read_bytes()], read


@reader("quantization", structure)
def _quantization(folder: Path) -> tuple[list[bytes], Read]:
    import sample_report

    from hrm_edge.bundle.quantization import Quantization
    from hrm_edge.records import from_json

    seed = sample_report.record().to_json().encode()
    return [seed], _to(folder / "q.json", lambda file: from_json(Quantization, file.read_bytes(), file))


@reader("report", structure, 0.1)
def _report(folder: Path) -> tuple[list[bytes], Read]:
    import sample_report

    from hrm_edge.report.build import read_report, render

    made = render(sample_report.report(), "json")
    return [made.encode()], _to(folder / "report.json", lambda file: render(read_report(file), "html"))


@reader("engines", structure)
def _engines(folder: Path) -> tuple[list[bytes], Read]:
    from hrm_edge.runtimes.tensorrt.engines import EngineFile, EngineIndex

    one = EngineFile("model", "m.engine", "tensorrt-rtx", "1.7.1", (86, 89), (1, 8, 8), "0" * 64, 100, 1.5)
    EngineIndex((one, replace(one, rows=None)), {"a": 1}, "x").write(folder / "seed.json")
    return [(folder / "seed.json").read_bytes()], _to(folder / "tensorrt.json", EngineIndex.read)


@reader("baseline", structure)
def _baseline(folder: Path) -> tuple[list[bytes], Read]:
    import numpy as np

    from hrm_edge.check.baseline import Baseline, BundleEntry, SampleEntry, pack, read_baseline, write_baseline

    sample = SampleEntry(0.5, 0.9, 2, 2.5, 1.0, "p" * 64, pack(np.array([True, False])))
    entry = BundleEntry("b" * 64, "c" * 64, 2.2, "learned", 8, 1.5, {"d": sample})
    write_baseline(
        folder / "seed.json", Baseline({("a", "x"): entry, ("b", "y"): replace(entry, speed_ratio=None)})
    )

    def digest(tree: dict[str, Any]) -> str:
        return hashlib.sha256(json.dumps(tree, indent=2, sort_keys=True, allow_nan=False).encode()).hexdigest()

    def read(content: bytes, which: int) -> object:
        (folder / "baseline.json").write_bytes(_resealed(content, digest))
        return read_baseline(folder / "baseline.json", "update")

    return [(folder / "seed.json").read_bytes()], read


SPEC = b"""\
baseline = "baseline.json"   # comment
when_unsure = "pass"

[[check]]
name = "first"
bundle = ["one", "two*"]
data = ["generated:400", "generated:20:hard@7", "sets/hard.csv"]
checkpoint = "sudoku-9x9"
n = 40
halt = "verified"
max_think_steps = 8
min_exact = 0.7
max_drop = 1

[[check]]
name = "second"
bundle = "one"
quantized = true
"""


@reader("spec", lines)
def _spec(folder: Path) -> tuple[list[bytes], Read]:
    from hrm_edge.check.spec import read_spec

    for name in ("one", "two-a", "two-b"):
        (folder / name).mkdir()
    return [SPEC], _to(folder / "spec.toml", read_spec)


RECIPE = b"""\
[arch]
kind = "hrm"
hidden_size = 64
num_heads = 4
expansion = 4.0
H_layers = 1
pos_encodings = "grid"

[train]
batch_size = 64
lr = 1e-3
loss = "softmax"
augment = true
steps = 10
checkpoint_dtype = "float16"
"""


@reader("recipe", lines)
def _recipe(folder: Path) -> tuple[list[bytes], Read]:
    from hrm_edge.trainer import load_recipe

    return [RECIPE], _to(folder / "recipe.toml", lambda file: load_recipe("sudoku-4x4", "tiny", file, None))


def _checkpoint(folder: Path) -> Path:
    import torch
    from small_networks import network

    from hrm_edge.models import quantized_layers, save_checkpoint
    from hrm_edge.trainer import load_recipe

    torch.set_num_threads(1)
    model = network(puzzle_emb_ndim=32, num_puzzle_identifiers=3)
    scales = dict.fromkeys(quantized_layers(model), 0.5)
    tuned = {"bits": 8, "activations": scales, "weights": "per-channel minmax", "from": "ab", "learned": True}
    arch, recipe = load_recipe("sudoku-4x4", "tiny", None, ["train.steps=1"])
    metadata = {
        "recipe": {"task": "sudoku-4x4", "arch": arch.to_dict(), "train": asdict(recipe)},
        "sources": ["generated:40 (40)"],
        "accuracy": {"generated-ordinary": {"n": 200, "exact_by_segments": {"1": 0.5, "16": 1.0}}},
        "steps": 10,
        "train_seconds": 3.5,
        "halt_margin": 3.0,
        "held_out": {"seed": 20260101, "difficulty": "ordinary", "n": 1000},
        "quantization": tuned,
        "puzzle_identifiers": "0-2",
        "author": "somebody",
        "license": "MIT",
    }
    return save_checkpoint(folder / "m", model, "sudoku-4x4", "", metadata)


@reader("checkpoint config", structure, 0.2)
def _checkpoint_config(folder: Path) -> tuple[list[bytes], Read]:
    from hrm_edge.data.choose import gate_puzzles
    from hrm_edge.exporters.describe import licence
    from hrm_edge.models import load_checkpoint, quantization_of
    from hrm_edge.trainer.card import describe

    path = _checkpoint(folder)
    own = json.loads((path / "config.json").read_text())["metadata"]

    def read(content: bytes, which: int) -> object:
        (path / "config.json").write_bytes(content)
        checkpoint = load_checkpoint(path)
        describe({**own, "earlier": checkpoint.metadata}, checkpoint.model)
        licence(checkpoint).encode()
        gate_puzzles(checkpoint, n=1)
        return checkpoint.kept_identifiers, quantization_of(checkpoint)

    return [(path / "config.json").read_bytes()], read


@reader("checkpoint weights", header, 0.2)
def _checkpoint_weights(folder: Path) -> tuple[list[bytes], Read]:
    from hrm_edge.models import load_checkpoint

    path = _checkpoint(folder)
    weights = path / "model.safetensors"
    return [weights.read_bytes()], _to(weights, lambda _: load_checkpoint(path))


YAML = b"""\
arch:
  name: hrm.hrm_act_v1@HierarchicalReasoningModel_ACTV1
  loss: {name: losses@ACTLossHead, loss_type: stablemax_cross_entropy}
  H_cycles: 2
  L_cycles: 2
  H_layers: 1
  L_layers: 1
  hidden_size: 16
  num_heads: 2
  expansion: 4
  pos_encodings: rope
  halt_max_steps: 16
  halt_exploration_prob: 0.1
  puzzle_emb_ndim: 16
data_paths: [data/sudoku-extreme-1k-aug-1000]
lr: 1e-4
when: 2025-01-01
"""


@reader("YAML", lines, 0.5)
def _yaml(folder: Path) -> tuple[list[bytes], Read]:
    from hrm_edge.models.config import HRMConfig
    from hrm_edge.models.public import read_config

    def read(file: Path) -> object:
        _, fields, data = read_config(file)
        return HRMConfig.from_dict({"vocab_size": 11, "seq_len": 81, **fields}), data

    return [YAML], _to(folder / "all_config.yaml", read)


@reader("public checkpoint", binary, 0.2)
def _public(folder: Path) -> tuple[list[bytes], Read]:
    import published
    import torch
    from safetensors.torch import save

    from hrm_edge.models.public import import_public

    torch.set_num_threads(1)
    model = published.sudoku_trm(puzzle_emb_len=16, no_ACT_continue=True)
    arch = {name: model.config.to_dict()[name] for name in published.NAMED}
    place = published.published(folder / "public", model, arch)
    seeds = [(place / "step_7").read_bytes()]
    for how in (False, True):
        made = io.BytesIO()
        wrapped = {"model": model.state_dict(), "step": 3, "args": argparse.Namespace(lr=1.0)}
        torch.save(wrapped, made, _use_new_zipfile_serialization=how)
        seeds.append(made.getvalue())
    seeds.append(save({name: tensor.contiguous() for name, tensor in model.state_dict().items()}))
    return seeds, _to(place / "step_7", import_public)


def _puzzles() -> Any:
    from hrm_edge.data.puzzles import generate_puzzles
    from hrm_edge.tasks import get_task

    return generate_puzzles(get_task("sudoku-4x4"), 6, 0, processes=1)


def _read_as(name: str) -> Callable[[Path], object]:
    from hrm_edge.data.puzzles import load_puzzles
    from hrm_edge.tasks import get_task

    task = get_task(name)
    return lambda path: load_puzzles(path, task)


@reader("puzzle text", zipped)
def _text(folder: Path) -> tuple[list[bytes], Read]:
    from hrm_edge.tasks import get_task

    puzzles = _puzzles()
    task = puzzles.task
    drawn = "\n\n".join(task.render(question) for question in puzzles.questions)
    seeds = ["\n".join(map(task.format, puzzles.questions)).encode(), drawn.encode()]
    maze = get_task("maze-6x6")
    import numpy as np

    mazes, _ = maze.generate(3, np.random.default_rng(0))
    seeds.append("\n\n".join(map(maze.render, mazes)).encode())
    seeds.append(b"123\n456\n789\n\n11\n22\n")
    loads = [_read_as(name) for name in ("sudoku-4x4", "sudoku-4x4", "maze-6x6", "arc-5x5")]

    def read(content: bytes, which: int) -> object:
        (folder / "p.txt").write_bytes(content)
        return loads[which](folder / "p.txt")

    return seeds, read


@reader("puzzle CSV", zipped)
def _csv(folder: Path) -> tuple[list[bytes], Read]:
    from hrm_edge.data.puzzles import save_puzzles

    save_puzzles(_puzzles(), folder / "seed.csv")
    return [(folder / "seed.csv").read_bytes()], _to(folder / "p.csv", _read_as("sudoku-4x4"))


@reader("dataset folder", structure)
def _dataset(folder: Path) -> tuple[list[bytes], Read]:
    """Its description; its arrays are the next one's."""
    from hrm_edge.data.public_layout import IDENTIFIERS, read_names
    from hrm_edge.data.puzzles import save_puzzles

    save_puzzles(_puzzles(), folder / "set")
    load = _read_as("sudoku-4x4")
    names = b'["<blank>", "a", "b"]'

    def read(content: bytes, which: int) -> object:
        if which == 1:
            (folder / IDENTIFIERS).write_bytes(content)
            return read_names(folder)
        (folder / "set" / "dataset.json").write_bytes(content)
        return load(folder / "set")

    return [(folder / "set" / "dataset.json").read_bytes(), names], read


@reader("npy", binary)
def _npy(folder: Path) -> tuple[list[bytes], Read]:
    from hrm_edge.data.puzzles import save_puzzles

    save_puzzles(_puzzles(), folder / "set")
    load = _read_as("sudoku-4x4")
    files = sorted((folder / "set").glob("*.npy"))
    whole = {file: file.read_bytes() for file in files}

    def read(content: bytes, which: int) -> object:
        file = files[which]
        file.write_bytes(content)
        try:
            return load(folder / "set")
        finally:
            file.write_bytes(whole[file])

    return list(whole.values()), read


@reader("ARC tasks", structure)
def _arc(folder: Path) -> tuple[list[bytes], Read]:
    from hrm_edge.arc.collection import from_json

    (folder / "training").mkdir()
    pair = {"input": [[1, 2], [3, 4]], "output": [[1]]}
    one = {"train": [pair, pair], "test": [pair]}
    challenges, solutions = {"a": one, "b": one}, {"a": [[[1]]], "b": [[[2]]]}

    def read(content: bytes, which: int) -> object:
        name = ("training/e0.json", "x_evaluation_challenges.json", "x_evaluation_solutions.json")[which]
        (folder / "x_evaluation_challenges.json").write_text(json.dumps(challenges))
        (folder / "x_evaluation_solutions.json").write_text(json.dumps(solutions))
        (folder / "training" / "e0.json").write_text(json.dumps(one))
        (folder / name).write_bytes(content)
        return from_json(folder)

    return [json.dumps(seed).encode() for seed in (one, challenges, solutions)], read


@reader("identifiers", binary)
def _identifiers(folder: Path) -> tuple[list[bytes], Read]:
    from hrm_edge.identifiers import parse_ranges

    return [b"0-99,200 7-8", b"0-999999,1"], lambda content, _: parse_ranges(content.decode("latin-1"), "here")


@reader("mlpackage", binary, 0.1)
def _mlpackage(folder: Path) -> tuple[list[bytes], Read]:
    import numpy as np
    from mil_programs import loop_program

    from hrm_edge.runtimes.coreml.backend import BACKEND
    from hrm_edge.runtimes.coreml.interpreter import load_program

    path, _ = loop_program(folder / "p.mlpackage")
    files = sorted(file for file in path.rglob("*") if file.is_file())
    whole = {file: file.read_bytes() for file in files}

    def read(content: bytes, which: int) -> object:
        file = files[which]
        file.write_bytes(content)
        try:
            BACKEND.compiled_products(path)
            program = load_program(path)
            return program({"x": np.ones((2, 8), np.float32), "count": np.ones(1, np.int32)})
        finally:
            file.write_bytes(whole[file])

    return list(whole.values()), read


@reader("ONNX", binary, 0.1)
def _onnx(folder: Path) -> tuple[list[bytes], Read]:
    import toy_graphs

    from hrm_edge.runtimes.onnx import BACKEND

    seeds = [
        m.SerializeToString() for loop in ("host", "graph") for m in toy_graphs.models(loop, "dynamic").values()
    ]
    return seeds, _to(folder / "g.onnx", lambda file: BACKEND.load_graph(file, 1))


@reader("self-contained ONNX", binary)
def _self_contained(folder: Path) -> tuple[list[bytes], Read]:
    import toy_graphs

    from hrm_edge.bundle.self_contained import check_self_contained

    seeds = [
        m.SerializeToString() for loop in ("host", "graph") for m in toy_graphs.models(loop, "dynamic").values()
    ]
    return seeds, _to(folder / "g.onnx", check_self_contained)


@reader("OpenVINO IR", lines, 0.02)
def _ir(folder: Path) -> tuple[list[bytes], Read]:
    import toy_graphs

    from hrm_edge.runtimes.openvino import BACKEND

    for name, model in toy_graphs.models("host", "dynamic").items():
        toy_graphs.save(model, folder / name, "openvino")
    # One line an element, so that lines are what is changed.
    text = (folder / "segment.xml").read_bytes().replace(b"><", b">\n<")
    return [text], _to(folder / "segment.xml", lambda file: BACKEND.load_graph(file, 1))


def _single() -> list[Any]:
    """The toy's graphs of one row, as phones' formats take them."""
    import toy_graphs

    from hrm_edge.exporters.graph.passes import fix_batch

    models = list(toy_graphs.models("host", "dynamic").values())
    for model in models:
        fix_batch(model, 1)
    return models


# LiteRT checks that a file is a FlatBuffer, and then believes the numbers in it (SECURITY.md).
@reader("tflite", binary, 0.1, crashes=True)
def _tflite(folder: Path) -> tuple[list[bytes], Read]:
    from litert_models import write

    from hrm_edge.runtimes.litert import BACKEND

    seeds = [write(model, folder).read_bytes() for model in _single()]

    def read(file: Path) -> object:
        BACKEND.load_graph(file, 1)
        return BACKEND.compiled_products(file)

    return seeds, _to(folder / "g.tflite", read)


if find_spec("executorch") is not None:  # in a place of its own: `make executorch`

    @reader("pte", binary, 0.02, crashes=True)
    def _pte(folder: Path) -> tuple[list[bytes], Read]:
        from hrm_edge.exporters.targets.executorch.program import write_program
        from hrm_edge.runtimes.executorch import BACKEND, NAMES

        seeds, names = [], []
        for model in _single():
            write_program(model, folder, "g")
            seeds.append((folder / "g.pte").read_bytes())
            names.append((folder / NAMES.format("g")).read_bytes())

        def read(content: bytes, which: int) -> object:
            (folder / "g.pte").write_bytes(content)
            (folder / NAMES.format("g")).write_bytes(names[which])
            BACKEND.load_graph(folder / "g.pte", None)
            return BACKEND.compiled_products(folder / "g.pte")

        return seeds, read
