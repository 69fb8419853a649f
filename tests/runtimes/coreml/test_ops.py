"""Each operation of the interpreter against numpy in float64 and against what coremltools itself infers."""

import math

import numpy as np
import pytest

pytest.importorskip("coremltools")

from mil_programs import mb, save_program, spec

from hrm_edge.runtimes.coreml.interpreter import load_program
from hrm_edge.runtimes.coreml.ops import KINDS

RNG = np.random.default_rng(7)
X = RNG.standard_normal((2, 3, 4)).astype(np.float32)
Y = RNG.standard_normal((2, 3, 4)).astype(np.float32)
ROW = RNG.standard_normal((1, 4)).astype(np.float32)
POSITIVE = RNG.uniform(0.1, 3, (2, 3, 4)).astype(np.float32)
INTS = RNG.integers(-9, 9, (2, 3, 4)).astype(np.int32)
OTHER_INTS = RNG.integers(1, 5, (2, 3, 4)).astype(np.int32)
FLAGS = INTS > 0
OTHER_FLAGS = OTHER_INTS > 2
WEIGHT = RNG.standard_normal((5, 4)).astype(np.float32)
BIAS = RNG.standard_normal(5).astype(np.float32)
INDICES = np.array([[2, 0], [1, 1]], np.int32)


SEQUENCE = RNG.standard_normal((5, 3, 3)).astype(np.float32)
SPREAD = RNG.standard_normal((3, 4)).astype(np.float32)
GRIDS = RNG.standard_normal((2, 4, 5, 6)).astype(np.float32)
TAPS = RNG.standard_normal((4, 1, 3, 3)).astype(np.float32)
BIASES = RNG.standard_normal(6).astype(np.float32)
GROUPED = RNG.standard_normal((6, 2, 3, 2)).astype(np.float32)


def convolution(x, *weights, **how):
    torch = pytest.importorskip("torch")
    weights = (torch.from_numpy(weight).double() for weight in weights)
    return torch.nn.functional.conv2d(torch.from_numpy(x), *weights, **how).numpy()


def softmax(x, axis):
    e = np.exp(x)
    return e / e.sum(axis, keepdims=True)


def layer_norm(x, axes, epsilon):
    return (x - x.mean(axes, keepdims=True)) / (x.var(axes, keepdims=True) + epsilon) ** 0.5


# name → (operation, arrays fed, parameters, the same in numpy; arrays come as float64 there)
def case(op, arrays, reference, **parameters):
    return op, arrays, parameters, reference


CASES = {
    **{
        name: case(name, {"x": X}, function)
        for name, function in {
            "abs": lambda x: np.maximum(x, -x),
            "cos": lambda x: np.sin(x + np.pi / 2),
            "erf": np.vectorize(math.erf),
            "exp": lambda x: np.sinh(x) + np.cosh(x),
            "identity": lambda x: x,
            "relu": lambda x: (x + abs(x)) / 2,
            "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
            "silu": lambda x: x / (1 + np.exp(-x)),
            "sin": lambda x: np.cos(x - np.pi / 2),
            "square": lambda x: x * x,
            "tanh": lambda x: np.sinh(x) / np.cosh(x),
        }.items()
    },
    **{
        name: case(name, {"x": X, "y": Y}, function)
        for name, function in {
            "add": lambda x, y: x + y,
            "sub": lambda x, y: x - y,
            "mul": lambda x, y: x * y,
            "real_div": lambda x, y: x / y,
            "less": lambda x, y: x < y,
            "less_equal": lambda x, y: ~(x > y),
            "greater": lambda x, y: x > y,
            "greater_equal": lambda x, y: ~(x < y),
        }.items()
    },
    **{
        f"int_{name}": case(name, {"x": INTS, "y": OTHER_INTS}, function)
        for name, function in {
            "add": lambda x, y: x + y,
            "mul": lambda x, y: x * y,
            "maximum": lambda x, y: (x + y + abs(x - y)) / 2,
            "minimum": lambda x, y: (x + y - abs(x - y)) / 2,
            "equal": lambda x, y: x == y,
        }.items()
    },
    **{
        name: case(name, {"x": FLAGS, "y": OTHER_FLAGS}, function)
        for name, function in {
            "logical_and": lambda x, y: (x + y) == 2,
            "logical_or": lambda x, y: (x + y) > 0,
        }.items()
    },
    "logical_not": case("logical_not", {"x": FLAGS}, lambda x: x == 0),
    "broadcast": case("add", {"x": X, "y": ROW}, lambda x, y: x + y),
    "pow": case("pow", {"x": POSITIVE, "y": Y}, lambda x, y: np.exp(y * np.log(x))),
    "sqrt": case("sqrt", {"x": POSITIVE}, lambda x: x**0.5),
    "rsqrt": case("rsqrt", {"x": POSITIVE}, lambda x: (x + 0.5) ** -0.5, epsilon=np.float32(0.5)),
    "select": case("select", {"cond": FLAGS, "a": X, "b": Y}, lambda c, a, b: c * a + (1 - c) * b),
    "cast_down": case("cast", {"x": X * 3}, np.trunc, dtype="int32"),
    "cast_up": case("cast", {"x": INTS}, lambda x: x, dtype="fp32"),
    "cast_bool": case("cast", {"x": INTS}, lambda x: x != 0, dtype="bool"),
    "cast_int8": case("cast", {"x": INTS}, lambda x: x, dtype="int8"),
    **{
        name: case(name, {"x": X}, function, axes=[1, -1], keep_dims=True)
        for name, function in {
            "reduce_mean": lambda x: x.sum((1, 2), keepdims=True) / 12,
            "reduce_sum": lambda x: x.mean((1, 2), keepdims=True) * 12,
            "reduce_max": lambda x: x.max((1, 2), keepdims=True),
            "reduce_min": lambda x: -(-x).max((1, 2), keepdims=True),
        }.items()
    },
    "reduce_dropped": case("reduce_mean", {"x": X}, lambda x: x.sum(1) / 3, axes=[1], keep_dims=False),
    "reduce_ints": case("reduce_max", {"x": INTS}, lambda x: x.max(0), axes=[0], keep_dims=False),
    "reduce_all": case("reduce_min", {"x": X}, lambda x: x.min(keepdims=True), axes=[0, 1, 2], keep_dims=True),
    "reduce_argmax": case("reduce_argmax", {"x": X}, lambda x: x.argmax(1), axis=1, keep_dims=False),
    "softmax": case("softmax", {"x": X}, lambda x: softmax(x, 1), axis=1),
    "layer_norm": case(
        "layer_norm",
        {"x": X},
        lambda x: layer_norm(x, (1, 2), 0.1) * ROW + SPREAD,
        axes=[1, 2],
        gamma=np.broadcast_to(ROW, (3, 4)).copy(),
        beta=SPREAD,
        epsilon=np.float32(0.1),
    ),
    "layer_norm_plain": case("layer_norm", {"x": X}, lambda x: layer_norm(x, (2,), 1e-5), axes=[-1]),
    "gelu": case("gelu", {"x": X}, lambda x: x / 2 * (1 + np.vectorize(math.erf)(x / 2**0.5)), mode="EXACT"),
    "gelu_tanh": case(
        "gelu",
        {"x": X},
        lambda x: x / (1 + np.exp(-2 * (2 / np.pi) ** 0.5 * (x + 0.044715 * x**3))),
        mode="TANH_APPROXIMATION",
    ),
    "matmul": case("matmul", {"x": X, "y": Y}, lambda x, y: np.einsum("bij,bkj->bik", x, y), transpose_y=True),
    "matmul_both": case(
        "matmul",
        {"x": X, "y": Y.reshape(2, 4, 3)},
        lambda x, y: np.einsum("bji,bkj->bik", x, y),
        transpose_x=True,
        transpose_y=True,
    ),
    "matmul_flat": case("matmul", {"x": X, "y": WEIGHT.T.copy()}, lambda x, y: np.einsum("bij,jk->bik", x, y)),
    "linear": case(
        "linear", {"x": X}, lambda x: np.einsum("bij,kj->bik", x, WEIGHT) + BIAS, weight=WEIGHT, bias=BIAS
    ),
    "conv": case(
        "conv",
        {"x": GRIDS},
        lambda x: convolution(x, TAPS, padding=1, groups=4),
        weight=TAPS,
        groups=4,
        pad_type="custom",
        pad=[1, 1, 1, 1],
    ),
    "conv_grouped": case(
        "conv",
        {"x": GRIDS},
        lambda x: convolution(np.pad(x, ((0, 0), (0, 0), (2, 0), (0, 1))), GROUPED, BIASES, groups=2),
        weight=GROUPED,
        bias=BIASES,
        groups=2,
        pad_type="custom",
        pad=[2, 0, 0, 1],
    ),
    "conv_of_a_sequence": case(
        "conv",
        {"x": X},
        lambda x: convolution(np.pad(x, ((0, 0), (0, 0), (1, 1)))[:, :, None], SEQUENCE[:, :, None], BIAS)[:, :, 0],
        weight=SEQUENCE,
        bias=BIAS,
        pad_type="custom",
        pad=[1, 1],
    ),
    "transpose": case("transpose", {"x": X}, lambda x: np.moveaxis(x, 0, 2), perm=[1, 2, 0]),
    "reshape": case("reshape", {"x": X}, lambda x: x.reshape(6, 4), shape=[6, -1]),
    "reshape_zero": case("reshape", {"x": X}, lambda x: x.reshape(6, 4), shape=[-1, 0]),
    "squeeze": case("squeeze", {"x": X[:1]}, lambda x: x[0], axes=[0]),
    "expand_dims": case("expand_dims", {"x": X}, lambda x: x[:, None, :, :, None], axes=[1, -1]),
    "concat": case("concat", {"values": (X, Y)}, lambda x, y: np.concatenate([x, y], 2), axis=-1),
    "slice": case(
        "slice_by_index", {"x": X}, lambda x: x[0:2, 1:3, 0:3:2], begin=[0, 1, 0], end=[2, 3, 3], stride=[1, 1, 2]
    ),
    "slice_masked": case(
        "slice_by_index",
        {"x": X},
        lambda x: x[1, :2, 2:],
        begin=[1, 1, 2],
        end=[0, 2, 0],
        begin_mask=[False, True, False],
        end_mask=[False, False, True],
        squeeze_mask=[True, False, False],
    ),
    "slice_backwards": case(
        "slice_by_index",
        {"x": X},
        lambda x: x[:, ::-1, 1:-1],
        begin=[0, 0, 1],
        end=[0, 0, -1],
        stride=[1, -1, 1],
        begin_mask=[True, True, False],
        end_mask=[True, True, False],
    ),
    "gather": case("gather", {"x": X, "indices": INDICES}, lambda x, i: x[:, i.astype(int)], axis=1),
    "gather_negative": case("gather", {"x": X, "indices": -INDICES - 1}, lambda x, i: x[:, i.astype(int)], axis=1),
    "tile": case("tile", {"x": X}, lambda x: np.concatenate([x, x], 1), reps=[1, 2, 1]),
    "quantize": case(
        "quantize",
        {"input": X * 100},
        lambda x: np.clip(np.round(x / 0.5) + 3, -128, 127),
        scale=np.float32(0.5),
        zero_point=np.int8(3),
        output_dtype="int8",
    ),
    "quantize_axis": case(
        "quantize",
        {"input": X},
        lambda x: np.clip(np.round(x / np.array([0.1, 0.2, 0.4])[:, None]) + 128, 0, 255),
        scale=np.array([0.1, 0.2, 0.4], np.float32),
        zero_point=np.full(3, 128, np.uint8),
        axis=1,
        output_dtype="uint8",
    ),
}
# What coremltools itself does not compute at conversion.
NOT_INFERRED = {"silu", "conv", "conv_grouped", "conv_of_a_sequence", "layer_norm", "layer_norm_plain"}


def build(name, values):
    op, arrays, parameters, _ = CASES[name]
    return getattr(mb, op)(**dict(zip(arrays, values, strict=True)), **parameters)


def flat(arrays):
    return [array for value in arrays.values() for array in (value if isinstance(value, tuple) else (value,))]


def nested(arrays, values):
    values = iter(values)
    return [tuple(next(values) for _ in v) if isinstance(v, tuple) else next(values) for v in arrays.values()]


def as_output(value, name):
    """Core ML programs give floats and int32 only."""
    if value.dtype.__name__ not in ("fp32", "fp16", "int32"):
        value = mb.cast(x=value, dtype="int32")
    return mb.identity(x=value, name=name)


def as_input(array):
    return spec(array.shape, "int32" if array.dtype == bool else str(array.dtype))


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Every case in one saved program: name → (interpreter's output, what coremltools inferred or None)."""
    inferred = {}
    specs, starts = [], {}
    for name, (_, arrays, _, _) in CASES.items():
        starts[name] = len(specs)
        specs += [as_input(array) for array in flat(arrays)]

    def program(*inputs):
        outputs = []
        for name, (_, arrays, _, _) in CASES.items():
            own = flat(arrays)
            values = inputs[starts[name] : starts[name] + len(own)]
            values = [
                mb.cast(x=v, dtype="bool") if a.dtype == bool else v for v, a in zip(values, own, strict=True)
            ]
            result = build(name, nested(arrays, values))
            known = build(name, nested(arrays, [mb.const(val=a) for a in own]))
            inferred[name] = known.val
            outputs.append(as_output(result, f"{name}_out"))
        return tuple(outputs)

    names = [f"i{n}" for n in range(len(specs))]
    # The builder names inputs after the function's parameters.
    scope = {"program": program}
    exec(f"def named({', '.join(names)}): return program({', '.join(names)})", scope)
    path = save_program(tmp_path_factory.mktemp("ops") / "all.mlpackage", scope["named"], specs)
    arrays = [array for _, own, _, _ in CASES.values() for array in flat(own)]
    feeds = {n: a.astype(np.int32) if a.dtype == bool else a for n, a in zip(names, arrays, strict=True)}
    outputs = load_program(path)(feeds)
    return {name: (outputs[f"{name}_out"], inferred[name]) for name in CASES}


@pytest.mark.parametrize("name", CASES)
def test_an_operation_gives_what_numpy_gives(results, name):
    _, arrays, _, reference = CASES[name]
    wanted = reference(*(array.astype(np.float64) for array in flat(arrays)))
    got = results[name][0]
    assert got.shape == np.shape(wanted)
    assert np.allclose(got, wanted, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("name", [name for name in CASES if name not in NOT_INFERRED])
def test_an_operation_gives_what_coremltools_infers(results, name):
    got, inferred = results[name]
    assert np.allclose(got, np.asarray(inferred, np.float64), rtol=2e-6, atol=2e-6)


def test_every_kind_is_tested_here_or_with_compressed_weights():
    tested = {op for op, _, _, _ in CASES.values()} | {"dequantize"}
    assert {kind for kind in KINDS if not kind.startswith("constexpr_")} == tested
