"""`benchmark`: every export of a checkpoint in one table; what is shared is made once, what is done is kept."""

import functools
import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from small_networks import TASK

import hrm_edge as he
from hrm_edge.benchmark import run as module
from hrm_edge.benchmark.candidates import candidates
from hrm_edge.benchmark.rows import kept_rows, read_benchmark
from hrm_edge.benchmark.run import GATE_PUZZLES
from hrm_edge.benchmark.table import benchmark_table
from hrm_edge.bundle import open_bundle
from hrm_edge.cli import main
from hrm_edge.errors import GateFailed, InputError
from hrm_edge.exporters.targets import all_targets
from hrm_edge.files import owning
from hrm_edge.precision import precision_named

torch = pytest.importorskip("torch")
pytest.importorskip("onnxruntime")
pytest.importorskip("openvino")
pytest.importorskip("matplotlib")
pytestmark = pytest.mark.usefixtures("untrained")

ASKED = {
    "target": "onnx,openvino",
    "precision": "fp32,int8-weights",
    "gate_puzzles": 8,
    "max_drop": 100.0,
    "rounds": 1,
}


@pytest.fixture
def counted(monkeypatch, one_trace):
    """How often each expensive thing is done; memory takes a process a bundle, which is not what this is about."""
    import hrm_edge.exporters.quantize.plan as plan

    counts = dict.fromkeys(("trace", "export", "calibrate", "time"), 0)

    def count(name, function):
        @functools.wraps(function)
        def counting(*arguments, **options):
            counts[name] += 1
            return function(*arguments, **options)

        return counting

    monkeypatch.setattr(module, "trace", count("trace", module.trace))
    monkeypatch.setattr(module, "export_bundle", count("export", module.export_bundle))
    monkeypatch.setattr(plan, "collect_ranges", count("calibrate", plan.collect_ranges))
    monkeypatch.setattr(module.speed, "bench", count("time", module.speed.bench))
    monkeypatch.setattr(module, "peak_memory", lambda *_, **__: (10.0, ""))
    return counts


def test_what_is_shared_is_made_once_and_what_is_done_is_kept(small, tmp_path, counted, monkeypatch, capsys):
    """Interrupted while the third of four bundles is made, it goes on with that one."""
    folder = tmp_path / "table"
    export, made = module.export_bundle, []

    def interrupted(checkpoint, options, *rest, **more):
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append(options.suffix)
        return export(checkpoint, options, *rest, **more)

    with monkeypatch.context() as patch:
        patch.setattr(module, "export_bundle", interrupted)
        with pytest.raises(KeyboardInterrupt):
            he.benchmark(small, output=folder, **ASKED)
    assert made == ["onnx-fp32-graph", "onnx-int8-weights-graph"]
    assert counted == {"trace": 1, "export": 2, "calibrate": 1, "time": 0}
    kept = read_benchmark(folder).rows
    assert [row.name for row in kept] == ["onnx fp32", "onnx int8-weights"]
    assert not any(path.name.startswith(".") for path in folder.iterdir())

    result = he.benchmark(small, output=folder, **ASKED)
    assert counted == {"trace": 2, "export": 4, "calibrate": 2, "time": 1}
    assert result.rows[0].manifest == kept[0].manifest
    assert [row.name for row in result.rows] == [
        "onnx fp32",
        "onnx int8-weights",
        "openvino fp32",
        "openvino int8-weights",
    ]
    for row in result.rows:
        bundle = open_bundle(folder / row.bundle)
        accuracy = json.loads((folder / row.bundle / "accuracy.json").read_bytes())
        assert row.state == "runs"
        assert row.size_mb == bundle.size / 1e6
        assert (row.lost, row.won, row.n) == (accuracy["lost"], accuracy["won"], accuracy["n"])
        assert row.exact == accuracy["bundle"]["exact"]
        assert row.ms_per_puzzle > 0
        assert row.speedup is None or row.speedup > 0, "None: the machine was busy"
    assert result.reference.ms_per_segment > 0

    def none(*arguments, **options):
        raise AssertionError("it was done before")

    with monkeypatch.context() as patch:
        for name in ("trace", "export_bundle"):
            patch.setattr(module, name, none)
        patch.setattr(module.speed, "bench", none)
        again = he.benchmark(small, output=folder, **ASKED)
        assert again.rows == result.rows == read_benchmark(folder).rows
    # Figures that are not the bundle's own are not believed, and a damaged bundle is none that is there.
    record = (folder / "benchmark.json").read_text()
    kept = kept_rows(folder, result.rows)
    assert len(kept) == 4
    for changes in ({"lost": 7}, {"exact": 1.0}, {"bundle": f"../{folder.name}/{result.rows[0].bundle}"}):
        assert not kept_rows(folder, [replace(result.rows[0], **changes)]), changes
    graph = folder / result.rows[0].bundle / "model.onnx"
    content = graph.read_bytes()
    graph.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert [each.name for each in kept_rows(folder, result.rows).values()] == [
        each.name for each in result.rows[1:]
    ]
    with pytest.raises(InputError, match=r"model\.onnx"):
        he.benchmark(small, output=folder, **ASKED)
    graph.write_bytes(content)
    with owning(folder / "benchmark"), pytest.raises(InputError, match="is writing there"):
        he.benchmark(small, output=folder, **ASKED)
    assert (folder / "benchmark.json").read_text() == record
    manifest = (folder / "openvino-fp32-graph" / "manifest.json").read_bytes()
    (folder / "openvino-fp32-graph" / "manifest.json").write_text("{}")
    with pytest.raises(InputError):  # what somebody changed is not replaced
        he.benchmark(small, output=folder, **ASKED)

    markdown = (folder / "benchmark.md").read_text("utf-8")
    assert markdown.count("\n| openvino int8") == 1
    assert (folder / "benchmark.png").read_bytes().startswith(b"\x89PNG")
    (folder / "openvino-fp32-graph" / "manifest.json").write_bytes(manifest)
    asked = [f"--{name.replace('_', '-')}={value}" for name, value in {**ASKED, "target": "onnx"}.items()]
    with pytest.raises(SystemExit) as stopped:
        main(["benchmark", str(small), "--json", "-o", str(folder), *asked])
    told = json.loads(capsys.readouterr().out)
    assert stopped.value.code in (None, 0)
    assert [row["target"] for row in told["rows"]] == ["onnx", "onnx"]
    assert counted["export"] == 4  # these were there
    # Nor did it forget what it was not asked for: all four are taken up again.
    assert [row.target for row in read_benchmark(folder).rows] == ["onnx", "onnx", "openvino", "openvino"]
    again = he.benchmark(small, output=folder, **ASKED)
    assert counted["export"] == 4
    assert [row.manifest for row in again.rows] == [row.manifest for row in result.rows]
    he.benchmark(small, output=folder, **{**ASKED, "target": "onnx", "gate_puzzles": 9})
    assert [row.target for row in read_benchmark(folder).rows] == ["onnx", "onnx"], "it is about other puzzles"


def test_a_plan_that_loses_too_much_is_looked_for_and_a_bundle_that_fails_is_a_row(
    small, tmp_path, counted, monkeypatch
):
    asked = []

    def failing(checkpoint, options, folder, gate, quantizing, **more):
        asked.append((options.target, quantizing.max_drop))
        error = GateFailed(f"{folder.name}: it lost 2 points")
        sides = {"reference": SimpleNamespace(exact=0.9), "bundle": SimpleNamespace(exact=0.88)}
        error.report = SimpleNamespace(n=100, lost=3, won=1, undecided="", **sides)
        raise error

    monkeypatch.setattr(module, "export_bundle", failing)
    result = he.benchmark(small, output=tmp_path / "t", **{**ASKED, "precision": "int8"})
    assert asked == [("onnx", None), ("onnx", 100.0), ("openvino", None)]
    for row in result.rows:
        assert (row.state, row.lost, row.won, row.exact, row.bundle) == ("failed", 3, 1, 0.88, None)
        assert row.ms_per_puzzle is None
    assert result.best == []
    table = benchmark_table(result)
    assert [row[1] for row in table.rows] == ["runs", "gate failed", "gate failed"]
    assert sum("it lost 2 points" in note for note in table.notes) == 2


@pytest.mark.parametrize("given", [None, 8], ids=["by default", "as many as somebody wanted"])
def test_where_chance_would_fail_a_bundle_as_many_are_asked_as_by_an_export(
    small, tmp_path, counted, monkeypatch, given
):
    """With the same plan: that chance fails it says nothing against the plan."""
    export, asked, plans = module.export_bundle, [], []

    def undecided_at_first(checkpoint, options, folder, gate, quantizing, **more):
        asked.append(len(gate.puzzles))
        plans.append(quantizing.max_drop)
        if len(asked) == 1:
            error = GateFailed("0.56 points lost, interval -0.15 to 1.28")
            error.report = SimpleNamespace(undecided="-0.15 to 1.28 points lost, 0.5 allowed,")
            raise error
        few = replace(gate, puzzles=gate.puzzles.select(np.arange(8)))
        return export(checkpoint, options, folder, few, quantizing, **more)

    monkeypatch.setattr(module, "export_bundle", undecided_at_first)
    wanted = {**ASKED, "target": "onnx", "precision": "int8", "gate_puzzles": given}
    result = he.benchmark(small, output=tmp_path / "t", **wanted)
    if given is None:  # copies up to symmetry count once
        assert asked[0] <= GATE_PUZZLES < asked[1] <= precision_named("int8").gate_puzzles
        assert plans == [None, None]
    else:
        assert (asked, plans) == ([given, given], [None, ASKED["max_drop"]])
    assert [row.state for row in result.rows] == ["runs"]


def test_what_could_not_be_made_is_tried_again_and_what_failed_its_gate_is_not(small, tmp_path, monkeypatch):
    asked, failures = (
        [],
        {"onnx": InputError("t: nothing can be written there"), "openvino": GateFailed("too much")},
    )

    def failing(checkpoint, options, *rest, **more):
        asked.append(options.target)
        raise failures[options.target]

    monkeypatch.setattr(module, "export_bundle", failing)
    monkeypatch.setattr(module, "trace", lambda *_: {})
    for _ in range(2):
        result = he.benchmark(small, output=tmp_path / "t", **{**ASKED, "precision": "fp32"})
        assert [row.state for row in result.rows] == ["absent", "failed"]
    assert asked == ["onnx", "openvino", "onnx"]


def test_advice_to_make_less_is_not_what_was_done(small, tmp_path, counted, monkeypatch):
    monkeypatch.setattr(module, "_LONG", 0)
    said = []
    asked = {"target": "onnx", "rounds": 1, "say": said.append}
    he.benchmark(small, output=tmp_path / "t", precision="fp32,fp16", **asked)
    (told,) = (line for line in said if " in all" in line)
    assert "fewer with --gate-puzzles;" in told
    assert sum(" left where each" in line for line in said) == 1  # after the first of two
    monkeypatch.setattr(module, "candidates", lambda *_: candidates(["onnx"], ["fp32"], True))
    he.benchmark(small, output=tmp_path / "u", gate_puzzles=8, rounds=1, say=said.append)
    assert any("fewer with --target, --precision (fastest: --precision fp32,int8)" in line for line in said)


@pytest.mark.parametrize("learned", [True, False])
def test_the_pace_is_of_the_segments_that_puzzles_take(small, learned):
    from hrm_edge.benchmark.pace import pace
    from hrm_edge.data.choose import gate_puzzles
    from hrm_edge.models import load_checkpoint

    checkpoint = load_checkpoint(small)
    puzzles = gate_puzzles(checkpoint, None, 8)
    solved = he.load(small).solve(puzzles.questions[:8], tokens=True, halt="learned" if learned else "fixed")
    _, segments = pace(checkpoint, puzzles, learned)
    assert segments == np.mean([each.steps for each in solved])


def test_every_target_and_precision_that_fits_is_a_candidate():
    found = candidates(None, None, gate=True)
    wanted = [(name, precision) for name, target in all_targets().items() for precision in target.precisions]
    assert [(each.target, each.precision) for each in found] == wanted
    for each in found:
        assert (each.options is None) == (each.why_not is not None)
        if each.options is not None and each.own:  # the target's defaults do not have that precision
            with pytest.raises(InputError):
                type(each.options).for_target(each.target, each.precision)
    with pytest.raises(InputError, match="--target cobol: unknown"):
        candidates(["cobol"], None, gate=True)
    with pytest.raises(InputError, match="--precision fp3: unknown"):
        candidates(None, ["fp3"], gate=True)


def test_random_weights_are_timed_and_not_gated(tmp_path, counted, monkeypatch):
    """Of a small size here; what cannot be timed on this machine would be a row without a figure."""
    from hrm_edge.analysis import bench
    from hrm_edge.models import HRMConfig

    sizes = {"hidden_size": 16, "num_heads": 2, "H_layers": 1, "L_layers": 1, "halt_max_steps": 2}
    config = HRMConfig(TASK.vocab_size, TASK.seq_len, **sizes)
    monkeypatch.setattr(bench, "random_config", lambda size: (config, TASK))
    targets = {name: all_targets()[name] for name in ("onnx", "coreml")}
    monkeypatch.setattr("hrm_edge.benchmark.candidates.all_targets", lambda: targets)
    said = []
    result = he.benchmark(
        random_weights="paper", precision="fp32", output=tmp_path / "r", rounds=1, say=said.append
    )
    assert result.puzzles is None
    assert all(row.exact is None and row.n is None for row in result.rows)
    running = [row for row in result.rows if row.state == "runs"]
    assert [row.target for row in running] == ["onnx"]
    assert running[0].ms_per_puzzle > 0
    assert not any(row.state == "built" for row in result.rows)
    assert open_bundle(tmp_path / "r" / running[0].bundle).manifest.gate.passed is None
    assert any("in all" in line and "about" in line for line in said)


@pytest.mark.parametrize(
    "arguments", [{}, {"checkpoint": "sudoku-9x9", "random_weights": "paper"}, {"random_weights": "huge"}]
)
def test_one_thing_is_benchmarked(arguments, tmp_path):
    with pytest.raises(InputError, match="--random-weights"):
        he.benchmark(**arguments, output=tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_a_folder_with_another_record_is_left_alone(small, tmp_path):
    (tmp_path / "benchmark.json").write_text('{"mine": 1}')
    with pytest.raises(InputError, match=r"benchmark\.json: "):
        he.benchmark(small, output=tmp_path, **ASKED)
    assert [file.name for file in tmp_path.iterdir()] == ["benchmark.json"]


@pytest.mark.parametrize("name", ["benchmark.md", "benchmark.png"])
def test_somebodys_files_under_the_names_of_its_pages_stay(small, tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(InputError, match=f"{name}: is there without a benchmark.json"):
        he.benchmark(small, output=tmp_path, **ASKED)
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [(name, "mine")]
