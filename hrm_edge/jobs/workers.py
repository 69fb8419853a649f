"""Who answers: engines of this machine, with one thread each, or by name those of a cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeAlias

from ..bundle import Bundle
from ..errors import InputError
from ..tasks.parallel import usable_cores
from .answers import Asking
from .crew import Asked, Worker
from .here import LocalWorker

Workers: TypeAlias = Callable[[Asked], Sequence[Worker]]  # made when it is known where a piece's rows are

DISTRIBUTED = ("ray",)  # what `--distributed` takes


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
