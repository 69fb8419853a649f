"""The two flavours of TensorRT behind one API: `tensorrt` (10 and 11) and `tensorrt-rtx`; which are installed."""

from __future__ import annotations

import importlib
import importlib.util
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ...errors import InputError
from ...packages import install, install_package
from ..base import first_line

RTX, FULL = "tensorrt-rtx", "tensorrt"
# Flavour → the modules it may be installed as, the most specific first.
_MODULES = {RTX: ("tensorrt_rtx_bindings", "tensorrt_rtx"), FULL: ("tensorrt",)}


JETSON = frozenset({72, 87, 101, 110})  # Xavier, Orin and Thor, the last by both of its numbers
_ON_THAT_GPU = "try `tensorrt` on a machine with that GPU"
_ON_A_JETSON = (
    "that is a Jetson, whose TensorRT comes with JetPack: export without --compute-capability, copy the bundle "
    "there and run the `trtexec` lines of its README.md, which build from its ONNX (not run by hrm-edge)"
)


@dataclass(frozen=True)
class Flavour:
    """One installed flavour. ``trt`` is its module, whose classes have the same names in both."""

    name: str  # RTX or FULL
    version: str
    trt: Any

    @property
    def is_rtx(self) -> bool:
        """Whether it builds for GPUs that are not there, and compiles kernels when an engine is loaded."""
        return self.name == RTX

    @property
    def major(self) -> int:
        return int(self.version.split(".")[0])

    @property
    def ahead_of_time(self) -> tuple[int, ...]:
        """Compute capabilities × 10 it builds for on a machine without a GPU (86 for 8.6); () for ``tensorrt``."""
        if not self.is_rtx:
            return ()
        names = [name for name in dir(self.trt.ComputeCapability) if name.startswith("SM")]
        found = sorted(int(name[2:]) for name in names if name[2:].isdigit())
        # It has no FP32 products for 7.5 ("FP32 GEMM is not supported"), and our heads are FP32.
        return tuple(one for one in found if one >= 80)

    def runs_on(self, compute_capability: int) -> bool:
        """Whether it has kernels for a GPU. ``tensorrt`` itself says no, when it builds, to very old ones."""
        return compute_capability in self.ahead_of_time if self.is_rtx else compute_capability >= 75

    def need(self, compute_capabilities: Iterable[int]) -> None:
        """Raises :class:`InputError` unless it builds for all of them; `tensorrt` takes what is there."""
        known = self.ahead_of_time
        unknown = [one for one in compute_capabilities if one not in known]
        if self.is_rtx and unknown:
            raise InputError(
                f"{self.name} {self.version} can not build for compute capability {as_text(unknown)}, only for "
                f"{as_text(known)}; " + (_ON_A_JETSON if JETSON.intersection(unknown) else _ON_THAT_GPU)
            )

    def create_network(self, builder: Any) -> Any:
        """A strongly typed network: computed in the types it is written in. 11.x and RTX know no other."""
        if self.is_rtx or self.major >= 11:
            return builder.create_network()
        return builder.create_network(1 << int(self.trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))


def installed() -> tuple[list[Flavour], list[str]]:
    """The flavours that can be imported, RTX first, and a line on each that is installed but does not load."""
    found, broken = [], []
    for name, modules in _MODULES.items():
        module = next((m for m in modules if importlib.util.find_spec(m) is not None), None)
        if module is None:
            continue
        try:
            trt = importlib.import_module(module)
            found.append(Flavour(name, str(trt.__version__), trt))
        except Exception as error:  # a broken install fails in ways of its own
            broken.append(f"{name} does not load: {first_line(error)}")
    return found, broken


def flavour(name: str | None = None) -> Flavour:
    """An installed flavour by name, or the first one. Raises :class:`InputError` when there is none."""
    found, broken = installed()
    for one in found:
        if name in (None, one.name):
            return one
    wanted = name or RTX
    why = next((line for line in broken if line.startswith(f"{wanted} ")), f"{wanted} is not installed")
    raise InputError(f"{why}; run: {how_to_install(wanted)}")


def how_to_install(name: str) -> str:
    """The command for a flavour: RTX is what the extra has, the other one goes by its own name."""
    return install("tensorrt") if name == RTX else install_package(name)


def as_text(compute_capabilities: Iterable[int]) -> str:
    """Compute capabilities as people write them: ``8.6, 8.9``."""
    return ", ".join(f"{one // 10}.{one % 10}" for one in compute_capabilities)


def as_numbers(text: str) -> tuple[int, ...]:
    """``8.6,89`` → (86, 89). Raises :class:`InputError`, naming the flag."""
    parts = [part.strip() for part in text.split(",")]
    for part in parts:
        if not re.fullmatch(r"\d{1,2}\.\d|\d{2,3}", part, re.ASCII):
            raise InputError(f"--compute-capability: {part!r} is none; write them as 8.6,8.9 or 86,89")
    return tuple(dict.fromkeys(int(part.replace(".", "")) for part in parts))
