"""The interpreter's float16: rounded as the hardware does, once for each operation."""

import numpy as np
import pytest

pytest.importorskip("coremltools")

from mil_programs import mb, save_program, spec

from hrm_edge.runtimes.coreml.interpreter import load_program
from hrm_edge.runtimes.coreml.ops import rounded_to_float16

RNG = np.random.default_rng(7)


@pytest.mark.parametrize("scale", [1e-6, 1e-3, 1.0, 1e3, 5e4])
def test_rounding_to_float16_is_exact(scale):
    x = (RNG.standard_normal(5000) * scale).astype(np.float32)
    halves = np.arange(2**16, dtype=np.uint16).view(np.float16).astype(np.float32)
    halves = np.sort(halves[np.isfinite(halves)])
    ties = ((halves[:-1].astype(np.float64) + halves[1:]) / 2).astype(np.float32)
    with np.errstate(over="ignore"):
        for values in (
            x,
            halves,
            ties,
            np.nextafter(ties, 0),
            np.append(x, [np.inf, -np.inf]),
            x.reshape(50, 100).T,
        ):
            wanted = values.astype(np.float16).astype(np.float32)
            got = rounded_to_float16(values)
            assert np.array_equal(got, wanted)
            assert np.array_equal(np.signbit(got), np.signbit(wanted))
        assert np.isnan(rounded_to_float16(np.append(x, np.nan))[-1])


def half_program(path, function, shapes, ios=17):
    return load_program(save_program(path, function, [spec(s, "float16") for s in shapes], ios))


@pytest.mark.parametrize("op", ["add", "mul", "sub", "real_div", "matmul"])
def test_float16_results_are_rounded_once(tmp_path, op):
    x, y = (RNG.standard_normal((40, 40)).astype(np.float16) for _ in range(2))
    program = half_program(tmp_path / "p.mlpackage", lambda x, y: getattr(mb, op)(x=x, y=y), [x.shape, y.shape])
    function = {"real_div": np.divide, "sub": np.subtract, "mul": np.multiply}.get(op)
    function = function or {"add": np.add, "matmul": np.matmul}[op]
    exact = function(x.astype(np.float64), y.astype(np.float64))
    (got,) = program({"x": x, "y": y}).values()
    assert np.array_equal(got, got.astype(np.float16))
    wanted = exact.astype(np.float16)
    if op != "matmul":
        assert np.array_equal(got, wanted)
    else:  # summed in float32: a neighbour where the sum lies near the middle
        assert np.mean(got != wanted) < 0.01
        assert np.all(np.abs(got - exact) <= 0.501 * np.spacing(np.abs(wanted)).astype(float) + 1e-5)


def test_float16_overflows_and_keeps_tiny_numbers(tmp_path):
    program = half_program(tmp_path / "p.mlpackage", lambda x: mb.square(x=x), [(4,)])
    (got,) = program({"x": np.array([300.0, 2e-4, 1e-5, -3.0], np.float16)}).values()
    assert got[0] == np.inf
    assert got[1] == np.float16(np.float16(2e-4).astype(np.float32) ** 2)
    assert got[2] == 0
    assert got[3] == 9
