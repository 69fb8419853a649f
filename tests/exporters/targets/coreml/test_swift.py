"""The Swift package of a Core ML bundle: the manifest's calls, it parses, and it says nobody compiled it."""

from __future__ import annotations

import ast
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toys

from hrm_edge.bundle import Manifest, TensorSpec, open_bundle
from hrm_edge.errors import InputError
from hrm_edge.exporters.graph.edit import PassFailed
from hrm_edge.exporters.targets.coreml.swift import write_package
from hrm_edge.halting import RULES
from hrm_edge.packages import install
from hrm_edge.tasks import defined_task, get_task
from hrm_edge.tasks.dataset import TaskDefinition

SHAPES = ("graph", "host", "stateful")
TASKS = ("sudoku-4x4", "sudoku-9x9", "sudoku-16x16", "maze-5x7")
FILES = (
    *("Package.swift", "README.md"),
    *("Sources/HRM/Facts.swift", "Sources/HRM/HRM.swift", "Sources/solve/main.swift"),
)


def manifest(
    shape: str, task: str = "sudoku-4x4", batch: int = 3, identifiers: int = 1, no_ACT_continue: bool = False
) -> Manifest:
    """What a Core ML export of that shape writes down."""
    puzzle = get_task(task)
    S, V = puzzle.seq_len, puzzle.vocab_size

    def tensor(name: str, kind: str, *shape: int) -> TensorSpec:
        return TensorSpec(name, kind, shape)

    board, q = tensor("tokens", "int32", batch, S), tensor("q", "float32", batch, 2)
    logits = tensor("logits", "float32", batch, S, V)
    e, z_H, z_L, z_H_next, z_L_next = (
        tensor(name, "float32", batch, S + 2, 8) for name in ("e", "z_H", "z_L", "z_H_next", "z_L_next")
    )
    which = (tensor("puzzle_identifiers", "int32", batch),) if identifiers > 1 else ()
    switches = (tensor("max_think_steps", "int32", 1), tensor("halt", "int32", 1))
    answer = (tensor("answer", "int32", batch, S), tensor("steps", "int32", batch), q)
    sides: dict[str, dict[str, Any]] = {
        "graph": {"model": ((board, *switches, *which), answer)},
        "host": {
            "start": ((board, *which), (e, z_H, z_L)),
            "segment": ((z_H, z_L, e), (z_H_next, z_L_next, logits, q)),
        },
        "stateful": {"stateful": ((board, tensor("fresh", "float32", batch), *which), (logits, q))},
    }
    graphs = sides[shape]
    plain = toys.manifest("coreml", "graph" if shape == "graph" else "host", batch)
    changed = {
        "seq_len": S,
        "vocab_size": V,
        "num_puzzle_identifiers": identifiers,
        "no_ACT_continue": no_ACT_continue,
        "halt_max_steps": 11,
    }
    return replace(
        plain,
        name=f"{task}-coreml",
        task=puzzle.name,
        vocabulary=tuple(puzzle.vocabulary),
        architecture={**plain.architecture, **changed},
        graphs={graph: f"{graph}.mlpackage" for graph in graphs},
        inputs={graph: inputs for graph, (inputs, _) in graphs.items()},
        outputs={graph: outputs for graph, (_, outputs) in graphs.items()},
    )


def renamed(content: Manifest, names: dict[str, str]) -> Manifest:
    """The manifest with some tensors called otherwise."""

    def side(tensors: dict[str, tuple[TensorSpec, ...]]) -> dict[str, tuple[TensorSpec, ...]]:
        return {
            graph: tuple(replace(spec, name=names.get(spec.name, spec.name)) for spec in specs)
            for graph, specs in tensors.items()
        }

    return replace(content, inputs=side(content.inputs), outputs=side(content.outputs))


@pytest.fixture
def package(tmp_path):
    def package(content: Manifest, **options: Any) -> dict[str, str]:
        write_package(tmp_path, content, **options)
        return {name: (tmp_path / "swift" / name).read_text(encoding="utf-8") for name in FILES}

    return package


def library(files: dict[str, str]) -> str:
    return files["Sources/HRM/HRM.swift"]


def unquoted(literal: str) -> str:
    """The text of a Swift string literal, read without what wrote it."""
    text = re.sub(r"\\u\{([0-9a-f]+)\}", lambda match: chr(int(match[1], 16)), literal[1:-1])
    return re.sub(r"\\(.)", r"\1", text)


STRING = r'"(?:[^"\\\n]|\\.)*"'


def calls(source: str) -> dict[str, set[str]]:
    """Model → the names of the inputs it is called with."""
    found = re.findall(
        r"(\w+)\.prediction\(\s*from: MLDictionaryFeatureProvider\(dictionary: \[(.*?)\n\s*\]\)", source, re.S
    )
    return {model: {unquoted(key) for key in re.findall(rf"^\s*({STRING}):", body, re.M)} for model, body in found}


def reads(source: str) -> set[str]:
    """The names of all outputs that are looked at."""
    return {unquoted(name) for name in re.findall(rf"Self\.(?:value|output)\(({STRING})", source)}


def shapes(source: str) -> dict[str, list[int]]:
    """Name → the shape it is given or expected with, where the code says one."""
    found = re.findall(rf"({STRING})(?:: Self\.input\(.*|,) shape: (\[[\d, ]+\])", source)
    return {unquoted(name): ast.literal_eval(shape) for name, shape in found}


def code(source: str) -> str:
    """Without comments and the text in strings."""
    return re.sub(STRING, '""', re.sub(r"//.*", "", source))


OTHER_NAMES = {
    "tokens": "board",
    "q": "halting",
    "z_H": "slow state",
    "z_L_next": "z_L_out",
    "logits": 'a "b"\\(c)',
}


@pytest.mark.parametrize("names", [{}, OTHER_NAMES], ids=["usual names", "other names"])
@pytest.mark.parametrize("identifiers", [1, 7])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_calls_are_the_manifests(package, shape, identifiers, names):
    content = renamed(manifest(shape, identifiers=identifiers), names)
    source = library(package(content))
    assert calls(source) == {graph: {spec.name for spec in specs} for graph, specs in content.inputs.items()}
    assert reads(source) == {spec.name for specs in content.outputs.values() for spec in specs}
    said = shapes(source)
    declared = [spec for side in (content.inputs, content.outputs) for specs in side.values() for spec in specs]
    assert said
    for spec in declared:
        assert said.get(spec.name, list(spec.shape)) == list(spec.shape)
    for graph, file in content.graphs.items():
        assert f'{graph} = try await Self.load("{file.removesuffix(".mlpackage")}"' in source


def test_the_state_comes_back_to_where_it_came_from(package):
    source = library(package(manifest("host")))
    for variable, name in (("zH", "z_H"), ("zL", "z_L")):
        assert f'var {variable} = try Self.value("{name}", of: begun)' in source
        assert f'"{name}": {variable},' in source
        assert f' {variable} = try Self.value("{name}_next", of: outputs)' in source
    inside = library(package(manifest("stateful")))
    assert "repeating: step == 1 ? 1 : 0, count: Self.batch)" in inside
    assert inside.index("let state = stateful.makeState()") < inside.index("for step in 1...maxThinkSteps")
    assert "using: state)" in inside


def test_each_tensor_keeps_its_part_when_all_are_renamed(package):
    content = manifest("host")
    names = {
        spec.name: spec.name.upper()
        for side in (content.inputs, content.outputs)
        for t in side.values()
        for spec in t
    }
    usual, other = library(package(content)), library(package(renamed(content, names)))
    for name, upper in names.items():
        usual = usual.replace(f'"{name}"', f'"{upper}"')
    # Which is before and which after a segment, such names do not tell: the states are numbered.
    assert other == usual.replace("zH", "z0").replace("zL", "z1")


def test_usual_names_count_whatever_their_order(package):
    content = manifest("host")
    turned = replace(
        content,
        inputs={graph: specs[::-1] for graph, specs in content.inputs.items()},
        outputs={graph: specs[::-1] for graph, specs in content.outputs.items()},
    )
    assert library(package(turned)) == library(package(content))


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("shape", SHAPES)
def test_it_parses(package, task, shape):
    parser = swift_parser()
    for batch, identifiers, no_ACT_continue in ((1, 1, False), (4, 9, True)):
        files = package(manifest(shape, task, batch, identifiers, no_ACT_continue))
        for name in FILES:
            if name.endswith(".swift"):
                assert not parser.parse(files[name].encode()).root_node.has_error, name
    broken = library(files).replace("Self.answer(", "Self.answer")
    assert parser.parse(broken.encode()).root_node.has_error


def swift_parser() -> Any:
    tree_sitter = pytest.importorskip("tree_sitter", reason="no Swift parser (tree-sitter, tree-sitter-swift)")
    grammar = pytest.importorskip("tree_sitter_swift", reason="no Swift parser (tree-sitter, tree-sitter-swift)")
    return tree_sitter.Parser(tree_sitter.Language(grammar.language()))


@pytest.mark.parametrize("identifiers", [1, 7])
@pytest.mark.parametrize("task", ["sudoku-4x4", "maze-5x7"])
@pytest.mark.parametrize("shape", SHAPES)
def test_every_name_is_declared_and_used_and_nothing_is_unwrapped_by_force(package, shape, task, identifiers):
    files = package(manifest(shape, task, identifiers=identifiers))
    source = code(library(files) + files["Sources/HRM/Facts.swift"])
    members = set(re.findall(r"\b(?:func|let|var|case|struct|enum) (\w+)", source)) | {"self"}
    used = re.findall(r"\b(?:Self|HRM|hrm)\.(\w+)", source + code(files["Sources/solve/main.swift"]))
    assert used
    assert set(used) <= members
    for private in re.findall(r"private (?:static )?(?:func|let) (\w+)", source):
        assert len(re.findall(rf"\b{private}\b", source)) > 1, f"{private} is never used"
    forced = re.compile(r"[\w)\]]!(?!=)")
    assert forced.search("answers.last!")
    for name in FILES:
        assert not forced.search(code(files[name])), name
        assert "{{" not in files[name]
        assert "{%" not in files[name]


@pytest.mark.parametrize("shape", SHAPES)
def test_every_file_says_that_nobody_compiled_it(package, shape):
    files = package(manifest(shape))
    for name, text in files.items():
        assert re.search(
            r"^(// )?Generated by hrm-edge .* for sudoku-4x4-coreml; not compiled by hrm-edge\.$", text, re.M
        ), name
    # Swift reads the version of its tools from the first line only.
    assert files["Package.swift"].startswith("// swift-tools-version: 5.9\n")


@pytest.mark.parametrize(
    ("shape", "options", "platforms", "units"),
    [
        ("graph", {}, ("17.0", "14.0"), ".cpuAndGPU"),
        ("graph", {"ios": 18}, ("18.0", "15.0"), ".cpuAndGPU"),
        ("host", {}, ("17.0", "14.0"), ".all"),
        ("stateful", {}, ("18.0", "15.0"), ".all"),
    ],
)
def test_platforms_and_compute_units(package, shape, options, platforms, units):
    files = package(manifest(shape), **options)
    assert '.iOS("{}"), .macOS("{}")'.format(*platforms) in files["Package.swift"]
    assert re.findall(r"computeUnits = (\S+)", library(files)) == [units]


@pytest.mark.parametrize("shape", SHAPES)
def test_the_halting_rule(package, shape):
    learned = r"case \.learned: halted = (.*)"
    assert re.findall(learned, library(package(manifest(shape)))) == ["qHalt > qContinue"]
    assert re.findall(learned, library(package(manifest(shape, no_ACT_continue=True)))) == ["qHalt > 0"]
    source = library(package(manifest(shape)))
    modes = {name: int(value) for name, value in re.findall(r"case (\w+) = (\d)", source)}
    assert modes == {rule.name: rule.number for rule in RULES.values()}
    assert "maxThinkSteps: Int = 11," in source


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


def test_no_name_can_end_its_comment_or_its_string(package):
    hostile = 'x\n}; exit(1) // "\u2028\\(y)'
    tame = package(manifest("graph"))
    wild = package(renamed(replace(manifest("graph"), name=hostile), {"tokens": hostile}))
    assert {name: len(text.splitlines()) for name, text in wild.items()} == {
        name: len(text.splitlines()) for name, text in tame.items()
    }
    assert hostile in calls(library(wild))["model"]


@pytest.mark.parametrize("shape", SHAPES)
def test_it_is_part_of_a_bundle_that_opens_and_is_the_same_every_time(tmp_path, shape):
    content = manifest(shape, batch=1)

    def produce(folder: Path) -> None:
        for file in content.graphs.values():
            (folder / file).mkdir()
            (folder / file / "Manifest.json").write_text("{}")
        write_package(folder, content)

    accuracy = toys.accuracy(max_think_steps=content.architecture["halt_max_steps"])
    sealed = [toys.write_bundle(tmp_path / name, content, produce, accuracy) for name in ("one", "two")]
    assert sealed[0].files == sealed[1].files
    assert {f"swift/{name}" for name in FILES} <= set(open_bundle(tmp_path / "one").manifest.files)


def spoiled(graph: str, index: int, **changes: Any) -> Manifest:
    content = manifest("graph" if graph == "model" else graph)
    specs = list(content.inputs[graph])
    specs[index] = replace(specs[index], **changes)
    return replace(content, inputs={**content.inputs, graph: tuple(specs)})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (spoiled("model", 0, dtype="float32"), "tokens is float32"),
        (spoiled("model", 0, shape=(3, 15)), "tokens has the shape"),
        (spoiled("model", 1, shape=(2,)), "max_think_steps has the shape"),
        (spoiled("stateful", 1, dtype="int32"), "fresh is int32"),
        (spoiled("model", 0, shape=(3, "cells")), "tokens has the shape"),
        (replace(manifest("graph"), batch="dynamic"), "the batch is dynamic"),
        (replace(manifest("graph"), graphs={"model": "model.onnx"}), "not a Core ML package"),
        (replace(manifest("graph"), vocabulary=("<pad>", ".", "A", "B", "C", "D")), "vocabulary"),
        (replace(manifest("graph"), inputs={"model": manifest("graph").inputs["model"][1:]}), "has tensors"),
    ],
)
def test_what_it_does_not_count_on_is_refused(tmp_path, content, message):
    with pytest.raises(PassFailed, match=message):
        write_package(tmp_path, content)
    assert not (tmp_path / "swift").exists()


def test_scalars_are_arrays_of_one(package):
    content = spoiled("model", 1, shape=())
    assert shapes(library(package(content)))["max_think_steps"] == [1]


def test_without_jinja2_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(InputError, match=f"needs jinja2.*{re.escape(install('export'))}"):
        write_package(tmp_path, manifest("graph"))


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
