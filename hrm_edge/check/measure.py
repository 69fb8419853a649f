"""Open what a check names, refuse what makes it dishonest, and answer every puzzle once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..bundle import Bundle, open_bundle
from ..bundle.quantization import QUANTIZATION, Products, Quantization, read_quantization
from ..data.choose import any_puzzles, measured_puzzles
from ..data.leaks import distinct_puzzles, refuse_leak
from ..data.puzzles import PuzzleSet, generate_puzzles
from ..errors import InputError
from ..exporters.audit import audit_bundle
from ..measure.accuracy import answer_all, rightness, token_accuracy
from ..measure.artifact import Artifact, open_artifact
from ..progress import Progress
from ..runtimes import Answers
from ..tasks import Task
from .baseline import Baseline, BundleEntry, SampleEntry, pack
from .spec import Check, Data, Spec

_SPEED_ROUNDS = 9


@dataclass(frozen=True)
class Case:
    """One bundle of one check, opened and found fit to be measured."""

    check: Check
    label: str  # the bundle, as the spec names it
    artifact: Artifact
    quantization: Quantization | None
    checkpoint: Artifact | None
    data: dict[str, PuzzleSet]  # by label
    baseline: BundleEntry | None
    compiled: Products | None = None  # here, of what the record tells; where a rule asks and the backend tells

    @property
    def max_think_steps(self) -> int:
        return self.check.max_think_steps or self.artifact.engine.halt_max_steps

    @property
    def bundle(self) -> Bundle:
        """As it was opened, before anything was measured."""
        assert self.artifact.bundle is not None
        return self.artifact.bundle


@dataclass(frozen=True)
class Sample:
    """A bundle's answers to one data set, and the float checkpoint's where a rule compares them."""

    puzzles: PuzzleSet
    answers: Answers
    right: np.ndarray  # bool[n]
    reference: Answers | None
    reference_right: np.ndarray | None  # bool[n]

    def entry(self) -> SampleEntry:
        """What the baseline keeps of it, rounded so that a diff can be read."""
        token = token_accuracy(self.puzzles, self.answers.tokens)
        return SampleEntry(
            exact=round(float(self.right.mean()), 6),
            token=None if token is None else round(float(token.mean()), 6),
            n=len(self.right),
            steps_mean=round(float(self.answers.steps.mean()), 4),
            halted=round(float(self.answers.halted.mean()), 6),
            puzzles=self.puzzles.content_hash(),
            right=pack(self.right),
        )


@dataclass(frozen=True)
class SpeedRatios:
    """How many times faster than the float checkpoint, round by round, and what disturbed it."""

    rounds: tuple[float, ...]
    notes: tuple[str, ...]

    @property
    def ratio(self) -> float:
        return float(np.median(self.rounds))


@dataclass(frozen=True)
class Measurement:
    """Everything the rules of a case judge."""

    case: Case
    samples: dict[str, Sample]  # by data label
    speed: SpeedRatios | None

    @property
    def size_mb(self) -> float:
        return self.case.artifact.size_bytes / 1e6

    def entry(self) -> BundleEntry:
        """What the baseline keeps of it."""
        case = self.case
        return BundleEntry(
            bundle=case.bundle.sha256,
            checkpoint=case.artifact.source_hash,
            size_mb=self.size_mb,
            halt=case.check.halt,
            max_think_steps=case.max_think_steps,
            speed_ratio=None if self.speed is None else round(self.speed.ratio, 3),
            data={label: sample.entry() for label, sample in self.samples.items()},
        )


class Runner:
    """Opens and measures what a spec names; what several checks share is opened and answered once."""

    def __init__(self, spec: Spec, progress: Progress | None) -> None:
        self._spec, self._progress = spec, progress
        self.notes: list[str] = []  # what to tell once nothing is refused
        self._bundles: dict[Path, tuple[Artifact, Quantization | None]] = {}
        self._compiled: dict[Path, Products | None] = {}
        self._checkpoints: dict[str, Artifact] = {}
        self._puzzles: dict[tuple[str, Task, int | None], PuzzleSet] = {}
        self._answers: dict[tuple[str, str, str, int], Answers] = {}

    # -- opening -----------------------------------------------------------------------------------

    def open(self, check: Check, label: str, baseline: Baseline | None) -> Case:
        """A case whose bundle is whole, made from this checkpoint, and not calibrated on these puzzles."""
        spec, lines = self._spec, check.lines
        with spec.at(lines["bundle"]):
            artifact, quantization = self._bundle(check.bundles[label])
            compiled = self._audit(artifact, quantization) if check.needs("compiled") else None
        checkpoint = None
        if check.checkpoint is not None:
            with spec.at(lines["checkpoint"]):
                checkpoint = self._checkpoint(check.checkpoint)
                _refuse_swap(label, artifact, checkpoint)
        with spec.at(lines["data"]):
            data = {item.label: self._data(item, check.n, artifact) for item in check.data}
            for name, puzzles in data.items():
                if quantization is not None and quantization.calibration is not None:
                    seen = quantization.calibration.fingerprints
                    refuse_leak(seen, puzzles, f"{label} on {name}")
        entry = baseline.get((check.name, label)) if baseline else None
        return Case(check, label, artifact, quantization, checkpoint, data, entry, compiled)

    def _bundle(self, path: Path) -> tuple[Artifact, Quantization | None]:
        if path not in self._bundles:
            artifact = open_artifact(open_bundle(path))  # a bundle and nothing else, by its own words
            assert artifact.bundle is not None
            record = read_quantization(artifact.bundle)
            _refuse_foreign(artifact.bundle, record)
            self._bundles[path] = artifact, record
        return self._bundles[path]

    def _audit(self, artifact: Artifact, record: Quantization | None) -> Products | None:
        assert artifact.bundle is not None
        if artifact.path not in self._compiled:
            self._compiled[artifact.path] = None if record is None else audit_bundle(artifact.bundle, record)
        return self._compiled[artifact.path]

    def _checkpoint(self, path: str) -> Artifact:
        if path not in self._checkpoints:
            opened = open_artifact(path)
            if opened.checkpoint is None:
                raise InputError(f"{path}: is a bundle; name the float checkpoint it was made from")
            self._checkpoints[path] = opened
        return self._checkpoints[path]

    def _data(self, data: Data, n: int | None, artifact: Artifact) -> PuzzleSet:
        task = artifact.engine.task
        key = (data.label, task, n)
        if key not in self._puzzles:
            if data.path is None:
                count = min(data.n, n or data.n)
                puzzles = generate_puzzles(task, count, data.seed, data.difficulty)
            else:
                puzzles = measured_puzzles(data.path, task, n)
            # Copies would count as evidence that they are not.
            self._puzzles[key] = distinct_puzzles(puzzles, self.notes.append)
        return self._puzzles[key]

    # -- measuring ---------------------------------------------------------------------------------

    def measure(self, case: Case) -> Measurement:
        """Answer every data set, and time the bundle where a rule asks for it."""
        samples = {label: self._sample(case, puzzles) for label, puzzles in case.data.items()}
        return Measurement(case, samples, self._speed(case) if case.check.needs("speed") else None)

    def _sample(self, case: Case, puzzles: PuzzleSet) -> Sample:
        answers = self._answer(case, puzzles)
        reference = None
        if case.check.needs("data", "checkpoint"):
            assert case.checkpoint is not None  # the spec was checked for it
            reference = self._reference(case, case.checkpoint, puzzles)
        return Sample(
            puzzles=puzzles,
            answers=answers,
            right=rightness(puzzles, answers.tokens),
            reference=reference,
            reference_right=None if reference is None else rightness(puzzles, reference.tokens),
        )

    def _answer(self, case: Case, puzzles: PuzzleSet) -> Answers:
        halt, steps = case.check.halt, case.max_think_steps
        key = (str(case.artifact.path), puzzles.content_hash(), halt, steps)
        if key not in self._answers:
            report = self._reporting(f"{case.label} on {puzzles.name}")
            engine = case.artifact.engine
            self._answers[key] = answer_all(engine, puzzles, max_think_steps=steps, halt=halt, progress=report)
        return self._answers[key]

    def _reference(self, case: Case, opened: Artifact, puzzles: PuzzleSet) -> Answers:
        from ..measure.reference import reference_answers

        assert opened.checkpoint is not None
        report = self._reporting(f"{opened.name} (float) on {puzzles.name}")
        steps, halt = case.max_think_steps, case.check.halt
        return reference_answers(opened.checkpoint, puzzles, max_think_steps=steps, halt=halt, progress=report)

    def _speed(self, case: Case) -> SpeedRatios:
        """Rounds of `hrm_edge.measure.speed`, each with a ratio of its own, so that their spread shows."""
        import torch

        from ..measure.speed import Settings, bench

        assert case.checkpoint is not None
        threads = torch.get_num_threads()
        pair = [open_artifact(path, threads) for path in (case.checkpoint.path, case.artifact.path)]
        refuse_changed(case, pair[1].bundle)
        batch = pair[1].engine.batch or 1
        # Whether the machine is busy or not: the verdict takes the ratios' spread into account, and says so.
        settings = Settings(threads, batch, rounds=1, per_round=1, memory=False, most_waiting=1.0)
        puzzles = next(iter(case.data.values()), None) or any_puzzles(pair[1].engine.task, batch)
        report = self._reporting(f"timing {case.label}")
        ratios, notes = [], set()
        for number in range(_SPEED_ROUNDS):
            # Who goes first changes, as it does between the rounds of one `bench`.
            outcome = bench(pair[:: 1 if number % 2 else -1], puzzles, settings)
            row = next(row for row in outcome.rows if row.backend == pair[1].engine.backend)
            assert row.ratio_vs_eager is not None  # the checkpoint's content hash was compared
            ratios.append(row.ratio_vs_eager)
            notes |= {note.split(":")[0] for note in outcome.notes}
            report("", number + 1, _SPEED_ROUNDS)
        return SpeedRatios(tuple(ratios), tuple(sorted(notes)))

    def _reporting(self, what: str) -> Progress:
        def report(_: str, done: int, total: int) -> None:
            if self._progress is not None:
                self._progress(what, done, total)

        return report


def refuse_changed(case: Case, now: Bundle | None = None) -> None:
    """InputError unless the bundle is still the one that was opened; ``now``: it, where it was opened again."""
    path = case.artifact.path
    if (now or open_bundle(path)).sha256 != case.bundle.sha256:
        raise InputError(f"{path}: was replaced while it was measured, so nothing is told of it; check it again")


def _refuse_foreign(bundle: Bundle, record: Quantization | None) -> None:
    """InputError where a record of quantization was made with another bundle."""
    manifest = bundle.manifest
    own = (manifest.precision, manifest.source["content_hash"])
    if record is not None and (record.precision, record.checkpoint) != own:
        raise InputError(
            f"{bundle.path / QUANTIZATION}: is of {record.precision} weights of the checkpoint "
            f"{record.checkpoint[:12]}, and the bundle of {own[0]} weights of {own[1][:12]}; export it again"
        )


def _refuse_swap(label: str, bundle: Artifact, checkpoint: Artifact) -> None:
    if bundle.source_hash != checkpoint.source_hash:
        raise InputError(
            f"{label} was made from the checkpoint {bundle.source_hash[:12]}, but {checkpoint.path.name} is "
            f"{checkpoint.source_hash[:12]}: it was swapped or changed since; name the right one, or export the "
            "bundle again"
        )
