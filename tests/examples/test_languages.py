"""The programs in other languages, built and run on one bundle: answers are Python's, in both kinds of loop."""

import ctypes
import json
import os
import re
import shutil
import subprocess
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import toy_graphs
from toys import HALT_MAX_STEPS, TASK, accuracy, host_engine, manifest, puzzles, write_bundle

from hrm_edge.bundle.examples import write_examples
from hrm_edge.data.puzzles import generate_puzzles
from hrm_edge.portable import write_facts

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def openvino():
    """The folder of the package, with the headers and libraries that programs are built with."""
    package = Path(pytest.importorskip("openvino").__file__).parent
    if not (package / "include" / "openvino" / "openvino.hpp").is_file():
        pytest.skip("this openvino package has no headers")
    return package


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    """Loop → a toy's bundle for OpenVINO, whose examples Python answered."""
    folder = tmp_path_factory.mktemp("bundles")
    asked = generate_puzzles(TASK, 24, seed=3)
    for loop, batch in (("host", "dynamic"), ("graph", 2)):
        wanted = manifest("openvino", loop, batch)

        def produce(place, wanted=wanted, loop=loop, batch=batch):
            for name, model in toy_graphs.models(loop, batch).items():
                toy_graphs.save(model, place / name, "openvino")
            write_examples(place, asked, host_engine().solve(asked.questions), HALT_MAX_STEPS, q_tolerance=1e-4)
            write_facts(place, wanted, TASK)

        write_bundle(folder / loop, wanted, produce, accuracy())
    return folder


def cpp(openvino, program):
    if shutil.which("g++") is None or not Path("/usr/include/nlohmann/json.hpp").is_file():
        pytest.skip("g++ or nlohmann's JSON is not installed (Debian: g++, nlohmann-json3-dev)")
    library = next((openvino / "libs").glob("libopenvino.so.*"))
    where = ["-I", openvino / "include", library, f"-Wl,-rpath,{library.parent}"]
    return ["g++", "-std=c++17", EXAMPLES / "cpp" / "solve.cpp", *where, "-o", program], {}


def go(openvino, program):
    if shutil.which("go") is None:
        pytest.skip("Go is not installed (Debian: golang-go)")
    library = next((openvino / "libs").glob("libopenvino_c.so.*"))
    flags = {
        "CGO_CFLAGS": f"-I{openvino / 'include'}",
        "CGO_LDFLAGS": f"{library} -Wl,-rpath,{library.parent}",
        "GOCACHE": str(program.parent / "cache"),
    }
    return ["go", "build", "-o", program, EXAMPLES / "go" / "solve.go"], flags


@pytest.fixture(scope="module", params=[cpp, go], ids=lambda language: language.__name__)
def program(request, openvino, tmp_path_factory):
    built = tmp_path_factory.mktemp("built") / "solve"
    command, environment = request.param(openvino, built)
    made = subprocess.run(
        list(map(str, command)), env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    assert made.returncode == 0, made.stderr
    return built


def run(program, *arguments):
    return subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize("loop", ["host", "graph"])
def test_it_answers_as_python_does(program, bundles, loop):
    tested = run(program, bundles / loop)
    assert tested.returncode == 0, tested.stderr
    assert tested.stdout.startswith("equal: 16 of 16 examples as in Python")
    questions = puzzles(12, seed=5)
    known = host_engine().solve(questions)
    told = run(program, bundles / loop, *map(TASK.format, questions))
    assert told.returncode == 0, told.stderr
    lines = [line.split() for line in told.stdout.splitlines()]
    assert [(line[0], int(line[1])) for line in lines] == list(
        zip(TASK.format_many(known.tokens), known.steps.tolist(), strict=True)
    )
    assert [[float(value) for value in line[2:]] for line in lines] == known.q.tolist()


def test_it_sees_what_differs_and_tells_mistakes_in_one_line(program, bundles, tmp_path):
    shutil.copytree(bundles / "host", tmp_path / "changed")
    facts = json.loads((bundles / "host" / "facts.json").read_text())
    facts["examples"][0]["steps"] += 1
    facts["examples"][1]["q"][0] += 1
    (tmp_path / "changed" / "facts.json").write_text(json.dumps(facts))
    tested = run(program, tmp_path / "changed")
    assert tested.returncode == 1
    assert tested.stdout.startswith("not equal: 14 of 16")
    host = bundles / "host"
    for asked in ([host, "12"], [host, "x" * TASK.seq_len], [], [tmp_path / "nowhere"]):
        told = run(program, *asked)
        assert told.returncode == 2
        assert told.stderr.startswith("solve: ")
        assert told.stderr.count("\n") == 1


@pytest.fixture(scope="module")
def kept(tmp_path_factory, quick_export, untrained):
    """(Target, loop) → a bundle whose table kept some rows: no example's row is its identifier."""
    pytest.importorskip("torch")
    from small_networks import network

    from hrm_edge.export import GateOptions, export_bundle
    from hrm_edge.exporters.options import ExportOptions
    from hrm_edge.models import keep_identifiers, load_checkpoint, save_checkpoint

    folder = tmp_path_factory.mktemp("kept")
    model = network(H_cycles=1, L_cycles=1, num_puzzle_identifiers=40, puzzle_emb_ndim=32)
    whole = load_checkpoint(save_checkpoint(folder / "whole", model, TASK.name, ""))
    asked = replace(
        generate_puzzles(TASK, 24, seed=3),
        identifiers=np.tile(np.array([3, 38, 17, 19], np.int32), 6),
        num_identifiers=40,
    )

    @cache
    def export(target, loop):
        place = folder / f"{target}-{loop}"
        gate = GateOptions(asked, report=False)
        export_bundle(
            keep_identifiers(whole, np.array([3, 17, 18, 19, 38])), ExportOptions(target, "fp32", loop), place, gate
        )
        for each in json.loads((place / "facts.json").read_text())["examples"]:
            assert each["puzzle_row"] != each["puzzle_identifier"]
        return place

    return export


def printed_by(folder, language):
    """The program, which stands last: a header's functions may be told before."""
    return re.findall(rf"```{language}\n(.*?)\n```", (folder / "README.md").read_text(), re.DOTALL)[-1]


def assert_first_example(folder, said):
    """As to the last bit of q, which tells rows of the table apart where an untrained network's answer may not."""
    first = json.loads((folder / "examples.json").read_text())["examples"][0]
    answer, steps, *q = re.sub(r"[\[\],]", " ", said).split()
    assert (answer, int(steps)) == (first["answer"], first["steps"])
    assert [float(value) for value in q] == pytest.approx(first["q"], abs=1e-4)


@pytest.mark.parametrize("loop", ["host", "graph"])
def test_a_program_asks_for_the_row_where_a_table_kept_some(program, kept, loop):
    assert run(program, kept("openvino", loop)).stdout.startswith("equal: 16 of 16")


@pytest.mark.parametrize(("target", "loop"), [("onnx", "host"), ("onnx", "graph"), ("openvino", "host")])
def test_so_does_the_python_of_a_bundles_readme(kept, monkeypatch, capsys, target, loop):
    pytest.importorskip({"onnx": "onnxruntime"}.get(target, target))
    folder = kept(target, loop)
    monkeypatch.chdir(folder)
    exec(compile(printed_by(folder, "python"), "README.md", "exec"), {})
    assert_first_example(folder, capsys.readouterr().out)


def test_so_do_the_c_program_and_the_c_and_python_of_its_readme(kept, tmp_path, monkeypatch, capsys):
    if shutil.which("cc") is None:
        pytest.skip("no C compiler")
    made = kept("c", "host")
    shutil.copytree(made, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    Path("this.c").write_text(printed_by(made, "c"))
    flags = ["-std=c99", "-Wall", "-Wextra", "-Werror", "-I."]
    for command in (
        ["cc", *flags, "this.c", "hrm.c", "-lm", "-o", "this"],
        ["cc", *flags, EXAMPLES / "c" / "solve.c", "hrm.c", "-lm", "-o", "solve"],
        ["cc", *flags, "-fPIC", "-shared", "hrm.c", "-o", "hrm.so", "-lm"],
    ):
        subprocess.run(list(map(str, command)), check=True)
    assert_first_example(made, run("./this").stdout)
    assert run("./solve", "examples.json").stdout.startswith("equal: 16 of 16")
    exec(compile(printed_by(made, "python"), "README.md", "exec"), {})
    assert_first_example(made, capsys.readouterr().out)
    hrm, board = ctypes.CDLL("./hrm.so"), (ctypes.c_int32 * TASK.seq_len)()
    state = ctypes.create_string_buffer(hrm.hrm_state_bytes())
    assert [hrm.hrm_row(each) for each in (0, 3, 4, 17, 19, 38, 39)] == [0, 1, -1, 2, 4, 5, -1]
    assert [hrm.hrm_solve(state, board, row, 1, 1, board) for row in (-1, 0, 5, 6)] == [0, 1, 1, 0]


@pytest.mark.parametrize("apart", [False, True], ids=["arrays", "file"])
def test_the_c_program_answers_as_the_network_does(tmp_path, one_trace, monkeypatch, apart):
    """A bundle of target c is compiled with the program, without a warning, and tested on what PyTorch answers."""
    pytest.importorskip("torch")
    if shutil.which("cc") is None:
        pytest.skip("no C compiler")
    from small_networks import checkpoint, network, think
    from ungated import build_bundle

    from hrm_edge.exporters.options import ExportOptions
    from hrm_edge.exporters.targets.c import source as writer
    from hrm_edge.runtimes import Answers

    if apart:
        monkeypatch.setattr(writer, "MOST_NUMBERS", 0)
    source = checkpoint(network(H_cycles=1, L_cycles=1))
    asked = generate_puzzles(TASK, 16, seed=3)
    tokens, steps, q = think(source.model, asked.questions, source.config.halt_max_steps)
    answers = Answers(tokens, steps, q[:, 0] > q[:, 1], q)
    (tmp_path / "bundle").mkdir()
    write_examples(tmp_path / "bundle", asked, answers, source.config.halt_max_steps, q_tolerance=1e-3)
    build_bundle(source, ExportOptions.for_target("c"), tmp_path / "bundle", "small")
    flags = ["-std=c99", "-Wall", "-Wextra", "-pedantic", "-Werror", "-O1"]
    sources = ["-I", tmp_path / "bundle", EXAMPLES / "c" / "solve.c", tmp_path / "bundle" / "hrm.c"]
    command = ["cc", *flags, *sources, "-lm", "-o", tmp_path / "solve"]
    made = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    carried = tmp_path / "bundle" / "examples.json"
    first = [tmp_path / "bundle" / "weights.bin"] * apart
    tested = run(tmp_path / "solve", *first, carried)
    assert (tested.returncode, tested.stdout) == (
        0,
        "equal: 16 of 16 examples as in Python (answer, segments, q within 0.001)\n",
    )
    told = run(tmp_path / "solve", *first, *map(TASK.format, asked.questions))
    words = [line.split() for line in told.stdout.splitlines()]
    assert [(text, int(taken)) for text, taken, *_ in words] == list(
        zip(TASK.format_many(tokens), steps.tolist(), strict=True)
    )
    content = json.loads(carried.read_text())
    for example in content["examples"]:  # texts of another task: symbols of several characters, quotes
        example |= {"question": '"steps": 1, "question_tokens": [', "answer": 'aa "b" \\ é 漢'}
    carried.write_text(json.dumps(content, indent=1, sort_keys=True))
    assert run(tmp_path / "solve", *first, carried).stdout == tested.stdout
    content["examples"][0]["steps"] += 90
    carried.write_text(json.dumps(content, indent=1, sort_keys=True))
    assert run(tmp_path / "solve", *first, carried).stdout.startswith("not equal: 15 of 16")
    assert run(tmp_path / "solve", *first, "12").returncode == 2
    assert run(tmp_path / "solve", carried, *first).returncode == 2 if apart else True
    (tmp_path / "empty.json").write_text("{}")
    for mistake in ([], [*first], [*first, tmp_path / "nowhere.json"], [*first, tmp_path / "empty.json"]):
        told = run(tmp_path / "solve", *mistake)
        assert (told.returncode, told.stdout, told.stderr.count("\n")) == (2, "", 1)
