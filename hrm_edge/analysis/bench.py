"""What `hrm-edge bench` times: the artifacts that are given, and beside them what is exported or made for it."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from ..bundle import Bundle, open_bundle
from ..errors import InputError
from ..measure.artifact import Artifact, is_bundle, open_artifact
from ..measure.work import Work
from ..precision import FP32
from ..progress import Say
from ..tasks import Task, get_task
from ..zoo import zoo_models
from .bench_run import Timing

if TYPE_CHECKING:
    from ..models import Checkpoint, HRMConfig


def what_to_time(
    given: list[str],
    random_weights: str | None,
    precisions: list[str],
    scratch: Path,
    say: Say,
    naive: bool = True,
    compiled: bool = False,
) -> list[Timing]:
    """Everything to time, the checkpoint first; what is missing is made in `scratch`.

    A checkpoint alone is exported; bundles alone are timed beside the shipped model that they were made from.
    ``naive``: beside what is made, what PyTorch's own exporter makes. ``compiled``: the checkpoint once more,
    through `torch.compile`.
    """
    if (random_weights is None) == (not given):
        raise InputError("give a checkpoint or bundles to bench, or --random-weights paper, but not both")
    if random_weights is not None:
        given = [str(random_checkpoint(random_weights, scratch))]
    checkpoints = [path for path in given if not is_bundle(path)]
    bundles = [path for path in given if is_bundle(path)]
    if bundles:
        sources = [Path(path) for path in checkpoints] or _source(bundles)
        timings = [Timing(path) for path in sources]
        timings += [Timing(Path(path), _work_of_bundle(open_bundle(path))) for path in bundles]
    else:
        timings = []
        for path in checkpoints:
            timings += _exported(path, precisions, scratch, random_weights is not None, naive, say)
    if compiled:
        timings.insert(1, _compiled([*checkpoints, *(str(t.path) for t in timings if not is_bundle(t.path))]))
    return timings


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


def _exported(path: str, precisions: list[str], scratch: Path, unread: bool, naive: bool, say: Say) -> list[Timing]:
    """The checkpoint, and it as a bundle for every backend usable here and both loops, ungated: timing only.

    ``unread``: nobody looks at the answers.
    """
    from ..bundle import seal_bundle
    from ..exporters.build import QUICK, UNREAD, build_graphs, quick_plan, trace, write_graphs
    from ..exporters.graph.work import work_of
    from ..exporters.options import ExportOptions, known_precisions
    from ..exporters.quantize.plan import Calibrator, Plan
    from ..exporters.targets import all_targets
    from ..exporters.targets.base import Context
    from ..models import load_checkpoint
    from ..progress import progress

    for precision in precisions:
        if precision not in known_precisions():
            raise InputError(f"--precision {precision}: unknown; choose {' or '.join(known_precisions())}")
    checkpoint = load_checkpoint(path)
    start, segment = trace(checkpoint, say)
    plans: dict[str, Plan | None] = {}
    calibrators: dict[str, Calibrator] = {}
    made = []
    for name, target in all_targets().items():
        if why_not := _not_timed(name):
            say(f"without {name}: {why_not}")
            continue
        for precision in (each for each in precisions if each in target.precisions):
            try:
                target.need(ExportOptions.for_target(name, precision))
            except InputError as error:
                say(f"without {name} {precision}: {error}")
                continue
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
                built = build_graphs(checkpoint, start, segment, options, plan)
                context = Context(checkpoint, options, folder, plan=plan)
                seal_bundle(folder, write_graphs(built.graphs, context, folder.name)[0])
                made.append(Timing(folder, work_of(built.segment)))
    if not made:
        raise InputError(f"--precision {','.join(precisions)}: no backend that is usable here runs it")
    work = work_of(segment)
    eager = Timing(checkpoint.path, work)
    return [eager, *(_naive(checkpoint, scratch, work, say) if naive else []), *made]


def _not_timed(target: str) -> str | None:
    """Why what is built for a target cannot be timed here, None: it can."""
    from ..runtimes import backend

    usable, _, why_not, install = backend(target).available()
    if usable and (instead := backend(target).interpreted()):
        usable, why_not, install = False, "it is interpreted here, which says nothing of its speed", instead
    return None if usable else f"{why_not}" + (f"; to include it: {install}" if install else "")


def _naive(checkpoint: Checkpoint, scratch: Path, work: Work, say: Say) -> list[Timing]:
    """What PyTorch's own exporter makes of it in onnxruntime; nothing where one of them is absent or refuses it."""
    if _not_timed("onnx"):
        return []
    from .naive import naive_artifact, naive_export

    say("exporting it as PyTorch does by itself")
    folder = scratch / "naive"
    folder.mkdir()
    try:
        files = naive_export(checkpoint, folder)
    except Exception as error:  # whatever another's exporter does not know of a network
        say(f"without a naive export: {(str(error).splitlines() or [type(error).__name__])[0]}")
        return []
    return [Timing(folder, work, lambda threads: naive_artifact(checkpoint, files, threads))]


def _work_of_bundle(bundle: Bundle) -> Work | None:
    """What a segment of a bundle does: counted where its graph is ONNX and not inside a loop."""
    file = bundle.path / bundle.manifest.graphs.get("segment", "")
    if file.suffix == ".onnx" and importlib.util.find_spec("onnx"):
        import onnx

        from ..exporters.graph.work import work_of

        return work_of(onnx.load(file))
    flops = bundle.manifest.segment_flops
    if flops is None or bundle.manifest.precision != FP32.name:
        return None
    return Work({FP32.name: flops}, 0, 0)


def _source(bundles: list[str]) -> list[Path]:
    """The shipped model that the first bundle was made of, as the eager side of the ratios, if there is one."""
    if importlib.util.find_spec("torch") is None:
        return []
    from ..models import load_checkpoint

    source = open_bundle(bundles[0]).manifest.source
    shipped = [path for path in zoo_models() if path.name == source["name"]]
    return [path for path in shipped if load_checkpoint(path).content_hash == source["content_hash"]]


def _compiled(checkpoints: list[str]) -> Timing:
    """The first checkpoint through `torch.compile`. InputError where there is none."""
    if not checkpoints:
        raise InputError("--torch-compile needs a checkpoint among the artifacts")
    path = checkpoints[0]

    def opened(threads: int) -> Artifact:
        return open_artifact(path, threads, compiled=True)

    return Timing(Path(path), None, opened)
