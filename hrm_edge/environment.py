"""What this machine can do: Python, CPU, GPU, which backends are usable and why not, which bundles stand here."""

from __future__ import annotations

import platform
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from . import __version__
from .bundle import MANIFEST, open_bundle
from .errors import InputError
from .exporters.targets import all_targets
from .exporters.targets.base import Target
from .measure.arithmetic import cpu
from .packages import absent, install, version_of
from .runtimes import backend, backends
from .runtimes.base import first_line
from .runtimes.tensorrt.cuda import find_gpu
from .runtimes.tensorrt.flavours import as_text
from .tasks.parallel import usable_cores

# What training imports, and what every export does on top of it.
_TRAIN = ("torch", "safetensors", "yaml")
_EXPORT = ("onnx", "onnxscript", "ml_dtypes", "jinja2")
# The driver's own tool answers at once, or hangs when the GPU does.
_SECONDS_FOR_THE_DRIVER = 10


@dataclass(frozen=True)
class BackendState:
    """One backend, or one target of exports.

    ``role``: "run", "train" or "export". ``install``: the command that would make it usable, if any. ``note``: what
    else one should know of it here.
    """

    name: str
    role: str
    usable: bool
    version: str | None
    why_not: str | None
    install: str | None
    note: str | None = None


@dataclass(frozen=True)
class Lack:
    """What every export lacks here, which begins the ``why_not`` of each, and the command that installs it."""

    why_not: str
    install: str


@dataclass(frozen=True)
class GpuState:
    """One NVIDIA GPU; ``compute_capability`` as people write it, "8.6"; ``driver``: its version, where known."""

    name: str
    compute_capability: str
    driver: str | None


@dataclass(frozen=True)
class BundleState:
    """One bundle: ``problem`` says why it can not be opened or run; ``ungated`` why not to rely on it."""

    path: str
    name: str | None
    target: str | None
    precision: str | None
    loop: str | None
    gated: bool
    gated_by: str | None  # what answered in the device's place, if the gate did not run on it
    ungated: str | None
    problem: str | None

    @property
    def broken(self) -> bool:
        """Whether it could not even be opened."""
        return self.target is None


@dataclass(frozen=True)
class Environment:
    """Everything ``hrm-edge env`` prints; with ``--json``, as it is."""

    hrm_edge: str
    python: str
    platform: str
    cpu: str
    threads: int
    features: list[str]
    gpus: list[GpuState]
    backends: list[BackendState]
    exports_lack: Lack | None
    bundles: list[BundleState]


def look_around(bundles: Sequence[str | Path] = ()) -> Environment:
    """Inspect this machine, and the given bundles or else those in ``./bundles``. What is broken is reported."""
    gpus = _gpus()
    running = [_running(name, gpus) for name in backends()]
    usable = {row.name for row in running if row.usable}
    if not bundles:
        # A name that begins with a dot is an export that has not finished.
        bundles = sorted(path.parent for path in Path("bundles").glob(f"[!.]*/{MANIFEST}"))
    model, features = cpu()
    making, lack = _making(gpus)
    return Environment(
        hrm_edge=__version__,
        python=platform.python_version(),
        platform=platform.platform(),
        cpu=model,
        threads=usable_cores(),
        features=features,
        gpus=gpus,
        backends=[*running, *making],
        exports_lack=lack,
        bundles=[_state(Path(path), usable) for path in bundles],
    )


def _running(name: str, gpus: list[GpuState]) -> BackendState:
    """Whether bundles of a target can be run."""
    try:
        usable, version, why_not, command = backend(name).available()
    except Exception as error:  # this command is for machines where things are broken
        usable, version, why_not, command = False, None, f"{name} does not load: {first_line(error)}", ""
    note = backend(name).note(gpus)
    return BackendState(name, "run", usable, version, why_not, None if usable else command or None, note)


def _making(gpus: list[GpuState]) -> tuple[list[BackendState], Lack | None]:
    """What trains, and what exports to each target; what all of these lack."""
    version, broken = _torch()
    why_not = absent(_TRAIN) or broken
    train = BackendState("torch", "train", not why_not, version, why_not, install("train") if why_not else None)
    common = "; ".join(reason for reason in (broken, absent((*_TRAIN, *_EXPORT))) if reason)
    lack = Lack(common, install("export")) if common else None
    return [train, *(_exporting(target, lack, gpus) for target in all_targets().values())], lack


def _torch() -> tuple[str | None, str | None]:
    """(version, what is wrong with an installed torch)."""
    if absent(("torch",)):
        return None, None
    try:
        import torch

        where = f"CUDA {torch.version.cuda}" if torch.cuda.is_available() else "CPU only"
        return f"{torch.__version__} ({where})", None
    except Exception as error:  # a broken install fails in ways of its own
        return version_of("torch"), f"torch does not load: {first_line(error)}"


def _exporting(target: Target, lack: Lack | None, gpus: list[GpuState]) -> BackendState:
    """Whether bundles of a target can be made."""
    version, missing, note = target.tools([gpu.name for gpu in gpus])
    why_not = [*([lack.why_not] if lack else []), *([missing] if missing else [])]
    extras = [*(["export"] if lack else []), *([target.name] if missing else [])]
    if not why_not and target.gate_package and absent((target.gate_package,)):
        ungated = f"only with --no-gate: the gate needs {target.gate_package}, which is not installed"
        note = f"{ungated}; {note}" if note else ungated
    reasons, command = "; ".join(why_not) or None, install(*extras) if extras else None
    return BackendState(target.name, "export", not why_not, version, reasons, command, note)


def _gpus() -> list[GpuState]:
    """NVIDIA GPUs, as the driver's own tool tells of them, or else CUDA."""
    tool = shutil.which("nvidia-smi")
    if tool and (shown := _shown_by(tool)):
        return shown
    try:
        gpu = find_gpu()
    except InputError:
        return []
    return [GpuState(gpu.name, as_text([gpu.compute_capability]), None)]


def _shown_by(tool: str) -> list[GpuState]:
    """Empty when there is no GPU, or no driver that answers."""
    query = [tool, "--query-gpu=name,compute_cap,driver_version", "--format=csv,noheader"]
    try:
        told = subprocess.run(query, capture_output=True, text=True, timeout=_SECONDS_FOR_THE_DRIVER, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    rows = [line.rsplit(", ", 2) for line in told.stdout.splitlines()]
    return [GpuState(*row) for row in rows if len(row) == 3]


def _state(path: Path, usable: set[str]) -> BundleState:
    try:
        bundle = open_bundle(path)
    except InputError as error:
        return BundleState(
            str(path), None, None, None, None, False, None, None, str(error).removeprefix(f"{path}: ")
        )
    manifest, warning = bundle.manifest, bundle.ungated_warning
    return BundleState(
        path=str(path),
        name=manifest.name,
        target=manifest.target,
        precision=manifest.precision,
        loop=manifest.loop,
        gated=bool(manifest.gate.ran and manifest.gate.passed),
        gated_by=manifest.gate.reason if manifest.gate.passed else None,
        ungated=warning and warning.removeprefix(f"{path}: "),
        problem=None if manifest.target in usable else f"{manifest.target} is not usable here",
    )
