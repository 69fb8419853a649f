"""`hrm-edge export` from Python: what its flags stand for, and what must not be given in vain."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import InputError, require_whole
from .exporters.targets import target_named
from .precision import PRECISIONS, Precision, precision_named
from .progress import Progress, Say, lines

if TYPE_CHECKING:
    import numpy as np
    import torch

    from .export import Exported
    from .exporters.search.decide import Quantizing
    from .models import Checkpoint
    from .tasks import Task

DEFAULT_TARGET = "onnx"  # the command's, too


def export(
    checkpoint: Path | str | None = None,
    target: str = DEFAULT_TARGET,
    precision: str = "fp32",
    goal: str | None = None,
    loop: str | None = None,
    batch: int | str | None = None,
    compute_capability: str | None = None,
    ios: int | None = None,
    layout: str | None = None,
    network: str | torch.nn.Module | None = None,
    weights: Path | str | None = None,
    key: str | None = None,
    task: str | Task | None = None,
    output: Path | str | None = None,
    puzzle_identifiers: str | None = None,
    max_drop: float = 0.5,
    data: Path | str | None = None,
    gate_puzzles: int | None = None,
    gate: bool = True,
    not_judged: bool = False,
    reference: Path | str | None = None,
    report: bool = True,
    calibration: int | None = None,
    calibration_data: Path | str | None = None,
    calibration_method: str | None = None,
    calibration_segments: str | None = None,
    smooth: float | None = None,
    sensitivity: int | None = None,
    threads: int | None = None,
    *,
    say: Say = lambda line: None,
    progress: Progress | None = None,
) -> Exported:
    """Compile a checkpoint into a bundle, and prove that it still answers the same puzzles right.

    Arguments are the flags of ``hrm-edge export``, whose help explains them, with the same defaults. Besides:

    Args:
        checkpoint: a checkpoint folder, or the name of a shipped model.
        network: also a ``torch.nn.Module`` itself that keeps the contract of ``hrm_edge.models.network.Network``;
            ``weights`` and ``key`` are then not for it, as it has its own.
        say, progress: told what is being done, and how far it is; by default nobody is.

    Returns:
        What was published; its ``folder`` is the bundle, and :func:`hrm_edge.load` takes it as it is.

    Raises:
        InputError: what was asked for does not fit together, or a package for it is not installed.
        GateFailed: the bundle answers worse than allowed, or is not quantized as was asked. Nothing is published,
            and a bundle that stood at the output before is kept.
    """
    from .exporters.options import ExportOptions, need_packages

    if goal is not None:
        given = {"--target": target != DEFAULT_TARGET, "--precision": precision != "fp32", "--no-gate": not gate}
        others: dict[str, Any] = {
            "--loop": loop,
            "--batch": batch,
            "--compute-capability": compute_capability,
            "--ios": ios,
            "--layout": layout,
        }
        others |= {"--network": network, "--puzzle-identifiers": puzzle_identifiers, "--reference": reference}
        others |= {"--weights": weights, "--key": key, "--task": task, "--calibration": calibration}
        others |= {"--calibration-method": calibration_method, "--calibration-segments": calibration_segments}
        others |= {"--smooth": smooth, "--sensitivity": sensitivity}
        refuse_beside_goal(given | {flag: value is not None for flag, value in others.items()})
        asked: dict[str, Any] = {
            "data": data,
            "gate_puzzles": gate_puzzles,
            "threads": threads,
            "say": say,
            "progress": progress,
        }
        chosen = _by_goal(goal, checkpoint, max_drop, calibration_data, **asked)
        more: dict[str, Any] = {"output": output, "not_judged": not_judged, "report": report}
        return export(checkpoint, **chosen, **more, **asked)
    need_packages(target, gate)
    require_whole(1, gate_puzzles=gate_puzzles, calibration=calibration, threads=threads)
    require_whole(0, sensitivity=sensitivity)
    from .data.choose import gate_puzzles as puzzles_for_gate
    from .data.public_layout import split_within
    from .data.puzzles import load_puzzles
    from .export import GateOptions, export_bundle
    from .models import keep_identifiers, load_checkpoint

    options = ExportOptions.for_target(
        target, precision, loop, batch, layout, compute_capabilities=compute_capability, ios=ios
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
    folder = Path(output) if output is not None else Path("bundles") / f"{opened.name}-{options.suffix}"
    _check_output(folder, gate)
    if calibration_data is not None:
        learned = split_within(calibration_data, "train")
        quantizing = replace(quantizing, data=load_puzzles(learned, opened.task, lines()))
    judged = GateOptions(
        # First, so that a checkpoint without puzzles is refused before any work.
        puzzles=puzzles_for_gate(opened, data, gate_puzzles or record.gate_puzzles) if gate else None,
        more=partial(puzzles_for_gate, opened, data),
        not_judged=not_judged,
        max_drop=max_drop,
        reference=load_checkpoint(reference) if reference else None,
        report=report,
    )
    return export_bundle(opened, options, folder, judged, quantizing, threads=threads, say=say, progress=progress)


def refuse_beside_goal(given: dict[str, bool]) -> None:
    """InputError for the first flag that is given and would be ignored."""
    for flag, is_given in given.items():
        if is_given:
            raise InputError(f"{flag}: has no meaning with --goal, which chooses among gated exports; drop one")


def _by_goal(
    goal: str,
    checkpoint: Path | str | None,
    max_drop: float,
    calibration_data: Path | str | None,
    *,
    data: Path | str | None,
    gate_puzzles: int | None,
    threads: int | None,
    say: Say,
    progress: Progress | None,
) -> dict[str, Any]:
    """What to export, as arguments of :func:`export`: the row of a benchmark that fits the goal best."""
    from .benchmark.candidates import candidates
    from .benchmark.goal import read_goal
    from .benchmark.run import Wanted, run_benchmark

    wanted = read_goal(goal)
    drop = max_drop if wanted.drop is None else wanted.drop
    measuring = Wanted(
        data=Path(data) if data else None,
        gate_puzzles=gate_puzzles,
        calibration_data=Path(calibration_data) if calibration_data else None,
        max_drop=drop,
        threads=threads,
        only_timed=wanted.needs_time,
    )
    row = wanted.choose(run_benchmark(checkpoint, measuring, None, say, progress)[0])
    say(f"--goal {wanted}: {row.name} with {wanted.said(row)}")
    (candidate,) = candidates([row.target], [row.precision], gate=True)
    calibrated = precision_named(row.precision).calibrated
    return {
        "target": row.target,
        "precision": row.precision,
        "max_drop": drop,
        "calibration_data": calibration_data if calibrated else None,
        **candidate.own,
    }


def _opened(
    checkpoint: Path | str | None,
    network: str | torch.nn.Module | None,
    weights: Path | str | None,
    key: str | None,
    task: str | Task | None,
    data: Path | str | None,
) -> Checkpoint:
    """The checkpoint, or another's network as one."""
    from .models import load_checkpoint

    if network is None:
        for flag, value in (("--weights", weights), ("--key", key), ("--task", task)):
            if value is not None:
                raise InputError(f"{flag}: has no meaning without --network")
        if checkpoint is None:
            raise InputError("give a checkpoint, or a network of others with --network")
        return load_checkpoint(checkpoint)
    if checkpoint is not None:
        raise InputError(f"give either the checkpoint {checkpoint} or --network, not both")
    from .exporters.network import load_network, network_checkpoint
    from .tasks import Task, task_for

    if task is None and data is None:
        raise InputError("--network: say what it solves with --task, or give its puzzles with --data")
    solves = task if isinstance(task, Task) else task_for(task, [data] if data else [])
    if isinstance(network, str):
        return load_network(network, solves, None if weights is None else Path(weights), key)
    if weights is not None or key is not None:
        raise InputError("--weights, --key: a network that is given as it is has its weights; load them into it")
    return network_checkpoint(network, solves)


def _identifiers(argument: str, checkpoint: Checkpoint) -> np.ndarray:
    """int32[K] from a list, a file that holds one, or the puzzles of a folder."""
    from .data.public_layout import numbering_of, read_folder
    from .files import read_text
    from .identifiers import parse_ranges, require_same

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
    from .exporters.quantize.plan import Recipe
    from .exporters.search.decide import AUTO, Quantizing

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
    data: Path | str | None,
    gate_puzzles: int | None,
    reference: Path | str | None,
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
    from .bundle import require_replaceable
    from .files import check_place, check_replaceable, require_utf8

    require_utf8(folder)
    check_replaceable(folder, lambda place: require_replaceable(place, gated=gate))
    check_place(folder)
