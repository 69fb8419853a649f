"""The gate's report and the record that a bundle is opened with are the same fields."""

import dataclasses

import pytest

pytest.importorskip("torch")

from hrm_edge.bundle.accuracy import Accuracy, Call, Side
from hrm_edge.measure import calls, gate


@pytest.mark.parametrize(
    ("said", "read"),
    [(gate.GateReport, Accuracy), (gate.Side, Side), (calls.Asked, Call)],
    ids=lambda kind: kind.__name__,
)
def test_what_a_gate_writes_is_what_is_read(said, read):
    assert [field.name for field in dataclasses.fields(said)] == [field.name for field in dataclasses.fields(read)]
