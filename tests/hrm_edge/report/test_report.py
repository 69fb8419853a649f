"""The report as data: counted by hand, the same bytes every time, refused when damaged."""

import copy
import dataclasses
import json
import math
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import sample_report
from hypothesis import given, settings
from hypothesis import strategies as st
from sample_report import PUZZLES, parts, report, segment
from scripted import spoiled

from hrm_edge.data.leaks import fingerprints
from hrm_edge.errors import InputError
from hrm_edge.measure.accuracy import Score
from hrm_edge.measure.statistics import drop_interval, interval, mcnemar
from hrm_edge.packages import install
from hrm_edge.report import FILES, build_report, read_report, render, write_report
from hrm_edge.report import plot as report_plot
from hrm_edge.report.build import SHOWN
from hrm_edge.report.format import Began, Differences, Rate
from hrm_edge.runtimes import Answers


def test_the_verdict_counts_pairs():
    gate = report().gate
    assert (gate.n, gate.lost, gate.won, gate.answers_differ, gate.passed) == (20, 3, 1, 5, True)
    assert gate.drop_points == pytest.approx(10)
    assert gate.drop_interval == drop_interval(3, 1, 20)
    assert gate.p_value == mcnemar(3, 1) == 0.625


def test_both_sides_with_intervals():
    accuracy = report().accuracy
    before, after = accuracy.reference, accuracy.candidate
    assert (before.exact, after.exact) == (0.7, 0.6)
    assert before.exact_interval == interval(14, 20)
    # Two of 16 cells are wrong in a spoiled answer; in row 15 a third one is.
    assert before.token == pytest.approx(1 - 6 * 2 / 320)
    assert after.token == pytest.approx(1 - (8 * 2 + 1) / 320)
    assert after.token_interval[0] < after.token < after.token_interval[1]
    assert (before.steps_mean, after.steps_mean) == (2.5, (8 + 6 + 36) / 20)


def test_halting():
    halting = report().halting
    assert halting.reference == (10, 0, 0, 10)
    assert halting.candidate == (8, 3, 0, 9)
    assert (halting.agree, halting.within_one) == (17 / 20, 19 / 20)


def test_puzzles_of_each_kind():
    puzzles = report().puzzles
    numbers = {kind: [entry.number for entry in group.shown] for kind, group in vars(puzzles).items()}
    assert numbers == {"lost": [1, 2, 3], "won": [15], "differ": [16]}
    lost = puzzles.lost.shown[0]
    assert lost.candidate.answer == PUZZLES.task.format(spoiled(PUZZLES.answers[0]))
    assert (lost.reference.right, lost.candidate.right) == (True, False)
    assert (lost.reference.wrong, lost.candidate.wrong) == ((), (0, 1))
    assert lost.began == Began(segment=2, cells=3, margin=0.125)
    assert puzzles.lost.shown[1].began is None
    assert puzzles.differ.shown[0].candidate.wrong == (0, 1, 5)


def test_only_so_many_puzzles_are_shown():
    same = parts()["reference"]
    wrong = Answers(np.stack([spoiled(a) for a in PUZZLES.answers]), same.steps, same.halted, same.q)
    right = Answers(PUZZLES.answers, same.steps, same.halted, same.q)
    gate = parts()["gate"] | {"lost": 20, "won": 0}
    lost = report(reference=right, candidate=wrong, gate=gate).puzzles.lost
    assert (lost.total, len(lost.shown)) == (20, SHOWN)


def test_without_labels_wrong_is_what_breaks_a_rule():
    unlabelled = dataclasses.replace(PUZZLES, answers=None)
    made = report(puzzles=unlabelled)
    assert made.accuracy.candidate.token is None
    assert made.gate.lost == 3
    assert made.puzzles.lost.shown[0].candidate.wrong != ()
    for kind in ("md", "json"):
        render(made, kind)


def test_accuracy_by_segments_from_scores_or_from_drift():
    scores = {k: Score(0.1 * k, 0.5, 20, k) for k in (1, 2, 4)}
    given_scores = report(by_segments={"reference": scores, "candidate": scores}).by_segments
    assert [row.segments for row in given_scores] == [1, 2, 4]
    assert given_scores[2].reference == Rate(0.4, interval(8, 20))
    counted = report().by_segments
    assert [(row.reference.exact, row.candidate.exact) for row in counted] == [
        (each.reference_exact, each.candidate_exact) for each in parts()["drift"]
    ]
    silent = [dataclasses.replace(segment(1), reference_exact=None, candidate_exact=None)]
    assert report(drift=silent).by_segments == ()


def test_where_differences_began():
    assert report().differences == Differences(
        followed=2, only_stops=1, segment_median=2, margin_median=0.125, margin_max=0.125
    )


def test_the_bundles_own_row_and_its_ratios():
    speed = report().speed
    assert (speed.own, speed.ratio_vs_eager, speed.ratio_vs_float) == (1, 3.0, 2.0)
    assert speed.rows[1].engine == "toy-int8"
    assert report(speed=[]).speed is None
    assert report(speed=parts()["speed"][:1]).speed.own is None


def test_calibration_puzzles_that_were_measured_on_are_told():
    calibration = dataclasses.replace(sample_report.record().calibration, fingerprints=fingerprints(PUZZLES)[:3])
    made = report(quantization=sample_report.record(calibration=calibration))
    assert made.quantization.calibration.measured == 3
    assert "MEASURED ON" in render(made, "md")
    assert "none of them measured on" in render(report(), "md")


def test_a_gate_of_other_answers_is_a_mistake():
    with pytest.raises(ValueError, match="other answers"):
        report(gate=parts()["gate"] | {"lost": 2})


def test_what_is_not_finite_is_null():
    whole = segment(1)
    z_H = dataclasses.replace(whole.states[0], error=math.inf, cosine=math.nan)
    broken = dataclasses.replace(whole, states=(z_H, *whole.states[1:]), logit_rmse=math.nan)
    made = report(drift=[broken, segment(2)])
    assert made.drift[0].state("z_H").error is None
    assert "NaN" not in render(made, "json")
    render(made, "md")


def test_a_report_of_format_1_reads_as_one_of_today(tmp_path):
    """Its drift named z_H and z_L in every field; what stands in the bundles of then is still shown."""
    made = report()
    old = json.loads(render(made, "json"))
    old["format_version"] = 1
    for row in old["drift"]:
        for state in row.pop("states"):
            row |= {f"{state['name']}_{field}": state[field] for field in ("cosine", "cosine_low", "error")}
    (tmp_path / "report.json").write_text(json.dumps(old))
    assert read_report(tmp_path / "report.json") == made
    old["drift"][0].pop("z_L_error")
    (tmp_path / "report.json").write_text(json.dumps(old))
    with pytest.raises(InputError, match=r"format_version|drift"):
        read_report(tmp_path / "report.json")


def test_written_and_read_back(tmp_path):
    made = report()
    write_report(made, tmp_path / "new")
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == sorted(FILES.values())
    assert read_report(tmp_path / "new" / "report.json") == made
    for kind, name in FILES.items():
        # From what was read back, whose fields stand in another order.
        assert (tmp_path / "new" / name).read_text() == render(read_report(tmp_path / "new" / "report.json"), kind)


@pytest.mark.slow
def test_the_same_bytes_in_another_process(tmp_path):
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from pathlib import Path; from sample_report import report; "
        "from hrm_edge.report import write_report; write_report(report(), Path(sys.argv[2]))"
    )
    helpers = os.path.dirname(sample_report.__file__)
    environment = {**os.environ, "PYTHONHASHSEED": "7", "MPLCONFIGDIR": str(tmp_path)}
    (tmp_path / "matplotlibrc").write_text("xtick.labelsize: 20\naxes.titlesize: 30\n")
    subprocess.run([sys.executable, "-c", code, helpers, tmp_path / "a"], check=True, env=environment, cwd=tmp_path)
    for kind, name in FILES.items():
        assert (tmp_path / "a" / name).read_text() == render(report(), kind), name


def test_nothing_is_written_without_the_packages_that_draw(tmp_path, monkeypatch):
    for package in ("jinja2", "matplotlib"):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, package, None)
            with pytest.raises(InputError, match=f"needs {package}.*{re.escape(install('report'))}"):
                write_report(report(), tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_another_kind_is_refused():
    with pytest.raises(InputError, match="html, md or json, not 'pdf'"):
        render(report(), "pdf")


# -- damaged ---------------------------------------------------------------------------------------------


WHOLE = report()
CONTENT = json.loads(render(WHOLE, "json"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r.pop("gate"), "field 'gate' is missing"),
        (lambda r: r.update(colour=1), "unknown field 'colour'"),
        (lambda r: r.update(format_version=9), "format version 9, and this hrm-edge reads up to 2; upgrade"),
        (lambda r: r["gate"].update(p_value=1.5), "gate.p_value must be a number between 0 and 1"),
        (lambda r: r["gate"].update(lost=True), "gate.lost must be a whole number"),
        (lambda r: r["gate"].update(reason="a\nb"), "gate.reason must be a line of text"),
        (lambda r: r["bundle"].update(task="chess"), "bundle.task is unknown"),
        (lambda r: r["drift"][1].update(cells_differ=None), r"drift\[1\].cells_differ must be"),
        (
            lambda r: r["puzzles"]["lost"]["shown"][0].update(question="12"),
            r"puzzles.lost.shown\[0\] must hold boards",
        ),
        (lambda r: r["puzzles"]["won"]["shown"][0]["reference"].update(wrong=[16]), "a wrong cell beyond the 16"),
        (lambda r: r["speed"].update(own=3), "speed.own must be one of the rows"),
        (lambda r: r["halting"]["candidate"].append(1), "halting must count both sides"),
    ],
)
def test_one_line_says_where(tmp_path, change, message):
    made = copy.deepcopy(CONTENT)
    change(made)
    file = tmp_path / "report.json"
    file.write_text(json.dumps(made))
    with pytest.raises(InputError, match=message) as error:
        read_report(file)
    assert str(error.value).startswith(str(file))
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"NaN", b'{"a": 1e999}', b"[" * 99_999]
)
def test_files_that_are_no_report(tmp_path, content):
    file = tmp_path / "report.json"
    file.write_bytes(content)
    with pytest.raises(InputError, match="export the bundle again"):
        read_report(file)


def test_no_file_at_all(tmp_path):
    with pytest.raises(InputError, match="No such file"):
        read_report(tmp_path / "report.json")


junk = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**20), 10**20),
    st.floats(),
    st.text(max_size=20),
    st.lists(st.integers(), max_size=3),
    st.just({}),
)


def places(value, path=()):
    """Every place in a JSON value."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from places(item, (*path, key))


PLACES = list(places(CONTENT))[1:]


@settings(max_examples=150)
@given(st.sampled_from(PLACES), junk, st.booleans())
def test_any_damage_is_one_line_or_harmless(tmp_path_factory, place, value, drop):
    """Whatever is read back after all must also be drawn."""
    damaged = copy.deepcopy(CONTENT)
    *above, last = place
    inside = damaged
    for key in above:
        inside = inside[key]
    if drop:
        del inside[last]
    else:
        inside[last] = value
    file = tmp_path_factory.getbasetemp() / "fuzzed.json"
    file.write_text(json.dumps(damaged))
    try:
        read = read_report(file)
    except InputError as error:
        assert len(str(error).splitlines()) == 1
        return
    render(read, "md")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report_plot, "svg", lambda draw, label, height=0: "<svg></svg>")
        render(read, "html")


DRAWN = [place for place in PLACES if place[0] in ("drift", "quantization", "halting", "by_segments")]


@pytest.mark.slow
@settings(max_examples=25)  # a page is drawn for each
@given(st.sampled_from(DRAWN), st.one_of(st.none(), st.integers(0, 10**15), st.floats(0, 1e15)))
def test_any_number_that_is_read_is_drawn(tmp_path_factory, place, value):
    damaged = copy.deepcopy(CONTENT)
    *above, last = place
    inside = damaged
    for key in above:
        inside = inside[key]
    inside[last] = value
    file = tmp_path_factory.getbasetemp() / "number.json"
    file.write_text(json.dumps(damaged))
    try:
        render(read_report(file), "html")
    except InputError as error:
        assert len(str(error).splitlines()) == 1


def test_flipped_bytes(tmp_path):
    """A report is small enough to try one flip in every few bytes."""
    text = render(WHOLE, "json").encode()
    file = tmp_path / "report.json"
    rng = np.random.default_rng(0)
    for position in rng.choice(len(text), 150, replace=False):
        flipped = bytearray(text)
        flipped[position] ^= 1 << int(rng.integers(8))
        file.write_bytes(flipped)
        try:
            render(read_report(file), "md")
        except InputError as error:
            assert len(str(error).splitlines()) == 1


def test_build_takes_its_parts_by_name():
    assert build_report(**parts()) == WHOLE
