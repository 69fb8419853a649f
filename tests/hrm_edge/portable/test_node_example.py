"""The Node.js example with bundles of both loops: their examples come out as in Python, mistakes in one line."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import toy_graphs
import toys

from hrm_edge.bundle.examples import write_examples
from hrm_edge.data.puzzles import generate_puzzles
from hrm_edge.portable import write_facts
from hrm_edge.portable.javascript import web_files

EXAMPLE = Path(__file__).parents[3] / "examples" / "node"
pytestmark = [
    pytest.mark.skipif(shutil.which("node") is None, reason="Node.js is not installed"),
    pytest.mark.skipif(
        not (EXAMPLE / "node_modules" / "onnxruntime-node").is_dir(),
        reason="onnxruntime-node is not installed: run `npm install --ignore-scripts` in examples/node",
    ),
]


def bundle_of(folder, loop):
    manifest, engine = toys.manifest(loop=loop), toys.host_engine()
    puzzles = generate_puzzles(toys.TASK, 12, 3)
    questions = puzzles.questions

    def produce(place):
        for name, model in toy_graphs.models(loop, "dynamic").items():
            toy_graphs.save(model, place / name, "onnx")
        for name, content in web_files().items():
            (place / name).parent.mkdir(exist_ok=True)
            (place / name).write_bytes(content)
        write_examples(place, puzzles, engine.solve(questions), toys.HALT_MAX_STEPS, q_tolerance=1e-4)
        write_facts(place, manifest, toys.TASK)

    toys.write_bundle(folder, manifest, produce, toys.accuracy())
    return engine, questions


def run(*arguments):
    return subprocess.run(["node", EXAMPLE / "solve.mjs", *arguments], capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("loop", ["host", "graph"])
def test_it_answers_as_python_does(tmp_path, loop):
    engine, questions = bundle_of(tmp_path / "toy", loop)
    ran = run(tmp_path / "toy")
    assert ran.returncode == 0, ran.stderr
    assert "12 of 12 examples answered as in Python" in ran.stdout
    texts = [toys.TASK.format(question) for question in questions[:3]]
    ran = run(tmp_path / "toy", *texts, "--max-think-steps", "2")
    answers = engine.solve(questions[:3], 2)
    known = zip(toys.TASK.format_many(answers.tokens), answers.steps, strict=True)
    said = [line.split("  ") for line in ran.stdout.splitlines()]
    assert [(answer, told.split(", ")[1]) for answer, told in said] == [(a, f"{s} segments") for a, s in known]


def test_it_sees_what_differs(tmp_path):
    bundle_of(tmp_path / "toy", "host")
    path = tmp_path / "toy" / "facts.json"
    facts = json.loads(path.read_text("utf-8"))
    facts["examples"][0]["steps"] += 1
    facts["examples"][1]["q"][0] += 1
    path.write_text(json.dumps(facts), "utf-8")
    ran = run(tmp_path / "toy")
    assert ran.returncode == 1
    assert "10 of 12" in ran.stdout


def test_mistakes_are_told_in_one_line(tmp_path):
    bundle_of(tmp_path / "toy", "host")
    for asked, told in (("12", "puzzle has 2 characters"), ("11..............", "stands twice")):
        ran = run(tmp_path / "toy", asked)
        assert ran.returncode == 2
        assert told in ran.stderr
        assert ran.stderr.count("\n") == 1
