"""The examples that a bundle carries, and what comes of asking them again: as there, otherwise, or nothing."""

import dataclasses
import json

import commands
import numpy as np
import pytest
from toys import HALT_MAX_STEPS, TASK, accuracy, host_engine, manifest, write_bundle, write_toy_bundle

import hrm_edge
from hrm_edge.bundle import open_bundle
from hrm_edge.bundle.examples import EXAMPLES, HOW_MANY, read_examples, tokens_of, write_examples
from hrm_edge.data.puzzles import generate_puzzles
from hrm_edge.errors import GateFailed, InputError
from hrm_edge.measure.selftest import self_test

pytest.importorskip("onnxruntime")

PUZZLES = generate_puzzles(TASK, 60, seed=3)
ANSWERS = host_engine().solve(PUZZLES.questions)


def bundle(path, answers=ANSWERS, puzzles=PUZZLES, target="onnx", loop="host", edit=None, **settings):
    """A toy that carries examples; ``edit`` changes their file before it is sealed."""
    import toy_graphs

    def produce(folder):
        for name, model in toy_graphs.models(loop, "dynamic").items():
            toy_graphs.save(model, folder / name, target)
        write_examples(folder, puzzles, answers, **{"max_think_steps": HALT_MAX_STEPS, **settings})
        if edit is not None:
            content = json.loads((folder / EXAMPLES).read_text())
            edit(content)
            (folder / EXAMPLES).write_text(json.dumps(content))

    write_bundle(path, manifest(target, loop), produce, accuracy())
    return path


def spoiled(answers, count):
    """The same with a cell changed in the first ``count`` answers."""
    tokens = answers.tokens.copy()
    tokens[:count, 0] = np.where(tokens[:count, 0] == 2, 3, 2)
    return dataclasses.replace(answers, tokens=tokens)


@pytest.mark.parametrize("loop", ["host", "graph"])
def test_the_same_kernels_give_the_same_answers(tmp_path, loop):
    found = self_test(bundle(tmp_path / "b", loop=loop, arithmetic="x86-64, AMX"))
    assert (found.n, found.answers_differ, found.steps_differ, found.passed) == (HOW_MANY, 0, 0, True)
    assert found.proven == "x86-64, AMX"
    assert found.arithmetic.startswith("ONNX Runtime ")
    assert hrm_edge.self_test is self_test


def test_examples_are_those_that_took_longest_and_some_others(tmp_path):
    opened = open_bundle(bundle(tmp_path / "b"))
    carried = read_examples(opened)
    assert len(carried.examples) == HOW_MANY
    halted = ANSWERS.steps[ANSWERS.halted]
    assert max(each.steps for each in carried.examples) == max(halted.max(), 1)
    assert min(each.steps for each in carried.examples) == ANSWERS.steps.min()
    tokens = tokens_of(carried.examples, opened, "question")
    rows = [next(row for row, q in enumerate(PUZZLES.questions) if (q == board).all()) for board in tokens]
    assert rows == sorted(set(rows))
    assert [each.steps for each in carried.examples] == ANSWERS.steps[rows].tolist()


@pytest.mark.parametrize("count", [1, 3, HOW_MANY])
def test_few_puzzles_are_all_carried(tmp_path, count):
    few = PUZZLES.select(np.arange(count))
    assert self_test(bundle(tmp_path / "b", host_engine().solve(few.questions), few)).n == count


@pytest.mark.parametrize(("differ", "code"), [(0, 0), (1, 0), (2, 1), (16, 1)])
def test_more_than_a_few_that_differ_are_exit_1(tmp_path, capsys, differ, code):
    few = PUZZLES.select(np.arange(HOW_MANY))
    path = bundle(tmp_path / "b", spoiled(host_engine().solve(few.questions), differ), few)
    assert run(capsys, path)[0] == code
    assert run(capsys, path, "--allow", differ)[0] == 0
    got, out, err = run(capsys, path, "--json")
    found = json.loads(out)
    assert (got, found["passed"], found["answers_differ"]) == (code, code == 0, differ)
    assert found["differing"] == list(range(1, differ + 1))
    assert len(err.splitlines()) == code
    if code:
        assert f"{differ} of 16 answers differ from those at its gate" in err
        with pytest.raises(GateFailed):
            self_test(path).raise_if_failed()


def test_an_older_bundle_is_one_line(tmp_path, capsys):
    code, out, err = run(capsys, write_toy_bundle(tmp_path / "b"))
    assert (code, out) == (2, "")
    assert "has no examples.json to compare with" in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda c: c["examples"][0].update(question="12"), "'12' is no board of it"),
        (lambda c: c["examples"][0].update(answer="x" * 16), "is no board of it"),
        (lambda c: c["examples"].clear(), "examples must be a list of at least 1"),
        (lambda c: c["examples"][0].update(question_tokens=[2] * 16), "example 1 has tokens of another question"),
        (lambda c: c["examples"][1].update(answer_tokens=[1]), "example 2 has tokens of another answer"),
        (lambda c: c.update(q_tolerance=1e9), "allows q to be 1e.09 away, and no precision more than 0.5"),
        (lambda c: c["examples"][0].update(steps=0), "steps must be a whole number"),
        (lambda c: c.update(halt="never"), "halt must be one of"),
        (lambda c: c.update(more=1), "unknown field 'more'"),
        (lambda c: c.pop("arithmetic"), "'arithmetic' is missing"),
    ],
)
def test_examples_that_are_none_are_one_line(tmp_path, edit, words):
    with pytest.raises(InputError, match=words) as caught:
        self_test(bundle(tmp_path / "b", edit=edit))
    assert len(str(caught.value).splitlines()) == 1


def test_examples_are_hashed_like_any_file(tmp_path):
    path = bundle(tmp_path / "b")
    text = (path / EXAMPLES).read_text()
    (path / EXAMPLES).write_text(text.replace('"halt": "learned"', '"halt": "halting"'))
    with pytest.raises(InputError, match=r"examples\.json: its content was changed"):
        open_bundle(path)


def run(capsys, *arguments):
    return commands.run(capsys, "selftest", *arguments)


def test_where_all_answers_differ_nothing_is_shown(tmp_path, capsys):
    few = PUZZLES.select(np.arange(1))
    path = bundle(tmp_path / "b", spoiled(host_engine().solve(few.questions), 1), few)
    code, _, said = run(capsys, path)
    assert code == 1
    assert "1 of 1 answers differ" in said


def test_examples_that_ask_for_more_than_was_gated_are_refused_at_once(tmp_path):
    path = bundle(tmp_path / "b", edit=lambda content: content.update(halt="fixed", max_think_steps=2**31 - 1))
    with pytest.raises(InputError, match="asks for 2147483647 segments, and the bundle was gated with 8"):
        self_test(path)


def test_examples_hold_what_is_answered_when_each_is_asked_alone(tmp_path):
    asked = []

    def ask(few):
        asked.append(few)
        return spoiled(host_engine().solve(few.questions), 3)

    found = self_test(bundle(tmp_path / "b", ask=ask))
    assert [len(few) for few in asked] == [HOW_MANY]
    assert found.differing == (1, 2, 3)


@pytest.mark.parametrize(
    ("moved", "differ", "passed"), [((), 0, True), ((0.2,), 0, True), ((0.3, 0, -0.3), 2, False)]
)
def test_q_is_compared_within_the_tolerance_that_the_bundle_states(tmp_path, moved, differ, passed):
    def edit(content):
        for each, by in zip(content["examples"], moved, strict=False):
            each["q"][1] += by

    found = self_test(bundle(tmp_path / "b", edit=edit, q_tolerance=0.25))
    assert (found.q_differ, found.answers_differ, found.q_tolerance) == (differ, 0, 0.25)
    assert found.q_furthest == pytest.approx(max(map(abs, moved), default=0), abs=1e-6)
    assert (found.passed, found.equal) == (passed, differ == 0)
    told = (
        "16 answers are the same as at its gate, after as many segments"
        if differ == 0
        else "2 of the others differ"
    )
    assert told in found.summary
    assert found.summary.startswith("equal: all " if differ == 0 else "not equal: 0 of 16 answers differ")
    assert ("may differ" in found.summary) == (differ > 0)
    assert "and 0.25 is allowed" in found.summary


def test_q_of_another_answer_is_not_compared(tmp_path):
    def edit(content):
        first = content["examples"][0]
        first["q"], first["steps"] = [99.0, 0.0], first["steps"] + 1

    found = self_test(bundle(tmp_path / "b", edit=edit))
    assert (found.steps_differ, found.q_differ, found.equal, found.passed) == (1, 0, False, True)


@pytest.mark.parametrize(("longer", "passed"), [(8, True), (9, False)])
def test_halting_that_moved_for_most_is_a_failure_with_all_answers_right(tmp_path, longer, passed):
    def edit(content):
        for each in content["examples"][:longer]:
            each["steps"] += 1

    found = self_test(bundle(tmp_path / "b", edit=edit))
    assert (found.answers_differ, found.steps_differ, found.passed) == (0, longer, passed)
    assert ("it halts otherwise here" in found.summary) != passed


def test_files_of_earlier_versions_have_neither_tokens_nor_q(tmp_path):
    def edit(content):
        del content["q_tolerance"]
        for each in content["examples"]:
            for name in ("q", "question_tokens", "answer_tokens"):
                del each[name]

    found = self_test(bundle(tmp_path / "b", edit=edit))
    assert (found.n, found.answers_differ, found.q_differ, found.equal) == (HOW_MANY, 0, None, True)
    assert " q " not in found.summary
