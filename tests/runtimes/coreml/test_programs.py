"""Whole programs in the interpreter: attention, sizes that only running tells, what it cannot do and says so."""

import numpy as np
import pytest

pytest.importorskip("coremltools")

from mil_programs import mb, save_program, spec

from hrm_edge.errors import InputError
from hrm_edge.runtimes.coreml.interpreter import load_program

RNG = np.random.default_rng(7)


def test_quantize_then_dequantize(tmp_path):
    def program(x):
        stored = mb.quantize(input=x, scale=np.float32(0.1), zero_point=np.uint8(10), output_dtype="uint8")
        return mb.dequantize(input=stored, scale=np.float32(0.1), zero_point=np.uint8(10))

    (got,) = load_program(save_program(tmp_path / "p.mlpackage", program, [spec((5,))]))(
        {"x": np.array([-2.0, 0.04, 0.06, 1.23, 99.0], np.float32)}
    ).values()
    assert np.allclose(got, [-1.0, 0.0, 0.1, 1.2, 24.5])


def test_sizes_known_only_when_it_runs(tmp_path):
    def program(x, begin, count):
        part = mb.slice_by_index(x=x, begin=begin, end=[6], end_mask=[True])
        return mb.identity(x=part, name="part"), mb.identity(x=mb.tile(x=x, reps=count), name="tiled")

    specs = [spec((6,)), spec((1,), "int32"), spec((1,), "int32")]
    program = load_program(save_program(tmp_path / "p.mlpackage", program, specs))
    x = np.arange(6, dtype=np.float32)
    got = program({"x": x, "begin": np.array([2], np.int32), "count": np.array([3], np.int32)})
    assert got["part"].tolist() == [2, 3, 4, 5]
    assert got["tiled"].tolist() == [*x] * 3
    with pytest.raises(InputError, match=r"tile 'tile_0': makes \[6, 2000000000\], more than"):
        program({"x": x, "begin": np.array([2], np.int32), "count": np.array([2_000_000_000], np.int32)})


@pytest.mark.parametrize("ios", [15, 16, 17, 18])
def test_each_generation_of_operations(tmp_path, ios):
    """gather, reshape and cast changed their parameters from one to the next."""

    def program(x, i):
        picked = mb.gather(x=x, indices=i, axis=1)
        whole = mb.cast(x=mb.reshape(x=picked, shape=[2, -1]), dtype="int32")
        return mb.reduce_argmax(x=whole, axis=-1), mb.reshape(x=picked, shape=[-1, 2])

    path = save_program(tmp_path / "p.mlpackage", program, [spec((2, 3)), spec((2,), "int32")], ios)
    x = np.array([[1.5, 9.5, 3], [7, 5, 6]], np.float32)
    best, picked = load_program(path)({"x": x, "i": np.array([2, 0], np.int32)}).values()
    assert best.tolist() == [0, 1]
    assert picked.tolist() == [[3, 1.5], [6, 7]]


def test_an_unknown_operation_is_named_at_load(tmp_path):
    path = save_program(tmp_path / "p.mlpackage", lambda x: mb.cumsum(x=x, axis=0, name="sums"), [spec((4,))])
    with pytest.raises(InputError, match=r"p\.mlpackage: cumsum 'sums': this operation is not supported"):
        load_program(path)


PICKS = np.array([[2, 0], [1, 1]], np.int32)
UNSUPPORTED = {
    "'batch_dims'": lambda x: mb.gather(x=x, indices=PICKS, axis=1, batch_dims=1),
    "'interleave'": lambda x: mb.concat(values=(x, x), axis=0, interleave=True),
    "only steps of one": lambda x: mb.conv(
        x=mb.reshape(x=x, shape=[1, 1, 2, 3]), weight=np.ones((1, 1, 1, 1), np.float32), strides=[2, 1]
    ),
}


@pytest.mark.parametrize("message", UNSUPPORTED)
def test_a_parameter_that_no_export_gives_is_refused_at_load(tmp_path, message):
    path = save_program(tmp_path / "p.mlpackage", UNSUPPORTED[message], [spec((2, 3))])
    with pytest.raises(InputError, match=message):
        load_program(path)


def test_an_unknown_operation_inside_a_loop_is_named_at_load(tmp_path):
    def program(x):
        def going(v):
            return mb.less(x=mb.reduce_max(x=v, axes=[0]), y=3.0)

        y = mb.while_loop(_cond=going, _body=lambda v: mb.cumsum(x=v, axis=0, name="sums"), loop_vars=(x,))
        return y

    path = save_program(tmp_path / "p.mlpackage", program, [spec((4,))])
    with pytest.raises(InputError, match="cumsum 'sums'"):
        load_program(path)


def test_a_failing_operation_is_named_when_it_runs(tmp_path):
    path = save_program(
        tmp_path / "p.mlpackage",
        lambda x, i: mb.gather(x=x, indices=i, name="picked"),
        [spec((4,)), spec((1,), "int32")],
    )
    with pytest.raises(InputError, match=r"p\.mlpackage: gather 'picked' fails: .*out of bounds"):
        load_program(path)({"x": np.zeros(4, np.float32), "i": np.array([7], np.int32)})
