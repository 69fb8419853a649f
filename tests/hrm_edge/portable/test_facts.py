"""`facts.json` read as its description says, in plain Python without ours: it must tell what our own code tells."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import toys
from datasets import write_latin, write_lookup
from toys import HALT_MAX_STEPS, accuracy, host_engine, manifest, write_bundle, write_hollow_bundle

from hrm_edge.bundle import MANIFEST, open_bundle, seal_bundle
from hrm_edge.bundle.examples import EXAMPLES, write_examples
from hrm_edge.data.puzzles import generate_puzzles
from hrm_edge.portable import FACTS, portable_facts, write_facts
from hrm_edge.runtimes import HostLoop
from hrm_edge.solve.retries import solve_with_retries
from hrm_edge.tasks import get_task

ROOT = Path(__file__).parents[3]
NAMES = ("sudoku-4x4", "sudoku-6x6-3x2", "sudoku-9x9", "sudoku-16x16", "maze-7x7", "maze-5x9", "arc-6x6")


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    """Tasks that ship, two that are data, and one of a package."""
    found = {name: get_task(name) for name in NAMES}
    folder = tmp_path_factory.mktemp("sets")
    found["latin"] = get_task(write_latin(folder / "latin") / "train")
    found["lookup"] = get_task(write_lookup(folder / "lookup") / "train")
    sys.path.append(str(ROOT / "examples" / "takuzu"))
    try:
        from hrm_edge_takuzu import Takuzu
    finally:
        sys.path.pop()
    found["takuzu"] = Takuzu(4)
    return found


def facts_of(task, **changes):
    """Through JSON and back, of a bundle that is of this task."""
    of_task = {"task": task.name, "vocabulary": tuple(task.vocabulary)}
    return json.loads(json.dumps(portable_facts(manifest(**of_task, **changes), task)))


# -- the reader of another language ----------------------------------------------------------------------


def parsed(facts, text):
    symbols = text.split(" ") if facts["separator"] else list(text)
    return [facts["symbols"].get(symbol, 0) for symbol in symbols]


def formatted(facts, tokens):
    shown = [facts["padding"], *facts["vocabulary"][1:]]
    return facts["separator"].join(shown[token] for token in tokens)


def right(facts, question, answer):
    rules = facts["rules"]
    if rules["kind"] == "groups":
        kept = all(q in (facts["blank"], a) for q, a in zip(question, answer, strict=True))
        return kept and all(
            sorted(answer[c] for c in group) == sorted(rules["values"]) for group in rules["groups"]
        )
    assert rules["kind"] == "maze"
    changed = [cell for cell, (q, a) in enumerate(zip(question, answer, strict=True)) if q != a]
    if any((question[cell], answer[cell]) != (rules["open"], rules["path"]) for cell in changed):
        return False
    walked = [length(facts, question, only) for only in (None, {*changed})]
    return walked[0] is not None and walked[0] == walked[1] == len(changed) + 1


def length(facts, question, only):
    """Moves from start to goal over cells that are no wall, or over these alone."""
    rules, rows, columns = facts["rules"], facts["grid"]["rows"], facts["grid"]["columns"]
    start, goal = question.index(rules["start"]), question.index(rules["goal"])
    far, reached = {start: 0}, [start]
    for cell in reached:
        row, column = divmod(cell, columns)
        for r, c in ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)):
            near = r * columns + c
            if not (0 <= r < rows and 0 <= c < columns) or near in far or question[near] == rules["wall"]:
                continue
            if only is not None and near not in only and near != goal:
                continue
            far[near] = far[cell] + 1
            reached.append(near)
    return far.get(goal)


def varied(variant, question):
    return [variant["tokens"][question[cell]] for cell in variant["cells"]]


def brought_back(variant, answer):
    back = [0] * len(answer)
    for cell, token in zip(variant["cells"], answer, strict=True):
        back[cell] = variant["tokens"].index(token)
    return back


# -- what it tells ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*NAMES, "latin", "lookup", "takuzu"])
def test_text_becomes_tokens_and_tokens_text(tasks, name):
    task = tasks[name]
    facts = facts_of(task)
    rng = np.random.default_rng(0)
    for tokens in rng.choice(task.question_tokens, (5, task.seq_len)):
        text = task.format(tokens)
        assert formatted(facts, tokens.tolist()) == text
        assert parsed(facts, text) == tokens.tolist()
    for alias, token in task.aliases.items():
        assert facts["symbols"][alias] == token
    assert facts["vocabulary"] == list(task.vocabulary)
    grid = facts["grid"] or {"rows": 1, "columns": task.seq_len}
    assert grid["rows"] * grid["columns"] == facts["seq_len"] == task.seq_len


def test_where_a_task_writes_texts_in_its_own_way_nothing_is_claimed(tasks, monkeypatch):
    monkeypatch.setattr(type(tasks["takuzu"]), "format", lambda self, tokens: "mine")
    assert facts_of(tasks["takuzu"])["separator"] is None


@pytest.mark.parametrize("name", ["sudoku-4x4", "sudoku-6x6-3x2", "sudoku-9x9", "maze-7x7", "maze-5x9", "latin"])
def test_the_rules_accept_what_the_task_accepts(tasks, name):
    task = tasks[name]
    facts = facts_of(task)
    if task.generates:
        questions, answers = task.generate(6, np.random.default_rng(1))
    else:
        square = (np.arange(4)[:, None] + np.arange(4)) % 4 + 2
        answers = np.stack([square.reshape(-1), square.T[::-1].reshape(-1)]).astype(np.int32)
        questions = np.where(np.arange(16) % 3 == 0, task.blank, answers)
    rng = np.random.default_rng(2)
    boards = [(q, a) for q, a in zip(questions, answers, strict=True)]
    for question, answer in zip(questions, answers, strict=True):
        for changes in (1, 1, 1, 2, 2):
            spoiled = answer.copy()
            spoiled[rng.choice(task.seq_len, changes, replace=False)] = rng.choice(task.vocab_size, changes)
            boards.append((question, spoiled))
        boards += [(question, question), (question, rng.permutation(answer))]
    told = [right(facts, q.tolist(), a.tolist()) for q, a in boards]
    assert told == [bool(task.verify(q[None], a[None])[0]) for q, a in boards]
    assert True in told
    assert False in told


@pytest.mark.parametrize("name", ["arc-6x6", "lookup", "takuzu"])
def test_no_rules_are_told_where_only_labels_or_code_tell(tasks, name):
    facts = facts_of(tasks[name])
    assert facts["rules"] is None
    assert facts["variants"] == []
    assert "verified" not in facts["halting"]["modes"]
    assert facts["blank"] == (1 if name == "takuzu" else None)


@pytest.mark.parametrize("name", ["sudoku-4x4", "sudoku-6x6-3x2", "maze-5x9", "latin"])
def test_variants_are_the_boards_that_retries_ask(tasks, name):
    """Of however many retries they are the first."""
    task, asked = tasks[name], []

    def start(tokens, identifiers=None):
        asked.append(tokens[0].tolist())
        e = np.eye(task.vocab_size, dtype=np.float32)[tokens]
        return [e, e, e]

    def segment(z_H, z_L, e):
        return [z_H, z_L, e, np.ones((len(e), 2), np.float32)]  # the question, which is no answer

    rng = np.random.default_rng(3)
    question = rng.choice([token for token in task.question_tokens if token != task.blank], task.seq_len)
    question[::2] = task.blank
    if name.startswith("maze"):
        question = task.generate(1, rng)[0][0]
    for retries in (5, 16):
        asked.clear()
        engine = HostLoop(task, 1, start, segment, backend="toy")
        solve_with_retries(engine, question[None].astype(np.int32), retries)
        variants = facts_of(task)["variants"]
        assert len(variants) == 16
        assert [question.tolist(), *(varied(each, question) for each in variants)][: retries + 1] == asked


@pytest.mark.parametrize("name", ["sudoku-4x4", "sudoku-6x6-3x2", "sudoku-9x9", "maze-7x7", "maze-5x9", "latin"])
def test_answers_to_variants_are_brought_back(tasks, name):
    task = tasks[name]
    facts = facts_of(task)
    answer = np.random.default_rng(4).integers(0, task.vocab_size, task.seq_len).astype(np.int32)
    for variant, symmetry in zip(facts["variants"], task.variants(0, 16), strict=True):
        assert varied(variant, answer.tolist()) == symmetry.apply(answer).tolist()
        assert brought_back(variant, answer.tolist()) == symmetry.invert(answer).tolist()
        assert brought_back(variant, varied(variant, answer.tolist())) == answer.tolist()


def test_a_long_sequence_has_fewer_variants(monkeypatch, tasks):
    monkeypatch.setattr("hrm_edge.portable.facts._VARIANT_CELLS", 100)
    assert len(facts_of(tasks["sudoku-4x4"])["variants"]) == 6
    assert len(facts_of(tasks["sudoku-16x16"])["variants"]) == 1


@pytest.mark.parametrize("alone", [True, False])
def test_the_halting_rule_is_the_engines(alone):
    architecture = {**manifest().architecture, "no_ACT_continue": alone}
    rule = facts_of(toys.TASK, architecture=architecture)["halting"]["rule"]
    assert re.fullmatch(r"q_halt > (0|q_continue)", rule)
    for q in ((1.0, 2.0), (2.0, 1.0), (-1.0, -2.0), (0.0, 0.0)):
        told = eval(rule, {"q_halt": q[0], "q_continue": q[1]})
        engine = host_engine(no_ACT_continue=alone)
        assert told == bool(engine.halts(np.array([q], np.float32))[0])


def test_graphs_and_what_is_handed_on(tasks):
    host, graph = (facts_of(toys.TASK, loop=loop) for loop in ("host", "graph"))
    assert host["next"] == {"z_H": "z_H_next", "z_L": "z_L_next"}
    assert graph["next"] == {}
    segment = host["graphs"]["segment"]
    assert segment["file"] == "segment.onnx"
    assert {each["name"] for each in segment["inputs"]} == {*host["next"], "e"}
    assert {*host["next"].values()} < {each["name"] for each in segment["outputs"]}
    assert graph["graphs"]["model"]["inputs"][0] == {"name": "tokens", "dtype": "int32", "shape": ["batch", 16]}
    assert graph["halting"]["modes"] == {"learned": 0, "fixed": 1, "verified": 2}
    assert facts_of(tasks["maze-7x7"], loop="graph")["halting"]["modes"] == {"learned": 0, "fixed": 1}
    assert facts_of(tasks["maze-7x7"], loop="host")["halting"] == host["halting"]


def test_puzzle_identifiers():
    several = {**manifest().architecture, "num_puzzle_identifiers": 5}
    assert facts_of(toys.TASK)["puzzle_identifiers"] is None
    assert facts_of(toys.TASK, architecture=several)["puzzle_identifiers"] == {"count": 5, "kept": None}
    source = {**manifest().source, "puzzle_identifiers": "0,7-9,12"}
    kept = facts_of(toys.TASK, architecture=several, source=source)["puzzle_identifiers"]
    assert kept == {"count": 5, "kept": [[0, 0], [7, 9], [12, 12]]}


# -- in a bundle -----------------------------------------------------------------------------------------


def test_a_bundle_lists_and_hashes_them_and_they_hold_its_examples(tmp_path):
    puzzles = generate_puzzles(toys.TASK, 20, seed=3)
    answers = host_engine().solve(puzzles.questions)
    wanted = manifest()

    def produce(folder):
        for name in wanted.graphs.values():
            (folder / name).write_bytes(b"graph")
        write_examples(folder, puzzles, answers, HALT_MAX_STEPS, q_tolerance=0.25)
        write_facts(folder, wanted, toys.TASK)

    for name in ("one", "two"):
        write_bundle(tmp_path / name, wanted, produce, accuracy())
    assert (tmp_path / "one" / FACTS).read_bytes() == (tmp_path / "two" / FACTS).read_bytes()
    assert FACTS in open_bundle(tmp_path / "one").manifest.files
    facts = json.loads((tmp_path / "one" / FACTS).read_text())
    assert facts["asked"] == {"halt": "learned", "max_think_steps": HALT_MAX_STEPS, "q_tolerance": 0.25}
    assert len(facts["examples"]) == 16
    for each in facts["examples"]:
        assert parsed(facts, each["question"]) == each["question_tokens"]
        assert parsed(facts, each["answer"]) == each["answer_tokens"]
        alone = host_engine().solve(np.array([each["question_tokens"]], np.int32))
        assert alone.tokens[0].tolist() == each["answer_tokens"]
        assert (alone.steps[0], alone.q[0].tolist()) == (each["steps"], each["q"])
    written = json.loads((tmp_path / "one" / EXAMPLES).read_text())["examples"]
    assert facts["examples"] == [{**each, "puzzle_row": 0} for each in written]


def test_a_bundle_without_them_opens(tmp_path):
    path = write_hollow_bundle(tmp_path / "old")
    assert FACTS not in open_bundle(path).manifest.files
    (path / MANIFEST).unlink()  # what is being made is no bundle yet
    write_facts(path, manifest(), toys.TASK)
    seal_bundle(path, manifest(), accuracy())
    assert FACTS in open_bundle(path).manifest.files
