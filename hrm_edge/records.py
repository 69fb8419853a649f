"""Records: strict, frozen pydantic dataclasses, and the one line that says what is wrong in a record's file."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict
from functools import wraps
from typing import Annotated, Any, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError, WrapValidator
from pydantic_core import PydanticCustomError

from .errors import InputError

# Of every record: a bool is no number, a list is no tuple (but in JSON), and an unknown field is an error.
STRICT = ConfigDict(strict=True, extra="forbid")

T = TypeVar("T")
_SHOWN = 60  # characters of a wrong value
_WHOLE = "the whole"  # of a file, where no field can be named
_LARGEST_FLOAT = 1e300  # and what is reckoned with it is still one
LARGEST = 1e15  # nothing measured comes near it, and plots stay sane below it


def must_be(wanted: str, right: Callable[[Any], bool] = lambda value: True) -> WrapValidator:
    """In an annotation: what else is asked of a value of the type, and how people are told when it is not so."""

    def check(value: Any, read: Callable[[Any], Any]) -> Any:
        with suppress(ValidationError):
            found = read(value)
            if right(found):
                return found
        raise PydanticCustomError("must_be", "must be {wanted}", {"wanted": wanted})

    return WrapValidator(check)


def at_least(low: int) -> WrapValidator:
    """In an annotation of `int`: the smallest one that is right."""
    # One beyond LARGEST is a number that nobody counted, and may be too large to reckon with.
    return must_be(f"a whole number of at least {low}", lambda value: low <= value <= LARGEST)


def between(low: float, high: float) -> WrapValidator:
    return must_be(f"a number between {low:g} and {high:g}", lambda value: low <= value <= high)


def _whole(low: int) -> WrapValidator:
    return must_be(f"a whole number between {low} and {LARGEST:g}", lambda value: low <= value <= LARGEST)


Text = Annotated[str, must_be("some text", bool)]
FromZero = Annotated[int, at_least(0)]
FromOne = Annotated[int, at_least(1)]
# Whole or not as it was written, and one that a float can hold: JSON's may have 400 digits.
Number = Annotated[int | float, must_be("a number", lambda value: value != value or abs(value) <= _LARGEST_FLOAT)]
# Of what was measured:
Count = Annotated[int, _whole(0)]
OneOrMore = Annotated[int, _whole(1)]
Size = Annotated[int | float, between(0, LARGEST)]
Fraction = Annotated[int | float, between(0, 1 + 1e-9)]
# None: nobody measured it, or it is not finite.
MaybeSize = Size | None
MaybeFraction = Fraction | None
MaybeCosine = Annotated[int | float, between(-1 - 1e-6, 1 + 1e-6)] | None


def from_json(kind: type[T], text: str | bytes, where: object, advice: str = "export the bundle again") -> T:
    """The record that a JSON text holds, every field given. `where`: the file, for messages.

    InputError: one line that names the file, the field and its value.
    """
    try:
        record = TypeAdapter(kind).validate_json(text)
    except ValidationError as error:
        raise InputError(f"{where}: {problem(error)}; {advice}") from None
    # A default is for whoever makes a record: its file names every field.
    for wrong in _left_out(asdict(record), json.loads(text), ""):  # type: ignore[call-overload]
        raise InputError(f"{where}: {wrong}; {advice}")
    return record


def newer_version(content: Any, known: int) -> int | None:
    """The format version of a JSON object that a later hrm-edge wrote; else None."""
    version = content.get("format_version") if isinstance(content, dict) else None
    return version if type(version) is int and version > known else None


def refusing(kind: type[T]) -> type[T]:
    """Class decorator over a record whose fields come from what a user gives: InputError when one is wrong."""
    build = kind.__init__

    @wraps(build)
    def checked(self: Any, *args: Any, **fields: Any) -> None:
        try:
            build(self, *args, **fields)
        except ValidationError as error:
            raise InputError(f"{kind.__name__.lower()}: {problem(error)}") from None

    kind.__init__ = checked  # type: ignore[method-assign]
    return kind


# Kind of pydantic's errors → what the value must be.
_WANTED = {
    "bool_type": "true or false",
    "dataclass_type": "an object",
    "dict_type": "an object",
    "float_type": "a number",
    "greater_than": "above {gt}",
    "greater_than_equal": "{ge} or more",
    "int_type": "a whole number",
    "less_than": "below {lt}",
    "less_than_equal": "{le} or less",
    "literal_error": "{expected}",
    "string_type": "text",
    "too_long": "a list of at most {max_length} entries",
    "too_short": "a list of at least {min_length} entries",
    "tuple_type": "a list",
    "must_be": "{wanted}",
}


def problem(error: ValidationError) -> str:
    """The first thing that is wrong: "gate.n must be a whole number, not 'many'"."""
    first = error.errors(include_url=False)[0]
    kind, place, context = first["type"], first["loc"], first.get("ctx", {})
    if kind == "json_invalid":
        return f"is not valid JSON ({context['error']})"
    if kind == "missing":
        return _lacks(_place(place[:-1]), place[-1])
    if kind in ("unexpected_keyword_argument", "extra_forbidden"):
        inside = f"{_place(place[:-1])} has the " if place[:-1] else ""
        return f"{inside}unknown field {_short(place[-1])}"
    if kind == "value_error":
        return f"{_place(place)} {context['error']}" if place else str(context["error"])
    wanted = _WANTED[kind].format(**context) if kind in _WANTED else f"otherwise ({first['msg']})"
    return f"{_place(place)} must be {wanted}, not {_short(first['input'])}"


def _left_out(record: Any, content: Any, place: str) -> Iterator[str]:
    """What says that a field has its default because the file does not give it."""
    if isinstance(record, dict):
        for name, value in record.items():
            if name in content:
                yield from _left_out(value, content[name], f"{place}.{name}" if place else name)
            else:
                yield _lacks(place, name)
    elif isinstance(record, tuple):
        for number, (value, given) in enumerate(zip(record, content, strict=True)):
            yield from _left_out(value, given, f"{place}[{number}]")


def _lacks(place: str, name: int | str) -> str:
    if place in ("", _WHOLE) and isinstance(name, str):
        return f"field {_short(name)} is missing"
    return f"{place or _WHOLE} lacks {_short(name) if isinstance(name, str) else 'an entry'}"


def _place(parts: tuple[int | str, ...]) -> str:
    """`("drift", 1, "n")` as "drift[1].n"."""
    named = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts if part != "[key]")
    return named.removeprefix(".") or _WHOLE


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"
