"""The committed baseline: what each bundle came to, puzzle by puzzle; sorted, readable, and not edited by hand.

The digest is no signature: it catches edits and merges by hand, and a review of the file's diff the rest.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, fields
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import model_validator
from pydantic.dataclasses import dataclass

from ..errors import InputError
from ..files import read_text, write_atomically
from ..records import STRICT, FromOne, from_json, must_be, newer_version

FORMAT_VERSION = 1
_LARGEST = 64 * 2**20  # bytes


Fraction = Annotated[float, must_be("a number between 0 and 1", lambda value: 0 <= value <= 1)]
Positive = Annotated[float, must_be("a number above 0", lambda value: 0 < value < math.inf)]


@dataclass(frozen=True, config=STRICT)
class SampleEntry:
    """One bundle's answers to one data set."""

    exact: Fraction
    token: Fraction | None
    n: FromOne
    steps_mean: Annotated[float, must_be("a finite number", math.isfinite)]
    halted: Fraction
    puzzles: str  # content hash
    right: str  # hex of the packed bits of bool[n]: puzzle by puzzle, whether it was solved

    def bits(self) -> np.ndarray:
        """bool[n]"""
        packed = np.frombuffer(bytes.fromhex(self.right), np.uint8)
        return np.unpackbits(packed, count=self.n).astype(bool)

    @model_validator(mode="after")
    def _check_bits(self) -> SampleEntry:
        if len(self.right) != 2 * -(-self.n // 8) or abs(self.bits().mean() - self.exact) > 1e-5:
            raise ValueError("the bits do not come to the accuracy")
        return self


@dataclass(frozen=True, config=STRICT)
class BundleEntry:
    """One bundle in one check. `speed_ratio` is None unless a rule asked for it."""

    bundle: str  # SHA-256 of its manifest, which holds those of all its files
    checkpoint: str  # content hash of the float checkpoint it was made from
    size_mb: Positive
    halt: str
    max_think_steps: FromOne
    speed_ratio: Positive | None
    data: dict[str, SampleEntry]


Baseline = dict[tuple[str, str], BundleEntry]  # by (check, bundle)


@dataclass(frozen=True, config=STRICT)
class _File:
    """What stands in the file: entries by check and by bundle."""

    checks: dict[str, dict[str, BundleEntry]]
    digest: str
    format_version: int
    hrm_edge: str  # its version


def pack(right: np.ndarray) -> str:
    """Hex of bool[n] packed eight to a byte, for `SampleEntry.right`."""
    return np.packbits(right).tobytes().hex()


def write_baseline(path: Path, baseline: Baseline) -> None:
    """Write it whole or not at all; equal content gives equal bytes."""
    write_atomically(path, _dump(_content(baseline)), result=True)


def require_replaceable(path: Path) -> None:
    """InputError where a file is no baseline, not even an edited or a damaged one, before it is replaced by one."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); name another baseline") from None
    if content.strip() not in (b"", b"{}") and not all(
        f'"{name}"'.encode() in content for name in ("checks", "hrm_edge")
    ):
        raise InputError(f"{path}: holds something else than a baseline, which would be replaced; name another")


def read_baseline(path: Path, update: str) -> Baseline:
    """Read a baseline that nobody touched. `update`: the command that writes it, for messages.

    InputError: it is missing, edited by hand, or of a newer version.
    """
    try:
        if path.stat().st_size > _LARGEST:
            raise InputError(f"{path}: is too large to be a baseline; write it again with `{update}`")
        text = read_text(path).replace("\r\n", "\n")  # git may have changed the line ends
        content = json.loads(text)
    except FileNotFoundError:
        raise InputError(f"{path}: there is no baseline yet; write it with `{update}` and commit it") from None
    except OSError as error:
        raise InputError(f"{path}: can not be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        why = str(error).splitlines()[0]
        raise InputError(f"{path}: is no baseline (not JSON: {why}); write it again with `{update}`") from None
    if version := newer_version(content, FORMAT_VERSION):
        raise InputError(f"{path}: has format version {version}, newer than this hrm-edge reads; upgrade hrm-edge")
    if not _untouched(text, content):
        raise InputError(
            f"{path}: was edited by hand (its content does not fit its digest); take the edit back, or write what "
            f"the bundles come to now with `{update}`"
        )
    checks = from_json(_File, text, path, f"write it again with `{update}`").checks
    return {(check, name): entry for check, bundles in checks.items() for name, entry in bundles.items()}


def _untouched(text: str, content: Any) -> bool:
    try:
        return text == _dump({key: value for key, value in content.items() if key != "digest"})
    except (AttributeError, RecursionError, ValueError):  # no object, or what JSON has not
        return False


def changes(old: Baseline, new: Baseline) -> list[str]:
    """One line for each figure that differs, old → new, and for what came and went."""
    before, after = _flat(old), _flat(new)
    lines = []
    for key in sorted(before.keys() | after.keys()):
        where = " / ".join(key)
        was, now = before.get(key), after.get(key)
        if now is None:
            lines.append(f"{where}: no longer checked")
        elif was is None:
            names = ("exact", "n") if isinstance(now, SampleEntry) else ("size_mb",)
            lines.append(f"{where}: new, {', '.join(f'{name} {_short(getattr(now, name))}' for name in names)}")
        else:
            lines += [f"{where}: {line}" for line in _differences(was, now)]
    return lines


def _flat(baseline: Baseline) -> dict[tuple[str, ...], BundleEntry | SampleEntry]:
    """Entries by (check, bundle) and by (check, bundle, data)."""
    flat: dict[tuple[str, ...], BundleEntry | SampleEntry] = {}
    for key, entry in baseline.items():
        flat[key] = entry
        flat |= {(*key, label): sample for label, sample in entry.data.items()}
    return flat


def _differences(was: Any, now: Any) -> list[str]:
    names = [item.name for item in fields(now) if item.name not in ("data", "right")]
    pairs = [(name, getattr(was, name), getattr(now, name)) for name in names]
    lines = [f"{name} {_short(old)} → {_short(new)}" for name, old, new in pairs if old != new]
    return lines + ([_turned(was, now)] if isinstance(now, SampleEntry) and was.right != now.right else [])


def _turned(before: SampleEntry, after: SampleEntry) -> str:
    if before.puzzles != after.puzzles:
        return "other puzzles, so not comparable one by one"
    was, now = before.bits(), after.bits()
    return f"{int((was & ~now).sum())} puzzles lost, {int((~was & now).sum())} won"


def _short(value: Any) -> str:
    if value is None:
        return "–"
    return value[:12] if isinstance(value, str) else f"{value:.6g}"


# -- to JSON ----------------------------------------------------------------------------------


def _content(baseline: Baseline) -> dict[str, Any]:
    from .. import __version__

    checks: dict[str, Any] = {}
    for (check, bundle), entry in baseline.items():
        checks.setdefault(check, {})[bundle] = asdict(entry)
    return {"format_version": FORMAT_VERSION, "hrm_edge": __version__, "checks": checks}


def _dump(content: dict[str, Any]) -> str:
    """The whole text, digest included."""
    plain = json.dumps(content, indent=2, sort_keys=True, allow_nan=False)
    digest = hashlib.sha256(plain.encode()).hexdigest()
    return json.dumps({**content, "digest": digest}, indent=2, sort_keys=True) + "\n"
