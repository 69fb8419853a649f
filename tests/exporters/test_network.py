"""Networks of others, by their contract alone: exported for every target, they answer as PyTorch does."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from foreign_networks import Attending, ConvMixer, LoopedEncoder, SingleZ, Smallest
from small_networks import by_torch
from torch import nn

from hrm_edge.bundle import open_bundle
from hrm_edge.errors import InputError
from hrm_edge.export import GateOptions, export_bundle
from hrm_edge.exporters.graph.layers import products
from hrm_edge.exporters.network import network_checkpoint
from hrm_edge.exporters.options import ExportOptions
from hrm_edge.exporters.search.decide import Quantizing
from hrm_edge.measure.reference import reference_segments
from hrm_edge.models.engine import TorchEngine
from hrm_edge.models.network import Wrapped
from hrm_edge.runtimes import load_engine
from hrm_edge.tasks import get_task

TASK = get_task("sudoku-4x4")
QUESTIONS = TASK.generate(6, np.random.default_rng(0))[0]
NETWORKS = {kind.__name__: kind for kind in (SingleZ, LoopedEncoder, ConvMixer, Attending)}
# (target, loop, rows): what each network goes through in float and in int8.
WAYS = [("onnx", "graph", None), ("onnx", "host", None), ("openvino", "graph", None), ("openvino", "host", 3),
        ("coreml", "host", 3), ("coreml", "graph", 3), ("litert", "host", 3),
        ("c", "host", None)]  # fmt: skip


@pytest.fixture(scope="module", params=NETWORKS)
def checkpoint(request):
    torch.manual_seed(0)
    small = {"width": 32, "heads": 2, "layers": 1, "L_cycles": 1} if request.param == "SingleZ" else {}
    return network_checkpoint(NETWORKS[request.param](TASK, **small), TASK)


def exported(checkpoint, folder, target, precision, loop, rows=None):
    options = ExportOptions.for_target(target, precision, loop, batch=rows)
    quick = Quantizing(calibration=8, sensitivity=0, max_drop=None)
    return export_bundle(checkpoint, options, folder, GateOptions(None), quick)


@pytest.mark.parametrize(("target", "loop", "rows"), WAYS)
def test_every_target_answers_as_pytorch(checkpoint, target, loop, rows, tmp_path):
    exported(checkpoint, tmp_path / "b", target, "fp32", loop, rows)
    engine, reference = load_engine(tmp_path / "b"), TorchEngine(checkpoint)
    assert open_bundle(tmp_path / "b").manifest.segment_flops == checkpoint.model.segment_flops > 0
    for how in ({"halt": "fixed", "max_think_steps": 3}, {"halt": "learned"}, {"halt": "verified"}):
        ours, theirs = engine.solve(QUESTIONS, **how), reference.solve(QUESTIONS, **how)
        np.testing.assert_array_equal(ours.tokens, theirs.tokens)
        np.testing.assert_array_equal(ours.steps, theirs.steps)
        np.testing.assert_array_equal(ours.halted, theirs.halted)
        np.testing.assert_allclose(ours.q, theirs.q, atol=1e-4)


def test_states_and_logits_are_pytorchs_over_six_segments(checkpoint, tmp_path):
    """To 1e-4, each from its own states: by the graphs themselves, against the module called by hand."""
    import onnxruntime

    exported(checkpoint, tmp_path / "b", "onnx", "fp32", "host")
    start, segment = (onnxruntime.InferenceSession(tmp_path / f"b/{stem}.onnx") for stem in ("start", "segment"))
    names = [item.name for item in segment.get_inputs()]
    assert names == [*checkpoint.model.state, "e"]
    began = dict(
        zip([item.name for item in start.get_outputs()], start.run(None, {"tokens": QUESTIONS}), strict=True)
    )
    state = [began[name] for name in names]
    network = checkpoint.model.network
    with torch.no_grad():
        e, *mine = network.start(torch.from_numpy(QUESTIONS).long())
        for _ in range(6):
            outputs = segment.run(None, dict(zip(names, state, strict=True)))
            state = [*outputs[: len(mine)], state[-1]]
            mine = list(network.segment(*mine, e))
            for ours, theirs in zip(outputs, mine, strict=False):
                np.testing.assert_allclose(ours.reshape(theirs.shape[0], -1)[:, : theirs[0].numel()],
                                           theirs.flatten(1).numpy(), atol=1e-4)  # fmt: skip
            mine = mine[: len(checkpoint.model.state)]


@pytest.mark.parametrize(("target", "loop", "rows"), [WAYS[1], WAYS[2], WAYS[4], WAYS[6], WAYS[7]])
def test_every_inner_layer_is_int8(checkpoint, target, loop, rows, tmp_path):
    """As the backend compiled it; heads stay in float."""
    made = exported(checkpoint, tmp_path / "b", target, "int8", loop, rows)
    _, segment = checkpoint.model.graphs
    inner = products(segment)
    assert made.products.found == made.products.expected == len(inner) > 0
    assert {layer.name for layer in made.quantization.layers} == set(checkpoint.model.quantized_layers)
    heads = {tensor.name for tensor in segment.graph.initializer if tensor.name.startswith("head.")}
    assert heads
    assert not heads & {product.weight for product in inner}
    engine = load_engine(tmp_path / "b")
    assert engine.solve(QUESTIONS, halt="fixed", max_think_steps=2).tokens.shape == QUESTIONS.shape


def test_drift_speaks_of_its_own_states(checkpoint):
    from hrm_edge.measure.drift import roll_out

    same = reference_segments(checkpoint)
    row = roll_out(same, same, QUESTIONS, 2).segments[-1]
    assert [state.name for state in row.states] == list(checkpoint.model.state)
    assert all(state.error == 0 for state in row.states)


def test_another_network_is_another_checkpoint():
    torch.manual_seed(0)
    network = Smallest()
    first = network_checkpoint(network, TASK)
    assert network_checkpoint(network, TASK).content_hash == first.content_hash
    assert network_checkpoint(network, TASK, halt_max_steps=2).content_hash != first.content_hash
    with torch.no_grad():
        network.step.weight[0, 0] += 1e-3
    assert network_checkpoint(network, TASK).content_hash != first.content_hash
    assert network.training  # it was copied


# -- the contract ------------------------------------------------------------------------------------------------


def smallest(gives=None, **attributes):
    network = Smallest()
    if gives:
        network.gives = gives
    for name, value in attributes.items():
        setattr(network, name, value)
    return network


@pytest.mark.parametrize(
    ("gives", "attributes", "halting", "steps"),
    [
        (None, {}, "none", 3),
        (lambda z, logits: (z, logits, None), {}, "none", 3),
        (lambda z, logits: (z, logits, z[:, 0, :1] * 0 + 1), {}, "halt", 1),
        (lambda z, logits: (z, logits, z[:, 0, 0] * 0 - 1), {}, "halt", 3),
        (lambda z, logits: (z, logits, z[:, 0, :2] * 0 + torch.tensor([1.0, 2.0])), {}, "halt > continue", 3),
        (
            lambda z, logits: (z, logits, z[:, 0, :2] * 0 + torch.tensor([1.0, 2.0])),
            {"no_ACT_continue": True},
            "halt > continue",
            1,
        ),
        (None, {"tolerance": 1e9}, "converged", 1),
    ],
)
def test_ways_to_halt(gives, attributes, halting, steps):
    model = Wrapped(smallest(gives, **attributes), TASK)
    assert model.config.halting == halting
    e, *state = model.start(torch.from_numpy(QUESTIONS))
    q = model.segment(*state, e)[-1]
    assert q.shape == (len(QUESTIONS), 2)
    from hrm_edge.halting import halting_head

    says = halting_head(model.config.no_ACT_continue).says_stop(q)
    assert says.all() if steps == 1 else not says.any()


def test_a_network_that_stands_still_has_converged():
    """The state halves its way to a fixed point: rows stop once a step moves it by less than the tolerance."""

    class Halving(Smallest):
        tolerance = 0.05
        halt_max_steps = 20

        def segment(self, z, e):
            z = z + (e - z) / 2
            return z, self.out(z)

    torch.manual_seed(0)
    answers = by_torch(Halving()).solve(QUESTIONS)
    # After k halvings a step is 2^-k of e, and the state 1 - 2^-k of it.
    wanted = next(k for k in range(1, 20) if 2.0**-k <= 0.05 * (1 - 2.0**-k))
    assert answers.steps.tolist() == [wanted] * len(QUESTIONS)
    assert answers.halted.all()


def test_a_question_that_only_the_start_reads():
    """A segment that has no use for e is given one all the same, as backends may drop what nothing reads."""

    class Begun(Smallest):
        def start(self, tokens):
            return self.embed(tokens), self.embed(tokens)

        def segment(self, z, e):
            z = torch.tanh(self.step(z))
            return z, self.out(z)

    checkpoint = network_checkpoint(Begun(), TASK)
    assert not checkpoint.model.reads_e
    _, segment = checkpoint.model.graphs
    assert any("e" in node.input for node in segment.graph.node)
    onnx.checker.check_model(segment)


def test_layers_that_share_a_weight_are_calibrated_together(tmp_path):
    class Tied(Smallest):
        def __init__(self):
            super().__init__()
            self.again = nn.Linear(8, 8)
            self.again.weight = self.step.weight

        def segment(self, z, e):
            z = torch.tanh(self.again(torch.tanh(self.step(z + e))))
            return z, self.out(z)

    torch.manual_seed(0)
    made = exported(network_checkpoint(Tied(), TASK), tmp_path / "b", "onnx", "int8", "host")
    assert made.products.found == 2


def test_identifiers_reach_the_network(tmp_path):
    class Kinds(Smallest):
        num_puzzle_identifiers = 4

        def __init__(self):
            super().__init__()
            self.kinds = nn.Embedding(4, 8)

        def start(self, tokens, puzzle_identifiers):
            e = self.embed(tokens) + self.kinds(puzzle_identifiers)[:, None]
            return e, torch.zeros_like(e)

    torch.manual_seed(0)
    checkpoint = network_checkpoint(Kinds(), TASK)
    exported(checkpoint, tmp_path / "b", "onnx", "fp32", "graph")
    which = np.array([0, 1, 2, 3, 1, 2], np.int32)
    ours, theirs = (
        engine.solve(QUESTIONS, puzzle_identifiers=which, halt="fixed")
        for engine in (load_engine(tmp_path / "b"), TorchEngine(checkpoint))
    )
    np.testing.assert_array_equal(ours.tokens, theirs.tokens)


@pytest.mark.parametrize(
    ("network", "said"),
    [
        (nn.Linear(2, 2), "no torch.nn.Module with the methods start and segment"),
        (smallest(lambda z, logits: (z, logits[..., :5])), r"gives logits \[2, 16, 5\].*must be \[B, 16, 6\]"),
        (smallest(lambda z, logits: (z.double(), logits)), "must be float32"),
        (smallest(lambda z, logits: (z[:, :3], logits)), r"\[2, 16, 8\] before a segment, \[2, 3, 8\] after"),
        (smallest(lambda z, logits: (logits,)), "segment gives 1 tensors"),
        (smallest(lambda z, logits: (z, logits, logits)), r"none of \[B\], \[B, 1\] and \[B, 2\]"),
        (smallest(state=("a", "b")), "names 2 tensors, and start gives 1"),
        (smallest(state=("tokens",)), "'tokens' cannot name a state tensor"),
        (smallest(halt_max_steps=0), "halt_max_steps is '0'"),
        (smallest(halt_max_steps=10**9), "from 1 to"),
        (smallest(tolerance=-1.0), "a number above 0"),
        (smallest(lambda z, logits: 1 / 0), "segment fails on 2 puzzles"),
        (smallest(lambda z, logits: (z, logits.reshape(len(z), 16, 6))), "fixes the number of rows"),
        (smallest(lambda z, logits: (z, logits if z.sum() > 0 else -logits)), "cannot be traced"),
    ],
)
def test_what_keeps_not_the_contract_is_told_in_a_line(network, said):
    with pytest.raises(InputError, match=said) as caught:
        network_checkpoint(network, TASK)
    assert "\n" not in str(caught.value)
