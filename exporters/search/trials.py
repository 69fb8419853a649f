"""Trials: a candidate segment answers puzzles from beginning to end, and its answers are compared with the float's.

One segment's error hides drift, so a choice is only ever judged after re-rolling, on the backend that will run
it (or, where that is a device, as its graph is written). Answers are kept by the content of everything they
depend on: what was tried before costs nothing again.
"""

from __future__ import annotations

import hashlib
import importlib
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx

from ...bundle.quantization import Trial
from ...data.puzzles import PuzzleSet
from ...measure.accuracy import answer_all, rightness, token_accuracy
from ...measure.cache import cached_answers
from ...measure.reference import reference_answers
from ...models import Checkpoint
from ...progress import Progress
from ...runtimes import Answers, HostLoop, backend
from ...runtimes.loops import SIGNATURES, by_position
from ..options import Context
from ..targets import onnx as onnx_target
from ..targets import stand_in
from ..targets.onnx import serialized

# A start and a segment: arrays in and out by position.
Calls = tuple[Callable[..., list[np.ndarray]], Callable[..., list[np.ndarray]]]


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
    ):
        self.checkpoint, self.start, self.target, self.puzzles = checkpoint, start, target, puzzles
        self.threads, self.progress = threads, progress
        show = None if progress is None else _named(progress, "float answers to compare choices with")
        self.reference = reference_answers(checkpoint, puzzles, progress=show)

    def fewer(self, n: int) -> Trials:
        """The same on the first ``n`` puzzles."""
        if n >= len(self.puzzles):
            return self
        some = self.puzzles.select(np.arange(n))
        return Trials(self.checkpoint, self.start, self.target, some, self.threads, self.progress)

    def run(self, what: str, segment: onnx.ModelProto) -> Trial:
        """Answer all puzzles with ``segment`` in a host loop, and count."""
        key = {
            "start": hashlib.sha256(serialized(self.start)).hexdigest(),
            "segment": hashlib.sha256(serialized(segment)).hexdigest(),
            "puzzles": self.puzzles.content_hash(),
            "backend": _runs_on(self.target),
        }
        return self._compare(what, cached_answers("trials", key, lambda: self._answer(what, segment)))

    def _answer(self, what: str, segment: onnx.ModelProto) -> Answers:
        with tempfile.TemporaryDirectory(prefix="hrm-edge-trial-") as scratch:
            calls = load_segments(self.start, segment, self.target, Path(scratch), self.threads)
            config = self.checkpoint.config
            engine = HostLoop(
                self.checkpoint.task,
                config.halt_max_steps,
                *calls,
                backend=self.target,
                no_ACT_continue=config.no_ACT_continue,
                num_puzzle_identifiers=config.num_puzzle_identifiers,
                kept_identifiers=self.checkpoint.kept_identifiers,
            )
            show = None if self.progress is None else _named(self.progress, f"trying {what}")
            return answer_all(engine, self.puzzles, progress=show)

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
    start: onnx.ModelProto, segment: onnx.ModelProto, target: str, folder: Path, threads: int | None = None
) -> Calls:
    """(start, segment) as functions of arrays, written to ``folder`` and loaded by the target's backend.

    Where that needs a device, or takes long, the same graphs run as they are written (see stand_in).
    """
    if target in stand_in.TARGETS:
        write, load = onnx_target.write_graph, stand_in.load_graph
    else:
        write = importlib.import_module(f"..targets.{target}", __package__).write_graph
        load = backend(target).load_graph
    calls = []
    for stem, model in {"start": start, "segment": segment}.items():
        graph = load(folder / write(model, folder, stem), threads)
        present = {value.name for value in model.graph.input}
        inputs = tuple(name for name in SIGNATURES[stem][0] if name in present)
        calls.append(by_position(graph, inputs, SIGNATURES[stem][1]))
    return calls[0], calls[1]


def load_packages(
    graphs: dict[str, onnx.ModelProto], folder: Path, context: Context, threads: int | None = None
) -> Calls:
    """The same for graphs that the target itself lowers: written as the bundle's are, and loaded from there."""
    target = context.options.target
    written = importlib.import_module(f"..targets.{target}.target", __package__).write_graphs(
        graphs, folder, context
    )
    calls = []
    for stem in ("start", "segment"):
        graph = backend(target).load_graph(folder / written.graphs[stem], threads)
        given = {tensor.name for tensor in written.inputs[stem]}
        inputs = tuple(name for name in SIGNATURES[stem][0] if name in given)
        calls.append(by_position(graph, inputs, SIGNATURES[stem][1]))
    return calls[0], calls[1]


def _runs_on(target: str) -> list[str | None]:
    """Backend and version, as answers depend on both."""
    if target in stand_in.TARGETS:
        return [stand_in.NAME, stand_in.version()]
    return [target, backend(target).available()[1]]


def _named(progress: Progress, what: str) -> Progress:
    return lambda _, done, total: progress(what, done, total)
