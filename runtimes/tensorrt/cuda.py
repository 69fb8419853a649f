"""The few CUDA calls the TensorRT runtime needs, through `cuda-python`; every failure is one clear InputError."""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...errors import InputError
from ...packages import install_package
from ..base import first_line


@dataclass(frozen=True)
class Gpu:
    """The GPU that programs use by default (`CUDA_VISIBLE_DEVICES` chooses another)."""

    name: str
    compute_capability: int  # × 10: 86 for 8.6
    memory: int  # bytes in all


def find_gpu() -> Gpu:
    """The GPU. Raises :class:`InputError` when there is no driver or GPU, or the driver is too old."""
    cuda = _runtime()
    driver, needed = _call(cuda.cudaDriverGetVersion), _call(cuda.cudaRuntimeGetVersion)
    if driver == 0:
        raise InputError("there is no NVIDIA driver on this machine")
    error, count = cuda.cudaGetDeviceCount()
    # Within a major version every driver runs every runtime.
    if driver // 1000 < needed // 1000 or error == cuda.cudaError_t.cudaErrorInsufficientDriver:
        raise InputError(
            f"the NVIDIA driver is too old: it runs CUDA up to {_version(driver)}, and {_version(needed)} is "
            "installed here; update the driver"
        )
    if error == cuda.cudaError_t.cudaErrorNoDevice or (error == cuda.cudaError_t.cudaSuccess and not count):
        raise InputError("the NVIDIA driver finds no GPU (CUDA_VISIBLE_DEVICES may hide it)")
    _check(error, "looking for a GPU")
    properties = _call(cuda.cudaGetDeviceProperties, 0)
    name = properties.name.decode() if isinstance(properties.name, bytes) else str(properties.name)
    capability = 10 * properties.major + properties.minor
    return Gpu(name.rstrip("\0"), capability, int(properties.totalGlobalMem))


class DeviceMemory:
    """Bytes on the GPU, freed with this object. ``address`` is a device pointer."""

    def __init__(self, size: int) -> None:
        cuda = _runtime()
        self.size = size
        # An empty allocation has no address, which TensorRT takes for a binding that was forgotten.
        self.address = int(_call(cuda.cudaMalloc, max(size, 1), what=f"reserving {_megabytes(size)} on the GPU"))
        _when_dropped(self, cuda.cudaFree, self.address)


class PinnedArray:
    """A numpy array that the GPU copies from and to directly. ``array`` must not outlive this object."""

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype) -> None:
        cuda = _runtime()
        self.size = int(np.prod(shape)) * dtype.itemsize
        what = f"reserving {_megabytes(self.size)} of pinned memory"
        self.address = int(_call(cuda.cudaHostAlloc, max(self.size, 1), 0, what=what))
        _when_dropped(self, cuda.cudaFreeHost, self.address)
        raw = (ctypes.c_byte * max(self.size, 1)).from_address(self.address)
        self.array = np.frombuffer(memoryview(raw), dtype, int(np.prod(shape))).reshape(shape)
        self.array[...] = 0


class Graph:
    """Work of a stream, recorded once and launched as one."""

    def __init__(self, executable: Any) -> None:
        self.executable = executable
        _when_dropped(self, _runtime().cudaGraphExecDestroy, executable)


class Stream:
    """A queue of work on the GPU, done in order; nothing is sure to be done before :meth:`synchronize`."""

    def __init__(self) -> None:
        self._cuda = _runtime()
        flags = self._cuda.cudaStreamNonBlocking
        self._stream = _call(self._cuda.cudaStreamCreateWithFlags, flags, what="creating a stream")
        self.handle = int(self._stream)
        _when_dropped(self, self._cuda.cudaStreamDestroy, self._stream)

    def upload(self, target: int, source: int, size: int) -> None:
        """From pinned memory to the GPU; ``target`` and ``source`` are addresses, ``size`` bytes."""
        self._copy(target, source, size, self._cuda.cudaMemcpyKind.cudaMemcpyHostToDevice)

    def download(self, target: int, source: int, size: int) -> None:
        """From the GPU to pinned memory."""
        self._copy(target, source, size, self._cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost)

    def move(self, target: int, source: int, size: int) -> None:
        """From one place on the GPU to another."""
        self._copy(target, source, size, self._cuda.cudaMemcpyKind.cudaMemcpyDeviceToDevice)

    def clear(self, memory: DeviceMemory) -> None:
        """Zeros."""
        _call(self._cuda.cudaMemsetAsync, memory.address, 0, memory.size, self._stream, what="clearing memory")

    def synchronize(self) -> None:
        """Wait until all is done; a failure of anything before shows here at the latest."""
        _call(self._cuda.cudaStreamSynchronize, self._stream, what="running on the GPU")

    def capture(self, work: Callable[[], None]) -> Graph | None:
        """Record what ``work`` puts on this stream without doing it; None when that can not be recorded."""
        cuda = self._cuda
        # Other threads may reserve memory meanwhile, which a stricter mode would forbid them.
        mode = cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        _call(cuda.cudaStreamBeginCapture, self._stream, mode, what="recording work")
        failed = False
        try:
            work()
        except InputError:
            failed = True
        finally:
            error, recorded = cuda.cudaStreamEndCapture(self._stream)
        graph = None
        if error == cuda.cudaError_t.cudaSuccess and not failed:
            error, executable = cuda.cudaGraphInstantiate(recorded, 0)
            if error == cuda.cudaError_t.cudaSuccess:
                graph = Graph(executable)
        if recorded is not None and int(recorded):
            cuda.cudaGraphDestroy(recorded)
        cuda.cudaGetLastError()  # what could not be recorded is no error of the work that follows
        return graph

    def launch(self, graph: Graph) -> None:
        """Put recorded work on this stream."""
        _call(self._cuda.cudaGraphLaunch, graph.executable, self._stream, what="running on the GPU")

    def _copy(self, target: int, source: int, size: int, kind: Any) -> None:
        _call(self._cuda.cudaMemcpyAsync, target, source, size, kind, self._stream, what="copying")


def _runtime() -> Any:
    """The CUDA runtime's bindings."""
    try:
        if importlib.util.find_spec("cuda.bindings.runtime") is None:
            raise ModuleNotFoundError
        return importlib.import_module("cuda.bindings.runtime")
    except ModuleNotFoundError:
        raise InputError(f"cuda-python is not installed; run: {install_package('cuda-python')}") from None
    except Exception as error:  # a broken install fails in ways of its own
        raise InputError(f"cuda-python does not load: {first_line(error)}") from error


def _call(function: Callable[..., Any], *arguments: Any, what: str = "asking the NVIDIA driver") -> Any:
    """The result of a CUDA function, which returns an error code before it."""
    error, *values = function(*arguments)
    _check(error, what)
    return values[0] if values else None


def _check(error: Any, what: str) -> None:
    cuda = _runtime()
    if error == cuda.cudaError_t.cudaSuccess:
        return
    cuda.cudaGetLastError()  # a failed allocation must not come up again in the next call
    if error == cuda.cudaError_t.cudaErrorMemoryAllocation:
        raise InputError(f"{what} failed: {out_of_memory()}")
    # What a GPU that stopped in the middle of its work has in memory is lost with the process.
    reason = cuda.cudaGetErrorString(error)[1]
    reason = reason.decode() if isinstance(reason, bytes) else str(reason)
    raise InputError(f"{what} failed: {reason} (CUDA error {int(error)}); start the program again")


def out_of_memory() -> str:
    """One line on a full GPU: how full it is, and what to do."""
    error, *values = _runtime().cudaMemGetInfo()
    free = ""
    if not int(error):
        free = f" ({_megabytes(values[0])} of {_megabytes(values[1])} are free)"
    return f"out of memory{free}; end other programs that use it, or export with a smaller --batch"


def _when_dropped(owner: Any, release: Callable[[Any], Any], handle: Any) -> None:
    # At the end of the program the driver releases all at once, and may itself be gone already.
    weakref.finalize(owner, release, handle).atexit = False


def _version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.0f} MB" if size >= 1e6 else f"{size} bytes"
