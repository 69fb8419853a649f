"""What this machine could do at best: one large matrix product by each library here, and memory that is copied."""

from __future__ import annotations

import importlib.util
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from ..precision import BF16, FP32, PRECISIONS
from ..runtimes import backends
from .arithmetic import cpu
from .clock import Clock, Span

SIZE = 2048  # of a square product
COPIED = 2**25  # float32 values: far beyond any cache
MEMORY = "memory"  # the kind of the one that is no product
_INT8 = PRECISIONS["int8"].name
# A CPU without units for a type takes so long for its products that they are no ceiling.
_LONGEST = 2.0  # seconds
_UNITS = {
    BF16.name: {"avx512_bf16", "amx_bf16", "bf16"},
    _INT8: {"avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm"},
}


@dataclass(frozen=True)
class Ceiling:
    """One thing to time. ``kind``: a precision, or `MEMORY`; ``work``: operations or bytes of one ``run``."""

    by: str
    kind: str
    work: float
    run: Callable[[], object]

    def time(self) -> Span:
        """Once."""
        clock = Clock()
        self.run()
        return clock.stop()


def ceilings(threads: int) -> list[Ceiling]:
    """All that can be timed here with so many threads, each warm."""
    found = []
    for ceiling in _all(threads):
        begin = time.perf_counter()
        ceiling.run()
        ceiling.run()
        if time.perf_counter() - begin < 2 * _LONGEST:
            found.append(ceiling)
    return found


def _all(threads: int) -> Iterator[Ceiling]:
    work = 2.0 * SIZE**3
    for precision in (FP32.name, BF16.name, _INT8):
        if precision in _UNITS and not _UNITS[precision] & set(cpu()[1]):
            continue
        if (run := _torch(precision, SIZE, threads)) is not None:
            yield Ceiling("torch", precision, work, run)
        for name, backend in backends().items():
            if backend.available().usable and (run := backend.product(precision, SIZE, threads)) is not None:
                yield Ceiling(name, precision, work, run)
    yield Ceiling("numpy", MEMORY, 2.0 * 4 * COPIED, _copy(threads))


def _torch(precision: str, size: int, threads: int) -> Callable[[], object] | None:
    if importlib.util.find_spec("torch") is None:
        return None
    import torch

    torch.set_num_threads(threads)
    if precision == _INT8:
        if not hasattr(torch, "_int_mm"):
            return None
        a, b = (torch.randint(-127, 128, (size, size), dtype=torch.int8) for _ in range(2))
        return lambda: torch._int_mm(a, b)
    kind = torch.bfloat16 if precision == BF16.name else torch.float32
    x, y = (torch.randn(size, size).to(kind) for _ in range(2))
    return lambda: torch.mm(x, y)


def _copy(threads: int) -> Callable[[], object]:
    """Every thread copies its part: what is read and what is written counts."""
    source, target = np.ones(COPIED, np.float32), np.zeros(COPIED, np.float32)
    parts = list(zip(np.array_split(source, threads), np.array_split(target, threads), strict=True))

    def run() -> None:
        others = [threading.Thread(target=np.copyto, args=(to, of)) for of, to in parts[1:]]
        for thread in others:
            thread.start()
        np.copyto(parts[0][1], parts[0][0])
        for thread in others:
            thread.join()

    return run
