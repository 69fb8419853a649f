"""A TensorRT engine on the GPU: deserialized, its bindings checked, with buffers and contexts to run it in."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import InputError
from ...files import write_atomically
from ..base import Idle, first_line
from .build import make_log, plain
from .cuda import DeviceMemory, PinnedArray, Stream, out_of_memory
from .flavours import Flavour

# Set to 1, this lets engines that bring code of their own be loaded.
TRUST = "HRM_EDGE_TRUST_ENGINES"
# TensorRT's name of a type → ours; other types are no bindings of our graphs.
_DTYPES = {"FLOAT": np.dtype(np.float32), "INT32": np.dtype(np.int32)}
# What an engine's header says is wrong with it, by RTX's flag, the most telling first.
_DIAGNOSES = {
    "MALFORMED_ENGINE": "it is damaged, or no engine of this flavour",
    "VERSION_MISMATCH": "it is of another version",
    "UNSUPPORTED_CC": "it is for other GPUs",
    "OLD_CUDA_DRIVER": "the NVIDIA driver is too old for it; update the driver",
    "OLD_CUDA_RUNTIME": "the CUDA runtime is too old for it; update cuda-python",
    "INSUFFICIENT_GPU_MEMORY": "the GPU has too little memory for it",
    "CUDA_ERROR": "the NVIDIA driver or the CUDA runtime is not installed properly",
}


class Refused(Exception):
    """TensorRT does not load an engine; ``str()`` says why in a few words."""


@dataclass(frozen=True)
class Tensor:
    """One binding. A free number of rows is -1; ``on_host``: TensorRT reads it, or writes it, in host memory."""

    name: str
    dtype: np.dtype
    shape: tuple[int, ...]
    is_input: bool
    on_host: bool

    def of(self, rows: int) -> tuple[int, ...]:
        """Its shape in a call with this many rows."""
        return tuple(rows if size == -1 else size for size in self.shape)

    @property
    def is_free(self) -> bool:
        """Whether it takes or gives any number of rows."""
        return self.shape[:1] == (-1,)

    def size(self, rows: int) -> int:
        """Bytes."""
        return int(np.prod(self.of(rows))) * self.dtype.itemsize


class LoadedEngine:
    """An engine that TensorRT has accepted. Any thread may ask it for contexts.

    ``source``: where it came from, see `engines.SOURCES`. ``kernels``: file that RTX keeps its compiled
    kernels in; they are compiled when first run, for seconds.
    """

    def __init__(self, flavour: Flavour, plan: bytes, source: str, kernels: Path | None = None) -> None:
        """Raises :class:`Refused` when TensorRT does not take it."""
        trt = flavour.trt
        self.source = source
        self.flavour = flavour
        self._log = make_log(trt)
        self._lock = threading.Lock()
        self._kernels = kernels
        self._runtime = trt.Runtime(self._log)
        if flavour.is_rtx:
            _check_header(trt, self._runtime, plan, self._log)
        else:
            # A version-compatible engine brings code, which a bundle's reader must ask for. Without it, such an
            # engine is refused, and one is built here.
            self._runtime.engine_host_code_allowed = os.environ.get(TRUST) == "1"
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise Refused(self._log.first_error() or "no reason given")
        names = [self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)]
        self.tensors = tuple(self._tensor(name) for name in names)
        self.rows = self._rows()
        self._config: Any = None  # RTX only
        self._cache: Any = None
        self._kept = b""
        if flavour.is_rtx:
            self._open_kernels()

    def context(self, *, capture: bool) -> Any:
        """A fresh execution context. ``capture``: its calls are all alike, so RTX may record them as a graph."""
        try:
            with self._lock:
                if self._config is None:
                    made = self._engine.create_execution_context()
                else:
                    strategies = self.flavour.trt.CudaGraphStrategy
                    self._config.cuda_graph_strategy = (
                        strategies.WHOLE_GRAPH_CAPTURE if capture else strategies.DISABLED
                    )
                    made = self._engine.create_execution_context(self._config)
        except Exception as error:  # pybind turns a failure inside TensorRT into one of several kinds
            raise InputError(f"{self.flavour.name} gives no context to run in: {first_line(error)}") from error
        if made is None:
            raise self.failure("making a context to run in")
        return made

    def failure(self, what: str) -> InputError:
        """What went wrong in TensorRT, from its log."""
        reason = self._log.errors[-1] if self._log.errors else "no reason given"
        who = f"{self.flavour.name} {self.flavour.version}: {what} failed"
        if "out of memory" in reason.lower() or "outofmemory" in reason.lower():
            return InputError(f"{who}: {out_of_memory()}")
        return InputError(f"{who}: {plain(reason)}")

    def keep_kernels(self) -> None:
        """Write what RTX has compiled since the last time, so that the next program need not."""
        if self._cache is None or self._kernels is None:
            return
        with self._lock:
            content = bytes(self._cache.serialize() or b"")
            if content == self._kept:
                return
            self._kept = content
            with suppress(OSError):  # only time is lost; a cache folder that can not be written was told of before
                write_atomically(self._kernels, content)

    def _open_kernels(self) -> None:
        trt = self.flavour.trt
        self._config = self._engine.create_runtime_config()
        # Kernels made for other shapes while we run would change the last bits of answers between two calls.
        strategies = trt.DynamicShapesKernelSpecializationStrategy
        self._config.dynamic_shapes_kernel_specialization_strategy = strategies.EAGER
        self._cache = self._config.create_runtime_cache()
        if self._kernels is not None and self._kernels.is_file():
            content = self._kernels.read_bytes()
            # Of another driver or GPU, or damaged: RTX says no, and compiles anew.
            if content and self._cache.deserialize(content):
                self._kept = content
        self._config.set_runtime_cache(self._cache)

    def _tensor(self, name: str) -> Tensor:
        engine, trt = self._engine, self.flavour.trt
        kind = str(engine.get_tensor_dtype(name)).rpartition(".")[2]
        shape = tuple(engine.get_tensor_shape(name))
        if kind not in _DTYPES or -1 in shape[1:]:
            raise Refused(f"its binding {name!r} is {kind} of shape {list(shape)}, which no graph of ours has")
        is_input = engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT
        on_host = engine.get_tensor_location(name) == trt.TensorLocation.HOST
        return Tensor(name, _DTYPES[kind], shape, is_input, on_host)

    def _rows(self) -> tuple[int, int] | None:
        """Fewest and most rows of a call; None when their number is fixed."""
        free = [tensor for tensor in self.tensors if tensor.is_input and tensor.is_free]
        if not free:
            return None
        shapes = [self._engine.get_tensor_profile_shape(tensor.name, 0) for tensor in free]
        return max(low[0] for low, _, _ in shapes), min(high[0] for _, _, high in shapes)


def _check_header(trt: Any, runtime: Any, plan: bytes, log: Any) -> None:
    """Ask RTX whether an engine fits this machine, which it can tell without loading it."""
    validity, flags = runtime.get_engine_validity(plan)
    # SUBOPTIMAL runs as well.
    if validity != trt.EngineValidity.INVALID:
        return
    diagnostics = trt.EngineInvalidityDiagnostics
    for name, reason in _DIAGNOSES.items():
        if int(flags) & int(getattr(diagnostics, name).value):
            raise Refused(reason)
    raise Refused(log.first_error() or "TensorRT-RTX does not say why")


class Bound:
    """A context with buffers for so many rows: device memory bound to it, pinned arrays to fill and read.

    Serves one thread at a time. ``skip_host``: tensors that never leave the GPU and so need no pinned array.
    """

    def __init__(
        self,
        engine: LoadedEngine,
        stream: Stream,
        rows: int,
        *,
        capture: bool = False,
        skip_host: frozenset[str] = frozenset(),
    ) -> None:
        self.engine, self.stream = engine, stream
        self.tensors = {tensor.name: tensor for tensor in engine.tensors}
        self._context = engine.context(capture=capture)
        self.host = {
            tensor.name: PinnedArray(tensor.of(rows), tensor.dtype)
            for tensor in engine.tensors
            if tensor.name not in skip_host or tensor.on_host
        }
        self.device = {t.name: DeviceMemory(t.size(rows)) for t in engine.tensors if not t.on_host}
        for tensor in engine.tensors:
            place = self.host if tensor.on_host else self.device
            if self._context.set_tensor_address(tensor.name, place[tensor.name].address) is False:
                raise engine.failure(f"binding {tensor.name!r}")
        self._rows: int | None = None

    def set_rows(self, rows: int) -> None:
        """How many rows the next calls have; to be called before the first one."""
        if rows == self._rows:
            return
        for tensor in self.tensors.values():
            takes_any = tensor.is_input and tensor.is_free
            if takes_any and not self._context.set_input_shape(tensor.name, tensor.of(rows)):
                raise self.engine.failure(f"running {rows} rows")
        self._rows = rows

    def upload(self, name: str) -> None:
        """Copy an input's pinned array to the GPU."""
        if name in self.device:
            size = self.tensors[name].size(self._rows or 1)
            self.stream.upload(self.device[name].address, self.host[name].address, size)

    def download(self, name: str) -> None:
        """Copy an output to its pinned array; it is there when the stream is synchronized."""
        if name in self.device:
            size = self.tensors[name].size(self._rows or 1)
            self.stream.download(self.host[name].address, self.device[name].address, size)

    def enqueue(self) -> None:
        """Run on the stream."""
        if not self._context.execute_async_v3(self.stream.handle):
            raise self.engine.failure("running")

    def capturable(self) -> bool:
        """Whether it is worth trying to record calls; RTX does that by itself, when told so."""
        if self.engine.flavour.is_rtx:
            return False
        ask = getattr(self._context, "is_stream_capturable", None)
        return True if ask is None else bool(ask(self.stream.handle))


class DeviceCall:
    """An engine as a function from arrays by input name to arrays by output name; safe to call from any thread.

    There are as many contexts as callers at once ever were.
    """

    def __init__(self, engine: LoadedEngine) -> None:
        self._engine = engine
        self._low, self._high = engine.rows or (0, 0)
        self._idle = Idle(lambda: Bound(engine, Stream(), self._high))

    def __call__(self, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Raises :class:`InputError` when the GPU fails."""
        with self._idle.one() as bound:
            result = self._run(bound, feeds)
        self._engine.keep_kernels()
        return result

    def _run(self, bound: Bound, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        inputs = [tensor for tensor in bound.tensors.values() if tensor.is_input]
        count = next((len(feeds[t.name]) for t in inputs if t.is_free), 0)
        rows = max(count, self._low)
        bound.set_rows(rows)
        for tensor in inputs:
            array = np.asarray(feeds[tensor.name])
            if tensor.is_free:
                # Rows that only make up the fewest possible repeat the last one.
                array = array[np.minimum(np.arange(rows), count - 1)]
            if array.shape != tensor.of(rows) or array.dtype != tensor.dtype:
                raise InputError(
                    f"{tensor.name} must be {tensor.dtype} of shape {list(tensor.of(rows))}, "
                    f"not {array.dtype} of shape {list(array.shape)}"
                )
            pinned = bound.host[tensor.name].array
            np.copyto(pinned[: len(array)] if array.ndim else pinned, array)
            bound.upload(tensor.name)
        bound.enqueue()
        outputs = [tensor for tensor in bound.tensors.values() if not tensor.is_input]
        for tensor in outputs:
            bound.download(tensor.name)
        bound.stream.synchronize()
        # The pinned arrays serve the next call.
        arrays = {tensor.name: bound.host[tensor.name].array for tensor in outputs}
        return {t.name: (arrays[t.name][:count] if t.is_free else arrays[t.name]).copy() for t in outputs}
