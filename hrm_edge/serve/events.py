"""Server-sent events, and requests whose client hangs up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

from starlette.types import Receive, Scope, Send

from .asking import Asking, Result
from .bundles import Served
from .records import Done, Refused, Segment, Wire

T = TypeVar("T")

STREAM = "text/event-stream"
_HEARTBEAT = 15  # seconds between signs of life in a stream that has nothing to tell


class EventStream:
    """An answer as server-sent events; whoever hangs up has what is not answered cancelled."""

    def __init__(self, served: Served, asking: Asking, seconds: float, ended: Callable[[Asking], None]) -> None:
        self._served, self._asking, self._seconds, self._ended = served, asking, seconds, ended

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with asyncio.timeout(self._seconds):
                await unless_gone(receive, self._sent(send))
        except TimeoutError:
            pass  # nobody reads it: it ends as it stands
        finally:
            self._ended(self._asking)

    async def _sent(self, send: Send) -> None:
        headers = [(b"content-type", f"{STREAM}; charset=utf-8".encode()), (b"x-accel-buffering", b"no")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        events = self._asking.events()
        async for event in _with_heartbeats(events):
            if event is None:
                await _send(send, b": still here\n\n")
            else:
                kind = {Segment: "segment", Refused: "refused"}.get(type(event), "answer")
                await _send(send, _event(kind, event))
        served = self._served
        done = Done(bundle=served.name, task=served.task.name, refused=self._asking.refused)
        await _send(send, _event("done", done))
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _send(send: Send, content: bytes) -> None:
    await send({"type": "http.response.body", "body": content, "more_body": True})


def _event(kind: str, content: Wire) -> bytes:
    return f"event: {kind}\ndata: {content.model_dump_json()}\n\n".encode()


async def _with_heartbeats(events: AsyncIterator[Segment | Result]) -> AsyncIterator[Segment | Result | None]:
    """The events, and None where none came for a while."""
    coming: asyncio.Task[Segment | Result | None] | None = None
    try:
        while True:
            coming = coming or asyncio.create_task(_next(events))
            done, _ = await asyncio.wait([coming], timeout=_HEARTBEAT)
            if not done:
                yield None
                continue
            if (event := coming.result()) is None:
                return
            coming = None
            yield event
    finally:
        if coming is not None:
            coming.cancel()


async def _next(events: AsyncIterator[Segment | Result]) -> Segment | Result | None:
    """The next event; None at their end."""
    return await anext(events, None)


async def unless_gone(receive: Receive, work: Awaitable[T]) -> T | None:
    """What ``work`` gives; None, and it is cancelled, where the client hangs up before."""

    async def gone() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    working, watching = asyncio.ensure_future(work), asyncio.ensure_future(gone())
    try:
        await asyncio.wait([working, watching], return_when=asyncio.FIRST_COMPLETED)
        return await working if working.done() else None
    finally:
        for each in (working, watching):
            each.cancel()
        await asyncio.gather(working, watching, return_exceptions=True)
