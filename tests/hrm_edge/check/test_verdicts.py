"""Each rule on answers made up so that the figures can be counted by hand, and what n can not show."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from scripted import TASK, puzzle_set, spoiled
from toys import host_engine

from hrm_edge.bundle.quantization import Products, Quantization
from hrm_edge.check.baseline import BundleEntry
from hrm_edge.check.measure import Case, Measurement, Sample, SpeedRatios
from hrm_edge.check.rules import RULES
from hrm_edge.check.spec import Check, Requirement
from hrm_edge.check.verdicts import judge
from hrm_edge.measure.artifact import Artifact
from hrm_edge.measure.statistics import drop_interval, interval
from hrm_edge.runtimes import Answers


def answers(puzzles, spoil) -> Answers:
    n = len(puzzles)
    tokens = puzzles.answers.copy()
    for row in spoil:
        tokens[row] = spoiled(tokens[row])
    return Answers(tokens, np.full(n, 4, np.int32), np.ones(n, bool), np.zeros((n, 2), np.float32))


def right(n, spoil) -> np.ndarray:
    return ~np.isin(np.arange(n), list(spoil))


def measured(
    rules, n=200, wrong=(), reference_wrong=(), baseline_wrong=(), speed=None, before=None, products=None, here=None
):
    """A bundle that is wrong about some of n puzzles, beside a checkpoint and a baseline wrong about others."""
    puzzles = puzzle_set(n, seed=11)
    check = Check(
        name="c",
        bundles={"b": Path("b")},
        data=(),
        n=None,
        checkpoint=None,
        halt="learned",
        max_think_steps=None,
        requirements=tuple(Requirement(RULES[name], limit, line=7) for name, limit in rules.items()),
        lines={},
    )
    artifact = Artifact("b", Path("b"), host_engine(), "int8", 2_500_000, "0" * 64, None, None)
    sample = Sample(
        puzzles=puzzles,
        answers=answers(puzzles, wrong),
        right=right(n, wrong),
        reference=answers(puzzles, reference_wrong),
        reference_right=right(n, reference_wrong),
    )
    old = dataclasses.replace(sample, right=right(n, baseline_wrong)).entry()
    entry = BundleEntry("b", "c", 2.0, "learned", 8, before, {"d": old})
    record = None
    if products is not None:
        record = Quantization("int8", "0" * 64, 1, 4, (), products=Products(*products))
    here = None if here is None else Products(*here)
    case = Case(check, "b", artifact, record, None, {"d": puzzles}, entry, here)
    return Measurement(case, {"d": sample}, None if speed is None else SpeedRatios(speed, ()))


def verdict(rule, limit, when_unsure="estimate", **what):
    (only,) = judge(measured({rule: limit}, **what), when_unsure)
    return only


def test_min_exact_passes_fails_and_doubts():
    clear = verdict("min_exact", 0.5, wrong=range(20))
    assert (clear.passed, clear.finding.sure, clear.finding.figure, clear.finding.n) == (True, True, 0.9, 200)
    assert clear.finding.interval == pytest.approx(interval(180, 200))
    failed = verdict("min_exact", 0.97, wrong=range(20))
    assert (failed.passed, failed.finding.sure) == (False, True)
    assert failed.reason == "min_exact = 0.97: 90.00 % solved (180 of n=200, 95 % interval 85.06 to 93.43 %)"
    assert [worst.number for worst in failed.finding.worst] == [1, 2, 3, 4, 5]
    doubtful = verdict("min_exact", 0.92, wrong=range(20))
    assert (doubtful.passed, doubtful.finding.sure) == (False, False)
    assert "n=200 can not show it" in doubtful.reason


@pytest.mark.parametrize(("when_unsure", "passes"), [("estimate", (True, False)), ("fail", (False, False))])
def test_the_spec_says_what_to_do_when_unsure(when_unsure, passes):
    for limit, expected in zip((0.89, 0.91), passes, strict=True):
        found = verdict("min_exact", limit, when_unsure, wrong=range(20))
        assert not found.finding.sure
        assert found.passed == expected
        assert f'when_unsure = "{when_unsure}"' in found.reason
        assert found.outcome == ("pass, unsure" if expected else "fail, unsure")


def test_when_unsure_pass_lets_only_doubt_pass():
    assert verdict("min_exact", 0.91, "pass", wrong=range(20)).passed
    assert not verdict("min_exact", 0.99, "pass", wrong=range(20)).passed
    assert verdict("min_exact", 0.5, "fail", wrong=range(20)).passed


def test_a_drop_is_paired():
    # 10 others lost, 10 others won: unpaired accuracy is the same, and so is the drop.
    swapped = verdict("max_drop", 1, wrong=range(10, 20), reference_wrong=range(10))
    assert (swapped.passed, swapped.finding.figure) == (True, 0)
    assert "10 lost, 10 won" in swapped.reason
    failed = verdict("max_drop", 1, wrong=range(30))
    assert (failed.passed, failed.finding.sure, failed.finding.figure) == (False, True, 15.0)
    assert failed.finding.interval == pytest.approx(drop_interval(30, 0, 200))
    assert "dropped 15.00 points, from 100.00 % of the float checkpoint to 85.00 %" in failed.reason
    assert "McNemar p = 1.9e-09" in failed.reason
    gained = verdict("max_drop", 1, reference_wrong=range(30))
    assert (gained.passed, gained.finding.sure) == (True, True)
    assert "rose 15.00 points" in gained.reason


def test_a_drop_against_the_baseline_is_paired_with_its_bits():
    found = verdict("max_drop_vs_baseline", 5, wrong=range(40), baseline_wrong=range(10), reference_wrong=range(90))
    assert (found.passed, found.finding.figure) == (False, 15.0)
    assert "of the baseline" in found.reason
    # The worst are those that were solved before, not those that never were.
    assert [worst.number for worst in found.finding.worst] == [11, 12, 13, 14, 15]
    assert verdict("max_drop_vs_baseline", 5, wrong=range(40), baseline_wrong=range(40)).passed


def test_agreement_counts_whole_answers_and_shows_the_floats():
    # Both wrong in the same way agree.
    assert verdict("min_agreement", 0.9, wrong=range(9), reference_wrong=range(9)).finding.figure == 1
    found = verdict("min_agreement", 0.99, wrong=range(30), reference_wrong=range(20))
    assert (found.passed, found.finding.figure) == (False, 0.95)
    worst = found.finding.worst[0]
    assert (worst.number, worst.cells, worst.against) == (21, 2, "the float checkpoint's answer")


def test_the_worst_come_first():
    case = measured({"min_exact": 1.0}, wrong=[3, 50])
    labels = case.samples["d"].puzzles.answers
    case.samples["d"].answers.tokens[50] = np.where(labels[50] == 2, 3, 2)  # every cell wrong
    (found,) = judge(case, "estimate")
    assert [(worst.number, worst.cells) for worst in found.finding.worst] == [(51, 16), (4, 2)]
    shown = found.finding.worst[0].to_dict()
    assert shown["wanted"] == TASK.format(labels[50])
    assert set(shown["answer"]) == {"1", "2"}


@pytest.mark.parametrize(
    ("rule", "limit", "wrong"),
    [
        ("min_exact", 0.88, 20),
        ("min_exact", 0.95, 15),
        ("max_drop", 0.5, 0),
        ("max_drop", 4, 12),
        ("min_agreement", 0.99, 0),
    ],
)
def test_the_number_of_puzzles_needed_is_about_right(rule, limit, wrong):
    """With that many at the same rates it is sure, with far fewer it is not."""
    found = verdict(rule, limit, wrong=range(wrong)).finding
    assert not found.sure
    assert found.needed > 200
    for n, sure in ((found.needed * 1.1, True), (found.needed * 0.8, False)):
        n = round(n)
        again = verdict(rule, limit, n=n, wrong=range(round(wrong * n / 200))).finding
        assert again.sure == sure


@pytest.mark.parametrize(("rule", "limit"), [("min_agreement", 1.0), ("max_drop", 0.0)])
def test_what_no_number_of_puzzles_can_show(rule, limit):
    found = verdict(rule, limit)
    assert (found.passed, found.finding.sure, found.finding.needed) == (True, False, None)
    assert "at this rate no number of puzzles would" in found.reason


def test_size_is_exact():
    assert verdict("max_size_mb", 2.5).passed
    failed = verdict("max_size_mb", 2.4)
    assert (failed.passed, failed.finding.sure, failed.data, failed.finding.figure) == (False, True, None, 2.5)


FAST = (1.4, 1.5, 1.6, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5)


def test_speed_is_a_loss_of_ratio():
    assert verdict("max_speed_loss", 0.2, speed=FAST, before=1.5).passed
    failed = verdict("max_speed_loss", 0.2, speed=FAST, before=3.0)
    assert (failed.passed, failed.finding.sure) == (False, True)
    assert failed.finding.figure == pytest.approx(0.5)
    assert "1.50 times the float checkpoint's speed, 3.00 in the baseline: lost 50.00 %" in failed.reason
    spread = (1.0, 2.0, 1.0, 2.0, 1.5, 1.5, 1.0, 2.0, 1.5)
    doubtful = verdict("max_speed_loss", 0.1, "fail", speed=spread, before=1.5)
    assert (doubtful.passed, doubtful.finding.sure, doubtful.finding.good) == (False, False, True)
    assert "the rounds disagree" in doubtful.reason


def test_speed_must_reach_a_ratio():
    assert verdict("min_speed_ratio", 1.2, speed=FAST).passed
    assert not verdict("min_speed_ratio", 2, speed=FAST).passed


@pytest.mark.parametrize(
    ("products", "passes", "words"),
    [
        ((4, 4, {}, ()), True, "4 of 4 expected"),
        (
            (4, 3, {}, ("L.mlp",)),
            False,
            "3 of 4 expected low-precision products were compiled as such at its export; not L.mlp",
        ),
        ((0, 0, {}, ()), False, "does not tell of any"),
        (None, False, "nothing is quantized in this int8 bundle"),
    ],
)
def test_quantized_needs_the_records_proof(products, passes, words):
    found = verdict("quantized", 1.0, products=products)
    assert found.passed == passes
    assert words in found.reason


@pytest.mark.parametrize(
    ("here", "passes", "words"),
    [
        ((4, 4, {}, ()), True, "4 of 4 expected low-precision products are compiled as such here"),
        (
            (4, 0, {}, ("a", "b", "c", "d")),
            False,
            "0 of 4 expected low-precision products are compiled as such here",
        ),
        ((5, 4, {}, ()), False, "4 of 5 expected"),
    ],
)
def test_quantized_is_what_is_compiled_here(here, passes, words):
    found = verdict("quantized", 1.0, products=(4, 4, {}, ()), here=here)
    assert (found.passed, found.finding.sure) == (passes, True)
    assert words in found.reason


@pytest.mark.parametrize(("when_unsure", "passes"), [("estimate", True), ("fail", False), ("pass", True)])
def test_a_backend_that_does_not_tell_leaves_doubt(when_unsure, passes):
    found = verdict("quantized", 1.0, when_unsure, products=(4, 4, {}, ()))
    assert (found.passed, found.finding.sure) == (passes, False)
    assert "its backend does not tell what it compiles here" in found.reason


def test_every_rule_is_judged_and_none_stops_the_others():
    limits = dict.fromkeys(RULES, 1.0)
    case = measured(limits, wrong=range(200), speed=FAST, before=1.5)
    verdicts = judge(case, "estimate")
    assert [found.rule.name for found in verdicts] == list(RULES)
    left = judge(case, "estimate", skip_baseline=True)
    assert {found.rule.name for found in verdicts} - {found.rule.name for found in left} == {
        "max_drop_vs_baseline",
        "max_speed_loss",
    }
