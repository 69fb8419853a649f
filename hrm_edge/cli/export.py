"""`hrm-edge export`: a checkpoint becomes a bundle, published only when it still answers as the checkpoint does."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import InputError

if TYPE_CHECKING:
    from ..exporters.build import ExportOptions
    from ..gate import GateReport
    from ..models import Checkpoint

_NO_GATE = "exported with --no-gate"


def command(
    checkpoint: Annotated[str, typer.Argument(help="Checkpoint folder, or the name of a shipped model.")],
    target: Annotated[str, typer.Option(help="onnx or openvino.")] = "onnx",
    precision: Annotated[str, typer.Option(help="fp32, or fp16 (norms, softmax and state stay fp32).")] = "fp32",
    loop: Annotated[
        str, typer.Option(help="graph: the halting loop is in the artifact. host: the runtime loops.")
    ] = "graph",
    batch: Annotated[str, typer.Option(help="Rows of every call: a number, or dynamic for any.")] = "dynamic",
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Default: bundles/NAME-TARGET-PRECISION-LOOP.")
    ] = None,
    max_drop: Annotated[float, typer.Option(help="Points of exact-solve accuracy that may be lost.")] = 0.5,
    data: Annotated[
        Path | None, typer.Option(help="Puzzles to compare on; by default the checkpoint's own held-out ones.")
    ] = None,
    gate_puzzles: Annotated[int | None, typer.Option(min=1, help="How many of them; 400 by default.")] = None,
    gate: Annotated[
        bool, typer.Option("--gate/--no-gate", help="--no-gate publishes unchecked, and the bundle says so.")
    ] = True,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; all by default.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")] = False,
) -> None:
    """Compile a checkpoint into a bundle, and prove that it still answers the same puzzles right.

    Nothing is published, and the exit code is 1, when exact-solve accuracy drops by more than --max-drop
    points or halting moves by more than 5 %. A bundle that stood at the output before is then kept.
    """
    _need_packages(target, gate)
    from ..exporters.build import ExportOptions
    from ..models import load_checkpoint
    from .progress import say

    options = ExportOptions(target, precision, loop, _rows(batch))
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    _check_gate_options(gate, max_drop, data, gate_puzzles)
    opened = load_checkpoint(checkpoint)
    folder = output or Path("bundles") / f"{opened.name}-{options.suffix}"
    _check_output(folder, gate)
    report = _export(opened, options, folder, _Gate(gate, max_drop, data, gate_puzzles, threads))
    size = round(sum(file.stat().st_size for file in folder.iterdir()) / 1e6, 3)
    if as_json:
        import json

        accuracy = report.to_dict() if report else None
        passed = report.passed if report else None
        print(json.dumps({"bundle": str(folder), "accuracy": accuracy, "passed": passed, "size_mb": size}))
        return
    say("")
    _print_summary(checkpoint, options, folder, size, report)


class _Gate:
    """How the accuracy gate was asked to run."""

    def __init__(self, on: bool, max_drop: float, data: Path | None, count: int | None, threads: int | None):
        self.on, self.max_drop, self.data, self.count, self.threads = on, max_drop, data, count, threads


def _export(checkpoint: Checkpoint, options: ExportOptions, folder: Path, gate: _Gate) -> GateReport | None:
    """Build beside the output, compare, and only then take its place."""
    from ..bundle import Gate, seal_bundle
    from ..exporters.build import build_bundle
    from ..files import replacing_folder
    from ..gate import gate_puzzles
    from .progress import say

    # First, so that a checkpoint without puzzles is refused before any work.
    puzzles = gate_puzzles(checkpoint, gate.data, gate.count) if gate.on else None
    with replacing_folder(folder) as scratch:
        manifest = build_bundle(checkpoint, options, scratch, folder.name, lambda stage: say(f"export: {stage}"))
        if puzzles is None:
            seal_bundle(scratch, replace(manifest, gate=Gate(ran=False, passed=None, reason=_NO_GATE)))
            return None
        report = _compare(checkpoint, scratch, puzzles, gate)
        report.raise_if_failed(str(folder))
        seal_bundle(scratch, replace(manifest, gate=Gate(ran=True, passed=True)), report.to_dict())
    return report


def _compare(checkpoint: Checkpoint, scratch: Path, puzzles: Any, gate: _Gate) -> GateReport:
    from ..gate import run_gate
    from ..runtimes import load_engine
    from .progress import progress, say

    engine = load_engine(scratch, gate.threads)
    with progress() as report:
        return run_gate(engine, checkpoint, puzzles, max_drop=gate.max_drop, say=say, progress=report)


def _need_packages(target: str, gate: bool) -> None:
    """One line instead of an ImportError half-way through."""
    for package in ("torch", "onnx", "onnxscript"):
        if importlib.util.find_spec(package) is None:
            raise InputError(f"export needs {package}, which is not installed; run: pip install 'hrm-edge[export]'")
    from ..runtimes.loader import BACKENDS, backend_module

    if gate and target in BACKENDS:
        usable, _, why_not, install = backend_module(target).available()
        if not usable:
            raise InputError(f"the gate runs what was built with {target}, but {why_not}; run: {install}")


def _rows(batch: str) -> int | None:
    if batch == "dynamic":
        return None
    if not batch.isascii() or not batch.isdigit() or not 1 <= int(batch) < 2**16:
        raise InputError(f"--batch must be a number of rows, at least 1, or dynamic, not {batch!r}")
    return int(batch)


def _check_gate_options(gate: bool, max_drop: float, data: Path | None, gate_puzzles: int | None) -> None:
    """What only the gate reads must not be given in vain."""
    if not max_drop >= 0:
        raise InputError(f"--max-drop must be a number of points, at least 0, not {max_drop}")
    if not gate and (data is not None or gate_puzzles is not None):
        raise InputError(
            "--data and --gate-puzzles are the gate's, which --no-gate leaves out; drop one or the other"
        )


def _check_output(folder: Path, gate: bool) -> None:
    """Only a bundle is ever replaced, and a gated one only by a gated one."""
    from ..bundle import MANIFEST, open_bundle

    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file; give -o a folder to write the bundle to")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / MANIFEST).is_file():
        raise InputError(f"{folder}: holds something else than a bundle, which would be replaced; give -o another")
    if not gate and (folder / MANIFEST).is_file():
        try:
            passed = open_bundle(folder).manifest.gate.passed
        except InputError:
            return  # damaged: nothing to protect
        if passed:
            raise InputError(
                f"{folder}: holds a bundle that passed its gate; give -o another, or gate this one too"
            )


def _print_summary(
    checkpoint: str, options: ExportOptions, folder: Path, size: float, report: GateReport | None
) -> None:
    rows = "any number of rows" if options.batch is None else f"{options.batch} rows a call"
    print(f"{folder}: {size:.2f} MB, {options.target} {options.precision}, {options.loop} loop, {rows}")
    if report is None:
        print("  not gated: nobody has compared its answers with the checkpoint's")
    else:
        print(f"  gate {report.reason}")
        for side in (report.reference, report.bundle):
            halting = f"{side.steps_mean:.2f} segments on average"
            print(f"  {side.engine:<24} exact {100 * side.exact:6.2f} %   {halting}")
        for note in report.notes:
            print(f"  note: {note}")
    if (options.target, options.precision) == ("onnx", "fp16"):
        print(
            "  note: onnxruntime computes float16 on a CPU through casts: smaller than fp32 there, but not faster"
        )
    print(f"next: hrm-edge solve {folder} PUZZLES   or   hrm-edge eval {checkpoint} {folder}")
