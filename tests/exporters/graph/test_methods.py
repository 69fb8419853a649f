"""Methods that a network calls over and over: traced once, computed at every call."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from hrm_edge.errors import InputError
from hrm_edge.exporters.network import traced
from hrm_edge.models.network import Wrapped
from hrm_edge.tasks import get_task

TASK = get_task("sudoku-4x4")


class Pondering(nn.Module):
    """Two methods, one of which gives several tensors, and a layer that both use."""

    repeated = ("cycle", "both")

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(TASK.vocab_size, 8)
        self.mix, self.head = nn.Linear(8, 8), nn.Linear(8, TASK.vocab_size)

    def start(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        e = self.embed(tokens)
        return e, torch.zeros_like(e)

    def cycle(self, h: Tensor, x: Tensor) -> Tensor:
        return torch.tanh(self.mix(h + x)) + h.mean(1, keepdim=True)

    def both(self, h: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.cycle(x, h), h.sum((1, 2))[:, None]

    def segment(self, z: Tensor, e: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        for _ in range(3):
            z = self.cycle(z, e)
        for _ in range(2):
            z, q = self.both(z, e)
        return z, self.head(z), q


def test_a_graph_computes_what_the_network_does_and_what_a_whole_trace_does():
    tokens = np.random.default_rng(0).integers(0, TASK.vocab_size, (5, TASK.seq_len), dtype=np.int32)
    model, whole = Wrapped(Pondering(), TASK), Wrapped(Pondering(), TASK)
    whole.get_submodule("network").repeated = ()
    graphs = [traced(each)[1] for each in (model, whole)]
    with torch.no_grad():
        e, z = model.start(torch.from_numpy(tokens))
        wanted = model.segment(z, e)
    for graph in graphs:
        found = onnxruntime.InferenceSession(graph.SerializeToString()).run(None, {"z": z.numpy(), "e": e.numpy()})
        for mine, theirs in zip(wanted, found, strict=True):
            np.testing.assert_allclose(theirs, mine.numpy(), rtol=1e-5, atol=1e-4)
    products = [sorted(node.name for node in graph.graph.node if "mix" in node.name) for graph in graphs]
    assert products == [[f"network.mix/{k}" for k in range(5)]] * 2, "the layer has its name and its calls"
    stored = [{tensor.name for tensor in graph.graph.initializer if "weight" in tensor.name} for graph in graphs]
    assert stored[0] == stored[1], "each weight is stored once"


def test_a_network_is_as_it_was_after_it_was_traced():
    model, own = Wrapped(Pondering(), TASK), Wrapped(Pondering(), TASK)
    inside = own.get_submodule("network")
    inside.cycle = lambda h, x: torch.tanh(inside.mix(h + x)) * 2
    before = inside.cycle
    for each in (model, own):
        traced(each)
    assert not {"cycle", "both"} & set(vars(model.get_submodule("network")))
    assert inside.cycle is before


class WithANumber(Pondering):
    def cycle(self, h: Tensor, x: Tensor, k: int = 0) -> Tensor:
        return super().cycle(h, x) + k

    def segment(self, z: Tensor, e: Tensor) -> tuple[Tensor, Tensor]:
        z = self.cycle(z, e, 1)
        return z, self.head(z)


class OfTwoShapes(Pondering):
    def segment(self, z: Tensor, e: Tensor) -> tuple[Tensor, Tensor]:
        z = self.cycle(z, e)
        short = self.cycle(z[:, :3], e[:, :3])
        return z + short.mean(1, keepdim=True), self.head(z)


class InPlace(Pondering):
    def cycle(self, h: Tensor, x: Tensor) -> Tensor:
        return torch.tanh(self.mix(h.add_(x)))


class OfThreeRows(Pondering):
    def cycle(self, h: Tensor, x: Tensor) -> Tensor:
        return super().cycle(h, x) + h.mean(0, keepdim=True) * len(h)


class Remembers(Pondering):
    last: Tensor | None = None

    def cycle(self, h: Tensor, x: Tensor) -> Tensor:
        h = h if self.last is None else h + self.last.mean()
        self.last = super().cycle(h, x)
        return self.last


class Counts(Pondering):
    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def segment(self, z: Tensor, e: Tensor) -> tuple[Tensor, Tensor]:
        for _ in range(2):
            z = self.cycle(z, e * self.calls)
            self.calls += 1
        return z, self.head(z)


@pytest.mark.parametrize(
    ("network", "told"),
    [
        (Remembers, "last changes between calls of cycle"),
        (Counts, "calls changes between calls of cycle"),
        (InPlace, "changes in place what it is given"),
        (OfThreeRows, "cycle fixes the number of rows"),
        (WithANumber, "cycle is one of its repeated methods, which take and give tensors alone, the batch first"),
        (OfTwoShapes, "cycle is not called with the same shapes each time"),
    ],
)
def test_what_cannot_be_traced_once_is_told_in_a_line(network, told):
    model = Wrapped(network(), TASK)
    with pytest.raises(InputError, match=told):
        traced(model)
    assert "cycle" not in vars(model.get_submodule("network")), "and the network is as it was"
