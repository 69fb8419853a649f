"""What OpenVINO compiled, kept in the cache folder, so that a bundle opens in a third of the time.

A blob is OpenVINO's own form of a compiled model. It is read only from a folder and a file that are the user's own
and that nobody else may write, and where a digest beside it is its own; it is named after all that it depends on.
What is damaged or another's is compiled anew. `HRM_EDGE_CACHE=/dev/null` keeps and reads nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import mmap
import os
import platform
from pathlib import Path
from typing import Any

import numpy as np

from ..files import cache_folder
from ..tasks.parallel import usable_cores
from . import _kept

_NAMES = r"[0-9a-f]{64}\.blob"
_FILES = 64  # kept at most: those that were used last
_LARGEST = 2**25  # bytes of a graph: what is larger takes as long to read and to write as to compile


class Source:
    """A graph's files, opened once: what is hashed is what is compiled, whatever comes in their place. OSError."""

    def __init__(self, path: Path) -> None:
        self.text = path.read_bytes()
        self.weights: mmap.mmap | bytes = b""
        self._model: Any = None
        # Mapped, as OpenVINO itself does: weights take no memory of their own. It wants to be able to write there.
        with contextlib.suppress(FileNotFoundError), path.with_suffix(".bin").open("rb") as file:
            if os.fstat(file.fileno()).st_size:
                self.weights = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)

    @property
    def size(self) -> int:
        return len(self.text) + len(self.weights)

    def digests(self) -> list[str]:
        return [hashlib.sha256(part).hexdigest() for part in (self.text, self.weights)]

    def model(self, core: Any, tensor: Any) -> Any:
        """As OpenVINO reads it; its weights stay where they are in memory, and so this must outlive it."""
        if self._model is None:
            weights = [tensor(np.frombuffer(self.weights, np.uint8), shared_memory=True)] if self.weights else []
            self._model = core.read_model(self.text, *weights)
        return self._model


class Cache:
    """The blobs of one graph under the same settings; one of single rows, one of any number."""

    def __init__(self, core: Any, source: Source, version: str, settings: dict[str, Any], wanted: bool) -> None:
        self._core, self._source, self._settings = core, source, settings
        self._key: list[Any] | None = None
        self._folder = cache_folder() / "openvino"
        if wanted and source.size <= _LARGEST:
            with contextlib.suppress(OSError):  # installed without its source: nothing tells what prepared a graph
                self._key = [*source.digests(), version, settings, _code(), _machine(core)]

    def _place(self, single: bool) -> Path:
        named = json.dumps([self._key, single], sort_keys=True).encode()
        return self._folder / f"{hashlib.sha256(named).hexdigest()}.blob"

    def read(self, single: bool) -> tuple[Any, list[str], list[str]] | None:
        """(compiled model, names of its outputs, names of inputs whose rows are free); None where none is kept."""
        if self._key is None or not _kept.private_folder(self._folder):
            return None
        place = self._place(single)
        content = _kept.kept(place)
        if content is None:
            return None
        try:
            told, _, blob = content.partition(b"\n")
            names, free = json.loads(told)
            made = self._core.import_model(blob, "CPU", self._settings)
        except Exception:  # a whole one that this OpenVINO does not take: nothing is lost
            return None
        with contextlib.suppress(OSError):
            os.utime(place)
        return made, names, free

    def write(self, single: bool, made: Any, names: list[str], free: list[str]) -> None:
        """Keep a compiled model, where that can be done."""
        if self._key is None:
            return
        with contextlib.suppress(OSError):
            self._folder.mkdir(0o700, parents=True, exist_ok=True)
        # In another's folder it would not be read; and weights may have been written over since they were hashed.
        if not _kept.private_folder(self._folder) or self._source.digests() != self._key[:2]:
            return
        try:
            blob = made.export_model()
        except Exception:  # one that cannot be kept is compiled anew
            return
        content = blob.getvalue() if isinstance(blob, io.BytesIO) else bytes(blob)
        _kept.keep(self._place(single), json.dumps([names, free]).encode() + b"\n" + content)
        _kept.only_newest(self._folder, _FILES, _NAMES)


def _code() -> list[str]:
    """What prepares a graph before it is compiled."""
    here = Path(__file__)
    return [hashlib.sha256(file.read_bytes()).hexdigest() for file in (here, here.with_name("openvino.py"))]


def _machine(core: Any) -> list[Any]:
    """What compiling depends on besides: the CPU, its instructions, the cores, and what holds oneDNN to fewer."""
    told = [str(core.get_property("CPU", name)) for name in ("FULL_DEVICE_NAME", "OPTIMIZATION_CAPABILITIES")]
    holding = sorted(f"{name}={value}" for name, value in os.environ.items() if name.startswith(_HOLDING))
    return [*told, platform.machine(), _instructions(), usable_cores(), holding]


_HOLDING = ("ONEDNN_", "DNNL_", "OV_", "OPENVINO_", "OMP_", "TBB_")


def _instructions() -> str:
    """The first CPU's flags, where the system tells; no more of the file is read, which grows with the cores."""
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as file:
        for line in file:
            if line.startswith(("flags", "Features")):
                return line.strip()
    return ""
