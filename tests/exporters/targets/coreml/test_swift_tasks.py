"""What the Swift package of a Core ML bundle knows of its task: symbols, rules and variants, as the task says."""

from __future__ import annotations

import ast
import re
from dataclasses import replace

import numpy as np
import pytest
from swift_packages import SHAPES, STRING, TASKS, library, manifest, swift_parser, unquoted

from hrm_edge.errors import InputError
from hrm_edge.tasks import defined_task, get_task
from hrm_edge.tasks.dataset import TaskDefinition


@pytest.mark.parametrize("shape", SHAPES)
def test_a_maze_is_verified_for_retries_and_not_to_halt(package, shape):
    files = package(manifest(shape, "maze-5x7"))
    assert "verified" not in library(files)
    facts = files["Sources/HRM/Facts.swift"]
    assert "puzzle[$0] == 2 && answer[$0] == 5" in facts  # open, path
    assert "firstIndex(of: 3)" in facts
    assert "let columns = 7" in facts


def test_retries_need_rules(package):
    task = defined_task(TaskDefinition("words", 4, 4, ("a", "bc", "d", "e", "f"), None, (), (), ()))
    files = package(replace(manifest("graph"), task=task.name, vocabulary=tuple(task.vocabulary)), task=task)
    assert not any("verif" in text or "retrying" in text for text in files.values())
    plain = package(manifest("graph", identifiers=7))
    assert "puzzleIdentifiers: [puzzleIdentifier])[0]" in plain["Sources/HRM/Facts.swift"]
    assert "retrying: facts.variants" in plain["Sources/solve/main.swift"]


@pytest.mark.parametrize("task", TASKS)
def test_symbols_are_the_tasks(package, task):
    source = library(package(manifest("host", task)))
    symbols = [
        unquoted(one) for one in re.findall(STRING, re.findall(r"symbols: \[Character\] = \[(.*)\]", source)[0])
    ]
    assert symbols == ["?", *get_task(task).vocabulary[1:]]
    table = re.findall(r"tokenOf: \[Character: Int32\] = \[(.*?)\n    \]", source, re.S)[0]
    pairs = re.findall(rf"({STRING}): (\d+)", table)
    tokens = {unquoted(symbol): int(token) for symbol, token in pairs}
    assert len(tokens) == len(pairs)  # a repeated key stops a Swift program
    cells = get_task(task).seq_len
    if task == "sudoku-16x16":  # whose letters depend on which others stand beside them
        digits = {symbol: token for token, symbol in enumerate(get_task(task).vocabulary) if token > 1}
        small = {symbol.lower(): token for symbol, token in digits.items()}
        assert tokens == digits | small | dict.fromkeys(".0*_-", 1)
        return
    for character in map(chr, range(33, 256)):
        if task.startswith("sudoku") and character in "-_":  # nothing but these is a ruler
            assert tokens[character] == get_task(task).blank
            continue
        if task.startswith("sudoku") and character in "?xX·":  # blanks of files that have no other
            assert character not in tokens
            continue
        try:
            expected = int(get_task(task).parse(character * cells)[0])
        except InputError:
            expected = None
        assert tokens.get(character) == expected, character


@pytest.mark.parametrize("task", ["sudoku-4x4", "sudoku-6x6", "sudoku-9x9"])
def test_the_rules_are_the_tasks(package, task):
    """The Swift expression, in Python over the Swift literals, judges boards as the task does."""
    source, puzzle = library(package(manifest("host", task))), get_task(task)
    blank = int(re.findall(r"blank: Int32 = (\d+)", source)[0])
    values = set(ast.literal_eval(re.findall(r"values: Set<Int32> = (\[.*\])", source)[0]))
    groups = ast.literal_eval("[" + re.findall(r"groups: \[\[Int\]\] = \[(.*?)\n    \]", source, re.S)[0] + "]")
    assert "allSatisfy { $0 == blank || $0 == $1 }" in source
    assert "Set(group.map { answer[$0] }) == values" in source

    def verify(question: list[int], answer: list[int]) -> bool:
        kept = all(q in (blank, a) for q, a in zip(question, answer, strict=True))
        return kept and all({answer[cell] for cell in group} == values for group in groups)

    rng = np.random.default_rng(0)
    questions, answers = puzzle.generate(30, rng)
    judged = []
    for row in range(len(answers)):
        if row % 3:
            answers[row, rng.integers(puzzle.seq_len)] = rng.integers(1, puzzle.vocab_size)
        if row % 5 == 0:
            questions[row] = puzzle.blank
        judged.append(verify(questions[row].tolist(), answers[row].tolist()))
    assert judged == puzzle.verify(questions, answers).tolist()
    assert len(set(judged)) == 2


def test_symbols_of_several_characters_stand_apart(package):
    """Built-in tasks keep the text they had: one character a symbol."""
    task = defined_task(TaskDefinition("words", 4, 4, ("a", "bc", "d", "e", "f"), None, (), (), ()))
    content = replace(manifest("graph"), task=task.name, vocabulary=tuple(task.vocabulary))
    source = library(package(content, task=task))
    assert not swift_parser().parse(source.encode()).root_node.has_error
    assert 'public static let symbols: [String] = ["?", "a", "bc", "d", "e", "f"]' in source
    assert "text.split(whereSeparator: \\.isWhitespace)" in source
    assert '.joined(separator: " ")' in source
    plain = library(package(manifest("graph")))
    assert "[Character]" in plain
    assert "isWhitespace" not in plain
