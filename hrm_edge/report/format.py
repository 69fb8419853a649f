"""What a report must hold, field by field, so that whatever is read back can also be drawn."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from ..errors import InputError
from ..tasks import Task, get_task

FORMAT_VERSION = 1

# A check takes a value and says what it should have been, or nothing. A dict stands for an object with exactly
# these fields; other forms are made by the functions below.
Check = Callable[[Any], str | None]
Form = Any

_LARGEST = 1e15  # nothing measured here comes near it, and plots stay sane below it
_LONGEST = 4000  # characters, but for boards
_MOST = 100_000  # entries of a list


def _text(value: Any) -> str | None:
    if type(value) is str and len(value) <= _LONGEST and value.isprintable():
        return None
    return "a line of text"


def _flag(value: Any) -> str | None:
    return None if type(value) is bool else "true or false"


def _number(low: float = -_LARGEST, high: float = _LARGEST, whole: bool = False) -> Check:
    kinds = (int,) if whole else (int, float)
    wanted = f"a {'whole ' if whole else ''}number between {low:g} and {high:g}"

    def check(value: Any) -> str | None:
        # Not isinstance: true is no number.
        right = type(value) in kinds and math.isfinite(value) and low <= value <= high
        return None if right else wanted

    return check


def _maybe(form: Form) -> Form:
    return ("maybe", form)


def _many(form: Form, most: int = _MOST) -> Form:
    return ("many", form, most)


def _named(form: Form) -> Form:
    return ("named", form)


def _check(value: Any, form: Form, where: str) -> None:
    """InputError-free core: raises _Wrong with the place and what should stand there."""
    if callable(form):
        wanted = form(value)
        if wanted is not None:
            raise _Wrong(where, f"must be {wanted}, not {_short(value)}")
    elif isinstance(form, dict):
        _check_object(value, form, where)
    elif form[0] == "maybe":
        if value is not None:
            _check(value, form[1], where)
    elif form[0] == "named":
        if type(value) is not dict or any(_text(name) for name in value):
            raise _Wrong(where, f"must be an object, not {_short(value)}")
        for name, item in value.items():
            _check(item, form[1], f"{where}.{name}")
    else:
        if type(value) is not list or len(value) > form[2]:
            raise _Wrong(where, f"must be a list of at most {form[2]} entries, not {_short(value)}")
        for number, item in enumerate(value):
            _check(item, form[1], f"{where}[{number}]")


def _check_object(value: Any, form: Mapping[str, Form], where: str) -> None:
    if type(value) is not dict:
        raise _Wrong(where, f"must be an object, not {_short(value)}")
    if missing := sorted(set(form) - set(value)):
        raise _Wrong(where, f"lacks {missing[0]!r}")
    if unknown := sorted(set(value) - set(form)):
        raise _Wrong(where, f"has the unknown field {_short(unknown[0])}")
    for name, each in form.items():
        _check(value[name], each, f"{where}.{name}" if where else name)


class _Wrong(Exception):
    """Where, and what is wrong there."""


def _short(value: Any) -> str:
    text = ascii(value)
    return text if len(text) <= 40 else text[:40] + "…"


COUNT = _number(0, whole=True)
FROM_ONE = _number(1, whole=True)
SIZE = _number(0)
ANY = _number()
FRACTION = _number(0, 1 + 1e-9)
COSINE = _number(-1 - 1e-6, 1 + 1e-6)


def _pair(form: Check) -> Check:
    def check(value: Any) -> str | None:
        right = type(value) is list and len(value) == 2 and not any(form(item) for item in value)
        return None if right and value[0] <= value[1] else "two numbers, the lower first"

    return check


_SIDE = {
    "engine": _text,
    "exact": FRACTION,
    "exact_interval": _pair(FRACTION),
    "token": _maybe(FRACTION),
    "token_interval": _maybe(_pair(FRACTION)),
    "steps_mean": SIZE,
    "halted": FRACTION,
}
_RATE = {"exact": FRACTION, "interval": _pair(FRACTION)}
_STATE = {"cosine": _maybe(COSINE), "cosine_low": _maybe(COSINE), "error": _maybe(SIZE)}
_TRIAL = {
    "what": _text,
    "n": FROM_ONE,
    "exact": FRACTION,
    "token": FRACTION,
    "lost": COUNT,
    "won": COUNT,
    "steps_mean": SIZE,
    "halt_agree": FRACTION,
    "float_exact": FRACTION,
    "float_steps_mean": SIZE,
    "drop_points": _number(-100, 100),
    "p_value": FRACTION,
}
_ANSWER = {
    "answer": lambda value: None if type(value) is str else "a board",
    "right": _flag,
    "wrong": _many(COUNT),
    "steps": COUNT,
}
_PUZZLES = {
    "total": COUNT,
    "shown": _many(
        {
            "number": FROM_ONE,
            "source": _text,
            "question": lambda value: None if type(value) is str else "a board",
            "began": _maybe({"segment": FROM_ONE, "cells": COUNT, "margin": _maybe(SIZE)}),
            "reference": _ANSWER,
            "candidate": _ANSWER,
        },
        most=100,
    ),
}
_ROW = {
    "engine": _text,
    "backend": _text,
    "precision": _text,
    "loop": _text,
    "batch": FROM_ONE,
    "ms_per_segment": SIZE,
    "ms_per_segment_quartiles": _pair(SIZE),
    "ms_per_puzzle": SIZE,
    "ratio_vs_eager": _maybe(SIZE),
    "exact": _maybe(FRACTION),
    "peak_rss_mb": _maybe(SIZE),
    "size_mb": SIZE,
}
_LAYER = {
    "name": _text,
    "dtype": _text,
    "calls": COUNT,
    "absmax": _maybe(SIZE),
    "error": _maybe(SIZE),
    "kept": _maybe(_text),
}
_SITE = {"name": _text, "absmax": _maybe(SIZE), "scale": _maybe(SIZE), "clipped": _maybe(FRACTION)}
_CALIBRATION = {
    "puzzles": _text,
    "n": COUNT,
    "segments": _text,
    "estimator": _text,
    "smooth": ANY,
    "samples": COUNT,
    "measured": COUNT,  # of its puzzles or solutions, those that accuracy was measured on too
}
_QUANTIZATION = {
    "precision": _text,
    "checkpoint": _text,
    "weights_bytes": COUNT,
    "float_weights_bytes": COUNT,
    "layers": _many(_LAYER, most=2000),
    "sites": _many(_SITE, most=20_000),
    "calibration": _maybe(_CALIBRATION),
    "comparison": _many(_TRIAL, most=1000),
    "sensitivity": _many(_TRIAL, most=2000),
    "budget": _many(_TRIAL, most=2000),
    "products": _maybe(
        {"expected": COUNT, "found": COUNT, "kinds": _named(COUNT), "missing": _many(_text, most=2000)}
    ),
    "trained": _flag,
    "notes": _many(_text, most=100),
}
_REPORT: dict[str, Form] = {
    "format_version": FROM_ONE,
    "bundle": {
        "name": _text,
        "task": _text,
        "target": _text,
        "precision": _text,
        "precision_parts": _named(_text),
        "loop": _text,
        "batch": lambda value: None if value == "dynamic" else FROM_ONE(value),
        "parameters": FROM_ONE,
        "hidden_size": FROM_ONE,
        "halt_max_steps": FROM_ONE,
        "bytes": _maybe(COUNT),
        "source": _named(_text),
        "tools": _named(_text),
    },
    "gate": {
        "passed": _flag,
        "reason": _text,
        "notes": _many(_text, most=100),
        "puzzles": _text,
        "puzzles_hash": _text,
        "n": FROM_ONE,
        "halt": _text,
        "max_think_steps": FROM_ONE,
        "max_drop": SIZE,
        "lost": COUNT,
        "won": COUNT,
        "drop_points": _number(-100, 100),
        "drop_interval": _pair(_number(-100, 100)),
        "confidence": FRACTION,
        "p_value": FRACTION,
        "answers_differ": COUNT,
        "halt_shift": ANY,
        "max_halt_shift": SIZE,
    },
    "accuracy": {"reference": _SIDE, "candidate": _SIDE},
    "by_segments": _many({"segments": FROM_ONE, "n": FROM_ONE, "reference": _RATE, "candidate": _RATE}, most=1000),
    "drift": _many(
        {
            "segment": FROM_ONE,
            "n": FROM_ONE,
            **{f"{state}_{name}": form for state in ("z_H", "z_L") for name, form in _STATE.items()},
            "logit_rmse": _maybe(SIZE),
            "cells_differ": FRACTION,
            "puzzles_differ": FRACTION,
            "halt_agree": FRACTION,
            "reference_exact": _maybe(FRACTION),
            "candidate_exact": _maybe(FRACTION),
        },
        most=1000,
    ),
    "differences": _maybe(
        {
            "followed": COUNT,
            "only_stops": COUNT,
            "segment_median": _maybe(SIZE),
            "margin_median": _maybe(SIZE),
            "margin_max": _maybe(SIZE),
        }
    ),
    "halting": {
        "reference": _many(COUNT, most=1000),
        "candidate": _many(COUNT, most=1000),
        "agree": FRACTION,
        "within_one": FRACTION,
    },
    "quantization": _maybe(_QUANTIZATION),
    "speed": _maybe(
        {
            "rows": _many(_ROW, most=100),
            "own": _maybe(COUNT),
            "ratio_vs_eager": _maybe(SIZE),
            "ratio_vs_float": _maybe(SIZE),
        }
    ),
    "puzzles": {"lost": _PUZZLES, "won": _PUZZLES, "differ": _PUZZLES},
}


# Fields of the records a report takes over; what else those may hold, it leaves out.
RECORDS = {"layers": tuple(_LAYER), "sites": tuple(_SITE), "speed": tuple(_ROW), "calibration": tuple(_CALIBRATION)}


def check_report(report: Any, where: str) -> None:
    """InputError, one line that names `where` and the field, unless `report` is a whole report of this version."""
    version = report.get("format_version") if isinstance(report, Mapping) else None
    if type(version) is int and version > FORMAT_VERSION:
        raise InputError(
            f"{where}: has format version {version}, and this hrm-edge reads up to {FORMAT_VERSION}; "
            "upgrade hrm-edge"
        )
    try:
        _check(report, _REPORT, "")
        _check_whole(report)
    except _Wrong as wrong:
        place, what = wrong.args
        raise InputError(f"{where}: {place or 'the whole'} {what}; export the bundle again") from None


def _check_whole(report: Mapping[str, Any]) -> None:
    """What no single field can tell."""
    if report["format_version"] != FORMAT_VERSION:
        raise _Wrong("format_version", f"must be {FORMAT_VERSION}, not {report['format_version']}")
    halting = report["halting"]
    if len(halting["reference"]) != len(halting["candidate"]):
        raise _Wrong("halting", "must count both sides up to the same segment")
    speed = report["speed"]
    if speed and speed["own"] is not None and speed["own"] >= len(speed["rows"]):
        raise _Wrong("speed.own", "must be one of the rows")
    try:
        task = get_task(report["bundle"]["task"])
    except InputError as error:
        raise _Wrong("bundle.task", f"is unknown ({error})") from None
    for kind, group in report["puzzles"].items():
        for number, puzzle in enumerate(group["shown"]):
            _check_boards(task, puzzle, f"puzzles.{kind}.shown[{number}]")


def _check_boards(task: Task, puzzle: Mapping[str, Any], where: str) -> None:
    symbols = {"?", *task.vocabulary[1:]}
    sides = [puzzle["reference"], puzzle["candidate"]]
    for board in (puzzle["question"], *(side["answer"] for side in sides)):
        if len(board) != task.seq_len or not set(board) <= symbols:
            raise _Wrong(where, f"must hold boards of {task.name}, not {_short(board)}")
    if any(cell >= task.seq_len for side in sides for cell in side["wrong"]):
        raise _Wrong(where, f"names a wrong cell beyond the {task.seq_len} of {task.name}")
