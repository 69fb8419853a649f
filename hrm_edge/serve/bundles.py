"""The bundles that are served, by name: opened, tested by their own examples, replaced while they are asked."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..bundle import Bundle, open_bundle
from ..bundle.examples import EXAMPLES, read_examples, tokens_of
from ..data.formats import Rows
from ..errors import HrmEdgeError, InputError
from ..measure.selftest import self_test
from ..progress import announce
from ..runtimes import Engine, load_engine
from ..runtimes.loader import warning
from ..solve.choice import WORTH, open_for_many
from ..solve.scheduler import Scheduler
from ..tasks import Task
from .records import BundleInfo, Reloaded

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_SECONDS_TO_SEND = 0.5  # the last answers of a bundle that was replaced


@dataclass(frozen=True, eq=False)
class Served:
    """One bundle that is open: what answers, and what is told of it."""

    name: str
    engine: Engine
    scheduler: Scheduler
    info: BundleInfo

    @property
    def task(self) -> Task:
        return self.engine.task


@dataclass(frozen=True)
class Loading:
    """How bundles are loaded: CPU threads in all, puzzles side by side who share them, and puzzles that may wait.

    Without ``streams`` as many as answer the most: that is measured on a bundle's own examples, and kept.
    """

    threads: int | None = None
    streams: int | None = None
    queue: int = 1024


def named(arguments: Sequence[str]) -> dict[str, Path]:
    """Folder by name of arguments that are ``FOLDER``, whose own name it gets, or ``NAME=FOLDER``. InputError."""
    found: dict[str, Path] = {}
    for argument in arguments:
        name, equals, rest = argument.partition("=")
        if equals and _NAME.fullmatch(name) and not Path(argument).exists():
            path = Path(rest)
        else:
            path = Path(argument)
            name = path.resolve().name
        if not _NAME.fullmatch(name):
            raise InputError(f"{argument!r}: {name!r} is no name to serve it under; give NAME={argument}")
        if name in found:
            raise InputError(f"{argument}: {name} is served already; give it another name, as in NAME={path}")
        found[name] = path
    if not found:
        raise InputError("no bundle to serve; name one or more, as `hrm-edge export` writes them")
    return found


def load(name: str, path: Path, loading: Loading, times: int = 1) -> Served:
    """Open a bundle, ask its own examples, and make it ready for requests.

    InputError where it can not be opened or run, GateFailed where it answers otherwise than at its gate.
    """
    opened = open_bundle(path)
    engine = _engine(opened, loading)
    tested = _tested(opened, engine)
    if tested is None:
        _warm_up(engine)
    return serve(name, opened, engine, tested, loading, times)


def serve(name: str, opened: Bundle, engine: Engine, tested: str | None, loading: Loading, times: int) -> Served:
    """An engine behind a scheduler of its own, with what is told of its bundle."""
    manifest, task = opened.manifest, engine.task
    info = BundleInfo(
        name=name,
        task=task.name,
        rows=task.rows,
        cols=task.cols,
        vocabulary=list(task.vocabulary),
        target=manifest.target,
        precision=manifest.precision,
        loop=manifest.loop,
        halt_max_steps=engine.halt_max_steps,
        num_puzzle_identifiers=engine.num_puzzle_identifiers,
        gated=opened.ungated_warning is None,
        warning=warning(opened),
        self_test=tested,
        sha256=opened.sha256,
        loaded=times,
    )
    scheduler = Scheduler(engine, queue=loading.queue)
    return Served(name, engine, scheduler, info)


def _engine(opened: Bundle, loading: Loading) -> Engine:
    if loading.streams is not None:
        return load_engine(opened, loading.threads, streams=loading.streams)
    rows = None
    if EXAMPLES in opened.manifest.files:
        carried = read_examples(opened).examples
        questions = tokens_of(carried, opened, "question")
        identifiers = np.array([each.puzzle_identifier for each in carried])
        alone = opened.manifest.architecture["num_puzzle_identifiers"] == 1
        again = np.arange(WORTH) % len(carried)  # to measure by, few do as well as many
        rows = Rows(
            questions[again],
            questions[again] * 0,
            lambda row: "",
            identifiers=None if alone else identifiers[again],
        )
    return open_for_many(opened, loading.threads, rows, announce)


def _tested(opened: Bundle, engine: Engine) -> str | None:
    """How a bundle's own examples came out; None: it carries none, as one that was never gated."""
    if EXAMPLES not in opened.manifest.files:
        return None
    found = self_test(opened, engine=engine)
    found.raise_if_failed()
    return found.summary


async def _retire(scheduler: Scheduler) -> None:
    """Let what was asked be answered, and then give back the engine's memory, which requests that are over would
    hold for minutes, as they know each other in circles."""
    await asyncio.to_thread(scheduler.close)
    del scheduler
    await asyncio.sleep(_SECONDS_TO_SEND)
    await asyncio.to_thread(gc.collect)


def _warm_up(engine: Engine) -> None:
    """Backends finish compiling on their first call. (Where identifiers are asked for, this is none.)"""
    with contextlib.suppress(InputError):
        engine.solve(np.full((1, engine.task.seq_len), engine.task.blank, np.int32), max_think_steps=1)


class Bundles:
    """What is served under each name. Used in one thread, the event loop's; loading happens in others.

    A request asks for a bundle and hands it its puzzles without waiting in between, so whichever it got answers
    it: one that was replaced thinks on until all that it was given are answered.
    """

    def __init__(self, paths: dict[str, Path], loading: Loading) -> None:
        self._paths, self._loading = paths, loading
        self._served = {name: load(name, path, loading) for name, path in paths.items()}
        self._reloading = asyncio.Lock()
        self._retiring: set[asyncio.Task[None]] = set()

    def __iter__(self) -> Iterator[Served]:
        return iter(self._served.values())

    def find(self, name: str | None) -> Served | None:
        """The bundle of a name; without one the only one. None where that names none."""
        if name is None:
            return next(iter(self._served.values())) if len(self._served) == 1 else None
        return self._served.get(name)

    @property
    def names(self) -> list[str]:
        return list(self._served)

    async def reload(self) -> list[Reloaded]:
        """Open every bundle anew, and let go of the old ones; where that fails the old one stays."""
        async with self._reloading:
            return [await self._reload(name, path) for name, path in self._paths.items()]

    async def _reload(self, name: str, path: Path) -> Reloaded:
        old = self._served[name]
        try:
            new = await asyncio.to_thread(load, name, path, self._loading, old.info.loaded + 1)
        except (HrmEdgeError, OSError) as error:
            return Reloaded(name=name, sha256=old.info.sha256, error=str(InputError(str(error))))
        self._served[name] = new
        task = asyncio.create_task(_retire(old.scheduler))
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)
        return Reloaded(name=name, sha256=new.info.sha256, error=None)

    async def close(self, *, drain: bool) -> None:
        """Let go of all of them, when nothing asks any more, and of what a reload that is under way opens."""
        async with self._reloading:
            closing = [asyncio.to_thread(served.scheduler.close, drain=drain) for served in self]
            await asyncio.gather(*closing, *self._retiring)
