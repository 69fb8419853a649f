"""A service on a socket: uvicorn with time limits of its own, and what signals do.

SIGHUP reloads. The first SIGTERM or SIGINT drains: `/readyz` says so at once; after ``delay`` seconds what is new
is refused, and what was begun is answered, for ``seconds`` at most. The second cuts all off.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from ..errors import InputError
from ..progress import announce
from .app import CLOSED, DRAINING, READY, Service
from .log import log_to_lines

_LARGEST_HEADERS = 2**15  # bytes
_TICK = 0.05  # seconds between two looks at whether all is answered


@dataclass(frozen=True)
class Drain:
    """How a service ends, in seconds: time to tell that it will, and to answer what was begun."""

    delay: float = 0.0
    seconds: float = 30.0

    def __post_init__(self) -> None:
        if not (0 <= self.delay < 1e6 and 0 <= self.seconds < 1e6):
            raise InputError("--drain-delay and --drain-seconds must be seconds, 0 or more")


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens. InputError where there can be none."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family, backlog=256)
    except (OSError, OverflowError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"cannot listen on {host}:{port} ({reason}); choose another --host or --port") from None


def url_of(listening: socket.socket) -> str:
    """Where a socket is asked."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


async def run(service: Service, listening: socket.socket, drain: Drain, ready: Callable[[], None]) -> int:
    """Answer requests until a signal asks to stop; ``ready`` is called when they are. Returns the exit code: 0, or
    128 + the signal's number where it cut off what was begun."""
    server = _Server(service, listening)
    stop = _Stop(service, server, drain)
    with stop.listening():
        serving = asyncio.create_task(server.serve(sockets=[listening]))
        while not (server.started or serving.done()):
            await asyncio.sleep(0.01)
        if not serving.done():
            ready()
        await serving
        await stop.ended()
    return stop.code


class _Stop:
    """From a signal to the end."""

    def __init__(self, service: Service, server: _Server, drain: Drain) -> None:
        self._service, self._server, self._drain = service, server, drain
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._signal = 0
        self.code = 0

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Signals do here what they do to a service, and after it what they did before; but one that reloads finds
        nothing to load any more, and would end the process in the midst of its ending well."""
        acts = {"SIGINT": self._stop, "SIGTERM": self._stop, "SIGHUP": self._reload}
        before: dict[int, Any] = {}
        for name, act in acts.items():
            number = getattr(signal, name, None)
            # What started it may have it ignore what would end it; what reloads is still its operator's.
            if number is not None and (act == self._reload or signal.getsignal(number) != signal.SIG_IGN):
                before[number] = signal.signal(number, self._calling(act))
        try:
            yield
        finally:
            for number, handler in before.items():
                reloads = number == getattr(signal, "SIGHUP", None)
                signal.signal(number, signal.SIG_IGN if reloads else handler)

    def _calling(self, act: Callable[[int], None]) -> Callable[[int, object], None]:
        def handle(number: int, frame: object) -> None:
            self._loop.call_soon_threadsafe(act, number)

        return handle

    def _stop(self, number: int) -> None:
        if self._service.phase == READY:
            self._service.phase = DRAINING
            announce("stopping: what was begun is answered; again to cut it off")
            self._signal = number
            self._begin(self._drained())
        else:
            self._cut(number)

    def _reload(self, number: int) -> None:
        if self._service.phase == READY:
            self._begin(self._reloaded())

    def _begin(self, work: Any) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _reloaded(self) -> None:
        for each in (await self._service.reload()).bundles:
            announce(f"{each.name}: not reloaded: {each.error}" if each.error else f"{each.name}: reloaded")

    async def _drained(self) -> None:
        await asyncio.sleep(self._drain.delay)
        self._service.phase = CLOSED
        try:
            async with asyncio.timeout(self._drain.seconds):
                while self._service.unanswered:
                    await asyncio.sleep(_TICK)
        except TimeoutError:
            announce(f"stopping: {self._service.unanswered} requests took over {self._drain.seconds:g} s")
            self._cut(self._signal)
        self._server.should_exit = True

    def _cut(self, number: int) -> None:
        if self._service.unanswered:
            self.code = 128 + number
        self._service.phase = CLOSED
        self._service.cancel()
        self._server.should_exit = True

    async def ended(self) -> None:
        """What goes on beside, ended."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


class _Server(uvicorn.Server):
    """uvicorn, whose signals are ours, with nothing of its own on the terminal but through our sanitiser."""

    def __init__(self, service: Service, listening: socket.socket) -> None:
        limits = service.limits
        super().__init__(
            uvicorn.Config(
                service,
                http=_protocol(limits.header_seconds),
                ws="none",
                lifespan="on",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                limit_concurrency=limits.connections,
                timeout_keep_alive=limits.idle_seconds,
                timeout_graceful_shutdown=1,
                h11_max_incomplete_event_size=_LARGEST_HEADERS,
            )
        )
        log_to_lines(service.tell)

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


def _protocol(header_seconds: float) -> type[H11Protocol]:
    """uvicorn's HTTP/1.1, which hangs up on whoever takes longer than that over a request's headers."""

    class Protocol(H11Protocol):
        _waiting: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._wait()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.cycle is not None and not self.cycle.response_complete:
                self._end()  # its headers are whole
            else:
                self._wait()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            if self.cycle is not None and not self.cycle.response_complete:
                self._end()  # of the next request, which had come before

        def connection_lost(self, exc: Exception | None) -> None:
            self._end()
            super().connection_lost(exc)

        def _wait(self) -> None:
            if self._waiting is None:
                self._waiting = self.loop.call_later(header_seconds, self.transport.close)

        def _end(self) -> None:
            if self._waiting is not None:
                self._waiting.cancel()
                self._waiting = None

    return Protocol
