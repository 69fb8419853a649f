"""Engines that tensorrt-rtx really builds, on a machine without a GPU: what comes out, and what is refused."""

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("tensorrt_rtx_bindings")

import toy_graphs
from onnx import TensorProto, helper, numpy_helper

from hrm_edge.errors import InputError
from hrm_edge.runtimes.tensorrt import build as trt_build
from hrm_edge.runtimes.tensorrt import device as trt_device
from hrm_edge.runtimes.tensorrt import flavours as trt_flavours

ROWS = (1, 4, 8)
FLOAT = TensorProto.FLOAT


@pytest.fixture(scope="module")
def rtx():
    return trt_flavours.flavour(trt_flavours.RTX)


def cast_from_int64():
    info = helper.make_tensor_value_info
    x, y = info("x", TensorProto.INT64, [2]), info("y", FLOAT, [2])
    graph = helper.make_graph([helper.make_node("Cast", ["x"], ["y"], to=FLOAT)], "g", [x], [y])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10).SerializeToString()


def product(stored, low=0):
    """x[2, 64] times a stored 64×64 weight: float, or int8 with scales around ``low``."""
    nodes, weights = [], [numpy_helper.from_array(np.ones((64, 64), stored), "w")]
    if stored == np.int8:
        weights += [numpy_helper.from_array(np.float32(0.1), "s"), numpy_helper.from_array(np.int8(low), "zero")]
        weights.append(numpy_helper.from_array(np.int8(0), "none"))
        nodes.append(helper.make_node("QuantizeLinear", ["x", "s", "zero"], ["xq"], name="quantize"))
        nodes.append(helper.make_node("DequantizeLinear", ["xq", "s", "zero"], ["xd"]))
        nodes.append(helper.make_node("DequantizeLinear", ["w", "s", "none"], ["wd"]))
    nodes.append(helper.make_node("MatMul", ["xd", "wd"] if len(nodes) else ["x", "w"], ["y"], name="product"))
    info = helper.make_tensor_value_info
    graph = helper.make_graph(nodes, "g", [info("x", FLOAT, [2, 64])], [info("y", FLOAT, [2, 64])], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10).SerializeToString()


@pytest.mark.parametrize(("loop", "batch"), [("host", "dynamic"), ("graph", "dynamic"), ("host", 3), ("graph", 3)])
def test_our_graphs_build_without_a_gpu(rtx, loop, batch):
    for model in toy_graphs.models(loop, batch).values():
        rows = ROWS if batch == "dynamic" else None
        seen = []
        built = trt_build.build(
            rtx,
            model.SerializeToString(),
            compute_capabilities=[86, 120],
            rows=rows,
            progress=lambda what, done, total, seen=seen: seen.append((done, total)),
            what="toy",
        )
        assert len(built.plan) > 10_000
        assert [item.name for item in built.network.inputs] == [value.name for value in model.graph.input]
        assert [item.name for item in built.network.outputs] == [value.name for value in model.graph.output]
        assert {item.dtype for item in built.network.inputs} <= {"int32", "float32"}
        first = built.network.inputs[0]
        assert first.shape[0] == (-1 if rows else 3)
        assert ("LOOP_OUTPUT" in {layer.kind for layer in built.network.layers}) == (loop == "graph")
        assert built.compiled_layers
        assert built.timing_cache is None
        # Percent that only grows, to the end.
        assert seen[-1] == (100, 100)
        assert [done for done, _ in seen] == sorted({done for done, _ in seen})


@pytest.mark.parametrize(("stored", "size"), [(np.float32, 4), (np.int8, 1)])
def test_the_log_tells_how_much_memory_the_weights_take(rtx, stored, size):
    built = trt_build.build(rtx, product(stored), compute_capabilities=[86])
    assert built.weights_bytes == pytest.approx(64 * 64 * size, rel=0.3)
    gemms = [line for line in built.compiled_layers if "product" in line.split(",")[0]]
    assert len(gemms) == 1
    assert ("Datatype: Int8" in gemms[0]) == (stored == np.int8)


def test_float32_is_not_computed_in_tf32(rtx, monkeypatch):
    """TensorRT would by default; seen in the configuration that reaches the builder."""
    seen = []

    class Spy:
        def __init__(self, builder):
            self._builder = builder

        def __getattr__(self, name):
            return getattr(self._builder, name)

        def build_serialized_network(self, network, config):
            seen.append((config.get_flag(rtx.trt.BuilderFlag.TF32), config.get_flag(rtx.trt.BuilderFlag.REFIT)))
            return self._builder.build_serialized_network(network, config)

    parse = trt_build.parse
    monkeypatch.setattr(trt_build, "parse", lambda *a: (Spy((p := parse(*a)).builder), p.network, p.log))
    trt_build.build(rtx, product(np.float32), compute_capabilities=[86])
    assert seen == [(False, False)]
    assert rtx.trt.Builder(trt_build.make_log(rtx.trt)).create_builder_config().get_flag(rtx.trt.BuilderFlag.TF32)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            product(np.int8, low=3),
            r"quantized around a zero point \(asymmetrically\).* \(at quantize, a QuantizeLinear\)",
        ),
        (
            cast_from_int64(),
            "'x' is int64, which its engines do not take; declare it int32",
        ),
        (b"nonsense", "can not read the graph"),
        (b"", "can not read the graph"),
    ],
)
def test_what_tensorrt_does_not_take_is_one_line(rtx, model, message):
    with pytest.raises(InputError, match=message) as caught:
        trt_build.build(rtx, model, compute_capabilities=[86])
    assert "\n" not in str(caught.value)
    assert "/_src/" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"compute_capabilities": [86, 90]}, r"compute capability 9\.0, only for 8\.0, 8\.6"),
        ({"compute_capabilities": []}, "name a compute capability"),
        ({"compute_capabilities": [86], "rows": None}, "'tokens' takes any number of rows"),
        ({"compute_capabilities": [86], "rows": (4, 2, 8)}, "'tokens' takes any number of rows"),
    ],
)
def test_wrong_wishes_are_one_line(rtx, options, message):
    model = toy_graphs.models("graph", "dynamic")["model"].SerializeToString()
    with pytest.raises(InputError, match=message):
        trt_build.build(rtx, model, **{"rows": ROWS, **options})


def test_what_the_builder_can_not_compile_is_one_line(rtx, monkeypatch):
    """Turing has no float32 products in tensorrt-rtx, which is why it is not offered."""
    monkeypatch.setattr(type(rtx), "ahead_of_time", (75,))
    with pytest.raises(
        InputError, match=r"can not build .*FP32 GEMM is not supported\); try tensorrt, or"
    ) as caught:
        trt_build.build(rtx, product(np.float32), compute_capabilities=[75])
    assert "\n" not in str(caught.value)
    assert ".cpp" not in str(caught.value)


def test_ctrl_c_stops_a_build(rtx):
    calls = []

    def interrupted(what, done, total):
        calls.append(done)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trt_build.build(
            rtx,
            toy_graphs.models("graph", 3)["model"].SerializeToString(),
            compute_capabilities=[86],
            progress=interrupted,
        )
    assert len(calls) == 1


@pytest.mark.parametrize("cut", [lambda plan: b"no engine at all" * 9, lambda plan: b"", lambda plan: plan])
def test_an_engine_is_not_loaded_without_a_driver(rtx, cut):
    """Nothing pretends: what is no engine is called so, and a good one is refused for want of a driver."""
    plan = cut(trt_build.build(rtx, product(np.float32), compute_capabilities=[86]).plan)
    try:
        from hrm_edge.runtimes.tensorrt.cuda import find_gpu

        find_gpu()
    except InputError:
        pass
    else:
        pytest.skip("there is a GPU here")
    wanted = "CUDA driver version is insufficient" if len(plan) > 1000 else "damaged, or no engine of this flavour"
    with pytest.raises(trt_device.Refused, match=wanted) as caught:
        trt_device.LoadedEngine(rtx, plan, "bundle")
    assert "\n" not in str(caught.value)


def test_an_unknown_flavour_says_what_to_install(monkeypatch):
    monkeypatch.setattr(trt_flavours, "_MODULES", {trt_flavours.FULL: ("no_such_module",)})
    with pytest.raises(InputError, match="tensorrt is not installed; run: pip install tensorrt"):
        trt_flavours.flavour(trt_flavours.FULL)


def test_a_broken_install_is_reported_not_raised(monkeypatch, tmp_path):
    (tmp_path / "broken_trt.py").write_text("raise OSError('libnvinfer.so: no such file\\nsecond line')")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(trt_flavours, "_MODULES", {trt_flavours.FULL: ("broken_trt",)})
    assert trt_flavours.installed() == ([], ["tensorrt does not load: libnvinfer.so: no such file"])
    with pytest.raises(InputError, match="tensorrt does not load: libnvinfer"):
        trt_flavours.flavour(trt_flavours.FULL)


@pytest.mark.parametrize(
    ("message", "wanted"),
    [
        (
            "[a.cpp::f::12] Error Code 4: Internal (In f at /_src/x/a.cpp:25 (cudaError 35: too old))",
            "Error Code 4: Internal (cudaError 35: too old)",
        ),
        (
            "IB::b: Error Code 4: API Usage Error (No output. In f at /_src/b.cpp:7)",
            "IB::b: Error Code 4: API Usage Error (No output)",
        ),
        ("Assertion failed: x == y: Wrong. \nmore", "Assertion failed: x == y: Wrong"),
        ("Myelin ([pass.cpp:337: check_ops] Cannot compile 'x')", "Myelin (Cannot compile 'x')"),
        ("", "no reason given"),
    ],
)
def test_messages_lose_their_place_in_the_source(message, wanted):
    assert trt_build.plain(message) == wanted
