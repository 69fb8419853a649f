"""OpenVINO on the CPU: runs the .xml/.bin files of a bundle."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError
from ..packages import install
from ..precision import BF16
from ..tasks.parallel import usable_cores
from ._openvino_cache import Cache, Source
from .base import Available, Backend, CompiledProduct, Graph, Idle, OperatorTime, by_kind, first_line
from .loops import engine_of

if TYPE_CHECKING:
    from ..bundle import Bundle
    from ..tasks import Task
    from .engine import Engine

_TELEMETRY, _CONVERTER = "openvino_telemetry", "openvino.tools.ovc"
_making, _tables_made = threading.Lock(), False
_core: Any = None


class OpenVino(Backend):
    """OpenVINO's CPU plugin."""

    name, title, order = "openvino", "OpenVINO", 2
    cold_without_cache = True

    def available(self) -> Available:
        if importlib.util.find_spec("openvino") is None:
            return Available(False, None, "openvino is not installed", install(self.name))
        try:
            openvino = imported()
            devices = core().available_devices
        except Exception as error:  # a broken install fails in ways of its own
            return Available(False, None, f"openvino does not load: {first_line(error)}", install(self.name))
        if "CPU" not in devices:
            return Available(False, _version(openvino), "OpenVINO finds no CPU device", install(self.name))
        return Available(True, _version(openvino), None, "")

    def load(self, bundle: Bundle, task: Task, facts: dict[str, Any], threads: int | None) -> Engine:
        return engine_of(
            bundle, task, facts, lambda path: self.load_graph(path, threads, facts["streams"], keep=True)
        )

    def load_graph(self, path: Path, threads: int | None, streams: int = 1, *, keep: bool = False) -> Graph:
        """A graph that takes any number of rows is compiled for one at once, and for any other when first asked.

        The plugin runs a fixed shape 5 to 15 % faster than a free one. ``keep``: what was compiled is kept, and
        taken where it was before; it gives the same answers (`_openvino_cache.py`).
        """
        openvino = imported()
        if path.suffix != ".xml":  # it would read any kind of graph, of which some name files beside them
            raise InputError(f"{path}: OpenVINO's graphs end in .xml; export the bundle again")
        settings = _settings(threads, streams)

        def refused(error: Exception) -> InputError:
            return InputError(
                f"{path}: OpenVINO {_version(openvino)} can not load it ({first_line(error)}); "
                "export the bundle again"
            )

        def compiled(single: bool) -> tuple[_Compiled, list[str]]:
            """For single rows or, where ``single`` is False, for any number; the inputs whose rows are free."""
            try:
                cached = cache.read(single)
                if cached is None:
                    read = source.model(core(), openvino.Tensor)
                    free = [item.any_name for item in _free(read)]
                    model = _for_rows(read, 1 if single and free else None)
                    # Compiling may name an output after what it was fused with; the file's own name counts.
                    names = [output.any_name for output in model.outputs]
                    cached = core().compile_model(model, "CPU", settings), names, free
                    cache.write(single, *cached)
                made, names, free = cached
                return _Compiled(made, names, source), free
            except Exception as error:  # OpenVINO raises plain RuntimeError, among others
                raise refused(error) from error

        try:
            source = Source(path)
        except OSError as error:
            raise refused(error) from error
        cache = Cache(core(), source, openvino.__version__, settings, keep)
        first, free = compiled(True)
        return _ByRows(first, lambda: compiled(False)[0], free) if free else first

    def product(self, precision: str, size: int, threads: int) -> Callable[[], object] | None:
        if not self.available().usable or precision not in ("fp32", BF16.name, "int8"):
            return None
        request = core().compile_model(_product(precision, size), "CPU", _settings(threads))
        infer, given = request.create_infer_request(), np.full((size, size), 0.5, np.float32)
        return lambda: infer.infer([given], share_inputs=True)

    def profile(self, path: Path, threads: int | None, runs: int) -> list[OperatorTime]:
        model = _for_rows(core().read_model(str(path)), 1)
        request = (
            core().compile_model(model, "CPU", {**_settings(threads), "PERF_COUNT": True}).create_infer_request()
        )
        rng = np.random.default_rng(0)
        given = [rng.standard_normal(list(item.shape), np.float32) for item in model.inputs]
        for _ in range(runs + 1):
            request.infer(given)
        told = {
            # The plugin's times are means of all runs so far.
            each.node_name: (each.node_type, each.exec_type, 1e3 * each.real_time.total_seconds())
            for each in request.get_profiling_info()
            if each.real_time.total_seconds() > 0
        }
        return by_kind([told])

    def multiplies_bfloat16(self) -> bool:
        """Whether this CPU has products of bfloat16 (AVX-512 BF16 or AMX); OpenVINO must be installed to tell.

        Without them it computes a bf16 graph in float32 or, with plain AVX-512, takes each product apart.
        """
        return "BF16" in core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")

    def unverified_warning(self, bundle: Bundle) -> str | None:
        if bundle.manifest.precision != BF16.name or not self.available().usable or self.multiplies_bfloat16():
            return None
        return (
            f"{bundle.path}: was proven in bfloat16, which this CPU does not multiply: it is computed otherwise "
            "here, and no faster than an fp32 bundle"
        )

    def compiled_products(self, path: Path) -> list[CompiledProduct]:
        """The matrix products as the CPU plugin compiles them, from its runtime model.

        The runtime model does not show what is inside a loop, so a loop's body is compiled by itself, with the
        same settings; it is the same operators with the same constants. A graph that is compiled twice, as
        `load_graph` does, has the products of both: one that they compile in two ways has the types of both.
        """
        read = core().read_model(str(path))
        return _of_all([_products(_for_rows(read, rows)) for rows in ((1, None) if _free(read) else (None,))])


BACKEND = OpenVino()


def imported() -> Any:
    """openvino, imported here and nowhere else; ImportError where it is not installed.

    As it is imported it sends that it was, and writes an identifier of the user into the home folder. The package
    that does so it can do without, and does so here, but for users who opted in. Nor is its converter of other
    formats imported before somebody asks for it, which takes as long as the runtime itself.
    """
    with _held_off(*(() if "openvino" in sys.modules else (_TELEMETRY, _CONVERTER))):
        import openvino
    vars(openvino).setdefault("__getattr__", _converter)
    _make_tables(openvino)
    return openvino


def core() -> Any:
    """OpenVINO's Core, of which a process has one, made here and nowhere else and never given back.

    The CPU plugin of each Core gives the thread that first uses it a stack for signals, and unmaps that when it is
    freed (2026.4). Freed in another thread, or before one that was made later, the stack stays the thread's: its
    next signal that Python handles ends the process with a segmentation fault.
    """
    global _core
    openvino = imported()
    with _making:
        if _core is None:
            _core = openvino.Core()
        return _core


@contextlib.contextmanager
def _held_off(*modules: str) -> Iterator[None]:
    """A block in which these cannot be imported for the first time; telemetry can by users who opted in."""
    held = [name for name in modules if name not in sys.modules and not (name == _TELEMETRY and _opted_in())]
    sys.modules.update(dict.fromkeys(held))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in held:
            if sys.modules.get(name, held) is None:
                del sys.modules[name]


def _converter(name: str) -> Any:
    """``openvino.convert_model``, for who asks for it."""
    if name != "convert_model":
        raise AttributeError(f"module 'openvino' has no attribute {name!r}")
    with _held_off(_TELEMETRY):
        return importlib.import_module(_CONVERTER).convert_model


def _make_tables(openvino: Any) -> None:
    """Have the binding make its tables of types here, in one thread.

    It makes them when they are first asked for, within a lock of C++'s and letting go of Python's meanwhile: two
    threads that first ask at once may each wait for ever for what the other holds (2026.4).
    """
    global _tables_made
    with _making:
        if not _tables_made:
            openvino.Type.f32.to_dtype()
            openvino.Tensor(np.zeros(1, np.float32), shared_memory=True)
            _tables_made = True


def _opted_in() -> bool:
    """Whether the user has run `opt_in_out --opt_in`, which comes with that package."""
    try:
        return (Path.home() / "intel" / "openvino_telemetry").read_text().strip() == "1"
    except (OSError, ValueError, RuntimeError):
        return False


def _product(precision: str, size: int) -> Any:
    """``x float32[size, size]`` by a stored matrix, as a model, with what makes its operands narrow."""
    openvino = imported()
    ops = openvino.opset13
    rng = np.random.default_rng(0)
    x = ops.parameter([size, size], np.float32)
    if precision == "int8":
        stored = ops.constant(rng.integers(-127, 128, (size, size)).astype(np.int8))
        weight = ops.multiply(ops.convert(stored, "f32"), ops.constant(np.full((1, size), 1 / 64, np.float32)))
        ends = [ops.constant(np.float32(end)) for end in (-2, 2, -2, 2)]
        made = ops.matmul(ops.fake_quantize(x, *ends, 255), weight, False, False)
    else:
        weight, left = ops.constant(rng.standard_normal((size, size), np.float32)), x
        if precision == BF16.name:
            weight, left = ops.convert(weight, "bf16"), ops.convert(x, "bf16")
        made = ops.matmul(left, weight, False, False)
        if precision == BF16.name:
            made = ops.convert(made, "f32")
    return openvino.Model([made], [x], "product")


def _for_rows(read: Any, rows: int | None) -> Any:
    """A graph for a number of rows; None: for those that it takes."""
    model = read.clone()
    if rows is not None:
        model.reshape({item.any_name: [rows, *list(item.partial_shape)[1:]] for item in _free(model)})
    return model


def _products(model: Any) -> list[CompiledProduct]:
    found = []
    for part in _with_bodies(model):
        for item in core().compile_model(part, "CPU", _settings(None)).get_runtime_model().get_ops():
            info = item.get_rt_info()
            if info["layerType"].astype(str) in ("FullyConnected", "MatMul"):
                kinds = [item.input_value(i).get_element_type().get_type_name() for i in (0, 1)]
                found.append(CompiledProduct(_name_in_graph(item), *(_KINDS.get(k, k) for k in kinds)))
    return found


def _of_all(compiled: list[list[CompiledProduct]]) -> list[CompiledProduct]:
    """The products of several compilations of a graph; of one that they make differently, all that it is made."""
    found: dict[tuple[str, int], list[CompiledProduct]] = {}
    for products in compiled:
        seen: Counter[str] = Counter()
        for product in products:
            found.setdefault((product.name, seen[product.name]), []).append(product)
            seen[product.name] += 1
    merged = []
    for same in found.values():
        absent = [] if len(same) == len(compiled) else ["nothing"]
        left, right = (
            " or ".join(dict.fromkeys([*kinds, *absent]))
            for kinds in zip(*((p.left, p.right) for p in same), strict=True)
        )
        merged.append(CompiledProduct(same[0].name, left, right))
    return merged


def _name_in_graph(product: Any) -> str:
    """What a compiled product was called: fusion renames it, but its transposed weight keeps its name."""
    weight, mark = product.input_value(1).get_node().get_friendly_name(), "/transpose_b"
    if weight.endswith(mark):
        return weight.removesuffix(mark)
    return product.get_friendly_name().removesuffix("/DequantizationMultiply")


_KINDS = {"f32": "float32", "f16": "float16", "bf16": "bfloat16"}
_KINDS |= {"i8": "int8", "u8": "uint8", "i4": "int4", "u4": "uint4"}


def _with_bodies(model: Any) -> Iterator[Any]:
    yield model
    for item in model.get_ops():
        if item.get_type_name() in ("Loop", "TensorIterator"):
            yield from _with_bodies(item.get_function())


class _Compiled:
    """A compiled graph. An infer request serves one call at a time, and there are as many as callers."""

    def __init__(self, model: Any, names: list[str], source: Source) -> None:
        self._names, self._source = names, source  # whose memory the weights are in
        self._requests: Idle[Any] = Idle(model.create_infer_request)

    def __call__(self, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        with self._requests.one() as request:
            # Inputs are read in place; outputs are copied, as the request's next call writes over its own.
            outputs = request.infer(feeds, share_inputs=True)
            return {name: outputs[index] for index, name in enumerate(self._names)}


class _ByRows:
    """One graph for single rows and one for any other number, the latter compiled when first needed."""

    def __init__(self, single: _Compiled, compile_any: Callable[[], _Compiled], free: list[str]) -> None:
        self._single, self._compile = single, compile_any
        self._input = free[0]
        self._lock = threading.Lock()
        self._any: _Compiled | None = None

    def __call__(self, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        if len(feeds[self._input]) == 1:
            return self._single(feeds)
        with self._lock:
            if self._any is None:
                self._any = self._compile()
        return self._any(feeds)


def _free(model: Any) -> list[Any]:
    """Inputs whose number of rows is free."""
    return [item for item in model.inputs if len(item.partial_shape) and item.partial_shape[0].is_dynamic]


def _settings(threads: int | None, streams: int = 1) -> dict[str, Any]:
    """Same numbers on every CPU, and the shortest time for one call.

    Unless told otherwise OpenVINO computes in bfloat16 where the CPU can, whatever the file's precision; the
    accuracy gate would then hold only for CPUs of the exporting machine's kind. An fp16 bundle therefore
    saves space, and computes with its rounded weights in float32: as measured, the f16 hint is no faster. A bf16
    bundle says in its graph what is bfloat16, and that is computed so under this hint too; under the bf16 hint the
    heads and the sums between products would be as well, which was 5 % slower and no more.
    """
    settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    # Nor, where weights alone are int8, does it round what they are multiplied with, as it would on some CPUs.
    settings["DYNAMIC_QUANTIZATION_GROUP_SIZE"] = 0
    if threads is not None:
        settings["INFERENCE_NUM_THREADS"] = threads * streams
        # It would tie its threads to the first cores, which those of other processes here are tied to as well: two
        # of one thread each, as of a job, took turns on one core.
        settings["ENABLE_CPU_PINNING"] = threads * streams >= usable_cores()
    if streams > 1:  # else calls that come at once wait for each other
        settings["NUM_STREAMS"] = streams
    return settings


def _version(openvino: Any) -> str:
    return openvino.__version__.split("-")[0]
