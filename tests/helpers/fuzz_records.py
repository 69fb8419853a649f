"""Readers of what this project writes as text: records of bundles, reports, baselines, specs and recipes."""

from __future__ import annotations

import contextlib
import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from fuzz_changes import lines, structure
from fuzz_readers import Read, Reader, canonical, registering, resealed, to

READERS: dict[str, Reader] = {}
reader = registering(READERS)


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
        sealed = resealed(content, lambda tree: hashlib.sha256(canonical(tree).encode()).hexdigest())
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
            content = canonical(json.loads(content)).encode()
        (path / ACCURACY).write_bytes(content)
        manifest["files"][ACCURACY] = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
        digest = lambda tree: hashlib.sha256(canonical(tree).encode()).hexdigest()  # noqa: E731
        (path / "manifest.json").write_bytes(resealed(json.dumps(manifest).encode(), digest))
        return open_bundle(path).accuracy

    return [canonical(gate).encode(), (path / ACCURACY).read_bytes()], read


@reader("quantization", structure)
def _quantization(folder: Path) -> tuple[list[bytes], Read]:
    import sample_report

    from hrm_edge.bundle.quantization import Quantization
    from hrm_edge.records import from_json

    seed = sample_report.record().to_json().encode()
    return [seed], to(folder / "q.json", lambda file: from_json(Quantization, file.read_bytes(), file))


@reader("report", structure, 0.1)
def _report(folder: Path) -> tuple[list[bytes], Read]:
    import sample_report

    from hrm_edge.report.build import read_report, render

    made = render(sample_report.report(), "json")
    return [made.encode()], to(folder / "report.json", lambda file: render(read_report(file), "html"))


@reader("engines", structure)
def _engines(folder: Path) -> tuple[list[bytes], Read]:
    from hrm_edge.runtimes.tensorrt.engines import EngineFile, EngineIndex

    one = EngineFile("model", "m.engine", "tensorrt-rtx", "1.7.1", (86, 89), (1, 8, 8), "0" * 64, 100, 1.5)
    EngineIndex((one, replace(one, rows=None)), {"a": 1}, "x").write(folder / "seed.json")
    return [(folder / "seed.json").read_bytes()], to(folder / "tensorrt.json", EngineIndex.read)


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
        (folder / "baseline.json").write_bytes(resealed(content, digest))
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
    return [SPEC], to(folder / "spec.toml", read_spec)


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

    return [RECIPE], to(folder / "recipe.toml", lambda file: load_recipe("sudoku-4x4", "tiny", file, None))
