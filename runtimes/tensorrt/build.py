"""From an ONNX graph to a serialized TensorRT engine, with what the builder's log says about it."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from ...errors import InputError
from ...progress import Progress
from ..base import first_line
from .flavours import Flavour

# Fewest, typical and most rows of a call, for a graph that takes any number of them.
Rows = tuple[int, int, int]

# Values of scalar inputs, in case a flavour wants to know them when shapes are inferred (TensorRT's "shape
# tensors"): fewest, typical, most.
_SCALARS = {"max_think_steps": (1, 16, 2**31 - 1), "halt": (0, 0, 2)}
_WEIGHTS = re.compile(r"Total Weights Memory: (\d+) bytes")


@dataclass(frozen=True)
class Binding:
    """One input or output of a network; a free dimension is -1. ``dtype`` as numpy calls it."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Layer:
    """One layer of the network as it was parsed; ``kind`` as TensorRT names it, dtypes as numpy does."""

    name: str
    kind: str  # MATRIX_MULTIPLY, QUANTIZE, …
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class NetworkFacts:
    """What a network says of itself before it is compiled; layers of loop bodies are among ``layers``."""

    inputs: tuple[Binding, ...]
    outputs: tuple[Binding, ...]
    layers: tuple[Layer, ...]


@dataclass(frozen=True)
class SerializedEngine:
    """A serialized engine. ``weights_bytes``: memory its weights take, None when the log does not say.

    ``log`` holds every message of the builder; ``compiled_layers`` those of its lines that each describe one
    compiled layer ("Name: …, LayerType: gemm, Inputs: […"). ``timing_cache``: to be given to the next build on
    the same GPU; None where the flavour measures nothing.
    """

    plan: bytes
    weights_bytes: int | None
    seconds: float
    log: tuple[str, ...]
    network: NetworkFacts
    timing_cache: bytes | None = None

    @property
    def compiled_layers(self) -> tuple[str, ...]:
        lines = (line for message in self.log for line in message.splitlines())
        return tuple(line for line in lines if line.startswith("Name: ") and ", LayerType: " in line)


class Parsed(NamedTuple):
    """A network ready to be built. It lives as long as ``log``, which holds on to the parser."""

    builder: Any
    network: Any
    log: Any


def parse(flavour: Flavour, onnx_bytes: bytes) -> Parsed:
    """Read an ONNX graph. Raises :class:`InputError` with the parser's own reason when it can not be."""
    trt = flavour.trt
    log = make_log(trt)
    who = f"{flavour.name} {flavour.version}"
    try:
        builder = trt.Builder(log)
    except Exception as error:  # without a GPU `tensorrt` gives no builder
        reason = log.first_error() or first_line(error)
        raise InputError(f"{who} can not build on this machine ({reason}); build where its GPU is") from error
    network = flavour.create_network(builder)
    log.parser = trt.OnnxParser(network, log)
    if not log.parser.parse(onnx_bytes):
        errors = [log.parser.get_error(i) for i in range(log.parser.num_errors)]
        # An error without a node only repeats that of the node.
        named = next((error for error in errors if error.node_name()), errors[0] if errors else None)
        reason = _parser_reason(named) if named else log.first_error() or "no reason given"
        raise InputError(f"{who} can not read the graph: {reason}; export it again with another --precision")
    if not network.num_outputs:
        raise InputError(f"{who} can not read the graph: it gives nothing; export it again")
    for binding in (*_bindings(trt, network, "input"), *_bindings(trt, network, "output")):
        if binding.dtype == "int64":
            raise InputError(f"{who}: {binding.name!r} is int64, which its engines do not take; declare it int32")
    log.raise_pending()
    return Parsed(builder, network, log)


def build(
    flavour: Flavour,
    onnx_bytes: bytes,
    *,
    compute_capabilities: Sequence[int],
    rows: Rows | None = None,
    progress: Progress | None = None,
    what: str = "building an engine",
    hardware_compatible: bool = False,
    version_compatible: bool = True,
    timing_cache: bytes | None = None,
) -> SerializedEngine:
    """Compile an ONNX graph; takes seconds (RTX) to minutes (``tensorrt``, which times kernels on the GPU).

    ``compute_capabilities`` × 10: what RTX builds for, with or without a GPU; ``tensorrt`` builds for the GPU
    that is there, whatever is given. ``rows``: fewest, typical, most rows, needed when the graph takes any
    number. ``progress`` hears of ``what`` in percent. ``hardware_compatible`` (``tensorrt``): for any GPU from
    Ampere on; ``version_compatible`` (``tensorrt``): later versions of TensorRT can load it too. FP32 products
    are computed in FP32, never in TF32. Raises :class:`InputError`.
    """
    began = time.monotonic()
    builder, network, log = parse(flavour, onnx_bytes)
    trt = flavour.trt
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    # "float32" in a manifest is a promise of 24 bits; a default of TensorRT would keep 11 of them.
    config.clear_flag(trt.BuilderFlag.TF32)
    monitor = None if progress is None else make_monitor(trt, progress, what)
    if monitor is not None:
        config.progress_monitor = monitor
    _aim(flavour, config, compute_capabilities, hardware_compatible, version_compatible)
    facts = facts_of(flavour, network)
    _give_rows(flavour, builder, network, config, rows)
    if not flavour.is_rtx:
        # A cache of another GPU or version is ignored by TensorRT itself.
        config.set_timing_cache(config.create_timing_cache(timing_cache or b""), False)
    plan = builder.build_serialized_network(network, config)
    for witness in (log, monitor):
        if witness is not None:
            witness.raise_pending()
    if plan is None:
        reason = log.first_error() or "no reason given"
        other = "tensorrt" if flavour.is_rtx else "tensorrt-rtx"
        raise InputError(
            f"{flavour.name} {flavour.version} can not build an engine of this graph: {reason}; try {other}, or "
            "export for another --target"
        )
    found = [int(match) for line in log.lines for match in _WEIGHTS.findall(line)]
    return SerializedEngine(
        plan=bytes(plan),
        weights_bytes=found[-1] if found else None,
        seconds=time.monotonic() - began,
        log=tuple(log.lines),
        network=facts,
        timing_cache=None if flavour.is_rtx else bytes(config.get_timing_cache().serialize()),
    )


def facts_of(flavour: Flavour, network: Any) -> NetworkFacts:
    """A parsed network's bindings and layers."""
    trt = flavour.trt
    layers = []
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        inputs, outputs = (
            tuple(_dtype(trt, one.dtype) for one in _tensors(layer, side) if one is not None)
            for side in ("input", "output")
        )
        layers.append(Layer(layer.name, str(layer.type).rpartition(".")[2], inputs, outputs))
    return NetworkFacts(_bindings(trt, network, "input"), _bindings(trt, network, "output"), tuple(layers))


def make_log(trt: Any) -> Any:
    """A logger that keeps every message, for reading afterwards; it prints nothing."""

    class Log(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.lines: list[str] = []
            self.errors: list[str] = []
            self.parser: Any = None
            self._pending: BaseException | None = None

        def log(self, severity: Any, message: str) -> None:
            # Called from C++, which an exception (Ctrl-C arrives as one) must not be thrown into.
            try:
                self.lines.append(message)
                if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                    self.errors.append(message)
            except BaseException as error:
                self._pending = error

        def first_error(self) -> str | None:
            return plain(self.errors[0]) if self.errors else None

        def raise_pending(self) -> None:
            if self._pending is not None:
                raise self._pending

    return Log()


def plain(message: str) -> str:
    """A TensorRT message without its place in TensorRT's source, on one line."""
    line = message.strip().splitlines()[0] if message.strip() else "no reason given"
    line = re.sub(r"\[\w+\.(?:cpp|h)::?\w+:?:? ?\w+\] |\bIn \S+ at \S+\.(?:cpp|h):\d+:? ?", "", line)
    for ugly, tidy in ((r"[ .]*\)", ")"), (r"\(\s*\(", "("), (r"\)\)", ")"), (r" ?\(\)", "")):
        line = re.sub(ugly, tidy, line)
    return line.strip().rstrip(".") or "no reason given"


def _parser_reason(error: Any) -> str:
    reason = plain(str(error.desc()))
    if "zero point" in reason:
        reason = "quantized around a zero point (asymmetrically), and TensorRT knows symmetric scales only"
    return f"{reason} (at {error.node_name()}, a {error.node_operator()})" if error.node_name() else reason


def _bindings(trt: Any, network: Any, side: str) -> tuple[Binding, ...]:
    return tuple(Binding(one.name, _dtype(trt, one.dtype), tuple(one.shape)) for one in _tensors(network, side))


def _tensors(owner: Any, side: str) -> list[Any]:
    return [getattr(owner, f"get_{side}")(i) for i in range(getattr(owner, f"num_{side}s"))]


def _dtype(trt: Any, dtype: Any) -> str:
    names = {"FLOAT": "float32", "HALF": "float16", "BF16": "bfloat16", "BOOL": "bool"}
    name = str(dtype).rpartition(".")[2]
    return names.get(name, name.lower())


def _aim(
    flavour: Flavour,
    config: Any,
    compute_capabilities: Sequence[int],
    hardware_compatible: bool,
    version_compatible: bool,
) -> None:
    """Tell the builder what the engine must run on."""
    trt = flavour.trt
    if not flavour.is_rtx:
        if version_compatible:
            config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
        if hardware_compatible:
            config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS
        return
    wanted = sorted(set(compute_capabilities))
    if not wanted:
        raise InputError(f"{flavour.name} needs to know what it builds for: name a compute capability")
    flavour.need(wanted)
    config.num_compute_capabilities = len(wanted)
    for index, one in enumerate(wanted):
        config.set_compute_capability(getattr(trt.ComputeCapability, f"SM{one}"), index)


def _give_rows(flavour: Flavour, builder: Any, network: Any, config: Any, rows: Rows | None) -> None:
    """One optimization profile, when any input has a free number of rows or is wanted for its values."""
    profile, needed = builder.create_optimization_profile(), False
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        shape = tuple(tensor.shape)
        if -1 in shape[1:]:
            raise InputError(f"input {tensor.name!r} has the shape {list(shape)}: only its rows may be free")
        if shape[:1] == (-1,):
            if rows is None or not 1 <= rows[0] <= rows[1] <= rows[2]:
                raise InputError(
                    f"input {tensor.name!r} takes any number of rows: give the fewest, typical and most"
                )
            profile.set_shape(tensor.name, *((count, *shape[1:]) for count in rows))
            needed = True
        if tensor.is_shape_tensor:
            if tensor.name not in _SCALARS or shape:
                raise InputError(f"input {tensor.name!r} decides about shapes, which {flavour.name} needs to know")
            profile.set_shape_input(tensor.name, *((value,) for value in _SCALARS[tensor.name]))
            needed = True
    if needed:
        config.add_optimization_profile(profile)


def make_monitor(trt: Any, progress: Progress, what: str) -> Any:
    """The builder's nested phases as one percentage that never goes back; an exception cancels the build."""

    class Monitor(trt.IProgressMonitor):
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self._phases: dict[str, list[Any]] = {}  # name → [parent, steps, steps done]
            self._shown = 0
            self._lock = threading.Lock()  # TensorRT calls from threads of its own
            self._pending: BaseException | None = None

        def phase_start(self, name: str, parent: str | None, steps: int) -> None:
            self._phases[name] = [parent, max(steps, 1), 0]

        def step_complete(self, name: str, step: int) -> bool:
            if self._pending is None and name in self._phases:
                self._phases[name][2] = step + 1
                self._show()
            return self._pending is None

        def phase_finish(self, name: str) -> None:
            self._phases.pop(name, None)

        def _show(self) -> None:
            try:
                with self._lock:
                    # The last percent is for the caller, who knows when the engine is there.
                    percent = min(99, int(100 * self._done(None)))
                    if percent > self._shown:
                        self._shown = percent
                        progress(what, percent, 100)
            except BaseException as error:  # see Log.log
                self._pending = error

        def _done(self, parent: str | None) -> float:
            """How much of the phases inside ``parent`` is done; a phase inside one fills its next step."""
            phases = [(n, p) for n, p in list(self._phases.items()) if p[0] == parent]
            done = [(p[2] + min(1.0, self._done(n)) if p[2] < p[1] else p[1]) / p[1] for n, p in phases]
            return max(done, default=0.0)

        def raise_pending(self) -> None:
            if self._pending is not None:
                raise self._pending
            progress(what, 100, 100)

    return Monitor()
