"""Networks of random configuration: every backend computes what PyTorch does, in a segment and in the loop."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from parity import BACKENDS, KINDS, errors, identifiers, random_fields
from run_onnx import run
from small_networks import TASK, network, think

from hrm_edge.exporters.graph.layers import products
from hrm_edge.exporters.graph.loop import wrap_in_loop
from hrm_edge.exporters.graph.trace import trace_segment, trace_start
from hrm_edge.halting import LEARNED
from hrm_edge.models import HRMConfig
from hrm_edge.models.mixers import Attention

# The traced blocks of one example; each takes about half a second.
FEW, MANY = 3, 9


def configuration(rng, most_blocks, kinds=KINDS):
    return random_fields(lambda choices: choices[rng.integers(len(choices))], most_blocks, kinds)


def check_another(*limits):
    """Another network every time: a trace takes too long for the simple ones that hypothesis begins with."""
    seed = np.random.SeedSequence().entropy % 2**32
    fields = configuration(np.random.default_rng(seed), *limits)
    print(f"seed {seed}: {fields}")
    check(fields, seed)


def check(fields, seed):
    model = network(seed, **fields)
    config = model.config
    start, segment = trace_start(model), trace_segment(model)
    of_a_block = 7 if config.mixer is Attention else 6 if config.mlp_t else 3
    assert len(products(segment)) == of_a_block * config.block_calls

    tokens = TASK.generate(5, np.random.default_rng(seed))[0]
    for backend in BACKENDS:
        # Each segment by itself: random weights can make differences grow tenfold from one to the next.
        assert max(errors(model, start, segment, backend, tokens, forced=True)) < 1e-4

    loop = wrap_in_loop(start, segment, TASK, config.no_ACT_continue)
    ids = identifiers(model, len(tokens))
    answer, steps, q = think(model, tokens, 2, ids)
    given_ = {
        "tokens": tokens,
        "max_think_steps": np.array(2, np.int32),
        "halt": np.array(LEARNED.number, np.int32),
    }
    given_ |= {} if ids is None else {"puzzle_identifiers": ids}
    sure = sure_rows(model, tokens, ids)
    for backend in BACKENDS:
        outputs = run(backend, loop, given_)
        for name, wanted in (("answer", answer), ("steps", steps)):
            np.testing.assert_array_equal(outputs[name][sure], wanted[sure])
        np.testing.assert_allclose(outputs["q"][sure], q[sure], atol=1e-2)
    assert sure.any()


def sure_rows(model, tokens, ids):
    """Rows whose two segments decide nothing by less than 0.001: neither a token nor whether to halt."""
    import torch

    with torch.inference_mode():
        e = model.embed(torch.from_numpy(tokens), None if ids is None else torch.from_numpy(ids))
        state, sure = model.initial_state(len(tokens)), np.ones(len(tokens), bool)
        for _ in range(2):
            *state, logits, q = model.segment(*state, e)
            best = logits.topk(2, dim=-1).values
            sure &= ((best[..., 0] - best[..., 1]) > 1e-3).all(-1).numpy()
            bar = 0 if model.config.no_ACT_continue else q[:, 1]
            sure &= ((q[:, 0] - bar).abs() > 1e-3).numpy()
    return sure


@pytest.mark.parametrize("which", [1, 2])
def test_random_networks_run_alike_everywhere(which):
    check_another(FEW)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_random_networks_of_each_kind_run_alike_everywhere(kind):
    check_another(MANY, [kind])


@given(st.integers(0, 2**32 - 1))
def test_every_such_configuration_builds_and_is_written_and_read_unchanged(seed):
    config = network(**configuration(np.random.default_rng(seed), MANY)).config
    assert HRMConfig.from_dict(config.to_dict()) == HRMConfig.from_dict(config.identity()) == config
