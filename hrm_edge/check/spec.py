"""The spec of `hrm-edge check`: a TOML file as dataclasses, every mistake in one line with its line number."""

from __future__ import annotations

import contextlib
import difflib
import glob
import os
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..data.choose import HELD_OUT_SEED
from ..errors import InputError
from ..halting import HALT_MODES
from ..text import decoded
from .rules import RULES, Need, Rule, shown
from .toml_lines import Lines

WHEN_UNSURE = ("estimate", "fail", "pass")
_MOST = 1_000_000_000
_GENERATED = re.compile(r"generated:([0-9]{1,9})(?::([A-Za-z0-9]+))?(?:@([0-9]{1,18}))?")


_SETTINGS = ("name", "bundle", "data", "n", "checkpoint", "halt", "max_think_steps")
_TOP = ("baseline", "when_unsure", "check")


@dataclass(frozen=True)
class Requirement:
    """One rule with the limit that a check sets. `limit` in the rule's unit; 1 for `quantized = true`."""

    rule: Rule
    limit: float
    line: int


@dataclass(frozen=True)
class Data:
    """Puzzles as the spec names them: a file or folder, or generated ones."""

    label: str  # as written: the name in tables and in the baseline
    path: Path | None  # None: generated
    n: int = 0  # of generated ones
    difficulty: str = "ordinary"
    seed: int = HELD_OUT_SEED


@dataclass(frozen=True)
class Check:
    """One `[[check]]`: every rule holds for every bundle, on every data set."""

    name: str
    bundles: dict[str, Path]  # path relative to the spec's folder, as it is shown → where it is
    data: tuple[Data, ...]
    n: int | None
    checkpoint: str | None  # a path, or the name of a model that ships
    halt: str
    max_think_steps: int | None
    requirements: tuple[Requirement, ...]
    lines: dict[str, int]  # key → line, for mistakes that only show later

    def needs(self, *what: Need) -> bool:
        """Whether any rule needs all of these."""
        return any(set(what) <= each.rule.needs for each in self.requirements)


@dataclass(frozen=True)
class Spec:
    """A whole spec. `when_unsure` says what to do with a difference that n puzzles can not show."""

    path: Path
    baseline: Path | None
    when_unsure: str
    checks: tuple[Check, ...]

    def at(self, line: int) -> contextlib.AbstractContextManager[None]:
        """An InputError raised inside is blamed on this line of the spec."""
        return _blamed_on(f"{self.path}:{line}")


def read_spec(path: Path | str) -> Spec:
    """Read and check a spec without opening what it names. InputError `SPEC:LINE: …` for the first mistake."""
    path = Path(path)
    text = _read(path)
    try:
        content = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        line, why = _syntax_error(text, str(error) or "nested too deeply")
        raise InputError(f"{path}:{line}: is not valid TOML ({why})") from None
    lines = Lines(text)
    with _blamed_on(str(path), lines):
        return _spec(path, content, lines)


def _read(path: Path) -> str:
    try:
        raw = path.read_bytes()
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"{str(path)!r}: can not be read ({why}); give the TOML file of the check") from None
    try:
        return decoded(raw).replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path}:{line}: is not UTF-8 text; save it as UTF-8") from None


def _syntax_error(text: str, message: str) -> tuple[int, str]:
    """(line, what) from tomllib's own words."""
    found = re.search(r" \(at (?:line (\d+), column \d+|end of document)\)$", message)
    if found is None:
        return 1, message.splitlines()[0]
    line = int(found[1]) if found[1] else text.rstrip("\n").count("\n") + 1
    return line, message[: found.start()].splitlines()[0]


class _Wrong(Exception):
    """A mistake at a key; read_spec turns it into an InputError with the line."""

    def __init__(self, message: str, key: str, index: int | None = None) -> None:
        super().__init__(message)
        self.key, self.index = key, index


@contextlib.contextmanager
def _blamed_on(where: str, lines: Lines | None = None) -> Iterator[None]:
    try:
        yield
    except _Wrong as wrong:
        assert lines is not None
        line = lines.top(wrong.key) if wrong.index is None else lines.within("check", wrong.index, wrong.key)
        raise InputError(f"{where}:{line}: {wrong}") from None
    except InputError as error:
        raise InputError(f"{where}: {error}") from error


# -- from tables to dataclasses ------------------------------------------------------------------------


def _spec(path: Path, content: dict[str, Any], lines: Lines) -> Spec:
    for key in content:
        if key not in _TOP:
            hint = "; rules stand below a [[check]]" if key in RULES or key in _SETTINGS else _closest(key, _TOP)
            raise _Wrong(f"unknown key {key!r}{hint}", key)
    baseline = None
    if "baseline" in content:
        baseline = path.parent / _text(content["baseline"], "baseline", None)
    when_unsure = _one_of(WHEN_UNSURE, content.get("when_unsure", "estimate"), "when_unsure", None)
    tables = content.get("check", [])
    if not isinstance(tables, list) or not tables or not all(isinstance(table, dict) for table in tables):
        raise _Wrong("there is nothing to check; add a [[check]] with a name, a bundle and a rule", "check")
    checks: list[Check] = []
    for index, table in enumerate(tables):
        check = _check(path.parent, table, index, lines, baseline is not None)
        if check.name in {other.name for other in checks}:
            raise _Wrong(f"a check called {check.name!r} stands above; give each its own name", "name", index)
        checks.append(check)
    return Spec(path, baseline, when_unsure, tuple(checks))


def _check(folder: Path, table: dict[str, Any], index: int, lines: Lines, baseline: bool) -> Check:
    known = (*_SETTINGS, *RULES)
    for key in table:
        if key not in known:
            hint = "; it stands at the top, above the first [[check]]" if key in _TOP else _closest(key, known)
            raise _Wrong(f"unknown key {key!r}{hint}", key, index)
    for key in ("name", "bundle"):
        if key not in table:
            raise _Wrong(f"this check has no {key}; add one", key, index)
    requirements = tuple(
        _requirement(rule, table[name], index, lines) for name, rule in RULES.items() if name in table
    )
    if not requirements:
        raise _Wrong(f"this check has no rule; add one of {', '.join(RULES)}", "check", index)
    check = Check(
        name=_text(table["name"], "name", index),
        bundles=_bundles(folder, table["bundle"], index),
        data=tuple(_data(folder, text, index) for text in _texts(table.get("data", []), "data", index)),
        n=_count(table.get("n"), "n", index),
        checkpoint=_checkpoint(folder, table["checkpoint"], index) if "checkpoint" in table else None,
        halt=_one_of(HALT_MODES, table.get("halt", "learned"), "halt", index),
        max_think_steps=_count(table.get("max_think_steps"), "max_think_steps", index),
        requirements=requirements,
        lines={key: lines.within("check", index, key) for key in known},
    )
    _check_needs(check, index, baseline)
    return check


def _check_needs(check: Check, index: int, baseline: bool) -> None:
    """Whatever a rule needs is given, and nothing is given that no rule uses."""
    add: dict[Need, str] = {
        "data": 'data = "puzzles.csv" or data = "generated:400"',
        "checkpoint": 'checkpoint = "FOLDER" (or the name of a shipped model)',
        "baseline": 'baseline = "baseline.json" at the top of the file',
    }
    checkpoint = check.checkpoint is not None
    given: dict[Need, bool] = {"data": bool(check.data), "checkpoint": checkpoint, "baseline": baseline}
    for each in check.requirements:
        for what, there in given.items():
            if what in each.rule.needs and not there:
                raise _Wrong(f"{each.rule.name} needs {what}; add {add[what]}", each.rule.name, index)
    if checkpoint and not check.needs("checkpoint"):
        users = ", ".join(name for name, rule in RULES.items() if "checkpoint" in rule.needs)
        raise _Wrong(
            f"no rule of this check uses its checkpoint, so it would not be compared; add one of {users}, "
            "or leave it out",
            "checkpoint",
            index,
        )
    labels = [data.label for data in check.data]
    for label in labels:
        if labels.count(label) > 1:
            raise _Wrong(f"data names {label!r} twice; leave one out", "data", index)


def _requirement(rule: Rule, value: Any, index: int, lines: Lines) -> Requirement:
    try:
        limit = rule.unit.read(value)
    except ValueError as error:
        raise _Wrong(f"{rule.name} {error}", rule.name, index) from None
    return Requirement(rule, limit, lines.within("check", index, rule.name))


def _bundles(folder: Path, value: Any, index: int) -> dict[str, Path]:
    """Folders by their path relative to the spec; a pattern stands for every folder it matches."""
    found: dict[str, Path] = {}
    for text in _texts(value, "bundle", index):
        names = [text]
        if glob.has_magic(text):
            matches = sorted(glob.glob(_pattern(folder, text), root_dir=folder, recursive=True))
            names = [name for name in matches if (folder / name).is_dir()]
        if not names:
            raise _Wrong(
                f"bundle {text!r} matches no folder below {str(folder)!r}; export it first", "bundle", index
            )
        for name in names:
            _text(name, "the name of a bundle", index, "bundle")
            found[os.path.normpath(name).replace(os.sep, "/")] = folder / name
    if not found:
        raise _Wrong("bundle names none; give at least one folder", "bundle", index)
    return found


def _pattern(folder: Path, text: str) -> str:
    """A pattern in which every part that is the very name of something, as `my[1]` may be, stands for that."""
    parts = []
    for part in Path(text).parts:
        folder = folder / part
        parts.append(glob.escape(part) if folder.exists() else part)
    return str(Path(*parts))


def _data(folder: Path, text: str, index: int) -> Data:
    if not text.startswith("generated:"):
        return Data(text, folder / text)
    parts = _GENERATED.fullmatch(text)
    if parts is None or int(parts[1]) < 1:
        raise _Wrong(
            f"data {text!r} is not generated:N, generated:N:DIFFICULTY or either with @SEED", "data", index
        )
    seed = HELD_OUT_SEED if parts[3] is None else int(parts[3])
    return Data(text, None, int(parts[1]), parts[2] or "ordinary", seed)


def _checkpoint(folder: Path, value: Any, index: int) -> str:
    """A path relative to the spec where there is one, else the name of a model that ships."""
    text = _text(value, "checkpoint", index)
    return str(folder / text) if os.path.exists(folder / text) else text


def _one_of(allowed: tuple[str, ...], value: Any, key: str, index: int | None) -> str:
    if value not in allowed:
        raise _Wrong(f"{key} must be one of {', '.join(map(repr, allowed))}, not {shown(value)}", key, index)
    return value


def _count(value: Any, key: str, index: int) -> int | None:
    if value is None:
        return None
    if type(value) is not int or not 1 <= value <= _MOST:
        raise _Wrong(f"{key} must be a whole number of at least 1, not {shown(value)}", key, index)
    return value


def _texts(value: Any, key: str, index: int) -> list[str]:
    """One text, or a list of them."""
    return [_text(item, key, index) for item in (value if isinstance(value, list) else [value])]


def _text(value: Any, what: str, index: int | None, key: str | None = None) -> str:
    # Printable: it goes into tables, XML and one-line messages.
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        raise _Wrong(f"{what} must be text on one line, not {shown(value)}", key or what, index)
    return value


def _closest(key: str, known: tuple[str, ...]) -> str:
    near = difflib.get_close_matches(key, known, 1)
    return f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(known)}"
