"""TensorRT that is not there: both flavours' Python API, running the ONNX graph in onnxruntime on simulated memory.

A plan is the ONNX graph behind a header. Versions differ as the real ones do: 10.x must be told that a network is
strongly typed, 11.x and RTX know nothing else; RTX takes a runtime configuration and can judge an engine's header.
"""

from __future__ import annotations

import enum
import hashlib
import importlib.machinery
import json
import sys
import types
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnxruntime
from simulated_cuda import SimulatedGpu
from simulated_trt_builder import (
    Builder,
    BuilderFlag,
    DataType,
    HardwareCompatibilityLevel,
    Parser,
    Severity,
    Tensor,
)

MODULES = {"tensorrt-rtx": "tensorrt_rtx_bindings", "tensorrt": "tensorrt"}


class Location(enum.Enum):
    DEVICE, HOST = 0, 1


class Mode(enum.Enum):
    INPUT, OUTPUT = 1, 2


class Strategy(enum.Enum):
    DISABLED, WHOLE_GRAPH_CAPTURE = 0, 1


class Specialization(enum.Enum):
    LAZY, EAGER, NONE = range(3)


class Validity(enum.Enum):
    VALID, SUBOPTIMAL, INVALID = range(3)


Diagnostics = enum.Enum(
    "Diagnostics",
    {
        "VERSION_MISMATCH": 1,
        "UNSUPPORTED_CC": 2,
        "OLD_CUDA_DRIVER": 4,
        "OLD_CUDA_RUNTIME": 8,
        "INSUFFICIENT_GPU_MEMORY": 16,
        "MALFORMED_ENGINE": 32,
        "CUDA_ERROR": 64,
    },
)


class ILogger:
    ERROR, INTERNAL_ERROR = Severity.ERROR, Severity.INTERNAL_ERROR


class IProgressMonitor:
    pass


@dataclass
class Simulator:
    """One installed flavour on a GPU. Change its fields before an engine is built or loaded."""

    gpu: SimulatedGpu
    flavour: str = "tensorrt-rtx"
    version: str = "1.7.1.116"
    host_tensors: frozenset[str] = frozenset()  # inputs it wants in host memory
    capturable: bool = True
    spoils: bool = True  # what can not be recorded breaks the recording, as well as being refused
    refuses: bool = False  # loads no engine at all
    built: list[dict[str, Any]] = field(default_factory=list)  # header of every engine built
    loaded: int = 0
    contexts: list[Any] = field(default_factory=list)
    compiled_kernels: int = 0  # by RTX, that no cache had

    @property
    def is_rtx(self) -> bool:
        return self.flavour == "tensorrt-rtx"

    def install(self, monkeypatch: Any) -> Simulator:
        monkeypatch.setitem(sys.modules, MODULES[self.flavour], self.module())
        return self

    def module(self) -> types.ModuleType:
        name = MODULES[self.flavour]
        trt: Any = types.ModuleType(name)
        trt.__spec__ = importlib.machinery.ModuleSpec(name, None)
        trt.__version__ = self.version
        trt.ILogger, trt.IProgressMonitor, trt.DataType = ILogger, IProgressMonitor, DataType
        trt.BuilderFlag, trt.HardwareCompatibilityLevel = BuilderFlag, HardwareCompatibilityLevel
        trt.ProfilingVerbosity = enum.Enum("ProfilingVerbosity", "DETAILED NONE")
        trt.TensorLocation, trt.TensorIOMode = Location, Mode
        trt.Builder = lambda logger: Builder(self, logger)
        trt.OnnxParser = lambda network, logger: Parser(network)
        trt.Runtime = lambda logger: _Runtime(self, logger)
        if self.version.startswith("10."):
            flags = {"STRONGLY_TYPED": 1}
            trt.NetworkDefinitionCreationFlag = enum.IntEnum("NetworkDefinitionCreationFlag", flags)
        if self.is_rtx:
            known = {f"SM{one}": one for one in (75, 80, 86, 89, 120, 121)}
            trt.ComputeCapability = enum.Enum("ComputeCapability", {"NONE": 0, "CURRENT": 1, **known})
            trt.CudaGraphStrategy, trt.DynamicShapesKernelSpecializationStrategy = Strategy, Specialization
            trt.EngineValidity, trt.EngineInvalidityDiagnostics = Validity, Diagnostics
        return trt

    def pack(self, header: dict[str, Any], model: bytes) -> bytes:
        body = json.dumps(header).encode() + b"\n" + model
        return b"SIMPLAN" + hashlib.sha256(body).digest() + body

    def unpack(self, plan: bytes) -> tuple[dict[str, Any], bytes] | None:
        digest, body = plan[7:39], plan[39:]
        if plan[:7] != b"SIMPLAN" or hashlib.sha256(body).digest() != digest:
            return None
        header, _, model = body.partition(b"\n")
        return json.loads(header), model


class _Runtime:
    engine_host_code_allowed = False

    def __init__(self, simulator: Simulator, logger: Any) -> None:
        self._simulator, self._logger = simulator, logger

    def get_engine_validity(self, plan: bytes) -> tuple[Any, int]:
        assert self._simulator.is_rtx
        unpacked = self._simulator.unpack(plan)
        if unpacked is None:
            return Validity.INVALID, 32
        header = unpacked[0]
        flags = 1 if header["version"] != self._simulator.version else 0
        if self._simulator.gpu.compute_capability not in header["capabilities"]:
            flags |= 2
        return (Validity.INVALID if flags else Validity.VALID), flags

    def deserialize_cuda_engine(self, plan: bytes) -> Any:
        simulator = self._simulator
        unpacked = simulator.unpack(plan)
        if unpacked is None or simulator.refuses:
            self._logger.log(
                Severity.ERROR, "[runtime.cpp::parse::12] Error Code 4: Serialization assertion failed"
            )
            return None
        header, model = unpacked
        same = (header["flavour"], header["version"]) == (simulator.flavour, simulator.version)
        portable = header["version_compatible"] and self.engine_host_code_allowed
        if not same and not (header["flavour"] == simulator.flavour and portable):
            self._logger.log(
                Severity.ERROR, "Error Code 6: The engine plan file is not compatible with this version"
            )
            return None
        simulator.loaded += 1
        return _Engine(simulator, self._logger, header, model)


class _Engine:
    def __init__(self, simulator: Simulator, logger: Any, header: dict[str, Any], model: bytes) -> None:
        self.simulator, self.logger, self.header, self.model = simulator, logger, header, model
        graph = onnx.ModelProto.FromString(model).graph
        self.inputs, self.outputs = ([Tensor(v) for v in side] for side in (graph.input, graph.output))
        self._all = [*self.inputs, *self.outputs]
        self.num_io_tensors = len(self._all)
        self.session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])

    def _of(self, name: str) -> Tensor:
        return next(tensor for tensor in self._all if tensor.name == name)

    def get_tensor_name(self, index: int) -> str:
        return self._all[index].name

    def get_tensor_dtype(self, name: str) -> Any:
        return self._of(name).dtype

    def get_tensor_shape(self, name: str) -> Any:
        return self._of(name).shape

    def get_tensor_mode(self, name: str) -> Any:
        return Mode.INPUT if any(tensor.name == name for tensor in self.inputs) else Mode.OUTPUT

    def get_tensor_location(self, name: str) -> Any:
        return Location.HOST if name in self.simulator.host_tensors else Location.DEVICE

    def get_tensor_profile_shape(self, name: str, profile: int) -> Any:
        return self.header["profile"][name]

    def create_runtime_config(self) -> Any:
        assert self.simulator.is_rtx
        return _RuntimeConfig(self.simulator)

    def create_execution_context(self, config: Any = None) -> Any:
        assert (config is not None) == self.simulator.is_rtx
        context = _Context(self, config)
        self.simulator.contexts.append(context)
        return context


class _RuntimeConfig:
    """Contexts take the strategies it has when they are made."""

    def __init__(self, simulator: Simulator) -> None:
        self._simulator = simulator
        self.cuda_graph_strategy = Strategy.DISABLED
        self.dynamic_shapes_kernel_specialization_strategy = Specialization.LAZY
        self.cache: Any = None

    def create_runtime_cache(self) -> Any:
        return _RuntimeCache(self._simulator)

    def set_runtime_cache(self, cache: Any) -> bool:
        self.cache = cache
        return True


class _RuntimeCache:
    def __init__(self, simulator: Simulator) -> None:
        self._about = [simulator.version, simulator.gpu.name, simulator.gpu.driver]
        self.kernels: set[str] = set()

    def serialize(self) -> bytes:
        return json.dumps([self._about, sorted(self.kernels)]).encode()

    def deserialize(self, content: bytes) -> bool:
        try:
            about, kernels = json.loads(content)
        except ValueError:
            return False
        if about != self._about:
            return False
        self.kernels = set(kernels)
        return True


class _Context:
    """Runs on a stream: inputs are read, and outputs written, when the stream gets there."""

    def __init__(self, engine: _Engine, config: Any) -> None:
        self._engine, self._config = engine, config
        self._addresses: dict[str, int] = {}
        self.shapes = {tensor.name: tensor.shape for tensor in engine.inputs if -1 not in tensor.shape}
        self._busy: Any = None  # stream with work of this context that is not done
        self.strategy = config.cuda_graph_strategy if config else None
        self.recorded: set[Any] = set()  # (shapes, addresses) RTX has made graphs of
        self.runs = 0
        if not engine.simulator.version.startswith("10."):  # 10.x can not be asked
            self.is_stream_capturable = lambda stream: engine.simulator.capturable

    def set_tensor_address(self, name: str, address: int) -> bool:
        self._addresses[name] = address
        return True

    def set_input_shape(self, name: str, shape: Any) -> bool:
        low, _, high = self._engine.header["profile"][name]
        if not all(a <= b <= c for a, b, c in zip(low, shape, high, strict=True)):
            self._engine.logger.log(Severity.ERROR, f"IExecutionContext::setInputShape: {shape} is out of range")
            return False
        self.shapes[name] = tuple(shape)
        return True

    def execute_async_v3(self, handle: int) -> bool:
        engine, simulator = self._engine, self._engine.simulator
        gpu = simulator.gpu
        stream = gpu.stream(handle)
        if set(self._addresses) != {t.name for t in (*engine.inputs, *engine.outputs)}:
            gpu.faults.append("enqueued without all addresses")
        if set(self.shapes) != {tensor.name for tensor in engine.inputs}:
            gpu.faults.append("enqueued without all shapes")
        if stream.recording is not None and (not simulator.capturable or self.runs == 0):
            # The first call reserves what it needs, which can not be recorded.
            stream.spoiled = simulator.spoils
            engine.logger.log(Severity.ERROR, "operation not permitted when stream is capturing")
            return False
        if self._busy not in (None, handle):
            gpu.faults.append("one context was used by two streams at once")
        if stream.recording is None:
            self._busy = handle
        addresses, shapes = dict(self._addresses), dict(self.shapes)
        self._compile(addresses, shapes)
        on_host = {t.name: self._input(t, addresses, shapes) for t in engine.inputs if self._is_host(t)}
        stream.put(lambda: self._work(addresses, shapes, on_host))
        self.runs += 1
        return True

    def _compile(self, addresses: dict[str, int], shapes: dict[str, Any]) -> None:
        if self._config is None:
            return
        key = hashlib.sha256(self._engine.model + repr(sorted(shapes.items())).encode()).hexdigest()
        if key not in self._config.cache.kernels:
            self._engine.simulator.compiled_kernels += 1
            self._config.cache.kernels.add(key)
        if self.strategy == Strategy.WHOLE_GRAPH_CAPTURE:
            self.recorded.add((repr(sorted(shapes.items())), repr(sorted(addresses.items()))))

    def _is_host(self, tensor: Tensor) -> bool:
        return tensor.name in self._engine.simulator.host_tensors

    def _input(self, tensor: Tensor, addresses: dict[str, int], shapes: dict[str, Any]) -> np.ndarray:
        shape, dtype = shapes[tensor.name], np.dtype(tensor.dtype.value)
        kind = "pinned" if self._is_host(tensor) else "device"
        size = int(np.prod(shape)) * dtype.itemsize
        raw = self._engine.simulator.gpu.at(addresses[tensor.name], size, kind, f"input {tensor.name}")
        return raw.copy().view(dtype).reshape(shape)

    def _work(self, addresses: dict[str, int], shapes: dict[str, Any], on_host: dict[str, np.ndarray]) -> None:
        engine = self._engine
        feeds = {t.name: on_host.get(t.name) for t in engine.inputs}
        for tensor in engine.inputs:
            if feeds[tensor.name] is None:
                feeds[tensor.name] = self._input(tensor, addresses, shapes)
        results = engine.session.run([tensor.name for tensor in engine.outputs], feeds)
        for tensor, result in zip(engine.outputs, results, strict=True):
            assert result.dtype == np.dtype(tensor.dtype.value)
            place = engine.simulator.gpu.at(
                addresses[tensor.name], result.nbytes, "device", f"output {tensor.name}"
            )
            place[:] = np.ascontiguousarray(result).reshape(-1).view(np.uint8)
        self._busy = None


@dataclass
class Machine:
    """A simulated GPU and the flavours installed on it. ``said`` is for whoever wants to hear what is told."""

    gpu: SimulatedGpu
    flavours: dict[str, Simulator]
    said: list[str] = field(default_factory=list)

    @property
    def only(self) -> Simulator:
        (one,) = self.flavours.values()
        return one

    def check(self) -> None:
        """Nothing was done that a real GPU would not forgive."""
        assert self.gpu.faults == []


def machine(monkeypatch: Any, *versions: str, **facts: Any) -> Machine:
    """Put a GPU, and flavours like "tensorrt-rtx 1.7.1.116", in the place of those of this machine."""
    from hrm_edge.runtimes.tensorrt import flavours as trt_flavours

    gpu = SimulatedGpu(**facts).install(monkeypatch)
    flavours = {}
    for text in versions:
        name, version = text.split()
        flavours[name] = Simulator(gpu, name, version).install(monkeypatch)
    modules = {name: (MODULES[name],) for name in ("tensorrt-rtx", "tensorrt") if name in flavours}
    monkeypatch.setattr(trt_flavours, "_MODULES", modules)
    return Machine(gpu, flavours)
