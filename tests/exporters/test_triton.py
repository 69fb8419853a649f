"""`--layout triton`: a bundle that is a model repository, by the server's own schema and by the graphs in it."""

import importlib.util
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
from small_networks import TASK, checkpoint
from traced_networks import traced

from hrm_edge.bundle import open_bundle
from hrm_edge.bundle.examples import write_examples
from hrm_edge.data.puzzles import generate_puzzles
from hrm_edge.errors import InputError
from hrm_edge.export import GateOptions, export_bundle
from hrm_edge.exporters.options import ExportOptions
from hrm_edge.exporters.targets import all_targets
from hrm_edge.exporters.triton import configure
from hrm_edge.exporters.triton.config import Word, shown
from hrm_edge.exporters.triton.repository import _asked
from hrm_edge.runtimes import load_engine

TYPES = {1: "TYPE_FP32", 6: "TYPE_INT32", 10: "TYPE_FP16"}


@pytest.fixture(scope="module")
def made(tmp_path_factory, quick_export):
    """Repositories by loop, and one of a fixed batch."""
    folder = tmp_path_factory.mktemp("repositories")
    source = checkpoint(traced("grid")[0])
    for name, loop, batch in (("graph", "graph", None), ("host", "host", None), ("four", "host", 4)):
        options = ExportOptions("onnx", "fp32", loop, batch, layout="triton")
        export_bundle(source, options, folder / name, GateOptions(None))
    return folder


@pytest.fixture(scope="module")
def questions():
    return generate_puzzles(TASK, 12, seed=3).questions


@pytest.fixture(scope="module")
def schema():
    """The server's, which the client brings; by its file, as the package around it wants gRPC."""
    found = importlib.util.find_spec("tritonclient")
    if found is None:
        pytest.skip("needs tritonclient (make test-distributed)")
    place = Path(found.submodule_search_locations[0], "grpc", "model_config_pb2.py")
    spec = importlib.util.spec_from_file_location("model_config_pb2", place)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def configs(folder, schema):
    from google.protobuf import text_format

    return {
        place.parent.name: text_format.Parse(place.read_text(), schema.ModelConfig())
        for place in sorted(folder.glob("*/config.pbtxt"))
    }


def test_every_folder_is_a_model_with_a_version(made):
    for name, models in (("graph", {"small"}), ("host", {"small", "small-start", "small-segment"})):
        folders = {path.name for path in (made / name).iterdir() if path.is_dir()}
        assert folders == models
        for model in models:
            assert (made / name / model / "config.pbtxt").is_file()
            assert len(list((made / name / model / "1").iterdir())) == 1


def test_what_is_served_is_what_is_opened_and_run(made, questions, tmp_path, quick_export):
    """The repository is a bundle: its graphs have their hashes, and answer as those of a plain one do."""
    source = checkpoint(traced("grid")[0])
    export_bundle(source, ExportOptions("onnx", "fp32", "host"), tmp_path / "plain", GateOptions(None))
    plain = load_engine(tmp_path / "plain", 1).solve(questions)
    for name in ("graph", "host"):
        answers = load_engine(made / name, 1).solve(questions)
        np.testing.assert_array_equal(answers.tokens, plain.tokens)
        np.testing.assert_array_equal(answers.steps, plain.steps)
    listed = open_bundle(made / "host").manifest
    assert listed.graphs == {"start": "small-start/1/model.onnx", "segment": "small-segment/1/model.onnx"}
    assert (made / "host" / "small-start" / "1" / "model.onnx").read_bytes() == (
        tmp_path / "plain" / "start.onnx"
    ).read_bytes()
    assert "tritonserver --model-repository" in (made / "host" / "README.md").read_text()


@pytest.mark.parametrize("name", ["graph", "host", "four"])
def test_configs_keep_the_schema_and_fit_the_graphs(made, schema, name):
    bundle = open_bundle(made / name)
    for model, config in configs(made / name, schema).items():
        assert config.name == model
        if config.backend == "python":
            continue
        assert config.backend == "onnxruntime"
        graph = onnx.load(made / name / model / "1" / config.default_model_filename).graph
        gathered = config.max_batch_size > 0
        assert gathered == config.HasField("dynamic_batching") == (name == "host")
        for given, values in ((config.input, graph.input), (config.output, graph.output)):
            assert [each.name for each in given] == [value.name for value in values]
            for each, value in zip(given, values, strict=True):
                tensor = value.type.tensor_type
                assert schema.DataType.Name(each.data_type) == TYPES[tensor.elem_type]
                shape = [dim.dim_value if dim.HasField("dim_value") else -1 for dim in tensor.shape.dim]
                if gathered:
                    assert shape[0] == -1
                    shape = shape[1:]
                assert list(each.dims) == (shape or [1])
                assert each.HasField("reshape") == (not shape)
                assert list(each.reshape.shape) == []
        assert [(group.count, group.kind) for group in config.instance_group] == [
            (1, schema.ModelInstanceGroup.KIND_CPU)
        ]
        (warm,) = config.model_warmup
        assert sorted(warm.inputs) == sorted(each.name for each in config.input)
        assert warm.batch_size == 1
    assert bundle.manifest.files.keys() >= {f"{model}/config.pbtxt" for model in configs(made / name, schema)}


def test_the_server_warms_up_with_the_bundles_example(made, schema, questions, tmp_path, quick_export):
    """What stands in the file is the example's tokens, as the input's type and shape say."""
    import shutil

    folder = tmp_path / "repository"
    shutil.copytree(made / "graph", folder, ignore=shutil.ignore_patterns("manifest.json"))  # as it is being made
    bundle = open_bundle(made / "graph")
    puzzles = generate_puzzles(TASK, 4, seed=3)
    answers = load_engine(bundle, 1).solve(puzzles.questions)
    write_examples(folder, puzzles, answers, 5, halt="fixed")
    configure(folder, bundle.manifest)
    (warm,) = configs(folder, schema)["small"].model_warmup
    first = json.loads((folder / "examples.json").read_text())["examples"][0]["question_tokens"]
    given = {name: (folder / "small" / "warmup" / each.input_data_file) for name, each in warm.inputs.items()}
    assert np.fromfile(given["tokens"], "<i4").tolist() == first
    assert list(warm.inputs["tokens"].dims) == [1, TASK.seq_len]
    assert np.fromfile(given["max_think_steps"], "<i4").tolist() == [5]
    assert np.fromfile(given["halt"], "<i4").tolist() == [1]
    assert _asked(folder, bundle.manifest)["puzzle_identifiers"].tolist() == [0]


# -- the loop on the host ----------------------------------------------------------------------------------


class Tensor:
    def __init__(self, name, array):
        self._name, self._array = name, array

    def name(self):
        return self._name

    def as_numpy(self):
        return self._array


class Response:
    def __init__(self, output_tensors=(), error=None):
        self.tensors, self._error = {tensor.name(): tensor for tensor in output_tensors}, error

    def has_error(self):
        return self._error is not None

    def error(self):
        return self._error


class Error(Exception):
    def message(self):
        return str(self)


@pytest.fixture
def server(monkeypatch):
    """A stand-in for what the Python backend gives a model: other models of a repository, asked in onnxruntime."""

    def serve(folder, fail=()):
        asked = []

        class Request:
            def __init__(self, model_name, requested_output_names, inputs):
                self.model, self.names = model_name, requested_output_names
                self.inputs = {tensor.name(): tensor.as_numpy() for tensor in inputs}

            def exec(self):
                asked.append((self.model, len(next(iter(self.inputs.values())))))
                if self.model in fail:
                    return Response(error=Error("out of memory"))
                session = onnxruntime.InferenceSession(folder / self.model / "1" / "model.onnx")
                made = session.run(self.names, self.inputs)
                return Response([Tensor(*pair) for pair in zip(self.names, made, strict=True)])

        utils = SimpleNamespace(
            Tensor=Tensor,
            InferenceRequest=Request,
            InferenceResponse=Response,
            TritonError=Error,
            TritonModelException=Error,
            get_output_tensor_by_name=lambda response, name: response.tensors[name],
        )
        monkeypatch.setitem(sys.modules, "triton_python_backend_utils", utils)
        spec = importlib.util.spec_from_file_location("served", folder / "small" / "1" / "model.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        model = module.TritonPythonModel()
        text = (folder / "small" / "config.pbtxt").read_text()
        told = json.loads(next(line.split(": ", 1)[1] for line in text.splitlines() if "string_value" in line))
        model.initialize({"model_config": json.dumps({"parameters": {"loop": {"string_value": told}}})})
        return model, asked

    return serve


def request(**arrays):
    return SimpleNamespace(inputs=lambda: [Tensor(name, array) for name, array in arrays.items()])


@pytest.mark.parametrize(("name", "rows"), [("host", 12), ("four", 4)])
@pytest.mark.parametrize(("halt", "number", "limit"), [("learned", 0, None), ("learned", 0, 2), ("fixed", 1, 3)])
def test_the_driver_answers_as_the_engine_does(made, questions, server, name, rows, halt, number, limit):
    model, asked = server(made / name)
    given = {"tokens": questions[:rows], "halt": np.array([number], np.int32)}
    if limit:
        given["max_think_steps"] = np.array([limit], np.int32)
    (response,) = model.execute([request(**given)])
    expected = load_engine(made / name, 1).solve(questions[:rows], halt=halt, max_think_steps=limit)
    np.testing.assert_array_equal(response.tensors["answer"].as_numpy(), expected.tokens)
    np.testing.assert_array_equal(response.tensors["steps"].as_numpy(), expected.steps)
    np.testing.assert_allclose(response.tensors["q"].as_numpy(), expected.q, rtol=1e-4, atol=1e-5)
    sizes = [size for asked_model, size in asked if asked_model == "small-segment"]
    if name == "host":
        assert sizes == [int((expected.steps > step).sum()) for step in range(expected.steps.max())]
    else:
        assert set(sizes) == {4}


def test_the_driver_tells_what_failed_and_answers_the_rest(made, questions, server):
    model, _ = server(made / "host")
    wrong = request(tokens=questions[:1], max_think_steps=np.array([0], np.int32))
    first, second = model.execute([wrong, request(tokens=questions[:1])])
    assert "at least one" in first.error().message()
    assert not second.has_error()
    model, _ = server(made / "host", fail=["small-segment"])
    (failed,) = model.execute([request(tokens=questions[:1])])
    assert failed.error().message() == "out of memory"


# -- what is asked for -------------------------------------------------------------------------------------


def test_only_what_the_server_runs_is_laid_out():
    for name, target in all_targets().items():
        if target.served_by is None:
            with pytest.raises(
                InputError, match=f"--layout triton: not for --target {name}; choose onnx or openvino"
            ):
                ExportOptions.for_target(name, layout="triton")
    with pytest.raises(InputError, match="--layout tritn: unknown; choose bundle or triton"):
        ExportOptions("onnx", layout="tritn")
    assert ExportOptions("onnx", layout="triton").suffix == "onnx-fp32-graph-triton"


def test_openvino_s_two_files_stay_together(tmp_path, questions, quick_export):
    pytest.importorskip("openvino")
    source = checkpoint(traced("grid")[0])
    export_bundle(source, ExportOptions("openvino", layout="triton"), tmp_path / "repository", GateOptions(None))
    assert {path.name for path in (tmp_path / "repository" / "small" / "1").iterdir()} == {"model.xml", "model.bin"}
    answers = load_engine(tmp_path / "repository", 1).solve(questions)
    assert answers.tokens.shape == questions.shape


def test_text_form_of_hostile_names_is_one_line(schema):
    from google.protobuf import text_format

    name = 'a"b\\c\nd\u20ac'
    text = shown({"name": name, "max_batch_size": 3, "input": [{"name": name, "data_type": Word("TYPE_BOOL")}]})
    found = text_format.Parse(text, schema.ModelConfig())
    assert (found.name, found.input[0].name) == (name, name)
