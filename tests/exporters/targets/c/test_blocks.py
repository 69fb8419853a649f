"""Runs that come more than once become functions: whatever the program, the calls compute what it did."""

from __future__ import annotations

import random

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from hrm_edge.exporters.targets.c.blocks import Call, Item, fold_repeats
from hrm_edge.exporters.targets.c.ir import Buffer, Loop, Op, Step, whole


def operation(function: str, inputs: list[Buffer], output: Buffer) -> Op:
    steps = (Step(function, tuple(range(len(inputs)))),)
    return Loop([whole(each, (2,)) for each in inputs], whole(output, (2,)), steps=steps)


def program(rng: random.Random) -> list[Op]:
    """A few kinds of runs over and over, which read states, constants and what was made before."""
    outside = [Buffer(2, field="s"), Buffer(2, field="t"), *(Buffer(2, data=np.zeros(2)) for _ in range(2))]
    kinds = [[(f"f{rng.randrange(3)}", rng.randrange(1, 3)) for _ in range(rng.randrange(4, 9))] for _ in range(2)]
    ops: list[Op] = []
    for _ in range(rng.randrange(3, 8)):
        own: list[Buffer] = []
        for function, count in rng.choice(kinds):
            made = Buffer(2)
            read = [rng.choice(own[-2:] if own and rng.random() < 0.7 else outside) for _ in range(count)]
            ops.append(operation(function, read, made))
            own.append(made)
        outside.append(own[-1])
    return ops


def computed(items: list[Item], values: dict[Buffer, object]) -> dict[Buffer, object]:
    """What is in each buffer afterwards: what was done to what. A function's own buffers are new at every call."""
    for item in items:
        if isinstance(item, Call):
            stands = dict(zip(item.function.buffers, item.buffers, strict=True))
            stands |= dict(zip(item.function.constants, item.constants, strict=True))
            own = {theirs: values.get(mine, mine) for theirs, mine in stands.items()}
            computed(list(item.function.ops), own)
            values.update((mine, own[theirs]) for theirs, mine in stands.items() if theirs in item.function.written)
        else:
            read = (values.get(view.buffer, view.buffer) for view in item.inputs)
            values[item.output.buffer] = (item.steps[0].function, *read)
    return values


@given(seed=st.integers(0, 2**30))
@settings(max_examples=150, deadline=None)
def test_calls_compute_what_the_operations_did(seed):
    ops = program(random.Random(seed))
    last = ops[-1].output.buffer
    items, _ = fold_repeats(ops, {last})
    assert computed(items, {})[last] == computed(list(ops), {})[last]


def test_a_buffer_that_is_read_in_two_places_is_no_two_buffers():
    """`f(s, s)` and `f(s, t)` differ in one parameter, which cannot be both."""
    s, t = Buffer(2, field="s"), Buffer(2, field="t")
    ops = []
    for pair in ([s, s], [s, t]):
        made = Buffer(2)
        ops.append(operation("add", pair, made))
        for k in range(10):
            ops.append(operation(f"f{k}", [made], made := Buffer(2)))
    last = ops[-1].output.buffer
    items, functions = fold_repeats(ops, {last, ops[10].output.buffer})
    assert [type(item) for item in items] == [Loop, Call, Loop, Call]
    assert all(len(set(f.buffers)) == len(f.buffers) for f in functions)
    assert computed(items, {})[last] == computed(list(ops), {})[last]
