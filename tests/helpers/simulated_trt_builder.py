"""The building side of a simulated TensorRT: parsing takes any ONNX graph, and a plan is the graph itself."""

from __future__ import annotations

import enum
import types
from typing import Any

import onnx


class Severity(enum.IntEnum):
    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)


class DataType(enum.Enum):
    FLOAT, INT32, INT64, BOOL = "float32", "int32", "int64", "bool"


class BuilderFlag(enum.Enum):
    TF32, VERSION_COMPATIBLE, REFIT = range(3)


class HardwareCompatibilityLevel(enum.Enum):
    NONE, AMPERE_PLUS = range(2)


class Tensor:
    def __init__(self, value: Any) -> None:
        kind = value.type.tensor_type
        self.name = value.name
        self.shape = tuple(dim.dim_value or -1 for dim in kind.shape.dim)
        self.dtype = DataType(onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type).name)
        self.is_shape_tensor = False


class Builder:
    def __init__(self, simulator: Any, logger: Any) -> None:
        if not simulator.is_rtx and simulator.gpu.driver == 0:
            logger.log(Severity.ERROR, "CUDA initialization failure with error: 35")
            raise TypeError("pybind11::init(): factory function returned nullptr")
        self.simulator, self.logger = simulator, logger

    def create_network(self, *flags: int) -> Any:
        wanted = (2,) if self.simulator.version.startswith("10.") else ()
        assert flags == wanted, f"{self.simulator.version}: network flags {flags}"
        return types.SimpleNamespace(num_layers=0, model=b"", tensors={})

    def create_builder_config(self) -> Any:
        return BuilderConfig()

    def create_optimization_profile(self) -> Any:
        shapes: dict[str, Any] = {}
        return types.SimpleNamespace(
            shapes=shapes, set_shape=lambda name, *s: shapes.update({name: s}), set_shape_input=lambda *s: None
        )

    def build_serialized_network(self, network: Any, config: Any) -> bytes | None:
        simulator = self.simulator
        assert BuilderFlag.REFIT not in config.flags
        assert BuilderFlag.TF32 not in config.flags
        here = [simulator.gpu.compute_capability]
        header = {
            "flavour": simulator.flavour,
            "version": simulator.version,
            "capabilities": list(config.capabilities.values()) if simulator.is_rtx else here,
            "profile": config.profiles[0].shapes if config.profiles else None,
            "version_compatible": BuilderFlag.VERSION_COMPATIBLE in config.flags,
            "hardware_compatible": config.hardware_compatibility_level.name,
        }
        if config.progress_monitor is not None:
            config.progress_monitor.phase_start("Building engine", None, 2)
            for step in range(2):
                if not config.progress_monitor.step_complete("Building engine", step):
                    return None
            config.progress_monitor.phase_finish("Building engine")
        self.logger.log(Severity.INFO, f"Total Weights Memory: {len(network.model)} bytes")
        simulator.built.append({**header, "timing_cache": config.timing_cache})
        return simulator.pack(header, network.model)


class BuilderConfig:
    def __init__(self) -> None:
        self.flags = {BuilderFlag.TF32}
        self.profiling_verbosity = self.progress_monitor = None
        self.hardware_compatibility_level = HardwareCompatibilityLevel.NONE
        self.num_compute_capabilities = 0
        self.capabilities: dict[int, int] = {}
        self.profiles: list[Any] = []
        self.timing_cache: bytes | None = None

    def set_flag(self, flag: Any) -> None:
        self.flags.add(flag)

    def clear_flag(self, flag: Any) -> None:
        self.flags.discard(flag)

    def set_compute_capability(self, capability: Any, index: int) -> bool:
        self.capabilities[index] = capability.value
        return True

    def add_optimization_profile(self, profile: Any) -> int:
        self.profiles.append(profile)
        return 0

    def create_timing_cache(self, content: bytes) -> Any:
        return content

    def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool:
        self.timing_cache = cache
        return True

    def get_timing_cache(self) -> Any:
        return types.SimpleNamespace(serialize=lambda: b"timings" + (self.timing_cache or b""))


class Parser:
    num_errors = 0

    def __init__(self, network: Any) -> None:
        self._network = network

    def parse(self, model: bytes) -> bool:
        network = self._network
        graph = onnx.ModelProto.FromString(model).graph
        network.model = model
        inputs, outputs = ([Tensor(value) for value in side] for side in (graph.input, graph.output))
        network.num_inputs, network.get_input = len(inputs), inputs.__getitem__
        network.num_outputs, network.get_output = len(outputs), outputs.__getitem__
        return True
