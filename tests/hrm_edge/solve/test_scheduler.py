"""The scheduler on a toy network: every answer is its own puzzle's, whoever asks, cancels or is late."""

import asyncio
import itertools
import threading

import numpy as np
import pytest
import scripted
import toys
from hypothesis import given, settings
from hypothesis import strategies as st

from hrm_edge.errors import InputError
from hrm_edge.runtimes import HALT_MODES, GraphLoop, HostLoop, SlotLoop
from hrm_edge.solve.retries import solve_with_retries
from hrm_edge.solve.scheduler import DeadlinePassed, Outcome, Scheduler

PUZZLES = toys.puzzles(30)


def segment(z_H, z_L, e):
    """The toy's, which here fills nothing where the first cell is given: another guise of a board may be solved."""
    known, z_L, logits, q = toys.segment(z_H, z_L, e)
    idle = (e[:, :1] != 0).any(axis=-1, keepdims=True)
    logits = np.where(idle, np.concatenate([logits[..., :2] * 0 - 1, z_H], axis=-1), logits).astype(np.float32)
    return [np.where(idle, z_H, known), z_L, logits, q]


def host_engine(batch: int | None = None) -> HostLoop:
    return HostLoop(toys.TASK, toys.HALT_MAX_STEPS, toys.start, segment, backend="toy", batch=batch)


def graph_engine(batch: int | None = None) -> GraphLoop:
    def model(tokens, limit, halt):
        answers = host_engine().solve(tokens, int(limit), HALT_MODES[int(halt)])
        return [answers.tokens, answers.steps, answers.q]

    return GraphLoop(toys.TASK, toys.HALT_MAX_STEPS, model, backend="toy", batch=batch)


class Slots:
    """A device's slots, on the host: what is in a slot that nobody took is another's."""

    def __init__(self, rows: int):
        self.held = [np.zeros((rows, 16, 4), np.float32) for _ in range(3)]

    def put(self, slots, tokens, puzzle_identifiers):
        for held, fresh in zip(self.held, toys.start(tokens), strict=True):
            held[slots] = fresh

    def think(self):
        e, *state = self.held
        *state, logits, q = segment(*state, e)
        self.held = [e, *state]
        return logits, q


def slot_engine(batch: int = 3) -> SlotLoop:
    return SlotLoop(toys.TASK, toys.HALT_MAX_STEPS, lambda: Slots(batch), backend="toy", batch=batch)


ENGINES = {
    "host": host_engine,
    "host of three": lambda: host_engine(batch=3),
    "graph": graph_engine,
    "graph of three": lambda: graph_engine(batch=3),
    "slots": slot_engine,
}


def alone(engine, row: int, retries: int = 0, seed: int = 0, **options):
    found = solve_with_retries(engine, PUZZLES[row : row + 1], retries, seed=seed, **options)
    answers = found.answers
    fields = (
        answers.tokens,
        answers.steps,
        answers.halted,
        answers.q,
        found.verified,
        found.variant,
        found.segments,
    )
    return [field[0].tolist() for field in fields]


def as_told(outcome: Outcome):
    fields = (outcome.tokens, outcome.steps, outcome.halted, outcome.q, outcome.verified, outcome.variant)
    return [field.tolist() if isinstance(field, np.ndarray) else field for field in (*fields, outcome.segments)]


requests = st.fixed_dictionaries(
    {
        "row": st.integers(0, len(PUZZLES) - 1),
        "max_think_steps": st.none() | st.integers(1, 6),
        "halt": st.sampled_from(HALT_MODES),
        "retries": st.sampled_from([0, 0, 1, 4]),
        "seed": st.integers(0, 3),
        "priority": st.integers(-2, 2),
        "deadline": st.sampled_from([None, None, 0.0, 60.0]),
    }
)


@pytest.mark.parametrize("kind", ENGINES)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_every_answer_is_its_own_puzzles(kind, data):
    asked = data.draw(st.lists(requests, min_size=1, max_size=25))
    cancelled = data.draw(st.sets(st.integers(0, len(asked) - 1)))
    engine, before = ENGINES[kind](), threading.active_count()
    with Scheduler(
        engine, streams=data.draw(st.integers(1, 3)), queue=data.draw(st.sampled_from([2, 100]))
    ) as scheduler:
        futures = []
        for number, request in enumerate(asked):
            options = {name: value for name, value in request.items() if name != "row"}
            futures.append(scheduler.submit(PUZZLES[request["row"]], **options))
            if number in cancelled:
                futures[number // 2 if number // 2 in cancelled else number].cancel()
        for number in cancelled:
            futures[number].cancel()
    assert threading.active_count() == before
    assert (scheduler.waiting, scheduler.running) == (0, 0)
    for number, (request, future) in enumerate(zip(asked, futures, strict=True)):
        assert future.done()
        if future.cancelled():
            assert number in cancelled
        elif future.exception() is not None:
            assert isinstance(future.exception(), DeadlinePassed)
            assert request["deadline"] == 0
        else:
            options = {name: value for name, value in request.items() if name not in ("deadline", "priority")}
            assert as_told(future.result()) == alone(ENGINES[kind](), **options)


@pytest.mark.parametrize("kind", ENGINES)
def test_what_verifies_first_may_be_any_variant(kind):
    rows = [row for row in range(30) if alone(host_engine(), row)[4] != alone(host_engine(), row, 6)[4]]
    assert rows  # boards that are solved in another guise only
    with Scheduler(ENGINES[kind](), streams=2) as scheduler:
        outcomes = list(scheduler.map(PUZZLES[rows], retries=6, seed=None))
    for row, outcome in zip(rows, outcomes, strict=True):
        assert outcome.verified
        assert outcome.variant > 0
        assert toys.TASK.verify(PUZZLES[row][None], outcome.tokens[None])[0]
        symmetry = toys.TASK.variants(0, outcome.variant)[-1]
        again = host_engine().solve(symmetry.apply(PUZZLES[row][None]))
        assert np.array_equal(symmetry.invert(again.tokens)[0], outcome.tokens)


def test_who_listens_badly_fails_alone():
    def listen(seen):
        raise KeyError("mine")

    with Scheduler(host_engine(batch=3), streams=1) as scheduler:
        rest = [scheduler.submit(row) for row in PUZZLES[:3]]
        bad = scheduler.submit(PUZZLES[0], on_segment=listen)
        with pytest.raises(KeyError):
            bad.result(timeout=20)
        for number, future in enumerate(rest):
            assert as_told(future.result(timeout=20)) == alone(host_engine(), number)


@pytest.mark.parametrize("kind", ENGINES)
def test_who_listens_is_told_every_segment(kind):
    told = []
    with Scheduler(ENGINES[kind](), streams=2) as scheduler:
        rest = [scheduler.submit(row) for row in PUZZLES[1:9]]
        outcome = scheduler.submit(PUZZLES[0], on_segment=told.append).result(timeout=20)
        for number, future in enumerate(rest, 1):
            assert as_told(future.result(timeout=20)) == alone(ENGINES[kind](), number)
    wanted = host_engine().solve(PUZZLES[:1], trace=True).trace[:, 0]
    assert np.array_equal(np.stack([seen.guess for seen in told]), wanted)
    assert outcome.steps == len(wanted)


# -- iterators and asyncio -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ENGINES)
@pytest.mark.parametrize("ordered", [True, False])
def test_an_endless_stream_is_read_no_faster_than_it_is_answered(kind, ordered):
    read = []

    def endless():
        for number in itertools.count():
            read.append(number)
            yield {"tokens": PUZZLES[number % 30], "max_think_steps": 1 + number % 8}

    with Scheduler(ENGINES[kind](), streams=2) as scheduler:
        outcomes = scheduler.map(endless(), ordered=ordered)
        for count, outcome in enumerate(itertools.islice(outcomes, 100)):
            if ordered:
                assert outcome.number == count
            row = outcome.number % 30
            assert as_told(outcome) == alone(ENGINES[kind](), row, max_think_steps=1 + outcome.number % 8)
            assert len(read) <= count + 1 + 16 * 6
        outcomes.close()
    assert scheduler.running == 0


def test_an_error_ends_a_mapping_and_what_it_asked():
    with Scheduler(host_engine(), streams=2) as scheduler:
        with pytest.raises(InputError, match="outside"):
            list(scheduler.map([*PUZZLES, np.full(16, 9, np.int32)]))
        assert len(list(scheduler.map(PUZZLES))) == 30
        assert list(scheduler.map([])) == []


def test_many_tasks_of_an_event_loop_wait_for_room():
    async def ask(scheduler):
        outcomes = await asyncio.gather(*[scheduler.solve(row) for row in PUZZLES])
        seen = [what async for what in scheduler.stream(PUZZLES[3], max_think_steps=2)]
        return outcomes, seen

    with Scheduler(host_engine(), streams=2, queue=2) as scheduler:
        outcomes, seen = asyncio.run(ask(scheduler))
    assert [as_told(each) for each in outcomes] == [alone(host_engine(), row) for row in range(30)]
    assert [type(what).__name__ for what in seen] == ["SegmentOutput"] * seen[-1].steps + ["Outcome"]


def test_what_no_engine_takes_is_refused_at_once():
    with Scheduler(host_engine()) as scheduler:
        for wrong in ({"halt": "never"}, {"max_think_steps": 0}, {"retries": -1}, {"puzzle_identifier": 3}):
            with pytest.raises(InputError):
                scheduler.submit(PUZZLES[0], **wrong)
        for tokens in (PUZZLES[:2], np.zeros(16), np.zeros(16, np.int32)):
            with pytest.raises(InputError):
                scheduler.submit(tokens)
    for wrong in ({"streams": 0}, {"queue": 0}, {"queue": True}):
        with pytest.raises(InputError):
            Scheduler(host_engine(), **wrong)


def test_an_engine_that_shows_no_segments_is_asked_as_it_is():
    puzzles = scripted.puzzle_set(4)
    engine = scripted.Scripted(puzzles, [1, 2, 0, 3], [1, 2, 3, 8])
    with Scheduler(engine) as scheduler:
        assert [outcome.steps for outcome in scheduler.map(puzzles.questions)] == [1, 2, 3, 8]
