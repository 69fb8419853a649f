"""Who is thought over when: urgent, waiting, cancelled and late requests, on an engine that can be held."""

import asyncio
import threading
import time
from concurrent.futures import CancelledError, wait

import numpy as np
import pytest
import toys

from hrm_edge.runtimes import HostLoop
from hrm_edge.solve.scheduler import Closed, DeadlinePassed, QueueFull, Scheduler


class Held(HostLoop):
    """A network that thinks a segment whenever it is let, and never halts by itself."""

    def __init__(self, **options):
        self.let, self.began = threading.Semaphore(0), threading.Semaphore(0)
        self.seen: list[int] = []  # the first token of each row of each segment

        def start(tokens):
            state = np.zeros((len(tokens), 16, 1), np.float32) + tokens[:, :1, None]
            return [state, state]

        def segment(state, e):
            self.began.release()
            assert self.let.acquire(timeout=20)
            self.seen += e[:, 0, 0].astype(int).tolist()
            if (e == 4).any():
                raise RuntimeError("out of memory")
            logits = np.zeros((len(e), 16, 6), np.float32)
            return [state, logits, np.zeros((len(e), 2), np.float32)]

        super().__init__(toys.TASK, 2, start, segment, backend="held", **options)

    def go(self, segments: int = 1) -> None:
        """So many segments begin and end, and the next begins or nothing does."""
        for _ in range(segments):
            assert self.began.acquire(timeout=20)
            self.let.release()


def board(first: int) -> np.ndarray:
    return np.full(16, first, np.int32)


@pytest.fixture
def held():
    engine = Held()
    yield engine
    engine.let.release(1000)


def test_the_most_urgent_is_begun_first(held):
    with Scheduler(held, streams=1) as scheduler:
        scheduler.submit(board(1))
        assert held.began.acquire(timeout=20)
        for token, priority in ((2, 0), (3, -1), (5, 7), (1, 7)):
            scheduler.submit(board(token), priority=priority)
        assert (scheduler.running, scheduler.waiting) == (1, 4)
        held.let.release(100)
    assert held.seen == [1, 1, 5, 5, 1, 1, 2, 2, 3, 3]


def test_who_cancels_frees_the_row_at_the_next_segment(held):
    with Scheduler(held, streams=1) as scheduler:
        first, second = scheduler.submit(board(1), max_think_steps=1000), scheduler.submit(board(2))
        assert held.began.acquire(timeout=20)
        assert first.cancel()
        assert wait([first], timeout=20).done == {first}  # at once, though its segment is not over
        held.let.release(100)
        second.result(timeout=20)
    assert held.seen == [1, 2, 2]


def test_what_waits_in_vain_frees_its_place_in_the_queue(held):
    with Scheduler(held, streams=1, queue=1) as scheduler:
        scheduler.submit(board(1))
        assert held.began.acquire(timeout=20)
        waits = scheduler.submit(board(2))
        with pytest.raises(QueueFull, match="1 requests wait"):
            scheduler.submit(board(3), wait=False)
        waits.cancel()
        late = scheduler.submit(board(3), deadline=0, wait=False)
        held.let.release(100)
        with pytest.raises(DeadlinePassed, match="0 seconds"):
            late.result(timeout=20)
    assert held.seen == [1, 1]


def test_a_full_queue_lets_who_waits_in_when_there_is_room(held):
    with Scheduler(held, streams=1, queue=1) as scheduler:
        scheduler.submit(board(1))
        assert held.began.acquire(timeout=20)
        scheduler.submit(board(2))
        entered = threading.Event()
        thread = threading.Thread(target=lambda: (scheduler.submit(board(3)), entered.set()))
        thread.start()
        assert not entered.is_set()
        held.let.release(100)
        thread.join(timeout=20)
        assert entered.is_set()
    assert held.seen == [1, 1, 2, 2, 3, 3]


def test_a_request_that_is_late_while_it_is_thought_over_ends(held):
    with Scheduler(held, streams=1) as scheduler:
        late = scheduler.submit(board(1), deadline=0.05, max_think_steps=1000)
        assert held.began.acquire(timeout=20)
        time.sleep(0.1)
        held.let.release(1000)
        with pytest.raises(DeadlinePassed):
            late.result(timeout=20)
    assert len(held.seen) == 1


@pytest.mark.parametrize("batch", [None, 2])
def test_an_engine_that_raises_fails_what_it_was_asked_and_goes_on(batch):
    held = Held(batch=batch)
    held.let.release(1000)
    with Scheduler(held, streams=2) as scheduler:
        futures = [scheduler.submit(board(token)) for token in (4, 1)]
        wait(futures)
        assert str(futures[0].exception()) == "out of memory"
        later = [scheduler.submit(board(token)) for token in (1, 2, 3)]
        assert [future.result(timeout=20).steps for future in later] == [2, 2, 2]


def test_rows_that_nobody_waits_for_try_variants_and_are_given_back(held):
    """Boards of which no variant verifies: with room, later attempts begin before the first has failed."""
    with Scheduler(held, streams=3) as scheduler:
        future = scheduler.submit(board(1), retries=2, max_think_steps=1000)
        for _ in range(3):
            assert held.began.acquire(timeout=20)
        urgent = scheduler.submit(board(2), max_think_steps=1)
        while not wait([urgent], timeout=0.01).done:  # whichever of the three takes the next segment
            held.let.release(3)
        assert urgent.result().steps == 1
        assert future.cancel()
        held.let.release(100)
    assert scheduler.running == 0


def test_a_task_that_is_cancelled_cancels_its_request(held):
    async def ask(scheduler):
        task = asyncio.create_task(scheduler.solve(board(1), max_think_steps=1000))
        await asyncio.to_thread(held.began.acquire, timeout=20)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        held.let.release(100)

    with Scheduler(held, streams=1) as scheduler:
        asyncio.run(ask(scheduler))
    assert held.seen == [1]


def test_who_stops_listening_cancels(held):
    async def ask(scheduler):
        held.let.release(2)
        async for seen in scheduler.stream(board(1), max_think_steps=1000):
            assert seen.guess.shape == (16,)
            break

    with Scheduler(held, streams=1) as scheduler:
        asyncio.run(ask(scheduler))
        held.let.release(100)
    assert len(held.seen) <= 3  # what was under way when it was cancelled is the last


def test_closed_without_draining_all_is_cancelled(held):
    scheduler = Scheduler(held, streams=1)
    futures = [scheduler.submit(board(1)) for _ in range(3)]
    assert held.began.acquire(timeout=20)
    thread = threading.Thread(target=scheduler.close, kwargs={"drain": False})
    thread.start()
    wait(futures, timeout=20)
    held.let.release(100)
    thread.join(timeout=20)
    for future in futures:
        with pytest.raises(CancelledError):
            future.result()
    with pytest.raises(Closed):
        scheduler.submit(board(1))
    scheduler.close()
    assert held.seen == [1]
