"""Requests of all kinds from eight threads: every answer is its own puzzle's. `helpers/soak.py` goes on longer."""

import pytest
import soak
import toys

NAMES = [f"{target}-{loop}" for target in ("onnx", "openvino") for loop in ("host", "graph")]


@pytest.fixture(scope="module")
def engines(tmp_path_factory):
    return soak.engines(tmp_path_factory.mktemp("soak"))


@pytest.mark.parametrize("name", NAMES)
def test_every_answer_is_its_own_puzzles(engines, name):
    if name not in engines:
        pytest.skip(f"the backend of {name} is not installed")
    found = soak.soak(engines[name], requests=400)
    assert not found.errors
    assert {"answered", "refused"} <= set(found.outcomes) <= soak.OUTCOMES
    assert found.outcomes.total() == 400


def test_an_answer_of_another_puzzle_is_seen():
    class Mixed(type(toys.host_engine())):
        def _solve(self, request):
            answers = super()._solve(request)
            answers.tokens[:] = answers.tokens[::-1]
            return answers

    mixed = Mixed(toys.TASK, toys.HALT_MAX_STEPS, toys.start, toys.segment, backend="toy")
    assert "wrong" in soak.soak(mixed, requests=80).outcomes
