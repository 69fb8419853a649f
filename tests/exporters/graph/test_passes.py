"""Each pass on a hand-made graph: it does its one thing, keeps what the graph computes, and checks itself."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from run_onnx import run

from hrm_edge.exporters.graph import passes
from hrm_edge.exporters.graph.edit import PassFailed, initializers, rename

RNG = np.random.default_rng(0)
WEIGHT = RNG.normal(size=(3, 4)).astype(np.float32)
X = RNG.normal(size=(2, 4)).astype(np.float32)


def build(nodes, tensors, output=("y", 3), dtype=TensorProto.FLOAT) -> onnx.ModelProto:
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "g",
        [info("x", TensorProto.FLOAT, ["batch", 4])],
        [info(output[0], dtype, ["batch", output[1]])],
        [numpy_helper.from_array(array, name) for name, array in tensors.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def used_twice() -> onnx.ModelProto:
    """y = x·Wᵀ·W·Wᵀ with two Transposes of one stored W, as the tracer leaves them."""
    nodes = [
        helper.make_node("Transpose", ["w"], ["t1"], name="t1", perm=[1, 0]),
        helper.make_node("MatMul", ["x", "t1"], ["a"], name="m1"),
        helper.make_node("MatMul", ["a", "w2"], ["b"], name="m2"),
        helper.make_node("Transpose", ["w"], ["t2"], name="t2", perm=[1, 0]),
        helper.make_node("MatMul", ["b", "t2"], ["y"], name="m3"),
    ]
    return build(nodes, {"w": WEIGHT, "w2": WEIGHT})


def same_result(before: onnx.ModelProto, after: onnx.ModelProto) -> None:
    for name, expected in run("onnx", before, {"x": X}).items():
        np.testing.assert_allclose(run("onnx", after, {"x": X})[name], expected, rtol=1e-6)


def copy(model):
    return onnx.ModelProto.FromString(model.SerializeToString())


def test_fold_transposes_stores_each_weight_once():
    model, before = used_twice(), used_twice()
    passes.fold_transposes(model)
    assert [node.op_type for node in model.graph.node] == ["MatMul"] * 3
    assert model.graph.node[0].input[1] == model.graph.node[2].input[1]
    assert {tuple(tensor.dims) for tensor in model.graph.initializer} == {(4, 3), (3, 4)}
    same_result(before, model)


def test_fold_transposes_refuses_a_weight_that_is_an_output():
    nodes = [helper.make_node("Transpose", ["w"], ["y"], perm=[1, 0])]
    with pytest.raises(PassFailed, match="is an output"):
        passes.fold_transposes(build(nodes, {"w": WEIGHT}))


def test_fold_transposes_leaves_activations_alone():
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[1, 0]),
        helper.make_node("Transpose", ["t"], ["y"], perm=[1, 0]),
    ]
    model = build(nodes, {}, output=("y", 4))
    passes.fold_transposes(model)
    assert len(model.graph.node) == 2


def test_merge_equal_initializers_tells_types_and_shapes_apart():
    nodes = [
        helper.make_node("Add", ["x", "a"], ["p"]),
        helper.make_node("Add", ["p", "b"], ["q"]),
        helper.make_node("Add", ["q", "c"], ["r"]),
        helper.make_node("Gather", ["r", "i"], ["y"], axis=1),
    ]
    zeros = np.zeros(4, np.float32)
    tensors = {"a": zeros, "b": zeros.copy(), "c": zeros.reshape(1, 4), "i": np.zeros(2, np.int64)}
    model = build(nodes, tensors, output=("y", 2))
    before = copy(model)
    passes.merge_equal_initializers(model)
    assert sorted(initializers(model.graph)) == ["a", "c", "i"]
    same_result(before, model)


def test_drop_unused_removes_whole_dead_chains():
    nodes = [
        helper.make_node("Relu", ["x"], ["y"]),
        helper.make_node("Add", ["x", "w"], ["dead"]),
        helper.make_node("Relu", ["dead"], ["dead too"]),
    ]
    model = build(nodes, {"w": np.ones(4, np.float32)}, output=("y", 4))
    passes.drop_unused(model)
    assert len(model.graph.node) == 1
    assert not model.graph.initializer


def test_drop_float64_narrows_constants_casts_and_what_follows():
    nodes = [
        helper.make_node("Cast", ["x"], ["wide"], to=TensorProto.DOUBLE),
        helper.make_node("Mul", ["wide", "scale"], ["scaled"]),
        helper.make_node("Constant", [], ["one"], value=numpy_helper.from_array(np.array(1.0))),
        helper.make_node("Add", ["scaled", "one"], ["sum"]),
        helper.make_node("Cast", ["sum"], ["y"], to=TensorProto.FLOAT),
    ]
    model = build(nodes, {"scale": np.array(3.0)}, output=("y", 4))
    before = copy(model)
    passes.drop_float64(model)
    same_result(before, model)
    assert TensorProto.DOUBLE not in {tensor.data_type for tensor in model.graph.initializer}


def test_restore_weight_names_finds_a_matrix_in_either_orientation():
    model = used_twice()
    passes.fold_transposes(model)
    passes.restore_weight_names(model, {"layer.weight": WEIGHT, "other.weight": WEIGHT + 1})
    names = sorted(initializers(model.graph))
    assert names[0] == "layer.weight"
    assert len(names) == 2  # the other orientation of the same weight keeps its own name


def test_strip_metadata_and_canonical_names_make_equal_graphs_equal():
    first, second = used_twice(), used_twice()
    rename(second.graph, {"a": "val_17", "b": "linear_3", "w2": "another name"})
    second.doc_string, second.producer_name = "traced in /somewhere", "a tool"
    second.metadata_props.add(key="date", value="today")
    for node in second.graph.node:
        node.doc_string = "file.py, line 3"
        node.name = f"{node.name} renamed"
        node.metadata_props.add(key="stack", value="file.py")
    for model in (first, second):
        passes.fold_transposes(model)
        passes.finish(model)
    assert first.SerializeToString() == second.SerializeToString()
    assert b"file.py" not in second.SerializeToString()


def test_strip_metadata_refuses_operators_that_no_target_has():
    model = build([helper.make_node("Gelu", ["x"], ["y"], domain="somebody.else")], {}, output=("y", 4))
    with pytest.raises(PassFailed, match=r"somebody\.else"):
        passes.strip_metadata(model)
    node = helper.make_node("Gelu", ["x"], ["y"], domain=passes.FOREIGN)
    model = build([node], {}, output=("y", 4))
    passes.strip_metadata(model)
    assert {item.domain for item in model.opset_import} == {"", passes.FOREIGN}


def test_fix_batch_sets_every_first_dimension():
    model = used_twice()
    passes.fix_batch(model, 2)
    for value in (*model.graph.input, *model.graph.output):
        assert value.type.tensor_type.shape.dim[0].dim_value == 2


@pytest.mark.parametrize("dtype", [TensorProto.INT64, TensorProto.DOUBLE])
def test_check_refuses_bindings_that_targets_dislike(dtype):
    model = build([helper.make_node("Cast", ["x"], ["y"], to=dtype)], {}, output=("y", 4), dtype=dtype)
    with pytest.raises(PassFailed, match="binding y is"):
        passes.check(model)
