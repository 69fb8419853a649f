"""Trials: a candidate segment answers puzzles from beginning to end, and its answers are compared with the float's.

One segment's error hides drift, so a choice is only ever judged after re-rolling, on the backend that will run
it (or, where that is a device, as its graph is written). Answers are kept by the content of everything they
depend on: what was tried before costs nothing again.
"""

from __future__ import annotations

import functools
import hashlib
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from ...bundle.quantization import Trial
from ...data.puzzles import PuzzleSet
from ...errors import InputError
from ...measure.accuracy import answer_all, rightness, token_accuracy
from ...measure.cache import cached_answers
from ...measure.reference import identity, reference_answers
from ...models import Checkpoint
from ...progress import Progress
from ...runtimes import Answers, HostLoop, backend
from ...runtimes.engine import joined
from ...runtimes.loops import by_position, signature_of
from ...tasks.parallel import usable_cores
from .. import emulator
from ..graph.edit import copied
from ..graph.passes import fix_batch
from ..graph.trace import programs
from ..options import ExportOptions
from ..quantize.plan import Plan
from ..targets import target_named
from ..targets.base import Context, as_in_graphs
from ..targets.onnx import serialized, write_graph

# A start and a segment: arrays in and out by position.
Calls = tuple[Callable[..., list[np.ndarray]], Callable[..., list[np.ndarray]]]

_FIXED_ROWS = 8  # of a call, for a target of fixed shapes


class Trials:
    """Runs candidates of one checkpoint on one target with one set of puzzles."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        start: onnx.ModelProto,
        target: str,
        puzzles: PuzzleSet,
        threads: int | None = None,
        progress: Progress | None = None,
        more: Callable[[int], PuzzleSet] | None = None,
        before: Trials | None = None,
        reference: Answers | None = None,
    ):
        """``more(n)``: at most n puzzles that begin with ``puzzles``. ``before``: the same on the first of them,
        whose answers are kept. ``reference``: the float's answers, where they are known."""
        self.checkpoint, self.start, self.target, self.puzzles = checkpoint, start, target, puzzles
        self.threads, self.progress, self._more = threads, progress, more
        show = _named(progress, "float answers to compare choices with")
        self._before, known = before, 0 if before is None else len(before.puzzles)
        self._added = puzzles.select(np.arange(known, len(puzzles)))  # to those before
        if reference is None:
            reference = reference_answers(checkpoint, self._added, progress=show)
            reference = reference if before is None else joined([before.reference, reference])
        self.reference: Answers = reference

    def fewer(self, n: int) -> Trials:
        """The same on the first ``n`` puzzles."""
        if n >= len(self.puzzles):
            return self
        some = self.puzzles.select(np.arange(n))
        fields = {name: values[:n] for name, values in vars(self.reference).items() if values is not None}
        return Trials(
            *(self.checkpoint, self.start, self.target, some, self.threads, self.progress),
            reference=Answers(**fields),
        )

    @functools.cached_property
    def longer(self) -> Trials | None:
        """The same on twice as many puzzles, or on as many as there are; None: there are no more."""
        n = len(self.puzzles)
        try:
            puzzles = self.puzzles if self._more is None else self._more(2 * n)
        except InputError:  # a small board has no more
            return None
        if len(puzzles) <= n:
            return None
        return Trials(
            *(self.checkpoint, self.start, self.target, puzzles, self.threads, self.progress, self._more),
            before=self,
        )

    def run(self, what: str, segment: onnx.ModelProto) -> Trial:
        """Answer all puzzles with ``segment`` in a host loop, and count."""
        emulated = target_named(self.target).emulated
        runs_on, name = (emulator.RUNS_ON, emulator.NAME) if emulated else (self.target, self.target)
        key = {
            **identity(self.checkpoint),
            "start": hashlib.sha256(serialized(self.start)).hexdigest(),
            "segment": hashlib.sha256(serialized(segment)).hexdigest(),
            "backend": [name, backend(runs_on).available()[1]],  # and its version, as answers depend on both
            "threads": self.threads or usable_cores(),  # a backend may split its sums among them
        }
        return self._compare(what, self._answers(what, segment, key))

    def _answers(self, what: str, segment: onnx.ModelProto, key: dict[str, Any]) -> Answers:
        added = cached_answers("trials", key, self._added, lambda: self._answer(what, segment))
        return added if self._before is None else joined([self._before._answers(what, segment, key), added])

    def _answer(self, what: str, segment: onnx.ModelProto) -> Answers:
        with tempfile.TemporaryDirectory(prefix="hrm-edge-trial-") as scratch:
            options = ExportOptions.for_target(self.target, loop="host")
            emulated, config = target_named(self.target).emulated, self.checkpoint.config
            calls, rows = load_segments(
                self.checkpoint, self.start, segment, options, Path(scratch), self.threads, emulated=emulated
            )
            engine = HostLoop(
                self.checkpoint.task,
                config.halt_max_steps,
                *calls,
                backend=self.target,
                batch=rows,
                no_ACT_continue=config.no_ACT_continue,
                num_puzzle_identifiers=config.num_puzzle_identifiers,
                kept_identifiers=self.checkpoint.kept_identifiers,
            )
            return answer_all(engine, self._added, progress=_named(self.progress, f"trying {what}"))

    def _compare(self, what: str, answers: Answers) -> Trial:
        right = rightness(self.puzzles, self.reference.tokens)
        still = rightness(self.puzzles, answers.tokens)
        token = token_accuracy(self.puzzles, answers.tokens)
        return Trial(
            what=what,
            n=len(self.puzzles),
            exact=float(still.mean()),
            token=float((answers.tokens == self.reference.tokens).mean() if token is None else token.mean()),
            lost=int((right & ~still).sum()),
            won=int((~right & still).sum()),
            steps_mean=float(answers.steps.mean()),
            halt_agree=float((answers.steps == self.reference.steps).mean()),
            float_exact=float(right.mean()),
            float_steps_mean=float(self.reference.steps.mean()),
        )


def load_segments(
    checkpoint: Checkpoint,
    start: onnx.ModelProto,
    segment: onnx.ModelProto,
    options: ExportOptions,
    folder: Path,
    threads: int | None = None,
    *,
    emulated: bool,
    plan: Plan | None = None,
) -> tuple[Calls, int | None]:
    """(start, segment) as functions of arrays, and the rows that a call must have, None: any number.

    They are written to ``folder`` as a bundle's are and loaded by the target's backend, or ``emulated``.
    """
    target, rows = target_named(options.target), None
    models = {"start": start, "segment": segment}
    if emulated:
        written = as_in_graphs({stem: write_graph(model, folder, stem) for stem, model in models.items()}, models)
        load = emulator.load_graph
    else:
        if target.default_batch is not None:
            rows = _FIXED_ROWS
            models = {stem: copied(model) for stem, model in models.items()}
            for model in models.values():
                fix_batch(model, rows)
        host = replace(options, loop="host", batch=rows)
        graphs = programs(checkpoint.model, rows) if target.wants == "torch" else models
        written = target.write(graphs, Context(checkpoint, host, folder, plan=plan, apart=True))
        load = backend(target.name).load_graph
    calls = []
    for stem in models:
        inputs, outputs = signature_of(stem, tuple(checkpoint.model.state))
        given = {tensor.name for tensor in written.inputs[stem]}
        present = tuple(name for name in inputs if name in given)
        calls.append(by_position(load(folder / written.graphs[stem], threads), present, outputs))
    return (calls[0], calls[1]), rows


def _named(progress: Progress | None, what: str) -> Progress | None:
    return progress and (lambda _, done, total: progress(what, done, total))
