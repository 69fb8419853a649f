"""Run a whole spec: refuse what is wrong before any long work, measure, judge everything, keep the baseline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import GateFailed, InputError
from ..files import require_apart
from ..progress import Progress, Say
from ..runtimes import backend
from .baseline import Baseline, BundleEntry, changes, read_baseline, require_replaceable, write_baseline
from .measure import Case, Measurement, Runner, refuse_changed
from .rules import Rule
from .spec import Spec, read_spec
from .verdicts import Verdict, judge


@dataclass(frozen=True)
class CheckReport:
    """Every verdict of a run. `updated` is None unless the baseline was to be written."""

    spec: str
    when_unsure: str
    verdicts: tuple[Verdict, ...]
    updated: tuple[str, ...] | None  # what changed in the baseline, old → new

    @property
    def failed(self) -> list[Verdict]:
        return [verdict for verdict in self.verdicts if not verdict.passed]

    @property
    def summary(self) -> str:
        """How many rules held, in one line."""
        count, failed = len(self.verdicts), len(self.failed)
        unsure = sum(not verdict.finding.sure for verdict in self.verdicts)
        doubt = f"; {unsure} in doubt, decided by when_unsure" if unsure else ""
        return f"{count - failed} of {count} rules hold" + (f", {failed} failed" if failed else "") + doubt

    def raise_if_failed(self) -> None:
        """GateFailed with the first rule that failed, and this as its ``report``, unless all passed."""
        if self.failed:
            first, *others = self.failed
            more = f" (and {len(others)} more: {', '.join(v.rule.name for v in others)})" if others else ""
            failed = GateFailed(f"{self.spec}:{first.line}: {first.where}: {first.reason}{more}")
            failed.report = self
            raise failed

    def to_dict(self) -> dict[str, Any]:
        """The JSON object that `hrm-edge check --json` prints."""
        return {
            "spec": self.spec,
            "passed": not self.failed,
            "when_unsure": self.when_unsure,
            "results": [verdict.to_dict() for verdict in self.verdicts],
            "updated": None if self.updated is None else list(self.updated),
        }


def run_check(
    path: Path | str,
    *,
    update_baseline: bool = False,
    writes: Sequence[Path | None] = (),
    say: Say | None = None,
    progress: Progress | None = None,
) -> CheckReport:
    """Measure and judge everything a spec names. `update_baseline` writes the baseline instead of comparing.
    `writes`: where its report is to be written, which may be nothing that is read.

    Nothing is raised for a rule that fails, and then no baseline is written either. InputError for a mistake in the
    spec, in what it names or in the baseline; before anything is measured.
    """
    spec, say = read_spec(path), say or (lambda line: None)
    require_apart(writes, [spec.path, spec.baseline, *(data.path for each in spec.checks for data in each.data)])
    old = _old_baseline(spec, update_baseline, say)
    runner = Runner(spec, progress)
    cases = [
        runner.open(check, label, None if update_baseline else old)
        for check in spec.checks
        for label in check.bundles
    ]
    if not update_baseline and old is not None:
        for case in cases:
            _refuse_incomparable(spec, case)
        _refuse_unmatched(spec, cases, old)
    for warning in dict.fromkeys(case.artifact.warning for case in cases if case.artifact.warning):
        say(f"warning: {warning}")
    for note in runner.notes:
        say(note)
    measured = tuple(runner.measure(case) for case in cases)
    verdicts = tuple(v for each in measured for v in judge(each, spec.when_unsure, update_baseline))
    for case in cases:
        refuse_changed(case)
    _remember_verified(measured, verdicts)
    updated = None
    if update_baseline and all(verdict.passed for verdict in verdicts):
        assert spec.baseline is not None
        new = {(each.case.check.name, each.case.label): each.entry() for each in measured}
        updated = tuple(changes(old or {}, new))
        write_baseline(spec.baseline, new)
    return CheckReport(str(spec.path), spec.when_unsure, verdicts, updated)


def _update_command(spec: Spec) -> str:
    return f"hrm-edge check {spec.path} --update-baseline"


def _old_baseline(spec: Spec, update: bool, say: Say) -> Baseline | None:
    """The baseline there is; None where no rule needs one, or where an update replaces one that can not be read."""
    if spec.baseline is None:
        if update:
            raise InputError(
                f'{spec.path}:1: names no baseline to write; add baseline = "baseline.json" at the top'
            )
        return None
    if update:
        try:
            return read_baseline(spec.baseline, _update_command(spec)) if spec.baseline.exists() else None
        except InputError as error:
            require_replaceable(spec.baseline)
            say(f"replacing the old baseline unread: {error}")
            return None
    if not spec.baseline.exists() and not any(check.needs("baseline") for check in spec.checks):
        return None
    return read_baseline(spec.baseline, _update_command(spec))


def _refuse_incomparable(spec: Spec, case: Case) -> None:
    """InputError unless the baseline has what the rules of this case compare with, measured in the same way."""
    if not case.check.needs("baseline"):
        return
    for each in case.check.requirements:
        rule = each.rule
        why = _why_incomparable(case, case.baseline, rule) if "baseline" in rule.needs else None
        if why:
            raise InputError(
                f"{spec.baseline}: {why}, so {rule.name} of {case.check.name!r} ({spec.path}:{each.line}) can not "
                f"be judged; when that is meant, write what the bundles come to now with `{_update_command(spec)}`"
            )


def _why_incomparable(case: Case, entry: BundleEntry | None, rule: Rule) -> str | None:
    if entry is None:
        return f"has no entry for {case.label}"
    if "speed" in rule.needs and entry.speed_ratio is None:
        return f"has no speed for {case.label}"
    if "data" not in rule.needs:
        return None
    halt, steps = case.check.halt, case.max_think_steps
    if (entry.halt, entry.max_think_steps) != (halt, steps):
        return (
            f"{case.label} was measured with {entry.halt} halting and at most {entry.max_think_steps} segments, "
            f"now {halt} and {steps}"
        )
    for label, puzzles in case.data.items():
        sample = entry.data.get(label)
        if sample is None:
            return f"has no entry for {case.label} on {label}"
        if (sample.puzzles, sample.n) != (puzzles.content_hash(), len(puzzles)):
            return (
                f"{label} held other puzzles ({sample.puzzles[:12]}, n={sample.n}; now "
                f"{puzzles.content_hash()[:12]}, n={len(puzzles)})"
            )
    return None


def _refuse_unmatched(spec: Spec, cases: list[Case], baseline: Baseline) -> None:
    """InputError unless the baseline has what is measured, and what it has is measured: nothing vanishes unseen."""
    now = {(case.check.name, case.label): set(case.data) for case in cases}
    before = {key: set(entry.data) for key, entry in baseline.items()}
    for key in sorted(now.keys() | before.keys()):
        ours, theirs = now.get(key), before.get(key)
        if ours == theirs:
            continue
        where = " / ".join(key)
        if ours is None:
            why = f"has {where}, which is no longer there to be measured"
        elif theirs is None:
            why = f"has no entry for {where}"
        elif theirs - ours:
            why = f"has {where} on {min(theirs - ours)}, which is no longer measured"
        else:
            why = f"has no entry for {where} on {min(ours - theirs)}"
        raise InputError(
            f"{spec.baseline}: {why}; when that is meant, write what there is now with `{_update_command(spec)}`"
        )


def _remember_verified(measured: tuple[Measurement, ...], verdicts: tuple[Verdict, ...]) -> None:
    """Bundles that kept every rule, one on answers among them, have answered on this device as they should."""
    for each in measured:
        own = [v for v in verdicts if (v.check, v.bundle) == (each.case.check.name, each.case.label)]
        answered = any("data" in verdict.rule.needs for verdict in own)
        if answered and all(verdict.passed for verdict in own):
            backend(each.case.bundle.manifest.target).mark_verified(each.case.bundle)
