"""The Swift package of a Core ML bundle: the manifest's calls, it parses, and it says nobody compiled it."""

from __future__ import annotations

import ast
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import toys
from swift_packages import FILES, SHAPES, STRING, TASKS, library, manifest, renamed, swift_parser, unquoted

from hrm_edge.bundle import Manifest, open_bundle
from hrm_edge.errors import InputError
from hrm_edge.exporters.graph.edit import PassFailed
from hrm_edge.exporters.targets.coreml.swift import write_package
from hrm_edge.halting import RULES
from hrm_edge.packages import install


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


def test_identifiers_of_the_training_data_become_rows_of_a_table_that_kept_some(package):
    several = manifest("host", identifiers=6)
    assert "identifiers: [ClosedRange<Int32>] = [0...5]" in library(package(several))
    cut = replace(several, source={**several.source, "puzzle_identifiers": "0,3,17-19,38"})
    source = library(package(cut))
    assert "identifiers: [ClosedRange<Int32>] = [0...0, 3...3, 17...19, 38...38]" in source
    assert ".map(Self.row(of:))" in source


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
