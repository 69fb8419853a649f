"""A benchmark's rows: the table and the plot of them, which are best, and which a goal takes."""

import itertools
from dataclasses import replace

import pytest

import hrm_edge as he
from hrm_edge.benchmark import run as module
from hrm_edge.benchmark.goal import read_goal
from hrm_edge.benchmark.rows import Benchmark, Row
from hrm_edge.benchmark.table import benchmark_picture, benchmark_table
from hrm_edge.cli import main
from hrm_edge.errors import InputError

pytest.importorskip("torch")
pytest.importorskip("openvino")
pytest.importorskip("matplotlib")
pytestmark = pytest.mark.usefixtures("untrained")


# -- the table ---------------------------------------------------------------------------------------------


def row(target, size, ms, lost=0, state="runs", **more):
    bundle = f"{target}-int8-graph" if state in ("runs", "built") else None
    counted = {"n": 200, "lost": lost, "won": 0, "exact_reference": 0.9, "exact": 0.9 - lost / 200}
    fields = {"size_mb": size, "ms_per_puzzle": ms, "bundle": bundle, **counted, **more}
    return Row(f"key {target}", target, "int8", "graph", state, **{"note": None, **fields})


def made(*rows):
    return Benchmark("small", "0" * 64, "sudoku-4x4", "some", "a CPU", 2, 1.0, rows)


ROWS = (
    row("small", 0.4, 9.0, lost=1),
    row("fast", 0.9, 2.0),
    row("exact", 0.9, 3.0),
    row("both", 0.5, 2.5, lost=1),
    row("built", 0.1, None, state="built", note="answered by another"),
    row("large", 2.0, 12.0, lost=2),
)


def test_the_pareto_set_is_what_nothing_beats_in_all_three():
    best = {each.target for each in made(*ROWS).best}
    timed = [each for each in ROWS if each.ms_per_puzzle]
    beaten = {
        one.target
        for one, other in itertools.permutations(timed, 2)
        if other.size_mb <= one.size_mb
        and other.ms_per_puzzle <= one.ms_per_puzzle
        and other.exact >= one.exact
        and (other.size_mb, other.ms_per_puzzle, other.exact) != (one.size_mb, one.ms_per_puzzle, one.exact)
    }
    assert best == {each.target for each in timed} - beaten == {"small", "fast", "both"}


def test_columns_are_those_that_somebody_tells():
    head = benchmark_table(made(*ROWS)).head
    assert "RAM kB" not in head
    assert "M instructions/segment" not in head
    chip = replace(ROWS[0], ram_bytes=412_000, instructions=93_500_000, emulated="a Cortex-M7")
    table = benchmark_table(made(chip, *ROWS[1:]))
    cells = dict(zip(table.head, table.rows[0], strict=True))
    assert (cells["RAM kB"], cells["M instructions/segment"]) == ("412", "93.50")
    assert cells["exact"] == "90.0 % → 89.5 %"
    assert any("counted by a Cortex-M7" in note for note in table.notes)
    untrained = [replace(each, n=None, lost=None, won=None, exact=None, exact_reference=None) for each in ROWS]
    assert "exact" not in benchmark_table(replace(made(*untrained), puzzles=None)).head


def test_the_plot_draws_what_has_no_time_and_what_has_no_accuracy():
    untrained = [replace(each, n=None, lost=None, won=None, exact=None, exact_reference=None) for each in ROWS]
    for rows in (ROWS, untrained, [ROWS[4]]):
        drawn = benchmark_picture(made(*rows), "svg").decode()
        for each in rows:
            assert each.name in drawn  # a reader of a copy in black and white has no other way to tell
        assert ("not timed here" in drawn) == any(each.ms_per_puzzle is None for each in rows)


# -- a goal ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "chosen"),
    [
        ("size=1MB", "built"),
        ("size=1MB,ms=20", "small"),
        ("ms=20,size=1MB", "fast"),
        ("drop=0,size=1MB,ms=20", "fast"),
        ("drop=0.5,size=600KB,ms=3", "both"),
        ("size=0.45MB,ms=10", "small"),
        ("size=450000,ms=10", "small"),
        ("size=0.45 MB,ms=10 ms", "small"),
    ],
)
def test_a_goal_takes_the_best_in_the_order_stated(text, chosen):
    assert read_goal(text).choose(made(*ROWS)).target == chosen


def test_source_is_as_large_as_what_it_is_compiled_to():
    """Not as its text, of which a device stores nothing."""
    source = row("c", 5.8, 2.4, lost=1, flash_bytes=458_000)
    result = made(*ROWS, source)
    assert read_goal("size=500KB,ms=10,drop=0.5").choose(result).target == "small"
    assert read_goal("ms=10,size=500KB,drop=0.5").choose(result) is source
    assert "c" in {each.target for each in result.best}
    assert "both" not in {each.target for each in result.best}
    table = benchmark_table(result)
    assert dict(zip(table.head, table.rows[-1], strict=True))["size MB"] == "0.46"


def test_a_goal_that_nothing_fits_names_the_nearest():
    with pytest.raises(InputError, match=r"nothing fits; nearest is both int8 with size 0\.5 MB, ms 2\.5 ms"):
        read_goal("size=450KB,ms=2.2").choose(made(*ROWS))
    with pytest.raises(InputError, match="tells all of these"):
        read_goal("memory=10MB").choose(made(*ROWS))
    with pytest.raises(InputError, match="passed its gate"):
        read_goal("size=1MB").choose(made(replace(ROWS[0], bundle=None, state="failed")))


@pytest.mark.parametrize("text", ["size=458.123KB,ms=200,drop=0.5", "memory=1GiB,drop=0"])
def test_a_goal_is_told_in_a_form_that_can_be_given_again(text):
    told = str(read_goal(text))
    assert read_goal(told).limits == pytest.approx(read_goal(text).limits)


@pytest.mark.parametrize("text", ["", "size", "size=", "size=5 parsecs", "speed=3", "ms=-1", "ms=nan", "ms=1,ms=2"])
def test_a_goal_that_cannot_be_read_is_said_in_a_line(text):
    with pytest.raises(InputError, match="is not understood"):
        read_goal(text)


def test_export_takes_what_the_goal_chooses(monkeypatch, small, tmp_path, one_trace):
    asked = []

    def chosen(checkpoint, wanted, *rest):
        asked.append(wanted)
        return made(replace(row("openvino", 0.9, 2.0), precision="fp32")), tmp_path

    monkeypatch.setattr(module, "run_benchmark", chosen)
    output = tmp_path / "chosen"
    exported = he.export(small, goal="ms=5,drop=90", gate_puzzles=8, output=output, report=False)
    assert (exported.options.target, exported.options.precision) == ("openvino", "fp32")
    assert exported.gate.max_drop == 90
    assert (asked[0].max_drop, asked[0].only_timed, asked[0].gate_puzzles) == (90, True, 8)
    for flag, given in {
        "--target": {"target": "coreml"},
        "--loop": {"loop": "host"},
        "--no-gate": {"gate": False},
        "--smooth": {"smooth": 0.5},
        "--sensitivity": {"sensitivity": 0},
        "--calibration": {"calibration": 8},
    }.items():
        with pytest.raises(InputError, match=f"{flag}: has no meaning with --goal"):
            he.export(small, goal="ms=5", **given)


@pytest.mark.parametrize("flag", ["--target=onnx", "--precision=fp32"])
def test_a_default_that_is_asked_for_beside_a_goal_is_no_default(monkeypatch, capsys, flag):
    monkeypatch.setattr(module, "run_benchmark", lambda *_: pytest.fail("it was ignored"))
    with pytest.raises(SystemExit) as ended:
        main(["export", "sudoku-9x9", "--goal", "ms=5", flag])
    assert ended.value.code == 2
    assert f"{flag.partition('=')[0]}: has no meaning with --goal" in capsys.readouterr().err
