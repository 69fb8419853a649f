"""Boards of every kind: mazes that are drawn, tasks without a grid, colours, letters."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from datasets import write_lookup
from selenium.webdriver import ActionChains
from sites import bundle_of

import hrm_edge as he
from hrm_edge.bundle import open_bundle
from hrm_edge.data.puzzles import generate_puzzles
from hrm_edge.tasks import get_task
from hrm_edge.web.site import build_site


def test_a_maze_is_drawn_and_its_path_found(page, served):
    task = get_task("maze-15x15")
    engine = he.load_engine(bundle_of("maze-15x15", "onnx", "fp32"))
    puzzles = generate_puzzles(task, 8, seed=3)
    answers = engine.solve(puzzles.questions)
    right = np.flatnonzero(task.verify(puzzles.questions, answers.tokens))
    page.open(served("maze-15x15").address)
    page.ask(task.render(puzzles.questions[right[0]]))
    page.think()
    assert page.verdict == ("good", "Verified")
    page.shoot("maze")
    way = page.js("return [...document.querySelectorAll('.cell')].map((cell) => cell.classList.contains('way'))")
    assert way == (answers.tokens[right[0]] == task.symbol_tokens["o"]).tolist()

    page.js("document.getElementById('clear').click()")
    brush = 'document.querySelector(`.palette [data-token="${arguments[0]}"]`).click()'
    page.js(brush, task.symbol_tokens["#"])
    cells = page.driver.find_elements("css selector", ".cell")
    hand = ActionChains(page.driver).move_to_element(cells[15]).click_and_hold()
    for cell in cells[16:20]:
        hand.move_to_element(cell)
    hand.release().perform()
    assert [number for number, label in enumerate(page.labels()) if label.endswith("given wall")] == [
        15,
        16,
        17,
        18,
        19,
    ]
    for symbol, places in (("S", (0, 2)), ("G", (30,))):
        page.js(brush, task.symbol_tokens[symbol])
        for place in places:
            ActionChains(page.driver).click(cells[place]).perform()
    labels = page.labels()
    assert [number for number, label in enumerate(labels) if label.endswith("given S")] == [2], "there is one start"
    assert labels[30].endswith("given G")
    page.think()
    assert page.verdict[0] in ("good", "bad")
    assert page.clean


def untrained(task, folder, loop):
    """A bundle of a network that nobody trained."""
    from ungated import build_bundle

    from hrm_edge.exporters.options import ExportOptions
    from hrm_edge.models import Checkpoint, HRMConfig
    from hrm_edge.models.checkpoint import build_model

    config = HRMConfig(
        vocab_size=task.vocab_size, seq_len=task.seq_len, hidden_size=32, num_heads=2, H_layers=1, L_layers=1,
        halt_max_steps=4, pos_encodings="grid",
    )  # fmt: skip
    model = build_model(config, task).eval().requires_grad_(False)
    checkpoint = Checkpoint(model, task, "", {}, content_hash="0" * 64, path=Path("untrained"))
    folder.mkdir()
    build_bundle(checkpoint, ExportOptions("onnx", loop=loop), folder, "untrained")
    return open_bundle(folder)


@pytest.mark.parametrize(("name", "loop"), [("sequence", "graph"), ("arc-10x10", "host"), ("sudoku-16x16", "host")])
def test_any_task_is_asked_and_shown(page, serve, tmp_path, name, loop):
    """No grid and symbols of two characters; grids of colours on a canvas; letters. Nothing tells what is right."""
    rng = np.random.default_rng(0)
    if name == "sequence":
        task = get_task(write_lookup(tmp_path / "set", n=4, length=30, vocab_size=70) / "train")
        question = rng.integers(1, task.vocab_size, task.seq_len).astype(np.int32)
    else:
        task = get_task(name)
        question = np.full(task.seq_len, task.blank, np.int32)
        if task.by_example:
            question = task.encode(rng.integers(0, 10, (6, 8)))
        else:
            question[:16] = 2 + rng.permutation(16)
    bundle = untrained(task, tmp_path / "bundle", loop)
    build_site(bundle, tmp_path / "site")
    page.open(serve(tmp_path / "site").address)
    page.ask(task.render(question))
    page.think()
    answer = he.load_engine(bundle).solve(question[None]).tokens[0]
    if task.by_example:
        ends = page.js(
            "return [...document.querySelectorAll('.cell')].map((cell) => cell.classList.contains('wall'))"
        )
        assert ends == (answer == task.symbol_tokens["|"]).tolist()
    else:
        bar = page.js("return getComputedStyle(document.querySelector('.key.answered'), '::after').content")
        assert (bar == "none") == (loop == "graph"), "a graph that loops by itself shows no logits"
        assert page.cells() == ["" if token in (0, task.blank) else task.vocabulary[token] for token in answer]
    known = ("bad", "Not verified") if task.has_rules else ("open", "Not verified: no rules to check by")
    assert page.verdict == known
    page.shoot(name)
    assert page.clean


def test_an_example_is_compared_with_python_under_its_own_puzzle_number(page, serve, tmp_path):
    from small_networks import checkpoint, network, think
    from ungated import build_bundle

    from hrm_edge.bundle.examples import write_examples
    from hrm_edge.exporters.options import ExportOptions
    from hrm_edge.runtimes import Answers

    source = checkpoint(network(H_cycles=1, L_cycles=1, num_puzzle_identifiers=40, puzzle_emb_ndim=32))
    asked = generate_puzzles(source.task, 4, seed=3)
    asked = replace(asked, identifiers=np.full(4, 17, np.int32), num_identifiers=40)
    limit = source.config.halt_max_steps
    tokens, steps, q = think(source.model, asked.questions, limit, asked.identifiers)
    (tmp_path / "bundle").mkdir()
    write_examples(tmp_path / "bundle", asked, Answers(tokens, steps, q[:, 0] > q[:, 1], q), limit)
    build_bundle(source, ExportOptions("onnx", loop="host"), tmp_path / "bundle", "small")
    build_site(open_bundle(tmp_path / "bundle"), tmp_path / "site")
    page.open(serve(tmp_path / "site").address)
    said = {}
    for number in ("17", "38", "-3", "1.5"):
        page.ask(source.task.format(asked.questions[0]))
        page.js("document.getElementById('identifier').value = arguments[0]", number)
        page.think()
        said[number] = f"{page.verdict[1]} {page.text('facts')}"
    assert "as in Python" in said["17"]
    assert "Python" not in said["38"]
    assert "knows no puzzle -3" in said["-3"]
    assert "knows no puzzle 1.5" in said["1.5"]
    assert page.clean
