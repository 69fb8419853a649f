"""What a gate left in a bundle is a strict record that contradicts neither itself nor the manifest."""

import pytest
import toys
from bundle_refusals import refusal, resealed

from hrm_edge.bundle import open_bundle, seal_bundle


def test_accuracy_may_not_be_taken_out_of_the_list(bundle):
    (bundle / "accuracy.json").unlink()
    resealed(bundle, lambda content: content["files"].pop("accuracy.json"))
    assert "its gate ran, but accuracy.json is missing" in refusal(bundle)


def with_accuracy(path, **changes):
    """A bundle sealed with another accuracy.json; None takes a field out."""
    content = {name: value for name, value in toys.accuracy(**changes).items() if value is not None}
    seal_bundle(path, toys.manifest(), content)
    return path


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"drop_points": 37.5}, "drop_points is 37.5, which is not what was lost and won"),
        ({"drop_points": 12.5, "lost": 1}, "it passed, and its figures are beyond the limits that it names"),
        ({"halt_shift": -0.5}, "it passed, and its figures are beyond the limits that it names"),
        ({"max_think_steps": 16}, "its gate allowed 16 segments, and manifest.json allows 8"),
    ],
)
def test_a_gate_that_contradicts_itself_or_the_model(bundle, changes, said):
    assert said in refusal(with_accuracy(bundle, **changes))


def test_a_manifest_and_a_gate_that_contradict_each_other(bundle):
    line = refusal(with_accuracy(bundle, passed=False, reason="dropped 4 points"))
    assert "manifest.json says that its gate passed, and accuracy.json that it did not" in line


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"n": None}, "field 'n' is missing"),
        ({"n": 0}, "n must be a whole number"),
        ({"lost": 5, "won": 4}, "n is 8, and more puzzles than that"),
        ({"more": 1}, "unknown field 'more'"),
        ({"reference": {"engine": "toy"}}, "reference lacks"),
        ({"calls": [{"call": "one", "n": 8, "agree": 0.0, "wrong": "all"}]}, "one of its calls went wrong"),
        ({"notes": "text"}, "notes must be a list"),
    ],
)
def test_accuracy_is_a_strict_record(bundle, changes, words):
    assert words in refusal(with_accuracy(bundle, **changes))


def test_what_later_gates_tell_is_read_and_not_asked_of_older_ones(bundle):
    assert open_bundle(bundle).accuracy.reference_hash == ""
    later = {"reference_name": "m", "reference_hash": "0" * 64, "arithmetic": "ONNX Runtime 1, x86-64"}
    calls = [{"call": "fixed", "n": 8, "agree": 1.0, "wrong": None}]
    found = open_bundle(with_accuracy(bundle, **later, calls=calls)).accuracy
    assert (found.reference_name, found.arithmetic, found.calls[0].call) == ("m", "ONNX Runtime 1, x86-64", "fixed")
