"""What a bundle's gate measured, `accuracy.json`, as one strict record; read whenever a bundle is opened."""

from __future__ import annotations

import json
from typing import Any

from pydantic import model_validator
from pydantic.dataclasses import dataclass

from ..records import STRICT, Fraction, FromZero, Number, OneOrMore, from_json

_ROUNDING = 1e-6


@dataclass(frozen=True, config=STRICT)
class Side:
    """Accuracy and halting of one side, reference or bundle, on the paired puzzles."""

    engine: str
    exact: Fraction
    token: Fraction | None
    steps_mean: Number
    halted: Fraction


@dataclass(frozen=True, config=STRICT)
class Call:
    """What came of one of the other ways to ask."""

    call: str
    n: FromZero
    agree: Fraction
    wrong: str | None


@dataclass(frozen=True, config=STRICT)
class Accuracy:
    """What `measure.gate.GateReport` says of itself. Fields with a default are later ones, which may be absent."""

    passed: bool
    reason: str
    notes: tuple[str, ...]
    puzzles: str
    puzzles_hash: str
    n: OneOrMore
    halt: str
    max_think_steps: OneOrMore
    reference: Side
    bundle: Side
    drop_points: Number
    drop_interval: tuple[Number, Number]
    confidence: Fraction
    max_drop: Number
    lost: FromZero
    won: FromZero
    lost_at_most: Number
    answers_differ: FromZero
    halt_shift: Number
    max_halt_shift: Number
    steps_agree: Fraction
    calls: tuple[Call, ...] = ()
    reference_name: str = ""  # of the checkpoint that it was held to
    reference_hash: str = ""  # of that one's weights and config
    arithmetic: str = ""  # the backend and the kind of CPU that answered
    halt_interval: tuple[Number, Number] | None = None

    @model_validator(mode="after")
    def _check_counts(self) -> Accuracy:
        """What no single field can tell."""
        if max(self.lost + self.won, self.answers_differ) > self.n:
            raise ValueError(f"n is {self.n}, and more puzzles than that were lost, won or differ")
        if abs(self.drop_points - 100 * (self.lost - self.won) / self.n) > _ROUNDING:
            raise ValueError(f"drop_points is {self.drop_points:g}, which is not what was lost and won")
        if self.passed and any(call.wrong for call in self.calls):
            raise ValueError("it passed, and one of its calls went wrong")
        if self.passed and not (
            self.drop_points <= self.max_drop + _ROUNDING
            and abs(self.halt_shift) <= self.max_halt_shift + _ROUNDING
        ):
            raise ValueError("it passed, and its figures are beyond the limits that it names")
        return self


def read_accuracy(content: dict[str, Any], where: object) -> Accuracy:
    """The record of a JSON object; InputError names ``where``."""
    return from_json(Accuracy, json.dumps({**_LATER, **content}), where)


_LATER: dict[str, Any] = {
    "calls": [],
    "reference_name": "",
    "reference_hash": "",
    "arithmetic": "",
    "halt_interval": None,
}
