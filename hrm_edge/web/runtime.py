"""onnxruntime-web, of one pinned version: out of the cache, or fetched once by `npm pack`."""

from __future__ import annotations

import base64
import hashlib
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ..errors import InputError
from ..files import cache_folder, write_atomically

PACKAGE, VERSION = "onnxruntime-web", "1.30.0"
_SHA512 = "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="  # npm's own
_ARCHIVE = f"{PACKAGE}-{VERSION}.tgz"
_SECONDS = 600


def runtime_files(names: Sequence[str], archive: Path | None = None) -> dict[str, bytes]:
    """Files of the package's `dist` folder by name. ``archive``: the package, where it is not to be fetched.

    InputError where it is another version, was damaged, or cannot be had.
    """
    path = archive or _cached()
    content = _read(path)
    if _digest(content) != _SHA512:
        raise InputError(
            f"{path}: is not {PACKAGE} {VERSION} as npm has it; get it with `npm pack {PACKAGE}@{VERSION}`"
        )
    with tarfile.open(path) as package:
        found = {name: package.extractfile(f"package/dist/{name}") for name in names}
        return {name: file.read() for name, file in found.items() if file is not None}


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None


def _digest(content: bytes) -> str:
    return base64.b64encode(hashlib.sha512(content).digest()).decode()


def _cached() -> Path:
    """The archive in the cache, fetched where it is not there or is damaged."""
    path = cache_folder() / "npm" / _ARCHIVE
    if path.is_file() and _digest(_read(path)) == _SHA512:
        return path
    content = _fetched()
    if _digest(content) != _SHA512:
        raise InputError(f"npm gave another {PACKAGE} {VERSION} than the one that is known; nothing was written")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, content)
    return path


def _fetched() -> bytes:
    npm = shutil.which("npm")
    elsewhere = f"fetch it elsewhere with `npm pack {PACKAGE}@{VERSION}` and name the archive with --runtime"
    if npm is None:
        raise InputError(
            f"a page for an ONNX bundle needs {PACKAGE}, and npm, which fetches it, is not here; {elsewhere}"
        )
    with tempfile.TemporaryDirectory(prefix="hrm-edge-npm-") as scratch:
        try:
            subprocess.run(
                [npm, "pack", "--ignore-scripts", "--silent", f"{PACKAGE}@{VERSION}"],
                cwd=scratch,
                check=True,
                capture_output=True,
                timeout=_SECONDS,
            )
            return (Path(scratch) / _ARCHIVE).read_bytes()
        except (OSError, subprocess.SubprocessError):
            raise InputError(f"npm could not fetch {PACKAGE} {VERSION}; {elsewhere}") from None
