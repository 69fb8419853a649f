"""What this machine can do: Python, CPU, which backends are usable and why not, which bundles stand here."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from . import __version__
from .bundle import MANIFEST, open_bundle
from .errors import InputError
from .runtimes.loader import BACKENDS, backend_module

# CPU features that decide how fast (and in which precision) a backend computes.
_FEATURES = (
    *("sse4_2", "avx", "avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16"),
    *("amx_tile", "amx_int8", "amx_bf16"),
    *("asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve"),
)
# Targets the product is meant for and this version does not build or run, with the package that would.
_NOT_YET = {"tensorrt": "tensorrt-rtx-cu13-libs", "coreml": "coremltools"}
# What training, and what exporting on top of it, imports.
_TRAIN, _EXPORT = ("torch", "safetensors", "yaml"), ("onnx", "onnxscript")


@dataclass(frozen=True)
class Backend:
    """One backend: ``role`` is what it is for; ``install`` the command that would make it usable, if any."""

    name: str
    role: str
    usable: bool
    version: str | None
    why_not: str | None
    install: str | None


@dataclass(frozen=True)
class BundleState:
    """One bundle: ``problem`` says why it can not be opened or run; ``ungated`` why not to rely on it."""

    path: str
    name: str | None
    target: str | None
    precision: str | None
    loop: str | None
    gated: bool
    ungated: str | None
    problem: str | None


@dataclass(frozen=True)
class Environment:
    """Everything ``hrm-edge env`` prints."""

    hrm_edge: str
    python: str
    platform: str
    cpu: str
    threads: int
    features: list[str]
    backends: list[Backend]
    bundles: list[BundleState]

    def to_dict(self) -> dict[str, Any]:
        """The JSON object of ``hrm-edge env --json``."""
        return asdict(self)


def look_around(bundles: Sequence[str | Path] = ()) -> Environment:
    """Inspect this machine, and the given bundles or else those in ``./bundles``.

    Raises :class:`InputError` when a given bundle can not be opened; one that was merely found is reported.
    """
    backends = [*_running(), *_making()]
    usable = {backend.name for backend in backends if backend.usable}
    states = [_state(Path(path), usable, given=True) for path in bundles]
    if not bundles:
        found = sorted(path.parent for path in Path("bundles").glob(f"*/{MANIFEST}"))
        states = [_state(path, usable, given=False) for path in found]
    model, features = _cpu()
    return Environment(
        hrm_edge=__version__,
        python=platform.python_version(),
        platform=platform.platform(),
        cpu=model,
        threads=usable_threads(),
        features=features,
        backends=backends,
        bundles=states,
    )


def usable_threads() -> int:
    """CPU threads this process may run on, which a container's limit may make fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _running() -> list[Backend]:
    """What runs bundles."""
    rows = []
    for target in BACKENDS:
        usable, version, why_not, install = backend_module(target).available()
        rows.append(Backend(target, "run", usable, version, why_not, None if usable else install))
    for target, package in _NOT_YET.items():
        why_not = "this version of hrm-edge neither builds nor runs such bundles"
        rows.append(Backend(target, "run", False, _version(package), why_not, None))
    return rows


def _making() -> list[Backend]:
    """What trains and exports."""
    version = _version("torch")
    train = _absent(_TRAIN)
    if not train:
        try:
            import torch

            where = f"CUDA {torch.version.cuda}" if torch.cuda.is_available() else "CPU only"
            version = f"{torch.__version__} ({where})"
        except Exception as error:  # a broken install fails in ways of its own
            train = f"torch does not load: {(str(error) or type(error).__name__).splitlines()[0]}"
    export = train or _absent(_EXPORT)
    both = version if export else f"{version}, onnx {_version('onnx')}"
    rows = [("torch", "train", version, train), ("torch+onnx", "export", both, export)]
    return [
        Backend(name, role, not missing, found, missing, f"pip install 'hrm-edge[{role}]'" if missing else None)
        for name, role, found, missing in rows
    ]


def _absent(modules: Sequence[str]) -> str | None:
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if not missing:
        return None
    return f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not installed"


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _state(path: Path, usable: set[str], given: bool) -> BundleState:
    try:
        bundle = open_bundle(path)
    except InputError as error:
        if given:
            raise
        return BundleState(str(path), None, None, None, None, False, None, str(error))
    manifest, warning = bundle.manifest, bundle.ungated_warning
    gated = bool(manifest.gate.ran and manifest.gate.passed)
    problem = None if manifest.target in usable else f"{manifest.target} is not usable here"
    return BundleState(
        path=str(path),
        name=manifest.name,
        target=manifest.target,
        precision=manifest.precision,
        loop=manifest.loop,
        gated=gated,
        ungated=warning and warning.removeprefix(f"{path}: "),
        problem=problem,
    )


def _cpu() -> tuple[str, list[str]]:
    """(model name, features that matter), as far as this system tells."""
    fields: dict[str, str] = {}
    if sys.platform == "linux":
        try:
            for line in Path("/proc/cpuinfo").read_text().splitlines():
                name, _, value = line.partition(":")
                fields.setdefault(name.strip().lower(), value.strip())
        except OSError:
            pass
    present = set((fields.get("flags") or fields.get("features") or "").split())
    model = fields.get("model name") or platform.processor() or platform.machine()
    return model, [name for name in _FEATURES if name in present]
