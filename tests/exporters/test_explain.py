"""What a bundle says of itself: its README's code is run as it stands there, and its text is nobody's markup."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import toy_graphs
import toys
from toys import HALT_MAX_STEPS, TASK, accuracy, host_engine, manifest, write_bundle

from hrm_edge.bundle import Gate, TensorSpec, open_bundle
from hrm_edge.bundle.examples import write_examples
from hrm_edge.data.puzzles import generate_puzzles
from hrm_edge.exporters.calls import literal, snippets
from hrm_edge.exporters.explain import explain
from hrm_edge.portable import portable_facts
from hrm_edge.portable.readme import README
from hrm_edge.tasks import defined_task
from hrm_edge.tasks.dataset import TaskDefinition

PUZZLES = generate_puzzles(TASK, 30, seed=3)
MEASURED = accuracy(reference_name="toy", reference_hash="0" * 64, arithmetic="a CPU")
KINDS = [
    ("onnx", "host", "dynamic"),
    ("onnx", "graph", 2),
    ("openvino", "host", 2),
    ("openvino", "graph", "dynamic"),
]


def explained(path, target, loop, batch="dynamic", identifiers=False):
    """A toy's bundle that explains itself, its examples first among them the ones that take longest."""
    wanted = manifest(target, loop, batch)
    first = "start" if loop == "host" else "model"
    if identifiers:
        rows = "batch" if batch == "dynamic" else batch
        kinds = TensorSpec("puzzle_identifiers", "int32", (rows,))
        inputs = {**wanted.inputs, first: (*wanted.inputs[first], kinds)}
        wanted = replace(wanted, inputs=inputs, architecture={**wanted.architecture, "num_puzzle_identifiers": 3})

    def produce(folder):
        for name, model in toy_graphs.models(loop, batch).items():
            if identifiers and name == first:
                info = toy_graphs.helper.make_tensor_value_info
                model.graph.input.append(info("puzzle_identifiers", toy_graphs.INT, [rows]))
            toy_graphs.save(model, folder / name, target)
        write_examples(folder, PUZZLES, host_engine().solve(PUZZLES.questions), HALT_MAX_STEPS, q_tolerance=0.01)
        explain(folder, wanted, TASK, MEASURED)

    write_bundle(path, wanted, produce, MEASURED)
    assert README in open_bundle(path).manifest.files
    return path


def code_of(folder, fence):
    (found,) = re.findall(rf"```{fence}\n(.*?)\n```", (folder / README).read_text(), re.DOTALL)
    return found


def assert_answers(folder, printed):
    """What a snippet prints is what the first example says."""
    example = json.loads((folder / "examples.json").read_text())["examples"][0]
    answer, steps, q = printed.strip().split(" ", 2)
    assert (answer, int(steps)) == (example["answer"], example["steps"])
    assert [float(value) for value in re.findall(r"-?[\d.]+(?:e-?\d+)?", q)] == pytest.approx(
        example["q"], abs=0.01
    )


@pytest.mark.parametrize(("target", "loop", "batch"), KINDS)
def test_the_python_of_the_readme_answers_as_it_stands(tmp_path, monkeypatch, capsys, target, loop, batch):
    pytest.importorskip({"onnx": "onnxruntime"}.get(target, target))
    folder = explained(tmp_path / "b", target, loop, batch)
    monkeypatch.chdir(folder)
    exec(compile(code_of(folder, "python"), README, "exec"), {})
    assert_answers(folder, capsys.readouterr().out)


@pytest.mark.parametrize(("target", "loop"), [("onnx", "host"), ("openvino", "host"), ("openvino", "graph")])
def test_the_python_of_the_readme_needs_nothing_of_ours_and_tells_nobody(tmp_path, target, loop):
    """In a process of its own, which cannot import hrm_edge: it starts no thread and no process that would send."""
    pytest.importorskip({"onnx": "onnxruntime"}.get(target, target))
    folder, home = explained(tmp_path / "b", target, loop), tmp_path / "home"
    home.mkdir()
    without = "import os, sys, threading; sys.modules['hrm_edge'] = None\nos.fork = threading.Thread.start = None\n"
    command = [sys.executable, "-c", without + code_of(folder, "python")]
    kept = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    done = subprocess.run(
        command, cwd=folder, env=kept | {"HOME": str(home)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert list(home.iterdir()) == []
    assert_answers(folder, done.stdout)


@pytest.mark.parametrize("loop", ["host", "graph"])
def test_models_with_puzzle_identifiers_are_told_of_them(tmp_path, monkeypatch, capsys, loop):
    pytest.importorskip("onnxruntime")
    folder = explained(tmp_path / "b", "onnx", loop, 2, identifiers=True)
    assert "`puzzle_identifiers` tells which kind of puzzle" in (folder / README).read_text()
    monkeypatch.chdir(folder)
    exec(compile(code_of(folder, "python"), README, "exec"), {})
    assert_answers(folder, capsys.readouterr().out)
    for fence in ("js", "c"):
        assert "puzzle_identifiers" in code_of(folder, fence)


@pytest.mark.parametrize("loop", ["host", "graph"])
def test_the_c_of_the_readme_is_compiled_and_answers(tmp_path, loop):
    openvino = pytest.importorskip("openvino")
    if (compiler := shutil.which("cc")) is None:
        pytest.skip("no C compiler")
    package = Path(openvino.__file__).parent
    libraries = sorted((package / "libs").glob("libopenvino_c.so*"))
    if not libraries or not (package / "include" / "openvino" / "c").is_dir():
        pytest.skip("this openvino package has no C headers or libraries")
    folder = explained(tmp_path / "b", "openvino", loop)
    (tmp_path / "call.c").write_text(code_of(folder, "c"))
    program = tmp_path / "call"
    where = ["-I", package / "include", f"-Wl,-rpath,{package / 'libs'}"]
    command = [compiler, "-Wall", "-Wextra", "-Werror", tmp_path / "call.c", *where, libraries[0], "-o", program]
    made = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    done = subprocess.run([program], cwd=folder, capture_output=True, text=True, check=True)
    assert_answers(folder, done.stdout)


def test_the_readme_says_what_was_measured_and_what_goes_in_and_out(tmp_path):
    folder = tmp_path / "b"
    folder.mkdir()
    wanted = replace(manifest(), gate=Gate(ran=True, passed=True))
    explain(folder, wanted, TASK, {**MEASURED, "notes": ["not on a GPU"], "lost": 3, "won": 2})
    text = (folder / README).read_text()
    assert "Lost 3, won 2" in text
    assert "- not on a GPU" in text
    for name in ("tokens", "e", "z_H", "z_L", "z_H_next", "z_L_next", "logits", "q"):
        assert f"| `{name}` |" in text
    for token, symbol in enumerate(("?", *TASK.vocabulary[1:])):
        assert f"| {token} | `{symbol}` |" in text
    assert "`q_halt > q_continue`" in text
    ungated = replace(wanted, gate=Gate(ran=False, passed=None, reason="exported with --no-gate"))
    explain(folder, ungated, TASK)
    assert "**Its accuracy was never checked** (exported with --no-gate)" in (folder / README).read_text()


NASTY = ("```", "|x|", "<b>", "$a", "\\", '"', "'", "#[e]", "http://a")


def test_names_and_symbols_are_nobodys_markup_and_no_code(tmp_path):
    """Neither in Markdown, nor in the texts of programs."""
    task = defined_task(
        TaskDefinition(name="nasty", rows=3, cols=3, symbols=NASTY, blank=None, values=(), groups=(), symmetries=())
    )
    board = ("batch", 9)
    inputs = {**manifest().inputs, "start": (TensorSpec("tokens", "int32", board),)}
    name = "a|b `c` <script> ::error:: [x](http://y)"
    architecture = {**manifest().architecture, "seq_len": 9, "vocab_size": 10}
    wanted = manifest(name=name, task="nasty", vocabulary=task.vocabulary, architecture=architecture, inputs=inputs)
    explain(tmp_path, wanted, task)
    text = (tmp_path / README).read_text()
    assert "<script>" not in text
    assert "[x](" not in text
    assert not re.search(r"##\[|(?<!\S)::", text)
    prose = re.sub(r"```\w+\n.*?\n```", "", text, flags=re.DOTALL)
    assert "```" not in re.sub(r"````.*?````", "", prose)
    rows = [line for line in prose.splitlines() if re.match(r"\| \d+ \|", line)]
    assert len(rows) == 10
    facts = portable_facts(wanted, task)
    facts["examples"] = [
        {
            "question_tokens": list(range(1, 10)),
            "puzzle_identifier": 0,
            "puzzle_row": 0,
            "question": "",
            "answer": "",
            "steps": 1,
        }
    ]
    by_fence = {each.fence: each.code for each in snippets("onnx", facts)}
    line = next(line for line in by_fence["python"].splitlines() if line.startswith("text = "))
    assert eval(line.removeprefix("text = ")) == " ".join(NASTY)
    compile(by_fence["python"], README, "exec")


@pytest.mark.parametrize("text", ["12.4", "#### S  G", 'a"b\\c', "é😀", "::error", "##[x]", "a b"])
def test_literals_are_what_they_say(text):
    assert eval(literal(text, "python")) == json.loads(literal(text)) == text
    assert literal(text).isascii()
    assert literal("$é", "kotlin") == '"\\$\\u00e9"'
    assert literal("é", "swift") == '"\\u{e9}"'


@pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")
def test_two_question_marks_stand_for_themselves_in_c(tmp_path):
    """`??-` is `~` in C99, and "?" is how padding is written."""
    text = '??-1??/"\\x41'
    (tmp_path / "c.c").write_text(
        f"#include <stdio.h>\nint main(void) {{ fputs({literal(text, 'c')}, stdout); }}\n"
    )
    subprocess.run(["gcc", "-std=c99", "c.c", "-o", "c"], cwd=tmp_path, check=True)
    assert subprocess.run([tmp_path / "c"], capture_output=True, text=True, check=True).stdout == text


def test_every_call_is_of_a_target_that_there_is():
    from hrm_edge.exporters import targets

    folder = Path(targets.__file__).parent / "calls"
    named = {path.name for path in folder.iterdir() if path.is_dir()}
    assert named <= set(targets.all_targets())
    for path in folder.glob("*/*"):
        assert re.fullmatch(r"(host|graph|any)\.(py|js|kt|swift|c|sh)\.j2", path.name)
    for target in named:
        for loop in ("host", "graph"):
            facts = portable_facts(manifest("onnx", loop), toys.TASK)
            assert all(each.code for each in snippets(target, facts))


def test_the_same_bytes_again(tmp_path):
    for name in ("one", "two"):
        explained(tmp_path / name, "onnx", "graph")
    assert (tmp_path / "one" / README).read_bytes() == (tmp_path / "two" / README).read_bytes()


def test_graphs_carry_the_same_in_their_own_metadata(one_trace, tmp_path):
    onnx, openvino = pytest.importorskip("onnx"), pytest.importorskip("openvino")
    from small_networks import checkpoint, network
    from ungated import build_bundle

    from hrm_edge.exporters.options import ExportOptions

    source = checkpoint(network(H_cycles=1, L_cycles=1), author="somebody\x00 else")
    for target, loop in (("onnx", "graph"), ("openvino", "host")):
        (tmp_path / target).mkdir()
        build_bundle(source, ExportOptions(target, "fp32", loop), tmp_path / target, "small")
    model = onnx.load(tmp_path / "onnx" / "model.onnx")
    facts = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(facts["hrm_edge.vocabulary"]) == list(source.task.vocabulary)
    assert facts["hrm_edge.halting_rule"] == "q[0] > q[1]"
    assert facts["hrm_edge.author"] == "somebody\\x00 else"
    assert "thinks until every puzzle has halted" in model.doc_string
    assert all(value.doc_string for value in (*model.graph.input, *model.graph.output))
    read = openvino.Core().read_model(tmp_path / "openvino" / "segment.xml")
    assert read.get_rt_info(["framework", "hrm_edge.graph"]).value == "segment"
    assert "thinks one segment" in read.get_rt_info("description").value
    assert "slow state" in json.loads(read.get_rt_info("bindings").value)["z_H"]


def test_numbers_are_used_where_symbols_are_no_bytes():
    facts = portable_facts(manifest(), TASK)
    facts["vocabulary"] = ["<pad>", ".", "10", "20", "30", "40"]
    facts["separator"] = " "
    code = {each.fence: each.code for each in snippets("onnx", facts)}["c"]
    assert "strchr" not in code
    assert f"question[S] = {{{', '.join(map(str, np.full(16, TASK.blank)))}}}" in code
