"""The bundle: a folder with a manifest, graph files and their hashes, whole and untouched or refused."""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..files import files_in, sha256
from ..records import from_json, newer_version
from ..workspace import MANIFEST, MANIFEST_BYTES, unmixed
from .accuracy import Accuracy, read_accuracy
from .manifest import FORMAT_VERSION, FileEntry, Manifest

ACCURACY = "accuracy.json"

_SAFE_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]*")


@dataclass(frozen=True)
class Bundle:
    """An opened bundle: every file it lists was there, whole and unchanged, when it was opened."""

    path: Path
    manifest: Manifest
    accuracy: Accuracy | None  # what the gate measured; None when it did not run
    sha256: str  # of its manifest as it was read, which holds those of all its files

    @property
    def ungated_warning(self) -> str | None:
        """One line to show whenever a bundle is used whose accuracy nobody has checked; else None."""
        gate = self.manifest.gate
        if gate.ran and gate.passed:
            return None
        what = "its accuracy gate did not pass" if gate.ran else "its accuracy was never checked"
        return f"{self.path}: {what} ({gate.reason or 'no reason given'}); do not rely on its answers"

    @property
    def size(self) -> int:
        """Bytes of all files the manifest lists."""
        return sum(entry.size for entry in self.manifest.files.values())


def seal_bundle(folder: Path, manifest: Manifest, accuracy: dict[str, Any] | None = None) -> Manifest:
    """Hash what stands in ``folder`` and write its manifest; may be called again after the gate has run.

    Returns the manifest as written, ``files`` filled in. The same content gives the same bytes. The folder is one
    that is still being made: nothing else reads it meanwhile.
    """
    folder = Path(folder)
    if accuracy is not None:
        (folder / ACCURACY).write_bytes(_dump(accuracy).encode())
    names = sorted(files_in(folder) - {MANIFEST})
    files = {name: FileEntry(sha256(folder / name), (folder / name).stat().st_size) for name in names}
    sealed = replace(manifest, files=files)
    content = asdict(sealed)
    (folder / MANIFEST).write_bytes(_dump({**content, "digest": _digest(content)}).encode())
    return sealed


def open_bundle(path: str | Path) -> Bundle:
    """Check a bundle folder from end to end. Raises :class:`InputError` (one line) on anything amiss."""
    if set(str(path)) & set("\0\r\n"):
        raise InputError(f"{str(path)!r}: no bundle can have such a name (it holds a line end or a NUL)")
    try:
        return unmixed(Path(path), _open)
    except (OSError, ValueError, RecursionError) as error:
        # What is left are refusals of the file system itself: no permission, a name it can not hold, …
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise InputError(f"{str(path)!r}: can not be read as a bundle ({reason}); export it again") from error


def require_unchanged(bundle: Bundle) -> None:
    """InputError where another bundle has taken the place of one since it was opened, as its files were read."""
    try:
        same = hashlib.sha256((bundle.path / MANIFEST).read_bytes()).hexdigest() == bundle.sha256
    except OSError:
        same = False
    if not same:
        raise InputError(f"{bundle.path}: was replaced while it was read; try again")


def _open(path: Path) -> Bundle:
    if not path.is_dir():
        raise InputError(_not_a_folder(path))
    if not os.path.lexists(path / MANIFEST):
        raise InputError(_no_manifest(path))
    present = files_in(path)
    manifest, own = _read_manifest(path)
    _check_files(path, manifest, present)
    return Bundle(path, manifest, _accuracy(path, manifest), own)


def require_replaceable(folder: Path, *, gated: bool) -> None:
    """InputError where a bundle in the place of ``folder`` would lose anything but an older bundle.

    All that is there must be as a manifest of ours lists it (a file may be missing). A bundle that passed its gate
    only makes way for one that is ``gated`` too.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: is a file; give -o a folder to write the bundle to")
    try:
        present = files_in(folder)
        if MANIFEST not in present:
            raise InputError(f"{min(present, default='.')!r} is there, and no {MANIFEST}")
        try:
            manifest, _ = _read_manifest(folder)
        except (InputError, ValueError, RecursionError):
            raise InputError(f"its {MANIFEST} is not one that hrm-edge wrote, or was changed since") from None
        for name in sorted(present - {MANIFEST}):
            if name not in manifest.files:
                raise InputError(f"{name!r} is not listed in its manifest")
            if sha256(folder / name) != manifest.files[name].sha256:
                raise InputError(f"{name!r} was changed after it was written")
    except InputError as error:
        why = str(error).removeprefix(f"{folder}: ").split(";")[0]
        raise InputError(
            f"{folder}: holds something else than a bundle ({why}), which would be replaced; move it away, or "
            "give -o another"
        ) from error
    if manifest.gate.passed and not gated:
        raise InputError(f"{folder}: holds a bundle that passed its gate; give -o another, or gate this one too")


def _read_manifest(path: Path) -> tuple[Manifest, str]:
    """A bundle's manifest, and the SHA-256 of its file."""
    where = str(path / MANIFEST)
    content = _load(path / MANIFEST)
    own = hashlib.sha256(_dump(content).encode()).hexdigest()  # of the very bytes, as _load has seen
    digest = content.pop("digest", None)
    manifest = from_json(Manifest, json.dumps(content), where)
    if digest != _digest(content):
        raise InputError(f"{where}: was changed after it was written; export the bundle again")
    return manifest, own


def _not_a_folder(path: Path) -> str:
    if path.exists():
        return f"{path}: is a file; give the bundle's folder (the one that holds {MANIFEST})"
    return f"{path}: no such bundle folder; make one with `hrm-edge export`"


def _no_manifest(path: Path) -> str:
    if (path / "model.safetensors").exists() or (path / "config.json").exists():
        return f"{path}: is a checkpoint, not a bundle; first run `hrm-edge export {path} -o BUNDLE`"
    return f"{path}: is not a bundle (it has no {MANIFEST}); make one with `hrm-edge export`"


def _load(path: Path) -> dict[str, Any]:
    """A JSON object exactly as :func:`_dump` writes it: any other bytes were not written by us."""
    if path.stat().st_size > MANIFEST_BYTES:
        raise InputError(f"{path}: is too large to be what it says ({MANIFEST_BYTES >> 20} MiB at most)")
    raw = path.read_bytes()
    try:
        content = json.loads(raw, object_pairs_hook=_unique_keys, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{path}: is not valid JSON ({reason}); export the bundle again") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds no JSON object; export the bundle again")
    if version := newer_version(content, FORMAT_VERSION):
        raise InputError(
            f"{path}: has format version {version}, and this hrm-edge reads up to {FORMAT_VERSION}; "
            "upgrade hrm-edge, or export the bundle again with this version"
        )
    if raw != _dump(content).encode():
        raise InputError(f"{path}: was changed after it was written; export the bundle again")
    return content


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"key {twice!r} stands twice")
    return content


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")


def _dump(content: dict[str, Any]) -> str:
    return json.dumps(content, indent=2, sort_keys=True) + "\n"


def _digest(content: dict[str, Any]) -> str:
    """SHA-256 over everything else in the manifest, so that a flipped byte in it shows as well."""
    return hashlib.sha256(_dump(content).encode()).hexdigest()


def _check_files(path: Path, manifest: Manifest, present: set[str]) -> None:
    for name in manifest.files:
        if not all(_SAFE_PART.fullmatch(part) for part in name.split("/")) or name == MANIFEST:
            raise InputError(f"{path / MANIFEST}: lists {name!r}, which is not a plain name inside the bundle")
    if missing := sorted(set(manifest.files) - present):
        raise InputError(f"{path}: {missing[0]!r} is missing; copy the whole folder, or export it again")
    if extra := sorted(present - set(manifest.files) - {MANIFEST}):
        raise InputError(f"{path}: {extra[0]!r} is not listed in its manifest; remove it, or export again")
    for graph, name in manifest.graphs.items():
        # A Core ML package is a folder.
        if not any(file == name or file.startswith(f"{name}/") for file in manifest.files):
            raise InputError(f"{path / MANIFEST}: graph {graph!r} is {name!r}, which is not among its files")
    for name, entry in manifest.files.items():
        size = (path / name).stat().st_size
        if size != entry.size:
            raise InputError(
                f"{path / name}: has {size} bytes instead of {entry.size}; copy it again or export again"
            )
        if sha256(path / name) != entry.sha256:
            raise InputError(
                f"{path / name}: its content was changed (SHA-256 differs); copy it again or export again"
            )


def _accuracy(path: Path, manifest: Manifest) -> Accuracy | None:
    if ACCURACY in manifest.files:
        found = read_accuracy(_load(path / ACCURACY), path / ACCURACY)
        if manifest.gate.passed and not found.passed:
            raise InputError(
                f"{path}: {MANIFEST} says that its gate passed, and {ACCURACY} that it did not; export it again"
            )
        trained = manifest.architecture["halt_max_steps"]
        if found.max_think_steps != trained:
            raise InputError(
                f"{path}: its gate allowed {found.max_think_steps} segments, and {MANIFEST} allows {trained}; "
                "export it again"
            )
        return found
    if manifest.gate.ran:
        raise InputError(f"{path}: its gate ran, but {ACCURACY} is missing; export it again")
    return None
