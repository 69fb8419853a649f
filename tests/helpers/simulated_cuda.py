"""A GPU that is not there: `cuda.bindings.runtime` on host memory, strict about everything a real one forgives.

Memory is full of NaN when reserved, and addresses are never used again; work on a stream is done only when the
stream is synchronized; every address is checked when it is used, and what is wrong is noted in ``faults``.
"""

from __future__ import annotations

import ctypes
import enum
import importlib.machinery
import sys
import threading
import types
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

GARBAGE = 0xFF  # as float32 NaN, as int32 -1
_EVENTFUL = threading.RLock()


class Error(enum.IntEnum):
    """The codes of `cudaError_t` that we know."""

    cudaSuccess = 0
    cudaErrorInvalidValue = 1
    cudaErrorMemoryAllocation = 2
    cudaErrorInsufficientDriver = 35
    cudaErrorNoDevice = 100
    cudaErrorIllegalAddress = 700
    cudaErrorStreamCaptureUnsupported = 900
    cudaErrorStreamCaptureInvalidated = 901


class CopyKind(enum.IntEnum):
    cudaMemcpyHostToDevice = 1
    cudaMemcpyDeviceToHost = 2
    cudaMemcpyDeviceToDevice = 3


class CaptureMode(enum.IntEnum):
    cudaStreamCaptureModeThreadLocal = 1


@dataclass
class Memory:
    """One reservation; ``kind`` is "device" or "pinned"."""

    address: int
    size: int
    kind: str
    raw: Any
    freed: bool = False

    def bytes(self, address: int, size: int) -> np.ndarray:
        first = address - self.address
        return np.frombuffer(self.raw, np.uint8)[first : first + size]


class Handle:
    """What `cudaStream_t` and others are: something with a number."""

    def __init__(self, number: int) -> None:
        self._number = number

    def __int__(self) -> int:
        return self._number


@dataclass
class Stream:
    pending: list[Callable[[], None]] = field(default_factory=list)
    recording: list[Callable[[], None]] | None = None
    spoiled: bool = False  # something was asked for that can not be recorded

    def put(self, work: Callable[[], None]) -> None:
        (self.pending if self.recording is None else self.recording).append(work)


@dataclass
class SimulatedGpu:
    """The machine. Change its fields before a program looks at it."""

    name: str = "Simulated GPU"
    compute_capability: int = 89
    memory: int = 1 << 30
    driver: int = 13040  # CUDA version it runs; 0: there is none
    runtime: int = 13040
    count: int = 1
    faults: list[str] = field(default_factory=list)
    reserved: list[Memory] = field(default_factory=list)
    streams: dict[int, Stream] = field(default_factory=dict)
    graphs: dict[int, list[Callable[[], None]]] = field(default_factory=dict)
    launched: int = 0
    copied: dict[str, int] = field(default_factory=dict)  # bytes by direction
    fail_next: Error | None = None  # of the next synchronization

    # -- memory --------------------------------------------------------------------------------------

    def in_use(self, kind: str) -> int:
        return sum(memory.size for memory in self.reserved if not memory.freed and memory.kind == kind)

    def reserve(self, size: int, kind: str) -> tuple[Any, ...]:
        if self.driver == 0:
            return Error.cudaErrorInsufficientDriver, None
        if size <= 0 or (kind == "device" and self.in_use("device") + size > self.memory):
            return Error.cudaErrorMemoryAllocation, None
        raw = (ctypes.c_ubyte * size)()
        ctypes.memset(raw, GARBAGE, size)
        # Kept for ever, so that an address that was freed is recognized and touching it does no harm.
        self.reserved.append(Memory(ctypes.addressof(raw), size, kind, raw))
        return Error.cudaSuccess, ctypes.addressof(raw)

    def free(self, address: int, kind: str) -> tuple[Any, ...]:
        memory = next((m for m in self.reserved if m.address == int(address)), None)
        if memory is None or memory.freed or memory.kind != kind:
            self.faults.append(f"freed what is not reserved as {kind}")
            return (Error.cudaErrorInvalidValue,)
        memory.freed = True
        return (Error.cudaSuccess,)

    def at(self, address: int, size: int, kind: str, what: str) -> np.ndarray:
        """The bytes at an address, or garbage and a fault when the program must not touch them."""
        for memory in self.reserved:
            if memory.address <= address and address + size <= memory.address + memory.size:
                if memory.freed:
                    self.faults.append(f"{what}: used after it was freed")
                if memory.kind != kind:
                    self.faults.append(f"{what}: is {memory.kind} memory, not {kind}")
                return memory.bytes(address, size)
        self.faults.append(f"{what}: {size} bytes at an address that is not reserved")
        return np.full(size, GARBAGE, np.uint8)

    # -- streams -------------------------------------------------------------------------------------

    def stream(self, handle: Any) -> Stream:
        return self.streams[int(handle)]

    def synchronize(self, handle: Any) -> tuple[Any, ...]:
        with _EVENTFUL:
            stream = self.stream(handle)
            if stream.recording is not None:
                stream.spoiled = True
                return (Error.cudaErrorStreamCaptureUnsupported,)
            while stream.pending:
                stream.pending.pop(0)()
            failure, self.fail_next = self.fail_next, None
            return (failure or Error.cudaSuccess,)

    def copy(self, target: int, source: int, size: int, kind: CopyKind, handle: Any) -> tuple[Any, ...]:
        sides = {1: ("pinned", "device"), 2: ("device", "pinned"), 3: ("device", "device")}[int(kind)]

        def work() -> None:
            data = self.at(source, size, sides[0], "source of a copy")
            self.at(target, size, sides[1], "target of a copy")[:] = data
            self.copied[CopyKind(kind).name] = self.copied.get(CopyKind(kind).name, 0) + size

        self.stream(handle).put(work)
        return (Error.cudaSuccess,)

    def clear(self, target: int, value: int, size: int, handle: Any) -> tuple[Any, ...]:
        self.stream(handle).put(lambda: self.at(target, size, "device", "cleared memory").fill(value))
        return (Error.cudaSuccess,)

    def begin_capture(self, handle: Any, mode: Any) -> tuple[Any, ...]:
        stream = self.stream(handle)
        stream.recording, stream.spoiled = [], False
        return (Error.cudaSuccess,)

    def end_capture(self, handle: Any) -> tuple[Any, ...]:
        stream = self.stream(handle)
        recorded, stream.recording = stream.recording, None
        if stream.spoiled:
            return Error.cudaErrorStreamCaptureInvalidated, None
        number = len(self.graphs) + 1
        self.graphs[number] = recorded or []
        return Error.cudaSuccess, Handle(number)

    def launch(self, graph: Any, handle: Any) -> tuple[Any, ...]:
        self.launched += 1
        for work in self.graphs[int(graph)]:
            self.stream(handle).put(work)
        return (Error.cudaSuccess,)

    # -- the module ----------------------------------------------------------------------------------

    def install(self, monkeypatch: Any) -> SimulatedGpu:
        """Make `import cuda.bindings.runtime` give this machine."""
        monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", self.module())
        return self

    def module(self) -> types.ModuleType:
        module: Any = types.ModuleType("cuda.bindings.runtime")
        module.__spec__ = importlib.machinery.ModuleSpec("cuda.bindings.runtime", None)
        module.cudaError_t, module.cudaMemcpyKind, module.cudaStreamCaptureMode = Error, CopyKind, CaptureMode
        module.cudaStreamNonBlocking = 1
        ok = Error.cudaSuccess
        module.cudaDriverGetVersion = lambda: (ok, self.driver)
        module.cudaRuntimeGetVersion = lambda: (ok, self.runtime)
        module.cudaGetDeviceCount = self._device_count
        module.cudaGetDeviceProperties = lambda device: (ok, self._properties())
        module.cudaMemGetInfo = lambda: (ok, self.memory - self.in_use("device"), self.memory)
        module.cudaGetErrorString = lambda error: (ok, error.name.removeprefix("cudaError").encode())
        module.cudaGetLastError = lambda: (ok,)
        module.cudaMalloc = lambda size: self.reserve(size, "device")
        module.cudaHostAlloc = lambda size, flags: self.reserve(size, "pinned")
        module.cudaFree = lambda address: self.free(address, "device")
        module.cudaFreeHost = lambda address: self.free(address, "pinned")
        module.cudaStreamCreateWithFlags = self._new_stream
        module.cudaStreamDestroy = lambda stream: (ok,)
        module.cudaStreamSynchronize = self.synchronize
        module.cudaMemcpyAsync = self.copy
        module.cudaMemsetAsync = self.clear
        module.cudaStreamBeginCapture = self.begin_capture
        module.cudaStreamEndCapture = self.end_capture
        module.cudaGraphInstantiate = lambda graph, flags: (ok, graph)
        module.cudaGraphLaunch = self.launch
        module.cudaGraphDestroy = lambda graph: (ok,)
        module.cudaGraphExecDestroy = lambda graph: (ok,)
        return module

    def _device_count(self) -> tuple[Any, ...]:
        if self.driver // 1000 < self.runtime // 1000:
            return Error.cudaErrorInsufficientDriver, None
        return (Error.cudaSuccess, self.count) if self.count else (Error.cudaErrorNoDevice, None)

    def _properties(self) -> Any:
        major, minor = divmod(self.compute_capability, 10)
        name = self.name.encode()
        return types.SimpleNamespace(name=name, major=major, minor=minor, totalGlobalMem=self.memory)

    def _new_stream(self, flags: int) -> tuple[Any, ...]:
        number = len(self.streams) + 1000
        self.streams[number] = Stream()
        return Error.cudaSuccess, Handle(number)
