"""The committed baseline: what each bundle came to, puzzle by puzzle; sorted, readable, and not edited by hand.

The digest is no signature: it catches edits and merges by hand, and a review of the file's diff the rest.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..files import write_atomically

FORMAT_VERSION = 1
_LARGEST = 64 * 2**20  # bytes


@dataclass(frozen=True)
class SampleEntry:
    """One bundle's answers to one data set. Fractions are 0 to 1."""

    exact: float
    token: float | None
    n: int
    steps_mean: float
    halted: float
    puzzles: str  # content hash
    right: str  # hex of the packed bits of bool[n]: puzzle by puzzle, whether it was solved

    def bits(self) -> np.ndarray:
        """bool[n]"""
        packed = np.frombuffer(bytes.fromhex(self.right), np.uint8)
        return np.unpackbits(packed, count=self.n).astype(bool)


@dataclass(frozen=True)
class BundleEntry:
    """One bundle in one check. `speed_ratio` is None unless a rule asked for it."""

    bundle: str  # SHA-256 of its manifest, which holds those of all its files
    checkpoint: str  # content hash of the float checkpoint it was made from
    size_mb: float
    halt: str
    max_think_steps: int
    speed_ratio: float | None
    data: dict[str, SampleEntry]


@dataclass(frozen=True)
class Baseline:
    """Entries by (check, bundle)."""

    entries: dict[tuple[str, str], BundleEntry]


def pack(right: np.ndarray) -> str:
    """Hex of bool[n] packed eight to a byte, for `SampleEntry.right`."""
    return np.packbits(right).tobytes().hex()


def write_baseline(path: Path, baseline: Baseline) -> None:
    """Write it whole or not at all; equal content gives equal bytes."""
    write_atomically(path, _dump(_content(baseline)))


def read_baseline(path: Path, update: str) -> Baseline:
    """Read a baseline that nobody touched. `update`: the command that writes it, for messages.

    Raises:
        InputError: missing, edited by hand, or of a newer version.
    """
    try:
        if path.stat().st_size > _LARGEST:
            raise InputError(f"{path}: is too large to be a baseline; write it again with `{update}`")
        text = path.read_bytes().decode().replace("\r\n", "\n")  # git may have changed the line ends
        content = json.loads(text)
    except FileNotFoundError:
        raise InputError(f"{path}: there is no baseline yet; write it with `{update}` and commit it") from None
    except OSError as error:
        raise InputError(f"{path}: can not be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        why = str(error).splitlines()[0]
        raise InputError(f"{path}: is no baseline (not JSON: {why}); write it again with `{update}`") from None
    version = content.get("format_version") if isinstance(content, dict) else None
    if type(version) is int and version > FORMAT_VERSION:
        raise InputError(f"{path}: has format version {version}, newer than this hrm-edge reads; upgrade hrm-edge")
    try:
        baseline = _parse(content)
        untouched = text == _dump({key: value for key, value in content.items() if key != "digest"})
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
        baseline, untouched = Baseline({}), False
    if not untouched:
        raise InputError(
            f"{path}: was edited by hand (its content does not fit its digest); take the edit back, or write what "
            f"the bundles come to now with `{update}`"
        )
    return baseline


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
    for key, entry in baseline.entries.items():
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


# -- to JSON and back ----------------------------------------------------------------------------------


def _content(baseline: Baseline) -> dict[str, Any]:
    from .. import __version__

    checks: dict[str, Any] = {}
    for (check, bundle), entry in baseline.entries.items():
        checks.setdefault(check, {})[bundle] = asdict(entry)
    return {"format_version": FORMAT_VERSION, "hrm_edge": __version__, "checks": checks}


def _dump(content: dict[str, Any]) -> str:
    """The whole text, digest included."""
    plain = json.dumps(content, indent=2, sort_keys=True, allow_nan=False)
    digest = hashlib.sha256(plain.encode()).hexdigest()
    return json.dumps({**content, "digest": digest}, indent=2, sort_keys=True) + "\n"


def _parse(content: dict[str, Any]) -> Baseline:
    """Raises KeyError, TypeError, ValueError or AttributeError when it is not what :func:`_content` gives."""
    entries = {}
    for check, bundles in content["checks"].items():
        for bundle, entry in bundles.items():
            data = {label: _sample(SampleEntry(**sample)) for label, sample in entry["data"].items()}
            entries[check, bundle] = _bundle(BundleEntry(**{**entry, "data": data}))
    return Baseline(entries)


def _sample(entry: SampleEntry) -> SampleEntry:
    fractions = [entry.exact, entry.halted] + ([] if entry.token is None else [entry.token])
    if type(entry.n) is not int or entry.n < 1 or not all(0 <= value <= 1 for value in fractions):
        raise ValueError("figures out of range")
    if not math.isfinite(entry.steps_mean) or not isinstance(entry.puzzles, str):
        raise ValueError("no number of segments or no hash")
    bits = entry.bits()
    if len(entry.right) != 2 * -(-entry.n // 8) or abs(bits.mean() - entry.exact) > 1e-5:
        raise ValueError("the bits do not come to the accuracy")
    return entry


def _bundle(entry: BundleEntry) -> BundleEntry:
    numbers = [entry.size_mb, entry.max_think_steps] + ([] if entry.speed_ratio is None else [entry.speed_ratio])
    if not all(math.isfinite(value) and value > 0 for value in numbers):
        raise ValueError("figures out of range")
    if not all(isinstance(text, str) for text in (entry.bundle, entry.checkpoint, entry.halt)):
        raise ValueError("no text")
    return entry
