"""`hrm-edge export`: a checkpoint becomes a bundle, published only when it still answers as the checkpoint does."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..exporters.targets import all_targets, target_named
from ..precision import FAMILIES, PRECISIONS
from ..text import best_effort, echo, echo_json

if TYPE_CHECKING:
    from ..bundle.quantization import Quantization
    from ..export import Exported

_TARGETS = all_targets()


_CALIBRATED = ", ".join(record.name for record in PRECISIONS.values() if record.calibrated)


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
    context: typer.Context,
    checkpoint: Annotated[
        str | None, typer.Argument(help="Checkpoint folder, or the name of a shipped model.")
    ] = None,
    target: Annotated[str, typer.Option(help=" or ".join(", ".join(_TARGETS).rsplit(", ", 1)) + ".")] = "onnx",
    precision: Annotated[str, typer.Option(help=_precisions())] = "fp32",
    goal: Annotated[
        str | None,
        typer.Option(
            help="Choose target and precision by `benchmark`: limits in the order of importance, of size, ms (a "
            "puzzle), drop (points) and memory, as in size=500KB,ms=10,drop=0.5."
        ),
    ] = None,
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
    layout: Annotated[
        str | None,
        typer.Option(
            help="triton: the bundle's folder is a model repository of NVIDIA's Triton Inference Server "
            f"({', '.join(name for name, each in _TARGETS.items() if each.served_by)})."
        ),
    ] = None,
    network: Annotated[
        str | None,
        typer.Option(
            help="Instead of a checkpoint, a network of others: package.module:factory, where factory(), or "
            "factory(task), gives a torch.nn.Module with start and segment (exporters/README.md)."
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
        int | None, typer.Option(min=1, help=f"{_CALIBRATED}: puzzles to calibrate on; 128.")
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
        typer.Option(
            min=0,
            help="int8: puzzles on which each layer is tried alone, 128, or fewer of a large model; 0: only when "
            "needed.",
        ),
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; all by default.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")] = False,
) -> None:
    """Compile a checkpoint into a bundle, and prove its answers.

    Nothing is published, and the exit code is 1, when exact-solve accuracy drops by more than --max-drop
    points, when halting moves by more than 5 %, or when the backend does not run in the precision that was
    asked for. A bundle that stood at the output before is then kept.
    """
    from ..exporting import export, refuse_beside_goal
    from ..progress import progress, say

    if goal is not None:  # of these the default may be given too, which a function's arguments cannot tell
        sources = {f"--{name}": context.get_parameter_source(name) for name in ("target", "precision")}
        refuse_beside_goal(
            {flag: source is not None and source.name != "DEFAULT" for flag, source in sources.items()}
        )

    with progress() as show:
        made = export(
            checkpoint=checkpoint,
            target=target,
            precision=precision,
            goal=goal,
            loop=loop,
            batch=batch,
            compute_capability=compute_capability,
            ios=ios,
            layout=layout,
            network=network,
            weights=weights,
            key=key,
            task=task,
            output=output,
            puzzle_identifiers=puzzle_identifiers,
            max_drop=max_drop,
            data=data,
            gate_puzzles=gate_puzzles,
            gate=gate,
            not_judged=not_judged,
            reference=reference,
            report=report,
            calibration=calibration,
            calibration_data=calibration_data,
            calibration_method=calibration_method,
            calibration_segments=calibration_segments,
            smooth=smooth,
            sensitivity=sensitivity,
            threads=threads,
            say=say,
            progress=show,
        )
    with best_effort():  # it is published, and the exit code says so
        if as_json:
            echo_json(made.to_dict())
        else:
            say("")
            _print_summary(checkpoint, made)


def _print_summary(checkpoint: str | None, made: Exported) -> None:
    folder, options = made.folder, made.options
    rows = (
        "any number of rows" if options.batch is None else f"{options.batch} row{'s'[: options.batch > 1]} a call"
    )
    target = target_named(options.target)
    more = target.summary(options, made.manifest)
    echo(
        f"{folder}: {made.size_mb:.2f} MB, {options.target} {options.precision}, {options.loop} loop, {rows}{more}"
    )
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
    elif not made.task.generates:
        echo(f"next: {made.task.answered_with} {folder} --data FOLDER")
    else:
        compared = f"{checkpoint} {folder}" if checkpoint else f"{folder} --data FILE"
        echo(f"next: hrm-edge solve {folder} PUZZLES   or   hrm-edge eval {compared}")


def _print_quantization(record: Quantization) -> None:
    products = record.products
    assert products is not None  # nothing is published without
    echo(
        f"  {products.found} of {products.expected} {record.precision} products compiled as such; the graphs' "
        f"tensors take {record.weights_bytes / 1e6:.2f} MB, "
        f"{record.weights_bytes / record.float_weights_bytes:.3f} × fp32"
    )
    if record.weights_bytes * 32 > 2 * PRECISIONS[record.precision].bits * record.float_weights_bytes:
        echo(
            f"  most of its weights stay in float32, as those of recurrent cells, convolutions and embeddings do: "
            f"{record.precision} makes it hardly smaller, and hardly faster"
        )
    for layer in record.layers:
        if layer.kept:
            echo(f"  {layer.name}: {layer.kept}")
