"""What runs the bundles of one target: :class:`Backend`, the contract, and what backends share."""

from __future__ import annotations

import queue
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

import numpy as np

if TYPE_CHECKING:
    from ..bundle import Bundle
    from ..progress import Progress, Say
    from ..tasks import Task
    from .engine import Engine

T = TypeVar("T")

# A graph loaded by a backend: arrays by input name → arrays by output name; safe to call from any thread.
Graph = Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]


@dataclass(frozen=True)
class CompiledProduct:
    """A matrix product as a backend compiled it: the name it has in the graph, and its operands' types."""

    name: str
    left: str  # "float32", "int8", …
    right: str


@dataclass(frozen=True)
class OperatorTime:
    """What a compiled graph spends in operators of one kind: so many of them, and milliseconds of one run.

    ``kernel``: what computes it, by the backend's own name; empty where it does not say.
    """

    operator: str
    kernel: str
    count: int
    ms: float


class Available(NamedTuple):
    """Whether a backend is usable here; ``install``: the command that makes it so, empty when none need or can."""

    usable: bool
    version: str | None
    why_not: str | None
    install: str


@dataclass(frozen=True)
class Compiled:
    """One graph compiled ahead of time for one kind of device. ``state``: "built", "kept" or "bundle"."""

    graph: str
    flavour: str
    version: str
    compute_capability: int
    state: str
    file: Path
    seconds: float


class Backend(ABC):
    """What runs the bundles of one target: the module or package of that name offers one as ``BACKEND``.

    A backend says whether it is usable, and gives either `load_graph` (the loops here do the rest) or `load`.
    Its module must import without the backend's own package, and be cheap to import.
    """

    name: str  # the target, and the module
    title: str  # as people write it
    order = 100  # its place among the others in messages
    cold_without_cache = False  # whether a cold start needs nothing that was kept (trust, minutes of building)
    streams = True  # whether calls at once may be quicker than one with all threads: of CPUs

    @abstractmethod
    def available(self) -> Available:
        """Whether bundles can be run here, by which version, and what to install if not."""

    def load(self, bundle: Bundle, task: Task, facts: dict[str, Any], threads: int | None) -> Engine:
        """An engine for an opened bundle; ``facts`` are :class:`Engine`'s. Raises :class:`InputError`.

        ``threads``: CPU threads of each call, of which ``facts["streams"]`` come at once.

        Unless a backend knows better: its graphs, with the loop that the manifest names around them.
        """
        from .loops import engine_of

        return engine_of(bundle, task, facts, lambda path: self.load_graph(path, threads))

    def load_graph(self, path: Path, threads: int | None) -> Graph:
        """A graph file as a function from arrays by input name to arrays by output name; thread-safe.

        ``threads``: CPU threads, all by default. Raises :class:`InputError`.
        """
        raise NotImplementedError(f"{self.name} loads whole bundles only")

    def compiled_products(self, path: Path) -> list[CompiledProduct] | None:
        """The matrix products of a graph file as the backend compiles them, loop bodies included; None: it does not
        tell, and so proves nothing."""
        return None

    def product(self, precision: str, size: int, threads: int) -> Callable[[], object] | None:
        """One matrix product of ``size`` × ``size`` as it computes it, to be called as often as one likes.

        None: it has none in this precision, or what makes one is not installed.
        """
        return None

    def profile(self, path: Path, threads: int | None, runs: int) -> list[OperatorTime] | None:
        """Where the time of a graph of floats goes, one row, the longest first; None: the backend does not tell.

        Of each compiled operator the shortest of ``runs`` counts, as others may use the machine, or the mean where
        the backend tells no more. Looking costs time of its own: shares say more than sums.
        """
        return None

    def compiled_name(self, name: str) -> str:
        """A product's name among `compiled_products`, where its format can not hold the graph's own."""
        return name

    def interpreted(self) -> str | None:
        """What to do for the backend itself ("use a Mac"), where an interpreter answers for it here; else None.

        An interpreter's answers count, the time they take says nothing.
        """
        return None

    def engine_name(self) -> str:
        """What its engines are called in tables."""
        return f"{self.name} (interpreted)" if self.interpreted() else self.name

    def note(self, gpus: Sequence[Any]) -> str | None:
        """What else one should know of it on this machine, which has these GPUs."""
        return None

    def unverified_warning(self, bundle: Bundle) -> str | None:
        """One line to show until `hrm-edge check` has passed on this device, where devices may differ."""
        return None

    def mark_verified(self, bundle: Bundle) -> None:
        """Remember that `hrm-edge check` has passed with a bundle on this device, where that matters."""
        return

    def compile(
        self,
        bundle: Bundle,
        compute_capabilities: Sequence[int] = (),
        *,
        force: bool = False,
        say: Say | None = None,
        progress: Progress | None = None,
    ) -> list[Compiled] | None:
        """Compile a bundle's graphs before they are needed; None: nothing needs compiling.

        For this machine's device, or for ``compute_capabilities`` × 10; ``force``: again. Raises
        :class:`InputError`.
        """
        return None


def by_kind(runs: Sequence[Mapping[str, tuple[str, str, float]]]) -> list[OperatorTime]:
    """Of several runs, each of which tells an operator's kind, kernel and milliseconds by its name."""
    kinds: dict[tuple[str, str], list[float]] = {}
    for name, (operator, kernel, _) in runs[0].items():
        shortest = min(run[name][2] for run in runs if name in run)
        kinds.setdefault((operator, kernel), []).append(shortest)
    found = [OperatorTime(*kind, len(times), sum(times)) for kind, times in kinds.items()]
    return sorted(found, key=lambda each: -each.ms)


class Idle(Generic[T]):
    """What serves one caller at a time: as many, each from `make()`, as there ever were callers at once."""

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._waiting: queue.SimpleQueue[T] = queue.SimpleQueue()
        self._waiting.put(make())  # memory that is lacking should be missed at load, not at the first puzzle

    @contextmanager
    def one(self) -> Iterator[T]:
        """One of them. When an error is raised in it, it is dropped: nobody knows what state it is in."""
        try:
            taken = self._waiting.get_nowait()
        except queue.Empty:
            taken = self._make()
        yield taken
        self._waiting.put(taken)


def first_line(error: Exception) -> str:
    """What a foreign exception says, cut to the one line our own errors have.

    OpenVINO's begin with lines that tell where in its source they come from.
    """
    lines = [line for line in map(str.strip, str(error).splitlines()) if line]
    return next(
        (line for line in lines if not line.startswith("Exception from ")), (lines or [type(error).__name__])[0]
    )
