"""`hrm-edge export`: a checkpoint becomes a bundle, published only when it still answers as the checkpoint does."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import InputError
from ..exporters.targets import all_targets, target_named
from ..packages import install
from ..precision import FAMILIES, PRECISIONS, Precision, precision_named
from ..text import best_effort, echo, echo_json

if TYPE_CHECKING:
    import numpy as np

    from ..bundle.quantization import Quantization
    from ..export import Exported
    from ..exporters.options import ExportOptions
    from ..exporters.search.decide import Quantizing
    from ..models import Checkpoint
    from ..tasks import Task

_TARGETS = all_targets()


def _precisions() -> str:
    """Every precision: what it is, and which targets have it."""
    groups: dict[str, list[str]] = {}
    for record in PRECISIONS.values():
        groups.setdefault(record.name if record.family == "float" else record.family, []).append(record.name)
    shown = []
    for names in groups.values():
        having = [target.name for target in _TARGETS.values() if names[0] in target.precisions]
        lacking = [name for name in _TARGETS if name not in having]
        few = len(having) < len(lacking)
        remarks = [
            FAMILIES.get(PRECISIONS[names[0]].family, ""),
            ", ".join(having) if few else f"not for {', '.join(lacking)}" * bool(lacking),
            *(target.remarks.get(name, "") for name in names for target in _TARGETS.values()),
        ]
        about = "; ".join(filter(None, remarks))
        shown.append(", ".join(names) + f" ({about})" * bool(about))
    return "; ".join(shown) + "."


def _defaults(field: str, usual: object) -> str:
    """The targets whose default is another than the usual one."""
    others = {name: getattr(target, field) for name, target in _TARGETS.items()}
    return ", ".join(f"{name}: {value}" for name, value in others.items() if value != usual)


def command(
    checkpoint: Annotated[
        str | None, typer.Argument(help="Checkpoint folder, or the name of a shipped model.")
    ] = None,
    target: Annotated[str, typer.Option(help=" or ".join(", ".join(_TARGETS).rsplit(", ", 1)) + ".")] = "onnx",
    precision: Annotated[str, typer.Option(help=_precisions())] = "fp32",
    loop: Annotated[
        str | None,
        typer.Option(
            help="graph: the halting loop is in the artifact. host: the runtime loops. "
            f"{_defaults('default_loop', 'graph')}, others: graph."
        ),
    ] = None,
    batch: Annotated[
        str | None,
        typer.Option(
            help="Rows of every call: a number, or dynamic for any "
            f"(the default; {_defaults('default_batch', None)})."
        ),
    ] = None,
    compute_capability: Annotated[
        str | None,
        typer.Option(
            help="tensorrt: the GPUs that an engine is built for, as 8.6,8.9 or 86,89; by default 86,89,120."
        ),
    ] = None,
    ios: Annotated[
        int | None,
        typer.Option("--ios", help="coreml: the oldest iOS that it must run on, 17 (the default) or 18."),
    ] = None,
    network: Annotated[
        str | None,
        typer.Option(
            help="Instead of a checkpoint, a network of others: package.module:factory, where factory() gives a "
            "torch.nn.Module with start and segment (exporters/README.md)."
        ),
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(help="--network: its file of weights, in any wrapper; left out: as factory() made."),
    ] = None,
    key: Annotated[str | None, typer.Option(help="--weights: which of several tables in the file.")] = None,
    task: Annotated[
        str | None, typer.Option(help="--network: what it solves, by name or folder; left out: told by --data.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Default: bundles/NAME-TARGET-PRECISION-LOOP.")
    ] = None,
    puzzle_identifiers: Annotated[
        str | None,
        typer.Option(
            help="Keep these puzzle embeddings only: 0-99,200, a file of such, or a puzzle folder for its own."
        ),
    ] = None,
    max_drop: Annotated[
        float,
        typer.Option(
            help="Points of exact-solve accuracy that may be lost; int8 gives as many layers more bits as it takes."
        ),
    ] = 0.5,
    data: Annotated[
        Path | None, typer.Option(help="Puzzles to compare on; by default the checkpoint's own held-out ones.")
    ] = None,
    gate_puzzles: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="How many to begin with, 400 by default, 1000 for fewer than 16 bits; up to eight times as many "
            "are asked where these leave open whether --max-drop is kept.",
        ),
    ] = None,
    gate: Annotated[
        bool, typer.Option("--gate/--no-gate", help="--no-gate publishes unchecked, and the bundle says so.")
    ] = True,
    not_judged: Annotated[
        bool,
        typer.Option("--not-judged", help="Publish also where the reference solves no puzzle; the bundle says so."),
    ] = False,
    reference: Annotated[
        str | None,
        typer.Option(
            help="Another checkpoint to compare with: the one that a quantization-aware run started from."
        ),
    ] = None,
    report: Annotated[
        bool, typer.Option("--report/--no-report", help="Put an accuracy report into the bundle (not for fp32).")
    ] = True,
    calibration: Annotated[
        int | None, typer.Option(min=1, help="int8, int8-weights, int4-weights: puzzles to calibrate on; 128.")
    ] = None,
    calibration_data: Annotated[
        Path | None, typer.Option(help="The same precisions: where they come from; generated by default.")
    ] = None,
    calibration_method: Annotated[
        str | None,
        typer.Option(help="int8: minmax, percentile, mse (the default) or entropy; auto compares all (slow)."),
    ] = None,
    calibration_segments: Annotated[
        str | None,
        typer.Option(help="int8: segments sampled: all, first, middle, last, stratified (the default) or random."),
    ] = None,
    smooth: Annotated[
        float | None, typer.Option(help="int8: SmoothQuant's strength, 0 (none) to below 1; 0.85.")
    ] = None,
    sensitivity: Annotated[
        int | None,
        typer.Option(min=0, help="int8: puzzles on which each layer is tried alone, 128; 0: only when needed."),
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; all by default.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")] = False,
) -> None:
    """Compile a checkpoint into a bundle, and prove that it still answers the same puzzles right.

    Nothing is published, and the exit code is 1, when exact-solve accuracy drops by more than --max-drop
    points, when halting moves by more than 5 %, or when the backend does not run in the precision that was
    asked for. A bundle that stood at the output before is then kept.
    """
    _need_packages(target, gate)
    from ..data.choose import gate_puzzles as puzzles_for_gate
    from ..data.puzzles import load_puzzles
    from ..export import GateOptions, export_bundle
    from ..exporters.options import ExportOptions
    from ..models import keep_identifiers, load_checkpoint
    from ..progress import lines, progress, say

    options = ExportOptions.for_target(
        target, precision, loop, batch, compute_capabilities=compute_capability, ios=ios
    )
    target_named(target).need(options)
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    _check_gate_options(gate, max_drop, data, gate_puzzles, reference, not_judged)
    record = precision_named(precision)
    for flag, value in (("--calibration", calibration), ("--calibration-data", calibration_data)):
        if value is not None and not record.calibrated:
            raise InputError(f"{flag}: has no meaning with --precision {precision}, which is not calibrated")
    recipe = {"estimator": calibration_method, "segments": calibration_segments, "smooth": smooth}
    quantizing = _quantizing(record, recipe, calibration, sensitivity, max_drop)
    opened = _opened(checkpoint, network, weights, key, task, data)
    if puzzle_identifiers is not None:
        opened = keep_identifiers(opened, _identifiers(puzzle_identifiers, opened))
    folder = output or Path("bundles") / f"{opened.name}-{options.suffix}"
    _check_output(folder, gate)
    if calibration_data is not None:
        quantizing = replace(quantizing, data=load_puzzles(calibration_data, opened.task, lines()))
    judged = GateOptions(
        # First, so that a checkpoint without puzzles is refused before any work.
        puzzles=puzzles_for_gate(opened, data, gate_puzzles or record.gate_puzzles) if gate else None,
        more=partial(puzzles_for_gate, opened, data),
        not_judged=not_judged,
        max_drop=max_drop,
        reference=load_checkpoint(reference) if reference else None,
        report=report,
    )
    with progress() as show:
        made = export_bundle(opened, options, folder, judged, quantizing, threads=threads, say=say, progress=show)
    with best_effort():  # it is published, and the exit code says so
        size = round(sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6, 3)
        if as_json:
            _print_json(folder, made, size)
        else:
            say("")
            _print_summary(checkpoint, opened.task, options, folder, size, made)


def _opened(
    checkpoint: str | None,
    network: str | None,
    weights: Path | None,
    key: str | None,
    task: str | None,
    data: Path | None,
) -> Checkpoint:
    """The checkpoint, or another's network as one."""
    from ..models import load_checkpoint

    if network is None:
        for flag, value in (("--weights", weights), ("--key", key), ("--task", task)):
            if value is not None:
                raise InputError(f"{flag}: has no meaning without --network")
        if checkpoint is None:
            raise InputError("give a checkpoint, or a network of others with --network")
        return load_checkpoint(checkpoint)
    if checkpoint is not None:
        raise InputError(f"give either the checkpoint {checkpoint} or --network, not both")
    from ..exporters.network import load_network
    from ..tasks import task_for

    if task is None and data is None:
        raise InputError("--network: say what it solves with --task, or give its puzzles with --data")
    return load_network(network, task_for(task, [data] if data else []), weights, key)


def _need_packages(name: str, gate: bool) -> None:
    """One line instead of an ImportError half-way through."""
    from ..runtimes import backend

    target = all_targets().get(name)
    for package in ("torch", "onnx", "onnxscript", "jinja2"):
        if importlib.util.find_spec(package) is None:
            extras = ("export",) if target is None else ("export", name)
            raise InputError(f"export needs {package}, which is not installed; run: {install(*extras)}")
    if target is None:
        return  # the options know which there are
    target.need()
    runner = target.gate_backend or name
    if gate:
        usable, _, why_not, command = backend(runner).available()
        if not usable:
            raise InputError(f"the gate runs what was built with {runner}, but {why_not}; run: {command}")


def _identifiers(argument: str, checkpoint: Checkpoint) -> np.ndarray:
    """int32[K] from a list, a file that holds one, or the puzzles of a folder."""
    from ..data.public_layout import numbering_of, read_folder
    from ..files import read_text
    from ..identifiers import parse_ranges, require_same

    path = Path(argument)
    if path.is_dir():
        content = read_folder(path, checkpoint.task, on_disk=True)
        require_same(numbering_of(path, content.num_identifiers), checkpoint.numbering, str(path))
        return content.identifiers
    if path.is_file():
        try:
            argument = read_text(path)
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"--puzzle-identifiers {path}: cannot be read as text ({error})") from None
        return parse_ranges(argument, f"--puzzle-identifiers {path}")
    return parse_ranges(argument, "--puzzle-identifiers")


def _quantizing(
    precision: Precision, recipe: dict[str, Any], calibration: int | None, sensitivity: int | None, max_drop: float
) -> Quantizing:
    """The flags as what they stand for; those that were not given have the defaults."""
    from ..exporters.quantize.plan import Recipe
    from ..exporters.search.decide import AUTO, Quantizing

    flags = {"--calibration-method": recipe["estimator"], "--calibration-segments": recipe["segments"]}
    flags |= {"--smooth": recipe["smooth"], "--sensitivity": sensitivity}
    for flag, value in flags.items():
        if value is not None and not precision.quantizes_inputs:
            those = " or ".join(name for name, record in PRECISIONS.items() if record.quantizes_inputs)
            raise InputError(f"{flag}: has no meaning with --precision {precision.name}, only with {those}")
    given = {name: value for name, value in recipe.items() if value is not None}
    auto = given.get("estimator") == AUTO
    if auto and len(given) > 1:
        raise InputError(
            "--calibration-method auto compares segments and smoothing too; drop the flags that fix them"
        )
    wanted = Quantizing(recipe=None if auto else Recipe(**given), max_drop=max_drop)
    if calibration is not None:
        wanted = replace(wanted, calibration=calibration)
    return wanted if sensitivity is None else replace(wanted, sensitivity=sensitivity)


def _check_gate_options(
    gate: bool,
    max_drop: float,
    data: Path | None,
    gate_puzzles: int | None,
    reference: str | None,
    not_judged: bool,
) -> None:
    """What only the gate reads must not be given in vain."""
    if not max_drop >= 0:
        raise InputError(f"--max-drop must be a number of points, at least 0, not {max_drop}")
    if not gate and (data, gate_puzzles, reference, not_judged) != (None, None, None, False):
        raise InputError(
            "--data, --gate-puzzles, --reference and --not-judged are the gate's, which --no-gate leaves out; "
            "drop one or the other"
        )


def _check_output(folder: Path, gate: bool) -> None:
    """Only a whole bundle is ever replaced, and a gated one only by a gated one; asked before any work."""
    from ..bundle import require_replaceable
    from ..files import check_place, check_replaceable, require_utf8

    require_utf8(folder)
    check_replaceable(folder, lambda place: require_replaceable(place, gated=gate))
    check_place(folder)


def _print_json(folder: Path, made: Exported, size: float) -> None:
    accuracy = made.gate.to_dict() if made.gate else None
    content = {"bundle": str(folder), "accuracy": accuracy, "passed": made.gate and made.gate.passed}
    facts = None
    if record := made.quantization:
        # The figures that a script would look at; all of the record is in the bundle.
        products = record.products
        facts = {
            "products": products and {"expected": products.expected, "found": products.found},
            "weights_ratio": record.weights_bytes / record.float_weights_bytes,
            "kept": {layer.name: layer.kept for layer in record.layers if layer.kept},
        }
    echo_json({**content, "size_mb": size, "quantization": facts})


def _print_summary(
    checkpoint: str | None, task: Task, options: ExportOptions, folder: Path, size: float, made: Exported
) -> None:
    rows = (
        "any number of rows" if options.batch is None else f"{options.batch} row{'s'[: options.batch > 1]} a call"
    )
    target = target_named(options.target)
    more = target.summary(options, made.manifest)
    echo(f"{folder}: {size:.2f} MB, {options.target} {options.precision}, {options.loop} loop, {rows}{more}")
    if made.quantization is not None:
        _print_quantization(made.quantization)
    elif made.products is not None:
        echo(f"  {made.products.found} of {made.products.expected} {options.precision} products compiled as such")
    report = made.gate
    if report is None:
        echo("  not gated: nobody has compared its answers with the checkpoint's")
    else:
        echo(f"  gate {report.reason}")
        for side in (report.reference, report.bundle):
            halting = f"{side.steps_mean:.2f} segments on average"
            echo(f"  {side.engine:<24} exact {100 * side.exact:6.2f} %   {halting}")
        echo(f"  with the arithmetic of {report.arithmetic}")
        for note in report.notes:
            echo(f"  note: {note}")
    for note in target.notes(options):
        echo(f"  note: {note}")
    if (folder / "report.html").is_file():
        echo(f"  report: {folder / 'report.html'}   or   hrm-edge report {folder}")
    if step := target.next_step(folder, made.manifest):
        echo(step)
    elif not task.generates:
        echo(f"next: {task.answered_with} {folder} --data FOLDER")
    else:
        compared = f"{checkpoint} {folder}" if checkpoint else f"{folder} --data FILE"
        echo(f"next: hrm-edge solve {folder} PUZZLES   or   hrm-edge eval {compared}")


def _print_quantization(record: Quantization) -> None:
    products = record.products
    assert products is not None  # nothing is published without
    echo(
        f"  {products.found} of {products.expected} {record.precision} products compiled as such; stored weights "
        f"{record.weights_bytes / 1e6:.2f} MB, {record.weights_bytes / record.float_weights_bytes:.3f} × fp32"
    )
    for layer in record.layers:
        if layer.kept:
            echo(f"  {layer.name}: {layer.kept}")
