"""What `hrm-edge bench` times: the artifacts that are given, and beside them what is exported or made for it."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from ..bundle import open_bundle
from ..errors import InputError
from ..measure.artifact import Artifact, is_bundle, open_artifact
from ..tasks import Task, get_task
from ..zoo import zoo_models

if TYPE_CHECKING:
    from ..models import HRMConfig


def paths_to_time(
    given: list[str], random_weights: str | None, precisions: list[str], scratch: Path
) -> list[str | Path]:
    """Paths of everything to time, the checkpoint first; what is missing is made in `scratch`.

    A checkpoint alone is exported; bundles alone are timed beside the shipped model that they were made from.
    """
    if (random_weights is None) == (not given):
        raise InputError("give a checkpoint or bundles to bench, or --random-weights paper, but not both")
    if random_weights is not None:
        given = [str(random_checkpoint(random_weights, scratch))]
    checkpoints = [path for path in given if not is_bundle(path)]
    bundles = [path for path in given if is_bundle(path)]
    if bundles:
        return [*(checkpoints or _source(bundles)), *bundles]
    unread = random_weights is not None
    made = [bundle for path in checkpoints for bundle in _exported(path, precisions, scratch, unread)]
    return [*checkpoints, *made]


def random_config(size: str) -> tuple[HRMConfig, Task]:
    """The configuration and the task of a named size. InputError for an unknown one."""
    if size != "paper":
        raise InputError(f"--random-weights {size}: unknown size; choose paper")
    from ..models import HRMConfig

    return HRMConfig.paper(), get_task("sudoku-9x9")


def random_checkpoint(size: str, scratch: Path) -> Path:
    """A freshly initialised model of a known size, saved: its speed does not depend on training."""
    config, task = random_config(size)
    import torch

    from ..models import build_model, save_checkpoint

    torch.manual_seed(0)
    model = build_model(config, task)
    return save_checkpoint(scratch / f"random-{size}", model, task, "Random weights, for timing only.\n")


def _exported(path: str, precisions: list[str], scratch: Path, unread: bool) -> list[Path]:
    """The checkpoint as a bundle for every backend usable here and both loops, ungated: timing only.

    ``unread``: nobody looks at the answers.
    """
    from ..bundle import seal_bundle
    from ..exporters.build import QUICK, UNREAD, build_graphs, quick_plan, trace, write_graphs
    from ..exporters.options import ExportOptions, known_precisions
    from ..exporters.quantize.plan import Calibrator, Plan
    from ..exporters.targets import all_targets
    from ..exporters.targets.base import Context
    from ..models import load_checkpoint
    from ..progress import progress, say
    from ..runtimes import backend

    for precision in precisions:
        if precision not in known_precisions():
            raise InputError(f"--precision {precision}: unknown; choose {' or '.join(known_precisions())}")
    checkpoint = load_checkpoint(path)
    start, segment = trace(checkpoint, say)
    plans: dict[str, Plan | None] = {}
    calibrators: dict[str, Calibrator] = {}
    made = []
    for name, target in all_targets().items():
        usable, _, why_not, install = backend(name).available()
        if usable and (instead := backend(name).interpreted()):
            usable, why_not, install = False, "it is interpreted here, which says nothing of its speed", instead
        if not usable:
            say(f"without {name}: {why_not}" + (f"; to include it: {install}" if install else ""))
            continue
        for precision in (each for each in precisions if each in target.precisions):
            if precision not in plans:
                with progress() as show:
                    plans[precision] = quick_plan(
                        *(checkpoint, start, segment, precision, name, calibrators, say, show),
                        wanted=UNREAD if unread else QUICK,
                    )
            plan = plans[precision]
            for loop in target.loops:
                options = ExportOptions.for_target(name, precision, loop)
                folder = scratch / f"{checkpoint.name}-{options.suffix}"
                folder.mkdir()
                say(f"exporting {folder.name}")
                graphs = build_graphs(checkpoint, start, segment, options, plan).graphs
                context = Context(checkpoint, options, folder, plan=plan)
                seal_bundle(folder, write_graphs(graphs, context, folder.name)[0])
                made.append(folder)
    if not made:
        raise InputError(f"--precision {','.join(precisions)}: no backend that is usable here runs it")
    return made


def _source(bundles: list[str]) -> list[Path]:
    """The shipped model that the first bundle was made of, as the eager side of the ratios, if there is one."""
    if importlib.util.find_spec("torch") is None:
        return []
    from ..models import load_checkpoint

    source = open_bundle(bundles[0]).manifest.source
    shipped = [path for path in zoo_models() if path.name == source["name"]]
    return [path for path in shipped if load_checkpoint(path).content_hash == source["content_hash"]]


def compiled(opened: list[Artifact], threads: int) -> Artifact:
    """The checkpoint among `opened` once more, through `torch.compile`. InputError where there is none."""
    checkpoint = next((artifact for artifact in opened if artifact.checkpoint is not None), None)
    if checkpoint is None:
        raise InputError("--torch-compile needs a checkpoint among the artifacts")
    return open_artifact(checkpoint.path, threads, compiled=True)
