"""Checkpoints and bundles on one set of puzzles: each one's scores, and how the others' answers differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from ..data.choose import evaluated_puzzles
from ..data.leaks import distinct_puzzles
from ..data.puzzles import PuzzleSet
from ..progress import Progress, Say
from ..text import printable
from .accuracy import Evaluation, check_match, evaluate
from .artifact import Artifact, open_artifact


@dataclass(frozen=True, eq=False)
class Evaluated:
    """One artifact's scores. ``agreement``: how its answers differ from the first artifact's; None for that one."""

    artifact: Artifact
    evaluation: Evaluation
    agreement: dict[str, Any] | None

    @property
    def exact(self) -> float:
        """The part of the puzzles that is solved, 0 to 1."""
        return self.evaluation.total.exact


class Comparison(Sequence[Evaluated]):
    """Artifacts that are measured on the same puzzles, in the order given: what is measured so far."""

    def __init__(self, artifacts: Sequence[Artifact], puzzles: PuzzleSet) -> None:
        self.artifacts, self.puzzles = artifacts, puzzles
        self._results: list[Evaluated] = []

    def __len__(self) -> int:
        return len(self._results)

    def __getitem__(self, index: Any) -> Any:
        return self._results[index]

    @property
    def exact(self) -> float:
        """The part of the puzzles that the first artifact solves, 0 to 1."""
        return self._results[0].exact

    def measure(self, artifact: Artifact, by: str = "source", **options: Any) -> Evaluated:
        """The next artifact's scores, ``by`` "source", "segments" or "source,segments".

        Other ``options`` are those of :func:`hrm_edge.measure.accuracy.evaluate`.
        """
        parts = [part.strip() for part in by.split(",") if part.strip()]
        options |= {"by": parts, "segment_flops": artifact.segment_flops}
        evaluation = evaluate(artifact.engine, self.puzzles, **options)
        agreement = _agreement(self._results[0].evaluation, evaluation) if self._results else None
        self._results.append(Evaluated(artifact, evaluation, agreement))
        return self._results[-1]

    def to_dict(self) -> dict[str, Any]:
        """The JSON object of `hrm-edge eval --json`.

        One artifact: its scores. Several: `{"results": [scores…]}`, each but the first with its agreement.
        """
        rows: list[dict[str, Any]] = []
        for each in self._results:
            row = {"artifact": str(each.artifact.path), "data": self.puzzles.name, **each.evaluation.to_dict()}
            rows.append(row if each.agreement is None else {**row, "agreement": each.agreement})
        return rows[0] if len(rows) == 1 else {"results": rows}

    def __str__(self) -> str:
        lines = []
        for each in self._results:
            total = each.evaluation.total
            of = f"{total.n} puzzles, {total.steps_mean:.2f} segments on average"
            lines.append(f"{each.artifact.label} on {self.puzzles.name}: {total.exact:.2%} solved of {of}")
            if each.agreement:
                lines.append(f"  {each.agreement['answers_differ']} answers differ from the first's")
        return "\n".join(map(printable, lines))

    __repr__ = __str__


def open_comparison(
    paths: Sequence[str | PathLike[str]],
    data: Path | str | None = None,
    n: int | None = None,
    seed: int = 0,
    threads: int | None = None,
    streams: int = 1,
    *,
    say: Say = lambda line: None,
    progress: Progress | None = None,
) -> Comparison:
    """Open what is to be measured, and the puzzles: of copies up to symmetry one, which ``say`` is told.

    InputError before any work: an artifact can not be opened, or does not solve these puzzles.
    """
    artifacts = [open_artifact(Path(path), threads, streams=streams) for path in paths]
    given = puzzles_for(artifacts, None if data is None else Path(data), n, seed, progress)
    puzzles = distinct_puzzles(given, say)
    for artifact in artifacts:
        check_match(artifact.engine, puzzles)
    return Comparison(artifacts, puzzles)


def puzzles_for(
    artifacts: Sequence[Artifact],
    data: Path | None,
    n: int | None,
    seed: int,
    progress: Progress | None = None,
) -> PuzzleSet:
    """From the file, else the held-out puzzles of the first checkpoint given."""
    checkpoint = next((each.checkpoint for each in artifacts if each.checkpoint is not None), None)
    return evaluated_puzzles(artifacts[0].engine.task, checkpoint, data, n, seed, progress)


def _agreement(first: Evaluation, other: Evaluation) -> dict[str, Any]:
    """How two artifacts' answers to the same puzzles differ."""
    differ = (first.answers.tokens != other.answers.tokens).any(axis=1)
    return {
        "answers_differ": int(differ.sum()),
        "steps_differ": int((first.answers.steps != other.answers.steps).sum()),
        "lost": int((first.right & ~other.right).sum()),
        "won": int((~first.right & other.right).sum()),
        "differing_puzzles": [int(row) + 1 for row in differ.nonzero()[0][:20]],
    }
