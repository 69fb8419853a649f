"""Judge measurements by a check's rules: pass or fail, and whether so few puzzles can show it at all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .findings import Finding
from .measure import Measurement
from .rules import Rule


@dataclass(frozen=True)
class Verdict:
    """One rule on one bundle, and on one data set where puzzles matter."""

    check: str
    bundle: str
    data: str | None
    rule: Rule
    limit: float
    line: int  # of the spec
    finding: Finding
    passed: bool
    when_unsure: str

    @property
    def outcome(self) -> str:
        """ "pass" or "fail", marked where it is not a matter of fact."""
        word = "pass" if self.passed else "fail"
        return word if self.finding.sure else f"{word}, unsure"

    @property
    def where(self) -> str:
        """Check, bundle and data set."""
        return " / ".join(part for part in (self.check, self.bundle, self.data) if part)

    @property
    def reason(self) -> str:
        """One line: the rule, its limit, the figure, and what the figure can not show."""
        doubt = "" if self.finding.sure else f"; {self.doubt}"
        return f"{self.rule.name}{self.rule.unit.setting(self.limit)}: {self.finding.text}{doubt}"

    @property
    def doubt(self) -> str:
        """Of a figure that does not settle it: why, and what was done."""
        finding = self.finding
        if finding.n is None:
            can = finding.doubt
        elif finding.needed is None:
            can = f"n={finding.n} can not show it, and at this rate no number of puzzles would"
        else:
            can = f"n={finding.n} can not show it, about {finding.needed:,} puzzles would"
        does = {"estimate": "it went by the estimate", "fail": "so it fails", "pass": "so it passes"}
        return f'{can}; when_unsure = "{self.when_unsure}": {does[self.when_unsure]}'

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        finding = self.finding
        return {
            "check": self.check,
            "bundle": self.bundle,
            "data": self.data,
            "rule": self.rule.name,
            "limit": self.rule.unit.json(self.limit),
            "figure": finding.figure,
            "n": finding.n,
            "interval": None if finding.interval is None else list(finding.interval),
            "passed": self.passed,
            "sure": finding.sure,
            "n_needed": finding.needed,
            "reason": self.reason,
            "line": self.line,
            "worst": [worst.to_dict() for worst in finding.worst],
        }


def judge(measured: Measurement, when_unsure: str, skip_baseline: bool = False) -> list[Verdict]:
    """Every rule of the case, on every data set where puzzles matter; none stops the others.

    `skip_baseline` leaves out the rules that compare with it, for when it is being written.
    """
    case = measured.case
    verdicts = []
    for each in case.check.requirements:
        rule = each.rule
        if "baseline" in rule.needs and skip_baseline:
            continue
        for data in case.data if "data" in rule.needs else [None]:
            found = rule.find(measured, each.limit, data)
            passed = found.good if found.sure or when_unsure == "estimate" else when_unsure == "pass"
            where = (case.check.name, case.label, data)
            verdicts.append(Verdict(*where, rule, each.limit, each.line, found, passed, when_unsure))
    return verdicts
