"""Halting: one expression for numpy, torch and text, and decisions that every engine shares."""

import numpy as np
import pytest
import toys

from hrm_edge.errors import InputError
from hrm_edge.halting import HALT_MODES, RULES, HaltRule, halting_head

Q = np.array([[1, 2], [2, 1], [0, -1], [0, 0], [-1, -2]], np.float32)


@pytest.mark.parametrize(("alone", "wanted"), [(False, Q[:, 0] > Q[:, 1]), (True, Q[:, 0] > 0)])
def test_numpy_torch_and_text_say_the_same(alone, wanted):
    head = halting_head(alone)
    assert head.says_stop(Q).tolist() == wanted.tolist()
    assert (head.margin(Q) > 0).tolist() == wanted.tolist()
    assert [eval(head.text("a", "b"), {"a": a, "b": b}) for a, b in Q] == wanted.tolist()
    torch = pytest.importorskip("torch")
    assert head.says_stop(torch.from_numpy(Q)).tolist() == wanted.tolist()


def test_text_has_the_given_names():
    assert halting_head(False).text("q[0]", "q[1]") == "q[0] > q[1]"
    assert halting_head(True).text("qHalt", "qContinue") == "qHalt > 0"


def test_decisions():
    questions, answers = toys.TASK.generate(3, np.random.default_rng(0))
    guesses = np.where([[True], [False], [True]], answers, questions)
    says = np.array([True, True, False])
    stops = {name: rule.stops(toys.TASK, questions, guesses, says).tolist() for name, rule in RULES.items()}
    assert stops == {"learned": says.tolist(), "fixed": [False] * 3, "verified": [True, False, True]}
    assert list(HALT_MODES) == [name for name, rule in sorted(RULES.items(), key=lambda item: item[1].number)]


def test_a_rule_without_a_number_is_the_hosts_alone(monkeypatch):
    """A graph knows the rules it was written with: a later one must not be taken for `fixed`."""
    once = HaltRule("once", None, "after the first segment", lambda task, questions, guesses, says: says | True)
    monkeypatch.setitem(RULES, "once", once)
    answers = toys.host_engine().solve(toys.puzzles(5), halt="once")
    assert answers.steps.tolist() == [1] * 5
    assert answers.halted.all()
    with pytest.raises(InputError, match=r"halt 'once' needs a loop on the host .* --loop host"):
        toys.graph_engine().solve(toys.puzzles(5), halt="once")
