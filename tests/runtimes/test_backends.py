"""onnxruntime and OpenVINO on real (toy) artifacts: both loops, fixed and free batches, the same answers."""

import builtins
import importlib
import importlib.util
import itertools
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import toys

from hrm_edge import environment, runtimes
from hrm_edge.bundle import TensorSpec, open_bundle
from hrm_edge.errors import InputError
from hrm_edge.exporters.targets import all_targets
from hrm_edge.packages import install
from hrm_edge.runtimes import HALT_MODES, backend, backends, load_engine
from hrm_edge.runtimes.base import first_line
from hrm_edge.runtimes.loader import warning

BUILT_IN = list(backends())
PUZZLES = toys.puzzles(20, seed=1)
KINDS = list(itertools.product(("onnx", "openvino"), ("host", "graph"), ("dynamic", 3)))


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    """Each kind of bundle, written once."""
    pytest.importorskip("onnx")
    folder = tmp_path_factory.mktemp("bundles")
    written = {}

    def bundle(target, loop="host", batch="dynamic"):
        pytest.importorskip({"onnx": "onnxruntime"}.get(target, target))
        name = f"{target}-{loop}-{batch}"
        if name not in written:
            written[name] = toys.write_toy_bundle(folder / name, target, loop, batch)
        return written[name]

    return bundle


@pytest.mark.parametrize(("target", "loop", "batch"), KINDS)
def test_every_backend_answers_like_the_reference(bundles, target, loop, batch):
    engine = load_engine(bundles(target, loop, batch), threads=1)
    assert (engine.backend, engine.loop) == (target, loop)
    assert engine.batch == (None if batch == "dynamic" else batch)
    for halt in HALT_MODES:
        wanted = toys.host_engine().solve(PUZZLES, halt=halt, trace=True)
        answers = engine.solve(PUZZLES, halt=halt, trace=True)
        for name in ("tokens", "steps", "halted", "q", "trace"):
            got = getattr(answers, name)
            assert np.array_equal(got, getattr(wanted, name)), (halt, name)
            assert got.dtype == getattr(wanted, name).dtype
            assert got.flags.writeable


@pytest.mark.parametrize(("target", "loop", "batch"), KINDS)
def test_answers_of_one_call_survive_the_next(bundles, target, loop, batch):
    engine = load_engine(bundles(target, loop, batch), threads=1)
    first = engine.solve(PUZZLES[:3])
    kept = first.tokens.copy(), first.q.copy()
    engine.solve(PUZZLES[3:6])
    assert np.array_equal(first.tokens, kept[0])
    assert np.array_equal(first.q, kept[1])


@pytest.mark.parametrize("target", ["onnx", "openvino"])
@pytest.mark.parametrize("loop", ["host", "graph"])
def test_several_threads_share_an_engine(bundles, target, loop):
    engine = load_engine(bundles(target, loop), threads=1)
    wanted = toys.host_engine().solve(PUZZLES)
    wrong = []

    def work(number):
        for count in (1, 5, 20):
            answers = engine.solve(np.roll(PUZZLES, number, axis=0)[:count])
            if not np.array_equal(answers.tokens, np.roll(wanted.tokens, number, axis=0)[:count]):
                wrong.append((number, count))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize("target", ["onnx", "openvino"])
def test_a_graph_that_is_no_graph_gives_one_line(tmp_path, target):
    pytest.importorskip({"onnx": "onnxruntime"}.get(target, target))
    path = toys.write_hollow_bundle(tmp_path / "b", target=target)
    with pytest.raises(InputError, match="can not load it") as caught:
        load_engine(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("target", ["onnx", "openvino"])
def test_a_graph_that_does_not_run_gives_one_line_and_its_names_command_nothing(tmp_path, target, capfd):
    """Backends print such errors themselves, names and all, if they are let."""
    import toy_graphs
    from onnx import TensorProto, helper

    def produce(folder):
        (model,) = toy_graphs.models("graph", "dynamic").values()
        graph, name = model.graph, "a\n::error::forged\x1b[31m"
        graph.node.append(helper.make_node("Reshape", ["tokens", "shape"], ["wrong"], name))
        graph.initializer.append(helper.make_tensor("shape", TensorProto.INT64, [2], [7, 99]))
        graph.output.append(helper.make_tensor_value_info("wrong", TensorProto.INT32, [7, 99]))
        toy_graphs.save(model, folder / "model", target)

    toys.write_bundle(tmp_path / "b", toys.manifest(target, "graph"), produce, toys.accuracy())
    with pytest.raises(InputError, match=r"can not (be run|load it)") as error:
        load_engine(tmp_path / "b", threads=1).solve(PUZZLES[:1])
    assert str(error.value).isprintable()
    assert capfd.readouterr() == ("", "")


def test_openvino_reads_a_graph_once(tmp_path):
    """What it compiles for several rows, when they are first asked, is the file that was hashed."""
    pytest.importorskip("openvino")
    bundle, tokens = toys.write_toy_bundle(tmp_path / "b", "openvino", "graph"), toys.puzzles(4)
    engine = load_engine(bundle)
    expected = load_engine(bundle).solve(tokens)
    for file in bundle.iterdir():
        file.unlink()
    np.testing.assert_array_equal(engine.solve(tokens).tokens, expected.tokens)


@pytest.mark.parametrize(
    ("threads", "streams", "said"), [(None, 0, "streams must be"), (2, 3, "3 streams share 2")]
)
def test_streams_must_be_a_number_and_have_a_thread_each(bundles, threads, streams, said):
    with pytest.raises(InputError, match=said):
        load_engine(bundles("onnx"), threads=threads, streams=streams)


@pytest.mark.parametrize("threads", [0, -1, 1.5, True, "2"])
def test_threads_must_be_a_number(bundles, threads):
    with pytest.raises(InputError, match="threads must be"):
        load_engine(bundles("onnx"), threads=threads)


def test_a_bundle_for_another_backend_names_those_that_run(tmp_path):
    path = toys.write_hollow_bundle(tmp_path / "b", target="tflite")
    with pytest.raises(InputError, match=r"tflite, which this version .* runs onnx, openvino"):
        load_engine(path)


def test_a_task_nobody_knows(tmp_path):
    path = toys.write_hollow_bundle(tmp_path / "b", task="chess")
    with pytest.raises(InputError, match="unknown task 'chess'"):
        load_engine(path)


def test_a_task_that_has_changed_since(tmp_path):
    path = toys.write_hollow_bundle(tmp_path / "b", vocabulary=("<pad>", ".", "4", "3", "2", "1"))
    with pytest.raises(InputError, match="export it again with this version"):
        load_engine(path)


def test_a_graph_with_other_inputs_is_refused(tmp_path):
    pytest.importorskip("onnxruntime")
    good = toys.manifest()
    wrong = {**good.inputs, "start": (TensorSpec("ids", "int32", ("batch", 16)),)}
    path = toys.write_hollow_bundle(tmp_path / "b", inputs=wrong)
    with pytest.raises(InputError, match="'start' must take tokens and give e, z_H, z_L"):
        load_engine(path)


@pytest.mark.parametrize("target", ["onnx", "openvino"])
def test_a_loop_that_keeps_its_state_where_that_cannot_be_is_refused(tmp_path, target):
    tokens, fresh = TensorSpec("tokens", "int32", ("batch", 16)), TensorSpec("fresh", "float32", ("batch",))
    logits, q = TensorSpec("logits", "float32", ("batch", 16, 6)), TensorSpec("q", "float32", ("batch", 2))
    changes = {"graphs": {"stateful": "s.onnx"}, "inputs": {"stateful": (tokens, fresh)}}
    path = toys.write_hollow_bundle(tmp_path / "b", target=target, outputs={"stateful": (logits, q)}, **changes)
    with pytest.raises(InputError, match=f"which {target} can not"):
        load_engine(path)


def test_openvino_says_why_and_not_where_in_its_source():
    told = "Exception from src/inference/src/cpp/core.cpp:117:\nException from src/plugin.cpp:54:\nbad shape\n\n"
    assert first_line(RuntimeError(told)) == "bad shape"
    assert first_line(RuntimeError("Exception from a.cpp:1:\n")) == "Exception from a.cpp:1:"
    assert first_line(RuntimeError()) == "RuntimeError"


def test_an_opened_bundle_may_be_given_instead_of_a_path(bundles):
    assert load_engine(open_bundle(bundles("onnx")), threads=1).backend == "onnx"


@pytest.mark.parametrize(("target", "package"), [("onnx", "onnxruntime"), ("openvino", "openvino")])
def test_a_missing_backend_says_what_to_install(monkeypatch, tmp_path, target, package):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == package else found(name, *rest)
    )
    usable, version, why_not, command = backend(target).available()
    assert (usable, version) == (False, None)
    assert why_not == f"{package} is not installed"
    assert command == install(target)
    path = toys.write_hollow_bundle(tmp_path / "b", target=target)
    with pytest.raises(InputError, match=re.escape(f"run: {install(target)}")):
        load_engine(path)


@pytest.mark.parametrize(("target", "package"), [("onnx", "onnxruntime"), ("openvino", "openvino")])
def test_a_broken_install_is_reported_not_raised(monkeypatch, target, package):
    pytest.importorskip(package)
    importing = builtins.__import__

    def broken(name, *rest):
        if name == package:
            raise ImportError("libbroken.so: no such file\nand a second line")
        return importing(name, *rest)

    monkeypatch.setattr(builtins, "__import__", broken)
    usable, _, why_not, _ = backend(target).available()
    assert not usable
    assert why_not == f"{package} does not load: libbroken.so: no such file"


def test_runtimes_need_neither_torch_nor_onnx(bundles):
    script = (
        "import sys; sys.modules['torch'] = sys.modules['onnx'] = None\n"
        "import numpy as np\n"
        "from hrm_edge.runtimes import load_engine\n"
        f"print(load_engine({str(bundles('onnx'))!r}).solve(np.ones((1, 16), np.int32)).tokens.shape)\n"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert result.stdout.strip() == "(1, 16)", result.stderr


# -- a backend of one's own ------------------------------------------------------------------------------

TOY = '''"""Runs what is written as "target toy": the toy network itself, whatever its files hold."""

import numpy as np
import toys

from hrm_edge.runtimes.base import Available, Backend


class Toy(Backend):
    name, title = "toy", "Toy"

    def available(self):
        return Available(True, "1.0", None, "")

    def load_graph(self, path, threads):
        if path.stem.startswith("start"):
            return lambda feeds: dict(zip(("e", "z_H", "z_L"), toys.start(feeds["tokens"])))
        names = ("z_H_next", "z_L_next", "logits", "q")
        return lambda feeds: dict(zip(names, toys.segment(feeds["z_H"], feeds["z_L"], feeds["e"])))


BACKEND = Toy()
'''


def test_a_backend_is_one_file(monkeypatch, tmp_path):
    (tmp_path / "toy.py").write_text(TOY)
    (tmp_path / "_private.py").write_text("raise ImportError")
    (tmp_path / "helper.py").write_text("")
    monkeypatch.setattr(runtimes, "__path__", [*runtimes.__path__, str(tmp_path)])
    monkeypatch.delitem(sys.modules, "hrm_edge.runtimes.toy", raising=False)
    assert list(backends()) == [*BUILT_IN, "toy"]
    path = toys.write_hollow_bundle(tmp_path / "b", target="toy")
    engine = load_engine(path)
    assert engine.backend == "toy"
    assert np.array_equal(engine.solve(PUZZLES).tokens, toys.host_engine().solve(PUZZLES).tokens)
    assert warning(open_bundle(path)) is None
    assert backend("toy").compile(open_bundle(path)) is None
    row = environment._running("toy", [])
    assert (row.usable, row.version) == (True, "1.0")
    with pytest.raises(InputError, match=f"no backend runs 'helper'; there are {', '.join(BUILT_IN)}, toy"):
        backend("helper")


def test_a_backend_is_named_as_its_module():
    found = backends()
    assert list(found) == list(all_targets())
    for name, one in found.items():
        assert backend(name) is one
        assert importlib.import_module(f"hrm_edge.runtimes.{name}").BACKEND is one


def test_finding_backends_imports_nothing_heavy():
    heavy = "torch", "onnx", "onnxruntime", "openvino", "coremltools", "tensorrt", "tensorrt_rtx", "cuda"
    script = (
        f"import sys; from hrm_edge.runtimes import backends; backends(); print({{*sys.modules}} & {{*{heavy}}})"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert result.stdout.strip() == "set()", result.stderr


@pytest.mark.parametrize(("target", "package"), [("onnx", "onnxruntime"), ("openvino", "openvino")])
def test_nothing_is_written_about_the_user(tmp_path, target, package):
    """Both write an identifier and send that they are used, as soon as they are imported, unless told not to."""
    pytest.importorskip(package)
    kept = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "VIRTUAL_ENV")
    environment = {name: os.environ[name] for name in kept if name in os.environ}
    bundle = toys.write_toy_bundle(tmp_path / "b", target)
    script = (
        "import os, sys, threading; from hrm_edge.runtimes import load_engine; import numpy as np\n"
        "os.fork = threading.Thread.start = None\n"
        f"engine = load_engine({str(bundle)!r}, threads=1)\n"
        "engine.solve(np.ones((1, 16), np.int32), max_think_steps=1)\n"
        "print(sorted(name for name in sys.modules if name == 'openvino_telemetry'))\n"
    )
    home = tmp_path / "home"
    home.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        env={**environment, "HOME": str(home), "HRM_EDGE_CACHE": os.devnull},
    )
    assert done.stdout == "[]\n", done.stderr
    assert list(home.iterdir()) == []


def test_what_would_tell_of_the_user_is_imported_in_one_place_that_forbids_it():
    root, found = Path(__file__).parents[2], set()
    for folder in ("hrm_edge", "models", "trainer", "exporters", "runtimes"):
        for file in (root / folder).rglob("*.py"):
            for package in re.findall(r"^\s*(?:import|from) (openvino|onnxruntime)\b", file.read_text(), re.M):
                found.add((str(file.relative_to(root)), package))
    assert found == {("runtimes/onnx.py", "onnxruntime"), ("runtimes/openvino.py", "openvino")}


def test_a_user_who_wants_it_sent_is_left_alone(monkeypatch, tmp_path):
    pytest.importorskip("onnxruntime")
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", "0")
    assert backend("onnx").available().usable
    assert os.environ["ORT_DISABLE_TELEMETRY"] == "0"
    from hrm_edge.runtimes import openvino

    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    assert not openvino._opted_in()
    (tmp_path / "intel").mkdir()
    (tmp_path / "intel" / "openvino_telemetry").write_text("1")
    assert openvino._opted_in()


def test_a_bundle_that_is_replaced_between_its_opening_and_its_reading_is_refused(tmp_path):
    path = toys.write_hollow_bundle(tmp_path / "b")
    opened = open_bundle(path)
    stand_in = ("nothing", lambda file, threads: lambda feeds: {})
    load_engine(opened, stand_in=stand_in)
    toys.write_hollow_bundle(path, name="another")
    with pytest.raises(InputError, match="was replaced while it was read; try again"):
        load_engine(opened, stand_in=stand_in)
    load_engine(path, stand_in=stand_in)
