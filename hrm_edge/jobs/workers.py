"""Who answers: engines of this process, with one thread each, or by name those of a cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeAlias

from ..bundle import Bundle
from ..errors import InputError
from ..runtimes import load_engine
from ..solve.scheduler import Scheduler
from ..tasks.parallel import usable_cores
from .answers import Answered, Asking, answer
from .crew import Asked, Piece, Worker

Workers: TypeAlias = Callable[[Asked], Sequence[Worker]]  # made when it is known where a piece's rows are

DISTRIBUTED = ("ray",)  # what `--distributed` takes


class LocalWorker:
    """One engine here; what ends it ends this process."""

    def __init__(self, bundle: Bundle, asking: Asking, asked: Asked) -> None:
        self._bundle, self._asking, self._asked = bundle, asking, asked
        self._scheduler: Scheduler | None = None

    def start(self) -> None:
        self._scheduler = Scheduler(load_engine(self._bundle, threads=1))

    def answer(self, piece: Piece) -> Answered:
        assert self._scheduler is not None
        return answer(self._scheduler, *self._asked(piece), self._asking)

    def stop(self) -> None:
        if self._scheduler is not None:
            self._scheduler.close(drain=False)


@contextmanager
def workers_of(
    bundle: Bundle, asking: Asking, distributed: str | None, count: int | None, address: str | None
) -> Iterator[Workers]:
    """Makes ``count`` workers: here, by default as many as there are cores, or where ``distributed`` says.

    InputError where that is unknown, not installed, or not to be reached.
    """
    if distributed is None:
        if address is not None:
            raise InputError(
                f"--address is of a cluster; name its kind too, as with --distributed {DISTRIBUTED[0]}"
            )
        yield lambda asked: [LocalWorker(bundle, asking, asked) for _ in range(count or usable_cores())]
    elif distributed in DISTRIBUTED:
        from .ray import ray_workers

        with ray_workers(bundle, asking, count, address) as made:
            yield made
    else:
        raise InputError(f"--distributed {distributed}: unknown; choose {' or '.join(DISTRIBUTED)}")
