"""A bundle as a model repository: the very graphs that the gate runs, where the server looks for them.

Each graph is a model of its own, `NAME/1/model.…` with `NAME/config.pbtxt`, beside the bundle's own files, which a
server passes over as it looks at folders only. For a loop on the host a third model drives both (`loop.py`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...bundle.examples import examples_in
from ...errors import InputError
from ...halting import LEARNED, halting_head, numbered
from ...identifiers import kept_in, rows_of
from ...runtimes.loops import NEXT
from ..targets import all_targets, target_named
from ..targets.base import Written
from .config import DTYPES, Message, Word, shown

if TYPE_CHECKING:
    from ...bundle import Manifest, TensorSpec

TRITON = "triton"
_VERSION = "1"
_BATCH = "batch"  # as graphs name the dimension that is free
_TOGETHER = 64  # rows that the server gathers for one segment
_DRIVER = "loop.py"


def require_served(target: str) -> None:
    """InputError where the server has no backend for a target's graphs."""
    if target_named(target).served_by is None:
        served = [name for name, each in all_targets().items() if each.served_by]
        raise InputError(f"--layout triton: not for --target {target}; choose {' or '.join(served)}")


def arrange(written: Written, folder: Path, name: str) -> Written:
    """Move a target's graphs to where the server looks for them; ``name``: the model's."""
    places = {}
    for graph, file in written.graphs.items():
        model = folder / _model_name(name, graph, written.graphs) / _VERSION
        model.mkdir(parents=True)
        stem, ending = Path(file).stem, Path(file).suffix
        # Beside an .xml stands the .bin of the same name, in which its weights are.
        for part in sorted(folder.glob(f"{stem}.*")):
            part.rename(model / f"model{part.suffix}")
        places[graph] = (model / f"model{ending}").relative_to(folder).as_posix()
    return replace(written, graphs=places)


def configure(folder: Path, manifest: Manifest) -> Sequence[str]:
    """Write the server's files of a bundle that :func:`arrange` laid out, once its examples are known, or anew.

    Paragraphs of Markdown on how it is served.
    """
    asked = _asked(folder, manifest)
    for graph, file in manifest.graphs.items():
        model = Path(file).parts[0]
        _write(folder / model, _graph_config(model, graph, manifest, asked), asked)
    if manifest.loop == "graph":
        return _notes(Path(manifest.graphs["model"]).parts[0])
    name = Path(manifest.graphs["start"]).parts[0].removesuffix("-start")
    place = folder / name / _VERSION
    place.mkdir(parents=True, exist_ok=True)
    (place / "model.py").write_bytes((files(__package__) / _DRIVER).read_bytes())
    _write(folder / name, _driver_config(name, manifest), asked)
    return _notes(name)


def _model_name(name: str, graph: str, graphs: Mapping[str, str]) -> str:
    plain = re.sub(r"[^A-Za-z0-9._+-]", "_", name).lstrip("._+-") or "model"
    return plain if len(graphs) == 1 else f"{plain}-{graph}"


def _notes(name: str) -> list[str]:
    return [
        "This folder is a model repository: `tritonserver --model-repository FOLDER` serves it, and asks the model "
        f"`{name}`. hrm-edge gated these very graphs in its own runtime; the server itself was not run. Each "
        "instance has one thread: set `count` of `instance_group` to the number of cores.",
        "A file that is changed, as by that, is refused by hrm-edge from then on: change a copy.",
    ]


# -- what each model is ----------------------------------------------------------------------------------


def _graph_config(model: str, graph: str, manifest: Manifest, asked: Mapping[str, np.ndarray]) -> Message:
    inputs, outputs = manifest.inputs[graph], manifest.outputs[graph]
    served = target_named(manifest.target).served_by
    assert served is not None
    # Rows of a loop inside a graph wait for the slowest; those of a segment cost the same, whatever stands in them.
    gathered = graph != "model" and all(spec.shape[:1] == (_BATCH,) for spec in (*inputs, *outputs))
    content: Message = {
        "name": model,
        "backend": served.backend,
        "default_model_filename": Path(manifest.graphs[graph]).name,
        "max_batch_size": _TOGETHER if gathered else 0,
        "input": [_tensor(spec, gathered) for spec in inputs],
        "output": [_tensor(spec, gathered) for spec in outputs],
        "version_policy": {"latest": {"num_versions": 1}},
        "instance_group": [{"count": 1, "kind": Word("KIND_CPU")}],
        "parameters": [{"key": key, "value": {"string_value": value}} for key, value in served.one_thread.items()],
        "model_warmup": [_warm_up(inputs, gathered, asked)],
    }
    if gathered:
        content["dynamic_batching"] = {"max_queue_delay_microseconds": 0}
    return content


def _driver_config(name: str, manifest: Manifest) -> Message:
    """The model that asks start and segments, as the graph loop's inputs and outputs are."""
    rows: int | str = manifest.batch if isinstance(manifest.batch, int) else _BATCH
    width = manifest.architecture["seq_len"]
    tensors = {
        "input": (
            *manifest.inputs["start"],
            _spec("max_think_steps", "int32", ()),
            _spec("halt", "int32", ()),
        ),
        "output": (
            _spec("answer", "int32", (rows, width)),
            _spec("steps", "int32", (rows,)),
            _spec("q", "float32", (rows, 2)),
        ),
    }
    told = {
        "models": {graph: Path(file).parts[0] for graph, file in manifest.graphs.items()},
        "inputs": {graph: [spec.name for spec in manifest.inputs[graph]] for graph in ("start", "segment")},
        "outputs": {graph: [spec.name for spec in manifest.outputs[graph]] for graph in ("start", "segment")},
        "next": NEXT,
        "halt_max_steps": manifest.architecture["halt_max_steps"],
        "stops": asdict(halting_head(manifest.architecture["no_ACT_continue"])),
        "rows": None if manifest.batch == "dynamic" else manifest.batch,
        "together": _TOGETHER,
    }
    content: Message = {"name": name, "backend": "python", "max_batch_size": 0}
    for kind, specs in tensors.items():
        content[kind] = [_tensor(spec, False) for spec in specs]
    for each in content["input"][-2:]:
        each["optional"] = Word("true")
    content["instance_group"] = [{"count": 1, "kind": Word("KIND_CPU")}]
    content["parameters"] = [{"key": "loop", "value": {"string_value": json.dumps(told, sort_keys=True)}}]
    return content


def _spec(name: str, dtype: str, shape: tuple[int | str, ...]) -> TensorSpec:
    from ...bundle import TensorSpec

    return TensorSpec(name, dtype, shape)


def _tensor(spec: TensorSpec, gathered: bool) -> Message:
    """An input or output; the server names no batch where it gathers one, and no shape is empty."""
    dims = [size if isinstance(size, int) else -1 for size in spec.shape[gathered:]]
    content: Message = {"name": spec.name, "data_type": Word(DTYPES[spec.dtype]), "dims": dims or [1]}
    return content if dims else {**content, "reshape": {"shape": []}}


# -- warming up ------------------------------------------------------------------------------------------


def _asked(folder: Path, manifest: Manifest) -> dict[str, np.ndarray]:
    """What the inputs hold when the server warms up: the bundle's first example, where it has any."""
    rules = {rule.name: rule.number for rule in numbered()}
    found = examples_in(folder)
    steps, halt = manifest.architecture["halt_max_steps"], LEARNED.name
    rows = 1 if manifest.batch == "dynamic" else int(manifest.batch)
    asked: dict[str, np.ndarray] = {}
    if found is not None:
        first, kept = found.examples[0], kept_in(manifest.source, manifest.name)
        asked["tokens"] = np.tile(np.array(first.question_tokens, np.int32), (rows, 1))
        asked["puzzle_identifiers"] = np.repeat(rows_of(np.array([first.puzzle_identifier]), kept), rows)
        steps, halt = found.max_think_steps, found.halt
    asked["max_think_steps"] = np.array([steps], np.int32)
    asked["halt"] = np.array([rules.get(halt) or 0], np.int32)
    return asked


def _warm_up(inputs: Sequence[TensorSpec], gathered: bool, asked: Mapping[str, np.ndarray]) -> Message:
    """One request. A state that nobody thought is zeros, which take as long."""
    filled = []
    for spec in inputs:
        sizes = [size if isinstance(size, int) else 1 for size in spec.shape[gathered:]] or [1]
        value: Message = {"data_type": Word(DTYPES[spec.dtype]), "dims": sizes}
        value |= {"input_data_file": spec.name} if spec.name in asked else {"zero_data": Word("true")}
        filled.append({"key": spec.name, "value": value})
    return {"name": "example", "batch_size": 1, "inputs": filled}


def _write(model: Path, config: Message, asked: Mapping[str, np.ndarray]) -> None:
    inputs = [each["value"] for warm in config.get("model_warmup", ()) for each in warm["inputs"]]
    for name in (each["input_data_file"] for each in inputs if "input_data_file" in each):
        (model / "warmup").mkdir(exist_ok=True)
        array = asked[name]
        (model / "warmup" / name).write_bytes(array.astype(array.dtype.newbyteorder("<")).tobytes())
    (model / "config.pbtxt").write_text(shown(config), encoding="utf-8", newline="\n")
