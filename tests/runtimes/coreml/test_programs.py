"""Whole programs in the interpreter: attention, sizes that only running tells, what it cannot do and says so."""

import numpy as np
import pytest

pytest.importorskip("coremltools")

from mil_programs import mb, save_program, spec

from hrm_edge.errors import InputError
from hrm_edge.runtimes.coreml.interpreter import load_program

RNG = np.random.default_rng(7)


def test_attention_like_torch(tmp_path):
    torch = pytest.importorskip("torch")
    q, k, v = (RNG.standard_normal((2, 3, 5, 4)).astype(np.float32) for _ in range(3))
    mask = RNG.random((5, 5)) > 0.3
    mask |= np.eye(5, dtype=bool)

    def program(q, k, v, m, a):
        op = mb.scaled_dot_product_attention
        return (
            mb.identity(x=op(query=q, key=k, value=v), name="plain"),
            mb.identity(x=op(query=q, key=k, value=v, attn_mask=mb.cast(x=m, dtype="bool")), name="chosen"),
            mb.identity(x=op(query=q, key=k, value=v, attn_mask=a), name="added"),
        )

    specs = [spec(x.shape) for x in (q, k, v)] + [spec((5, 5), "int32"), spec((5, 5))]
    added = RNG.standard_normal((5, 5)).astype(np.float32)
    run = load_program(save_program(tmp_path / "p.mlpackage", program, specs, ios=18))
    got = run({"q": q, "k": k, "v": v, "m": mask.astype(np.int32), "a": added})
    attend = torch.nn.functional.scaled_dot_product_attention
    tensors = [torch.from_numpy(x) for x in (q, k, v)]
    for name, how in (("plain", None), ("chosen", torch.from_numpy(mask)), ("added", torch.from_numpy(added))):
        assert np.allclose(got[name], attend(*tensors, attn_mask=how).numpy(), atol=2e-6), name


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
        return (
            mb.identity(x=part, name="part"),
            mb.identity(x=mb.slice_by_size(x=x, begin=begin, size=count), name="some"),
            mb.identity(x=mb.fill(shape=count, value=2.0), name="filled"),
            mb.identity(x=mb.tile(x=x, reps=count), name="tiled"),
            mb.identity(x=mb.shape(x=part), name="size"),
        )

    specs = [spec((6,)), spec((1,), "int32"), spec((1,), "int32")]
    program = load_program(save_program(tmp_path / "p.mlpackage", program, specs))
    x = np.arange(6, dtype=np.float32)
    got = program({"x": x, "begin": np.array([2], np.int32), "count": np.array([3], np.int32)})
    assert got["part"].tolist() == [2, 3, 4, 5]
    assert got["some"].tolist() == [2, 3, 4]
    assert got["filled"].tolist() == [2, 2, 2]
    assert got["tiled"].tolist() == [*x] * 3
    assert got["size"].tolist() == [4]
    with pytest.raises(InputError, match=r"fill 'fill_0': makes \[2000000000\], more than"):
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
