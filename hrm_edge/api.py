"""What Python calls for what the commands do: the same names, the same defaults, the same errors."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import InputError, require_whole
from .files import require_apart
from .measure.artifact import open_artifact
from .packages import install
from .progress import Progress, Say
from .solve.model import Model
from .solve.solutions import Solutions
from .solve.watch import Watch, told_all
from .text import printable

if TYPE_CHECKING:
    from .benchmark.rows import Benchmark
    from .check.run import CheckReport
    from .jobs.run import Done
    from .measure.compare import Comparison

Place = str | os.PathLike[str]


def load(path: Place, threads: int | None = None, streams: int = 1) -> Model:
    """Open a bundle, a checkpoint folder, or a shipped model by its name.

    >>> import hrm_edge as he
    >>> he.load("sudoku-9x9")
    <model sudoku-9x9 (torch fp32, host loop), solves sudoku-9x9>

    ``threads``: CPU threads, all by default; for a checkpoint they are set for the whole process. ``streams``:
    puzzles thought over side by side, which share them: on CPUs many puzzles are answered sooner so. A bundle whose
    answers nobody has checked is warned of. InputError where there is none, it is damaged, or its backend is not
    installed (a checkpoint's is PyTorch).
    """
    require_whole(1, threads=threads, streams=streams)
    if not isinstance(path, str | os.PathLike):
        raise InputError(
            f"load: takes the path of a bundle or a checkpoint, or the name of a shipped model, not {path!r:.60}"
        )
    artifact = open_artifact(os.fspath(path), threads, streams=streams)
    if artifact.warning:
        warnings.warn(printable(artifact.warning), stacklevel=2)
    return Model(artifact.engine, artifact.path, artifact.label)


def solve(
    bundle: Place,
    puzzles: Any = None,
    data: Path | str | None = None,
    halt: str = "learned",
    max_think_steps: int | None = None,
    retries: int = 0,
    seed: int = 0,
    trace: bool = False,
    gif: Path | str | None = None,
    trace_html: Path | str | None = None,
    check_solvable: bool = False,
    threads: int | None = None,
    streams: int | None = None,
    *,
    tokens: bool | None = None,
    puzzle_identifiers: Any = None,
    watch: Watch | None = None,
) -> Solutions:
    """:func:`load` a model and have it :meth:`~hrm_edge.solve.model.Model.solve`; to ask more than once, load once.

    ``streams`` is 1 where it is None (the command measures what is best for a long file). ``gif``: a file that
    shows how one puzzle was thought over, a frame a segment; ``trace_html``: a page to step through.

    >>> import hrm_edge as he
    >>> puzzle = "53..7....6..195....98....6.8...6...34..8.3..17...2...6.6....28....419..5....8..79"
    >>> he.solve("sudoku-9x9", puzzle).verified
    array([ True])
    """
    model, film, recording = load(bundle, threads, streams or 1), None, None
    given = puzzles if isinstance(puzzles, str | Path) else None
    require_apart([None if each is None else Path(each) for each in (gif, trace_html)], [given, data])
    if gif is not None:
        from .report.film import opened_film

        film = opened_film(Path(gif), model.task)
    if trace_html is not None:
        from .web.recording import opened_recording

        recording = opened_recording(Path(trace_html), model.path.name)
    solutions = model.solve(
        puzzles,
        data=data,
        halt=halt,
        max_think_steps=max_think_steps,
        retries=retries,
        seed=seed,
        trace=trace,
        tokens=tokens,
        puzzle_identifiers=puzzle_identifiers,
        watch=told_all([each for each in (film, recording, watch) if each is not None]),
        check_solvable=check_solvable,
    )
    if film is not None and gif is not None:
        film.write(Path(gif))
    if recording is not None and trace_html is not None:
        recording.write(Path(trace_html))
    return solutions


def solve_file(
    bundle: Place,
    puzzles: Place | Sequence[Place],
    output: Place,
    halt: str = "learned",
    max_think_steps: int | None = None,
    retries: int = 0,
    seed: int = 0,
    distributed: str | None = None,
    workers: int | None = None,
    address: str | None = None,
    on_error: str = "fail",
    force: bool = False,
    *,
    check_solvable: bool = False,
    say: Say = lambda line: None,
    progress: Progress = lambda what, done, total: None,
) -> Done:
    """Answer files of any number of puzzles into one: a row each, in their order, whole or not at all.

    Arguments are the flags of ``hrm-edge solve -o``, with the same defaults. A call that was cut off, however that
    was, goes on where it was when it is made again. What is written depends on bundle, puzzles and options alone:
    not on who answered what, nor on what was lost on the way. InputError: a file, a row (with ``on_error`` "fail"),
    or what stands at ``output``; of workers, where none will start.
    """
    from .bundle import open_bundle
    from .jobs.answers import Asking
    from .jobs.run import FileJob
    from .jobs.workers import workers_of
    from .runtimes.loader import warning

    require_whole(1, max_think_steps=max_think_steps, workers=workers)
    require_whole(0, retries=retries, seed=seed)
    opened = open_bundle(os.fspath(bundle))
    if doubt := warning(opened):
        say(f"warning: {doubt}")
    asking = Asking(halt, max_think_steps, retries, seed, check_solvable)
    listed = [puzzles] if isinstance(puzzles, str | os.PathLike) else list(puzzles)
    with workers_of(opened, asking, distributed, workers, address) as made:
        return FileJob(
            bundle=opened,
            files=[Path(path) for path in listed],
            output=Path(output),
            workers=made,
            asking=asking,
            on_error=on_error,
            replace=force,
            say=say,
            progress=progress,
        ).run()


def evaluate(
    artifacts: Place | Sequence[Place],
    data: Path | str | None = None,
    by: str = "source",
    n: int | None = None,
    max_think_steps: int | None = None,
    halt: str = "learned",
    retries: int = 0,
    threads: int | None = None,
    streams: int | None = None,
    seed: int = 0,
    *,
    say: Say = lambda line: None,
    progress: Progress | None = None,
) -> Comparison:
    """Exact-solve and token accuracy of a checkpoint or bundle, or of several, and whether their answers agree.

    Arguments are the flags of ``hrm-edge eval``, with the same defaults; ``artifacts`` may be models that
    :func:`load` opened. ``to_dict()`` of what comes back is what ``--json`` prints. ``say`` and ``progress`` are
    told what is done, and how far it is. InputError where puzzles and artifacts do not fit.
    """
    from .measure.compare import open_comparison

    require_whole(1, n=n, threads=threads, streams=streams)
    require_whole(0, retries=retries, seed=seed)
    several = [artifacts] if isinstance(artifacts, str | os.PathLike) else list(artifacts)
    if not several:
        raise InputError("give at least one checkpoint or bundle")
    found = open_comparison(several, data, n, seed, threads, streams or 1, say=say, progress=progress)
    for artifact in found.artifacts:
        if artifact.warning:
            say(f"warning: {artifact.warning}")
        found.measure(
            artifact,
            max_think_steps=max_think_steps,
            halt=halt,
            retries=retries,
            seed=seed,
            by=by,
            progress=progress,
        )
    return found


def benchmark(
    checkpoint: Path | str | None = None,
    random_weights: str | None = None,
    target: str | Sequence[str] | None = None,
    precision: str | Sequence[str] | None = None,
    output: Path | str | None = None,
    data: Path | str | None = None,
    gate_puzzles: int | None = None,
    max_drop: float = 0.5,
    calibration_data: Path | str | None = None,
    rounds: int = 5,
    threads: int | None = None,
    *,
    say: Say = lambda line: None,
    progress: Progress | None = None,
) -> Benchmark:
    """Export a checkpoint to every target and precision, gate each, and time what runs here.

    Arguments are the flags of ``hrm-edge benchmark``, with the same defaults; names may be given as a list. The
    folder at ``output`` holds the bundles, and the table as JSON, Markdown and a plot; what is there and unchanged
    is not made again. InputError where nothing can be exported.
    """
    from .benchmark.run import Wanted, run_benchmark
    from .exporters.options import need_packages
    from .report.svg import require_matplotlib
    from .workspace import written

    require_whole(1, gate_puzzles=gate_puzzles, rounds=rounds, threads=threads)
    if not max_drop >= 0:
        raise InputError(f"--max-drop must be a number of points, at least 0, not {max_drop}")
    need_packages("", gate=False)
    require_matplotlib()
    wanted = Wanted(
        targets=_listed(target),
        precisions=_listed(precision),
        random_weights=random_weights,
        data=_path(data),
        gate_puzzles=gate_puzzles,
        max_drop=max_drop,
        calibration_data=_path(calibration_data),
        rounds=rounds,
        threads=threads,
    )
    result, folder = run_benchmark(checkpoint, wanted, _path(output), say, progress)
    written().append(folder)
    return result


def check(
    spec: Path | str,
    update_baseline: bool = False,
    markdown: Path | str | None = None,
    junit: Path | str | None = None,
    *,
    say: Say = lambda line: None,
    progress: Progress | None = None,
) -> CheckReport:
    """Judge bundles by the rules of a spec: accuracy, drop, agreement, size, speed.

    Arguments are those of ``hrm-edge check``; ``markdown`` and ``junit`` name files to write. Raises GateFailed
    where a rule fails, with every verdict in its ``report``, and InputError where the spec, or what it names, is
    wrong.
    """
    from .check.output import check_places, write_reports
    from .check.run import run_check

    places = check_places(markdown, junit)
    report = run_check(spec, update_baseline=update_baseline, writes=places, say=say, progress=progress)
    write_reports(report, *places)
    report.raise_if_failed()
    return report


def train(
    output: Path | str,
    task: str | None = None,
    network: str | None = None,
    weights: Path | str | None = None,
    key: str | None = None,
    preset: str = "small",
    data: Sequence[str] | None = None,
    test: Path | str | None = None,
    minutes: float = 0.0,
    steps: int = 0,
    config: Path | str | None = None,
    set_: Sequence[str] | None = None,
    start_from: Path | str | None = None,
    qat: bool = False,
    qat_scales: str | None = None,
    device: str = "auto",
    seed: int | None = None,
    threads: int | None = None,
) -> Path:
    """Train an HRM or a network of others, or resume the run at ``output``. Returns the folder of its checkpoint.

    Arguments are the flags of ``hrm-edge train``, with the same defaults: ``set_`` is ``--set``, as in
    ``["train.lr=3e-4"]``, and ``start_from`` is ``--from``. InputError where they do not fit.
    """
    try:
        import torch
    except ModuleNotFoundError:
        raise InputError(f"this needs PyTorch; run: {install('train')}") from None

    from . import trainer
    from .tasks import task_for
    from .trainer.first import starting_point

    require_whole(1, threads=threads)
    require_whole(0, seed=seed, steps=steps)
    if qat_scales is not None and not qat:
        raise InputError("--qat-scales: has no meaning without --qat")
    if qat_scales not in (None, "learned", "frozen"):
        raise InputError(f"--qat-scales {qat_scales}: choose from learned, frozen")
    if threads:
        torch.set_num_threads(threads)
    limits = [] if seed is None else [f"train.seed={seed}"]
    if qat:
        limits.append(f"train.qat={qat_scales or 'learned'}")
    if minutes:
        limits.append(f"train.minutes={float(minutes)}")
    if steps:
        limits.append(f"train.steps={steps}")
    sources = [data] if isinstance(data, str) else list(data or [])
    learned = task_for(task, (source.partition("@")[0] for source in sources))
    initial, start = starting_point(learned, _path(start_from), network, _path(weights), key)
    settings = [*(set_ or []), *limits]
    arch, recipe = trainer.load_recipe(learned, preset, _path(config), settings, start)
    usual = str(task) if learned.definition else "generated:20000"
    return trainer.train(learned, arch, recipe, sources or [usual], Path(output), device, _path(test), initial)


def _listed(names: str | Sequence[str] | None) -> list[str] | None:
    return names.split(",") if isinstance(names, str) else None if names is None else list(names)


def _path(place: Path | str | None) -> Path | None:
    return Path(place) if place else None
