"""Which TensorRT engine runs: the bundle's, a kept one, or one built now; and what is said about it."""

import hashlib
import json
import re
from dataclasses import replace

import numpy as np
import pytest
import toys

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

import simulated_trt
from trt_bundles import write_trt_bundle

from hrm_edge import progress
from hrm_edge.bundle import open_bundle
from hrm_edge.errors import InputError
from hrm_edge.runtimes import load_engine
from hrm_edge.runtimes.tensorrt import engines as trt_engines
from hrm_edge.runtimes.tensorrt.build import build
from hrm_edge.runtimes.tensorrt.device import TRUST
from hrm_edge.runtimes.tensorrt.engines import INDEX, EngineFile, EngineIndex
from hrm_edge.runtimes.tensorrt.flavours import flavour

PUZZLES = toys.puzzles(6, seed=1)
RTX, FULL = "tensorrt-rtx 1.7.1.116", "tensorrt 10.9.0.34"
ENTRY = EngineFile("model", "m.engine", "tensorrt-rtx", "1.7.1", (86, 89), (1, 8, 8), "0" * 64, 100, 1.5)


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("HRM_EDGE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "tensorrt"


@pytest.fixture
def make(monkeypatch):
    return lambda *versions, **facts: simulated_trt.machine(monkeypatch, *versions, **facts)


def with_engines(capabilities=(86, 89), rows=(1, 8, 8), **build_options):
    """Puts engines of the flavour that is installed into a bundle, as the exporter does."""

    def add(folder, graphs):
        chosen, entries = flavour(), []
        for graph, file in graphs.items():
            built = build(
                chosen, (folder / file).read_bytes(), compute_capabilities=capabilities, rows=rows, **build_options
            )
            name = f"{graph}.engine"
            (folder / name).write_bytes(built.plan)
            digest = hashlib.sha256(built.plan).hexdigest()
            entries.append(
                EngineFile(
                    graph, name, chosen.name, chosen.version, capabilities, rows, digest, built.weights_bytes, 0.1
                )
            )
        EngineIndex(tuple(entries), {"model": {}}, "unverified").write(folder / INDEX)

    return add


def solves(path):
    answers = load_engine(path).solve(PUZZLES)
    assert np.array_equal(answers.tokens, toys.host_engine().solve(PUZZLES).tokens)


def test_the_bundles_own_engine_is_used_and_nothing_is_said(make, tmp_path, capsys, cache):
    make(RTX)
    path = write_trt_bundle(tmp_path / "b", engines=with_engines())
    machine = make(RTX)
    solves(path)
    assert machine.only.built == []
    assert capsys.readouterr().err == ""
    assert not list(cache.glob("*.engine"))


def test_long_builds_say_how_far_they_are(make, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(progress, "_SECONDS_BETWEEN_LINES", 0)
    make(RTX)
    solves(write_trt_bundle(tmp_path / "b", "graph"))
    lines = capsys.readouterr().err.splitlines()
    assert lines[1:] == [f"hrm-edge: model for compute capability 8.9: {done} %" for done in (50, 99, 100)]


def test_without_one_it_is_built_once_and_said(make, tmp_path, capsys, cache):
    machine = make(RTX)
    path = write_trt_bundle(tmp_path / "b", "graph")
    solves(path)
    assert capsys.readouterr().err == (
        f"hrm-edge: {path}: it brings no engine: building an engine of 'model' for Simulated GPU (once)\n"
    )
    assert [built["capabilities"] for built in machine.only.built] == [[89]]
    again = make(RTX)
    solves(path)
    assert again.only.built == []
    assert capsys.readouterr().err == ""
    (kept,) = cache.glob("*.engine")
    assert re.fullmatch(r"[0-9a-f]{40}\.tensorrt-rtx-1\.7\.1\.116\.sm89\.1-8-8\.engine", kept.name)


@pytest.mark.parametrize(
    ("versions", "facts", "said"),
    [
        (["tensorrt-rtx 1.8.0.1"], {}, "start.engine is for tensorrt-rtx 1.7.1.116, and this is 1.8.0.1: building"),
        ([RTX], {"compute_capability": 120}, "is for compute capability 8.6, 8.9, and this GPU has 12.0: building"),
        ([FULL], {}, "its engine is for tensorrt-rtx, and this is tensorrt: building"),
    ],
)
def test_an_engine_that_does_not_fit_is_replaced_with_the_reason(make, tmp_path, capsys, versions, facts, said):
    make(RTX)
    path = write_trt_bundle(tmp_path / "b", engines=with_engines())
    machine = make(*versions, **facts)
    solves(path)
    assert said in capsys.readouterr().err
    assert len(machine.only.built) == 2


def test_with_both_flavours_the_one_that_the_bundle_has_engines_for_runs(make, tmp_path):
    make(FULL)
    path = write_trt_bundle(tmp_path / "b", engines=with_engines(capabilities=(89,)))
    machine = make(RTX, FULL)
    solves(path)
    assert [one.loaded for one in machine.flavours.values()] == [0, 2]


def test_a_version_compatible_engine_runs_in_a_later_version_but_in_no_earlier(make, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv(TRUST, "1")
    make(FULL)
    path = write_trt_bundle(tmp_path / "b", engines=with_engines(capabilities=(89,)))
    later = make("tensorrt 11.0.0.114")
    solves(path)
    assert later.only.built == []
    earlier = make("tensorrt 10.3.0.26")
    solves(path)
    assert len(earlier.only.built) == 2
    assert "is for tensorrt 10.9.0.34, and this is 10.3.0.26" in capsys.readouterr().err


def test_the_code_that_such_an_engine_brings_is_not_run_unless_asked_for(make, tmp_path, capsys):
    make(FULL)
    path = write_trt_bundle(tmp_path / "b", engines=with_engines(capabilities=(89,)))
    later = make("tensorrt 11.0.0.114")
    solves(path)
    assert len(later.only.built) == 2
    assert "start.engine is refused" in capsys.readouterr().err


def test_one_that_only_said_so_is_refused_and_replaced(make, tmp_path, capsys):
    make(FULL)
    path = write_trt_bundle(tmp_path / "b", engines=with_engines(capabilities=(89,), version_compatible=False))
    machine = make("tensorrt 11.0.0.114")
    solves(path)
    assert len(machine.only.built) == 2
    assert (
        "start.engine is refused (Error Code 6: The engine plan file is not compatible" in capsys.readouterr().err
    )


@pytest.mark.parametrize("damage", ["truncated", "flipped", "foreign", "empty"])
def test_a_damaged_kept_engine_is_built_again_and_never_parsed(make, tmp_path, cache, capsys, damage):
    make(RTX)
    path = write_trt_bundle(tmp_path / "b", "graph")
    solves(path)
    (kept,) = cache.glob("*.engine")
    content = kept.read_bytes()
    flipped = content[:-9] + bytes([content[-9] ^ 1]) + content[-8:]
    kept.write_bytes({"truncated": content[:-100], "flipped": flipped, "foreign": b"x" * 500, "empty": b""}[damage])
    machine = make(RTX)
    solves(path)
    assert len(machine.only.built) == 1
    assert kept.read_bytes() == content
    assert "refused" not in capsys.readouterr().err  # TensorRT was not even asked


def test_a_kept_engine_that_tensorrt_refuses_is_built_again(make, tmp_path, cache, capsys):
    make(RTX)
    path = write_trt_bundle(tmp_path / "b", "graph")
    solves(path)
    (kept,) = cache.glob("*.engine")
    plan = b"whole, but no engine"
    kept.write_bytes(hashlib.sha256(plan).digest() + plan)
    machine = make(RTX)
    solves(path)
    assert len(machine.only.built) == 1
    assert "the engine kept from before is refused (it is damaged, or no engine" in capsys.readouterr().err


def test_an_engine_that_is_refused_right_after_it_was_built(make, tmp_path):
    make(FULL).only.refuses = True
    path = write_trt_bundle(tmp_path / "b", "graph")
    with pytest.raises(
        InputError, match=r"does not load the engine it has just built .* \(Error Code 4: Serial"
    ) as e:
        load_engine(path)
    assert "\n" not in str(e.value)


def test_a_damaged_file_in_the_bundle_is_refused_not_rebuilt(make, tmp_path):
    make(RTX)
    path = write_trt_bundle(tmp_path / "b", "graph", engines=with_engines())
    file = path / "model.engine"
    file.write_bytes(file.read_bytes()[:-5])
    with pytest.raises(InputError, match=r"model\.engine: has \d+ bytes instead of"):
        load_engine(path)


def test_a_cache_that_can_not_be_written_is_done_without(make, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HRM_EDGE_CACHE", str(tmp_path / "file"))
    make(RTX)
    solves(write_trt_bundle(tmp_path / "b", "graph"))
    assert "the engine is not kept" in capsys.readouterr().err


def test_rows_are_those_of_the_bundles_engines(make, tmp_path):
    make(RTX)
    path = write_trt_bundle(tmp_path / "b", engines=with_engines(rows=(2, 4, 5)))
    machine = make("tensorrt-rtx 1.8.0.1")
    engine = load_engine(path)
    assert [built["profile"] and next(iter(built["profile"].values()))[0][0] for built in machine.only.built] == [
        2,
        2,
    ]
    assert engine.batch == 5  # fewer than the usual 8
    solves(path)


def test_a_graph_loop_keeps_within_the_engines_rows(make, tmp_path):
    machine = make(RTX)
    path = write_trt_bundle(tmp_path / "b", "graph", engines=with_engines(rows=(3, 4, 4)))
    for count in (1, 2, 3, 5, 6):
        answers = load_engine(path).solve(PUZZLES[:count])
        assert np.array_equal(answers.tokens, toys.host_engine().solve(PUZZLES[:count]).tokens)
    machine.check()


def test_tensorrt_gets_its_timings_back(make, tmp_path, cache):
    machine = make(FULL)
    solves(write_trt_bundle(tmp_path / "b"))
    assert [built["timing_cache"] for built in machine.only.built] == [b"", b"timings"]
    assert [built["version_compatible"] for built in machine.only.built] == [False, False]
    (kept,) = cache.glob("*.timings")
    assert kept.name == "tensorrt-10.9.0.34-sm89.timings"


# -- tensorrt.json ---------------------------------------------------------------------------------------


def test_an_index_reads_back_as_it_was_written(tmp_path):
    index = EngineIndex((ENTRY, replace(ENTRY, rows=None, weights_bytes=None)), {"a": [1]}, "some text")
    index.write(tmp_path / INDEX)
    assert EngineIndex.read(tmp_path / INDEX) == index


def _bad_indexes():
    good = json.loads(json.dumps({"engines": [trt_engines.asdict(ENTRY)], "audit": {}, "numerics": ""}))
    for name in good:
        yield {key: value for key, value in good.items() if key != name}, f"field '{name}' is missing"
        yield {**good, name: 1}, f"{name} must be "
    for name, value in good["engines"][0].items():
        rest = {key: item for key, item in good["engines"][0].items() if key != name}
        yield {**good, "engines": [rest]}, f"engines[0] lacks '{name}'"
        wrong, place = ([True], f"{name}[0]") if isinstance(value, list) else (True, name)
        yield {**good, "engines": [{**rest, name: wrong}]}, f"engines[0].{place} must be "
    yield {**good, "engines": [{**good["engines"][0], "refit": 1}]}, "engines[0] has the unknown field 'refit'"
    yield {**good, "more": 1}, "unknown field 'more'"
    yield {**good, "engines": ["text"]}, "engines[0] must be an object, not 'text'"
    yield [1], "the whole must be an object, not [1]"


@pytest.mark.parametrize(("content", "words"), _bad_indexes())
def test_an_index_with_a_wrong_field_names_file_and_field(tmp_path, content, words):
    (tmp_path / INDEX).write_text(json.dumps(content))
    with pytest.raises(InputError, match=rf"tensorrt\.json: {re.escape(words)}.*; export the bundle again"):
        EngineIndex.read(tmp_path / INDEX)


def test_an_index_that_is_no_json(tmp_path):
    (tmp_path / INDEX).write_text("{")
    with pytest.raises(InputError, match=r"tensorrt\.json: is not valid JSON"):
        EngineIndex.read(tmp_path / INDEX)


@pytest.mark.parametrize("change", [{"file": "other"}, {"sha256": "1" * 64}, {"graph": "other"}])
def test_an_index_of_other_files_is_refused(make, tmp_path, change):
    make(RTX)
    add = with_engines()

    def engines(folder, graphs):
        add(folder, graphs)
        index = EngineIndex.read(folder / INDEX)
        replace(index, engines=(replace(index.engines[0], **change),)).write(folder / INDEX)

    path = write_trt_bundle(tmp_path / "b", "graph", engines=engines)
    with pytest.raises(InputError, match="which is not what the bundle holds"):
        trt_engines.read_index(open_bundle(path))
