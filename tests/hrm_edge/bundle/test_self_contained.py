"""A graph of a bundle holds its weights itself: wherever a tensor can stand in ONNX, it may not lie elsewhere."""

import numpy as np
import pytest
import toys
from hypothesis import given, settings
from hypothesis import strategies as st

from hrm_edge.bundle import seal_bundle, self_contained
from hrm_edge.bundle.self_contained import check_self_contained
from hrm_edge.errors import InputError
from hrm_edge.runtimes import load_engine

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402


def stored(name: str = "w") -> TensorProto:
    return numpy_helper.from_array(np.arange(4, dtype=np.float32), name)


def elsewhere(name: str = "w", location: str = ".DS_Store") -> TensorProto:
    tensor = stored(name)
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    tensor.ClearField("raw_data")
    return tensor


def graph(nodes=(), tensors=(), name="g"):
    return helper.make_graph(list(nodes), name, [], [], list(tensors))


def constant(tensor, **attributes):
    return helper.make_node("Constant", [], ["c"], **(attributes or {"value": tensor}))


def sparse(tensor):
    return onnx.SparseTensorProto(
        values=tensor, indices=numpy_helper.from_array(np.zeros(4, np.int64), "i"), dims=[9]
    )


def places(tensor):
    """A model for each place where a tensor can stand."""
    inside = graph(tensors=[tensor], name="body")
    deeper = graph([helper.make_node("If", ["c"], ["y"], then_branch=inside)], name="outer")
    made = {
        "initializer": helper.make_model(graph(tensors=[stored("first"), tensor])),
        "sparse initializer": helper.make_model(graph()),
        "constant": helper.make_model(graph([constant(tensor)])),
        "list of tensors": helper.make_model(graph([helper.make_node("Odd", [], ["y"], values=[tensor])])),
        "sparse constant": helper.make_model(graph([constant(None, sparse_value=sparse(tensor))])),
        "body": helper.make_model(graph([helper.make_node("Loop", ["n"], ["y"], body=inside)])),
        "body of a body": helper.make_model(graph([helper.make_node("Loop", ["n"], ["y"], body=deeper)])),
        "list of bodies": helper.make_model(graph([helper.make_node("Odd", [], ["y"], bodies=[inside])])),
        "function": helper.make_model(graph()),
        "default of a function": helper.make_model(graph()),
        "training": helper.make_model(graph()),
    }
    made["sparse initializer"].graph.sparse_initializer.append(sparse(tensor))
    made["function"].functions.add(name="f").node.append(constant(tensor))
    made["default of a function"].functions.add(name="f").attribute_proto.append(helper.make_attribute("a", tensor))
    made["training"].training_info.add().algorithm.CopyFrom(inside)
    return made


def refused(path, content: bytes, said: str = "keeps weights outside itself") -> None:
    path.write_bytes(content)
    with pytest.raises(InputError, match=said) as caught:
        check_self_contained(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("place", places(stored()))
def test_a_tensor_that_lies_elsewhere_is_found_in_every_place(tmp_path, place):
    file = tmp_path / "g.onnx"
    file.write_bytes(places(stored())[place].SerializeToString())
    check_self_contained(file)
    refused(file, places(elsewhere())[place].SerializeToString())


def test_one_sign_of_it_is_enough(tmp_path):
    tensor = elsewhere()
    for field in ("data_location", "external_data"):
        half = TensorProto.FromString(tensor.SerializeToString())
        half.ClearField(field)
        refused(tmp_path / "g.onnx", helper.make_model(graph(tensors=[half])).SerializeToString())


def test_what_protobuf_reads_though_it_is_written_oddly(tmp_path):
    """A number may take more bytes than it needs, and one that is too large loses its upper bits."""
    for location in (b"\x70\x81\x80\x00", b"\xf0\x80\x00\x01", b"\x70\x81\x80\x80\x80\x10"):
        tensor = stored().SerializeToString() + location
        assert TensorProto.FromString(tensor).data_location == TensorProto.EXTERNAL
        inner = b"\x2a" + bytes([len(tensor)]) + tensor  # a graph's initializer
        content = b"\x3a" + bytes([len(inner)]) + inner  # a model's graph
        assert onnx.ModelProto.FromString(content).graph.initializer[0].data_location
        refused(tmp_path / "g.onnx", content)


@pytest.mark.parametrize(
    "content", [b"", b"\x3a", b"\x3a\xff\xff\xff\x7f", b"\x3b\x3c", b"\x00", b"\xff" * 20, b"graph"]
)
def test_what_no_protobuf_is(tmp_path, content):
    refused(tmp_path / "g.onnx", content, "can not load it")


def test_a_file_of_endless_small_parts(tmp_path, monkeypatch):
    monkeypatch.setattr(self_contained, "_MOST_FIELDS", 1000)
    refused(tmp_path / "g.onnx", b"\x08\x01" * 1001, "more parts than any network has")


@settings(max_examples=200)
@given(st.data())
def test_no_bytes_hide_it_from_us_that_protobuf_would_find(tmp_path_factory, data):
    """Whatever is done to a graph, one that protobuf reads as pointing elsewhere is refused."""
    place = data.draw(st.sampled_from(list(places(stored()))))
    content = bytearray(places(elsewhere())[place].SerializeToString())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    file = tmp_path_factory.getbasetemp() / "mutated.onnx"
    file.write_bytes(content)
    try:
        check_self_contained(file)
    except InputError:
        return
    try:
        model = onnx.ModelProto.FromString(bytes(content))
    except Exception:
        return
    assert not list(tensors_elsewhere(model))


def tensors_elsewhere(message):
    """By protobuf's own reflection."""
    if isinstance(message, TensorProto) and (message.data_location or message.external_data):
        yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            for each in (value,) if hasattr(value, "DESCRIPTOR") else value:
                yield from tensors_elsewhere(each)


@pytest.mark.parametrize("name", [".DS_Store", "segment.onnx"])
def test_no_bundle_is_run_by_weights_that_no_hash_vouches_for(tmp_path, name):
    """Neither by what stands in the folder unhashed, nor by the bytes of a file that is something else."""
    pytest.importorskip("onnxruntime")
    bundle = toys.write_toy_bundle(tmp_path / "b")
    assert load_engine(bundle)
    model = onnx.load(bundle / "start.onnx")
    for tensor in model.graph.initializer:
        if tensor.name == "eye":
            (bundle / ".DS_Store").write_bytes(tensor.raw_data)
            tensor.CopyFrom(elsewhere("eye", name))
    (bundle / "start.onnx").write_bytes(model.SerializeToString())
    seal_bundle(bundle, toys.manifest())
    with pytest.raises(InputError, match=r"start\.onnx: keeps weights outside itself"):
        load_engine(bundle)


def test_openvino_reads_its_own_form_alone(tmp_path):
    """It would read an ONNX file, and the files that one names, under any name that ends so."""
    pytest.importorskip("openvino")
    from hrm_edge.runtimes import backend

    file = tmp_path / "start.onnx"
    file.write_bytes(helper.make_model(graph(tensors=[stored()])).SerializeToString())
    with pytest.raises(InputError, match=r"OpenVINO's graphs end in \.xml"):
        backend("openvino").load_graph(file, 1)
