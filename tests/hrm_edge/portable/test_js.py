"""The JavaScript that bundles and pages carry, run by Node: it must read, judge and think as Python does."""

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from datasets import write_latin, write_lookup
from toys import manifest

from hrm_edge.errors import InputError
from hrm_edge.identifiers import rows_of
from hrm_edge.portable import portable_facts
from hrm_edge.runtimes import HostLoop
from hrm_edge.solve.retries import solve_with_retries
from hrm_edge.tasks import get_task
from hrm_edge.tasks.boards import board, wrong_cells

NODE = shutil.which("node")
pytestmark = pytest.mark.skipif(NODE is None, reason="Node.js is not installed")
DRIVER = Path(__file__).parents[2] / "helpers" / "ask_js.mjs"
WITH_RULES = ("sudoku-4x4", "sudoku-6x6-3x2", "sudoku-9x9", "sudoku-16x16", "maze-7x7", "maze-5x9", "latin")
ALL = (*WITH_RULES, "arc-6x6", "lookup")


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sets")
    latin, lookup = write_latin(folder / "latin"), write_lookup(folder / "lookup")
    own = {"latin": latin / "train", "lookup": lookup / "train"}
    return {name: get_task(own.get(name, name)) for name in ALL}


def facts_of(task, **changes):
    return portable_facts(manifest(task=task.name, vocabulary=tuple(task.vocabulary), **changes), task)


def ask(task, asked, memory=None, **changes):
    """What the library says to each of ``asked``: an answer, or a refusal."""
    content = json.dumps({"facts": facts_of(task, **changes), "asked": asked, "memory": memory or {}})
    ran = subprocess.run([NODE, DRIVER], input=content, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


def puzzles_of(task, rng, count):
    """Questions and answers: Sudokus of one pattern, and of a Latin square or a table nothing in particular."""
    if task.drawing.box:
        (high, wide), side = task.drawing.box, np.arange(task.n)
        shift = (side * wide + side // high)[:, None]
        cells, values = task.sample_symmetries(rng, count)
        answers = np.stack(
            [v[((shift + side) % task.n).reshape(-1)[c] + 2] for c, v in zip(cells, values, strict=True)]
        )
        return np.where(rng.random(answers.shape) < 0.6, task.blank, answers).astype(np.int32), answers
    if task.generates:
        return task.generate(count, rng)
    questions = rng.choice(task.question_tokens, (count, task.seq_len)).astype(np.int32)
    return questions, rng.integers(0, task.vocab_size, (count, task.seq_len)).astype(np.int32)


def broken(task, rng, questions, answers):
    """Boards as models get them wrong: a cell changed, two exchanged, a given lost, all of another puzzle."""
    found = []
    for row in range(len(questions)):
        question, answer = questions[row].copy(), answers[row].copy()
        one, other = rng.choice(task.seq_len, 2, replace=False)
        if row % 4 == 1:
            answer[one] = rng.integers(1, task.vocab_size)
        elif row % 4 == 2:
            answer[[one, other]] = answer[[other, one]]
        elif row % 4 == 3:
            question[one] = rng.choice(task.question_tokens)
        found.append((question, answer))
    return found


@pytest.mark.parametrize("name", WITH_RULES)
def test_it_judges_boards_as_python_does(tasks, name):
    task, rng = tasks[name], np.random.default_rng(5)
    boards = broken(task, rng, *puzzles_of(task, rng, 20 if task.seq_len > 100 else 60))
    pairs = [(question.tolist(), answer.tolist()) for question, answer in boards]
    said = ask(task, [[method, *pair] for pair in pairs for method in ("verify", "wrong", "check")])
    judged = [bool(task.verify(q[None], a[None])[0]) for q, a in boards]
    assert [each["is"] for each in said[::3]] == judged
    assert not all(judged)
    assert any(judged) or not task.generates
    assert [each["is"] for each in said[1::3]] == [wrong_cells(task, q, a).tolist() for q, a in boards]
    assert ["refused" in each for each in said[2::3]] == [refuses(task.check_question, q) for q, _ in boards]


def refuses(call, *arguments):
    try:
        call(*arguments)
    except InputError:
        return True
    return False


def texts_of(task, question):
    """A board in the forms that people have it in."""
    line = task.format(question)
    yield line
    yield f"  {line}\n" if " " not in task.vocabulary else f"{line}\n"
    if task.rows > 1:
        yield "\r\n".join(task.render(question).split("\n"))
        yield board(task, question).plain
    if task.drawing.box:
        yield line.replace(".", "0")
        yield "# a comment\n" + task.render(question).replace(".", "_") + "\n"
        yield line.lower()
        yield "\n".join(" ".join(line[n : n + task.n]) for n in range(0, task.seq_len, task.n))
        yield "\n".join("|" + "|".join(line[n : n + task.n]) + "|" for n in range(0, task.seq_len, task.n))
        yield ",".join(line)


@pytest.mark.parametrize("name", ALL)
def test_it_reads_and_writes_boards_as_python_does(tasks, name):
    task, rng = tasks[name], np.random.default_rng(3)
    questions, _ = puzzles_of(task, rng, 3 if task.seq_len > 100 else 12)
    if task.by_example:
        questions = np.stack([task.encode(rng.integers(0, 10, rng.integers(1, 7, 2))) for _ in questions])
    written = ask(task, [["format", question.tolist()] for question in questions])
    assert [each["is"] for each in written] == [task.format(question) for question in questions]
    texts = [text for question in questions for text in texts_of(task, question)]
    known = {}
    for text in texts:
        try:
            known[text] = {"is": task.parse(text).tolist()}
        except InputError:
            known[text] = None
    said = dict(zip(texts, ask(task, [["parse", text] for text in texts]), strict=True))
    assert sum(known[text] is not None for text in texts) >= 2 * len(questions)
    assert {text: each for text, each in said.items() if known[text] is not None} == {
        text: each for text, each in known.items() if each is not None
    }
    assert all("refused" in said[text] for text in texts if known[text] is None)


@pytest.mark.parametrize("symbols", ["1234.", ".4321", "ABCD."])
def test_symbols_of_another_task_with_boxes_are_read_as_it_says(tasks, symbols):
    """Only where they are a blank and then the digits is a token what its digit says."""
    task = tasks["sudoku-4x4"]
    facts = facts_of(task)
    facts |= {"vocabulary": ["<pad>", *symbols], "symbols": {each: i for i, each in enumerate(symbols, 1)}}
    tokens = np.random.default_rng(1).integers(1, 6, task.seq_len).tolist()
    text = "".join(symbols[token - 1] for token in tokens)
    content = json.dumps({"facts": facts, "asked": [["parse", text]], "memory": {}})
    ran = subprocess.run([NODE, DRIVER], input=content, capture_output=True, text=True, timeout=60)
    assert json.loads(ran.stdout) == [{"is": tokens}], ran.stderr


@pytest.mark.parametrize("name", ALL)
def test_damaged_text_is_never_read_as_another_board(tasks, name):
    """What Python refuses it refuses too; what both read, they read alike."""
    task, rng = tasks[name], np.random.default_rng(8)
    questions, _ = puzzles_of(task, rng, 2 if task.seq_len > 100 else 6)
    letters = [*"0123456789ABGPabx.*_-?#SGo|+, \n\t", "·", "é", "😀"]
    texts = ["", "\n", " "]
    for question in questions:
        for text in texts_of(task, question):
            for _ in range(6):
                at, how = int(rng.integers(len(text))), rng.integers(3)
                texts.append(text[:at] + ("" if how == 0 else str(rng.choice(letters))) + text[at + (how != 2) :])
    said = ask(task, [["parse", text] for text in texts])
    read = 0
    for text, answer in zip(texts, said, strict=True):
        if "refused" in answer:
            assert "\n" not in answer["refused"]
            continue
        read += 1
        assert answer["is"] == task.parse(text).tolist(), text
    assert 0 < read < len(texts)


@pytest.mark.parametrize("name", WITH_RULES[:-1])
def test_variants_are_those_of_retries(tasks, name):
    task = tasks[name]
    question = puzzles_of(task, np.random.default_rng(1), 1)[0][0]
    known = task.variants(0, 16)
    said = ask(task, [[method, k, question.tolist()] for k in range(16) for method in ("there", "back")])
    assert [each["is"] for each in said[::2]] == [each.apply(question).tolist() for each in known]
    assert all(each["is"] == question.tolist() for each in said[1::2])


STEPS, RETRIES = 5, 6


def memorised(task, questions, rng, no_ACT_continue):
    """Segments to answer by heart: logits that are right or wrong by chance, for each question and its variants."""
    memory = {}
    for question in questions:
        answer = task.solve(question)
        asked = [(question, answer)]
        asked += [(each.apply(question), each.apply(answer)) for each in task.variants(0, RETRIES)]
        for board_, right in asked:
            logits = rng.normal(size=(STEPS, task.seq_len, task.vocab_size)).astype(np.float32)
            for step in range(STEPS):
                if rng.random() < 0.12:
                    logits[step, np.arange(task.seq_len), right] += 99
            q = rng.normal(loc=-0.6 if no_ACT_continue else 0, size=(STEPS, 2)).astype(np.float32)
            memory[",".join(map(str, board_.tolist()))] = (logits, q)
    return memory


@pytest.mark.parametrize("no_ACT_continue", [False, True])
def test_it_thinks_halts_and_retries_as_python_does(tasks, no_ACT_continue):
    task, rng = tasks["sudoku-4x4"], np.random.default_rng(11)
    questions, _ = task.generate(12, rng)
    memory = memorised(task, questions, rng, no_ACT_continue)

    def start(tokens):
        return np.zeros((len(tokens), 1, 1), np.float32), tokens[:, :, None].astype(np.float32)

    seen = {}

    def segment(state, e):
        key = ",".join(str(int(token)) for token in state[0, :, 0])
        seen[key] = seen.get(key, -1) + 1
        logits, q = memory[key]
        return state, logits[None, seen[key]], q[None, seen[key]]

    engine = HostLoop(task, STEPS, start, segment, backend="by heart", no_ACT_continue=no_ACT_continue, slots=1)
    asked, known = [], []
    for halt in ("learned", "verified", "fixed"):
        for question in questions:
            seen.clear()
            found = solve_with_retries(engine, question[None], RETRIES, max_think_steps=STEPS, halt=halt)
            asked.append(["solve", question.tolist(), {"maxThinkSteps": STEPS, "halt": halt, "retries": RETRIES}])
            answers = found.answers
            known.append(
                {
                    "answer": answers.tokens[0].tolist(),
                    "steps": int(answers.steps[0]),
                    "halted": bool(answers.halted[0]),
                    "verified": bool(found.verified[0]),
                    "variant": int(found.variant[0]),
                    "segments": int(found.segments[0]),
                    "q": answers.q[0].tolist(),
                }
            )
    heart = {
        key: [{"logits": step.reshape(-1).tolist(), "q": pair.tolist()} for step, pair in zip(*both, strict=True)]
        for key, both in memory.items()
    }
    architecture = {**manifest().architecture, "no_ACT_continue": no_ACT_continue}
    said = ask(task, asked, heart, architecture=architecture)
    assert [each["is"] for each in said] == known
    assert {each["variant"] for each in known} > {0}
    assert {each["verified"] for each in known} == {True, False}


def test_wrong_options_are_refused(tasks):
    task = tasks["lookup"]
    question = puzzles_of(task, np.random.default_rng(0), 1)[0][0].tolist()
    options = [{"maxThinkSteps": 0}, {"halt": "never"}, {"halt": "verified"}, {"retries": 1}, {"retries": -1}]
    said = ask(task, [["solve", question, each] for each in options] + [["solve", question[1:], {}]])
    assert all("refused" in each for each in said)
    assert ask(task, [["verify", question, question]]) == [{"is": None}]


def test_identifiers_become_rows_as_in_python(tasks):
    several = {**manifest().architecture, "num_puzzle_identifiers": 6}
    kept = np.array([0, 3, 17, 18, 19, 38])
    asked = [["row", number] for number in (*range(-1, 41), 1.5, 17.5)]
    task = tasks["sudoku-4x4"]
    assert [each["is"] for each in ask(task, asked)] == [0] * len(asked)
    for own, source in ((None, {}), (kept, {"puzzle_identifiers": "0,3,17-19,38"})):
        known = np.arange(6) if own is None else own
        told = ask(task, asked, architecture=several, source={**manifest().source, **source})
        for (_, number), said in zip(asked, told, strict=True):
            if number in known:
                assert said["is"] == rows_of(np.array([number]), own)[0]
            else:
                assert said["refused"] == f"this model knows no puzzle {number}"


def test_ties_go_to_the_lowest_token(tasks):
    task = tasks["sudoku-4x4"]
    logits = np.zeros((task.seq_len, task.vocab_size))
    logits[3, [2, 4]] = 1
    assert ask(task, [["guess", logits.reshape(-1).tolist()]])[0]["is"] == logits.argmax(1).tolist()
