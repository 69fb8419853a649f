"""Drift of built graphs: the segment as its target computes it beside the checkpoint, segment by segment."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx

from ..data.puzzles import PuzzleSet
from ..identifiers import rows_of
from ..measure.drift import Rollout, SegmentNetwork, rightness_of, roll_out
from ..measure.reference import reference_segments
from ..models import Checkpoint
from ..progress import Progress
from ..runtimes import Answers
from .options import ExportOptions
from .quantize.plan import Plan
from .search.trials import load_segments
from .targets import target_named

# Puzzles on which states are compared segment by segment; of those whose answers differ, all are followed to
# where it began as long as they are few, else some.
_PUZZLES, _FEW_DIFFERING, _SOME_DIFFERING = 64, 128, 32


def drift_of(
    checkpoint: Checkpoint,
    start: onnx.ModelProto,
    segment: onnx.ModelProto,
    options: ExportOptions,
    plan: Plan | None,
    puzzles: PuzzleSet,
    answers: tuple[Answers, Answers],
    reference: Checkpoint | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Rollout:
    """Follow ``start`` and the low-precision ``segment`` on some of ``puzzles``, whose rows the result names.

    ``answers``: of the reference and of the bundle. ``reference``: another checkpoint to compare with.
    """
    target, kept = target_named(options.target), checkpoint.kept_identifiers
    # The first few, and those that are answered differently.
    differ = np.flatnonzero((answers[0].tokens != answers[1].tokens).any(axis=1))
    if len(differ) > _FEW_DIFFERING:
        differ = differ[:_SOME_DIFFERING]
    shown = np.union1d(np.arange(min(_PUZZLES, len(puzzles))), differ)
    some = puzzles.select(shown)
    segments = checkpoint.config.halt_max_steps
    if checkpoint.config.keeps_answers:  # nothing changes once both have answered
        segments = max(int(side.steps[shown].max()) for side in answers)
    identifiers = some.identifiers
    if checkpoint.config.num_puzzle_identifiers == 1:
        identifiers = None
    elif identifiers is None:
        identifiers = np.zeros(len(some), np.int32)
    with tempfile.TemporaryDirectory(prefix="hrm-edge-drift-") as folder:
        # Where the target lowers the types, the graphs alone do not have them.
        emulated = target.emulated and not target.lowers_floats
        (begin, think), rows = load_segments(
            checkpoint, start, segment, options, Path(folder), threads, emulated=emulated, plan=plan
        )

        def begin_by_identifier(tokens: np.ndarray, *own: np.ndarray) -> list[np.ndarray]:
            return begin(tokens, *(rows_of(each, kept) for each in own))

        rollout = roll_out(
            reference_segments(reference or checkpoint),
            SegmentNetwork(
                begin_by_identifier,
                think,
                checkpoint.config.no_ACT_continue,
                rows,
                tuple(checkpoint.model.state),
            ),
            some.questions,
            segments,
            identifiers=identifiers,
            # Those that are there because they differ would make every figure look worse than it is.
            counted=min(_PUZZLES, len(puzzles)),
            right=rightness_of(some),
            progress=progress,
        )
    differences = [replace(each, puzzle=int(shown[each.puzzle])) for each in rollout.differences]
    return replace(rollout, differences=differences)
