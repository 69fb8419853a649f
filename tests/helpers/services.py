"""Services of toy engines, and what asks them without a socket: an ASGI client that can hang up."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import toys

from hrm_edge.runtimes import Engine, HostLoop
from hrm_edge.serve import bundles
from hrm_edge.serve.app import Service
from hrm_edge.serve.bundles import Bundles, Loading


class Gated(HostLoop):
    """A toy that thinks only while its gate is open, as at first, and counts its segments."""

    def __init__(self) -> None:
        self.gate, self.count = threading.Event(), 0
        self.gate.set()
        super().__init__(toys.TASK, toys.HALT_MAX_STEPS, toys.start, self._segment, backend="toy")

    def _segment(self, *arrays: Any) -> Any:
        assert self.gate.wait(10)
        self.count += 1
        return toys.segment(*arrays)


def serving(
    patch: Any,
    folder: Path,
    make: Callable[[Path], Engine] = lambda path: toys.host_engine(),
    names: tuple[str, ...] = ("toy",),
    streams: int = 2,
    queue: int = 64,
    **options: Any,
) -> Service:
    """A service of bundles with these names, in ``folder``, whose engines `make` gives. In an event loop."""
    for name in names:
        if not (folder / name).exists():
            toys.write_hollow_bundle(folder / name)
    patch.setattr(bundles, "load_engine", lambda opened, threads: make(opened.path))
    return Service(Bundles({name: folder / name for name in names}, Loading(None, streams, queue)), **options)


@dataclass
class Response:
    """What came back; ``body`` grows while it comes."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    ended: bool = False

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def events(self) -> list[tuple[str, Any]]:
        """(event, data) of server-sent events that are whole."""
        found = []
        for block in self.body.decode().split("\n\n")[:-1]:
            fields = dict(line.split(": ", 1) for line in block.split("\n") if not line.startswith(":"))
            if fields:
                found.append((fields["event"], json.loads(fields["data"])))
        return found


async def ask(
    app: Any,
    path: str,
    body: Any = None,
    *,
    method: str | None = None,
    headers: dict[str, str] | None = None,
    hang_up: asyncio.Event | None = None,
    into: Response | None = None,
    parts: list[bytes] | None = None,
) -> Response:
    """One request: JSON where ``body`` is given, ``parts`` of a body as they are. ``hang_up``: when to."""
    response = into or Response()
    if parts is None:
        parts = [b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()]
    given = {"host": "localhost:8000", **({} if body is None else {"content-type": "application/json"})}
    given |= headers or {}
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method or ("GET" if body is None else "POST"),
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [(name.lower().encode(), value.encode()) for name, value in given.items()],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 8000),
    }
    coming = list(parts)

    async def receive() -> dict[str, Any]:
        if coming:
            part = coming.pop(0)
            return {"type": "http.request", "body": part, "more_body": bool(coming)}
        await (hang_up or asyncio.Event()).wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            response.status = message["status"]
            response.headers |= {name.decode(): value.decode() for name, value in message["headers"]}
        else:
            response.body += message.get("body", b"")
            response.ended = not message.get("more_body", False)

    await app(scope, receive, send)
    return response


async def until(right: Callable[[], Any]) -> Any:
    """What ``right`` gives when that is true; an error where it never is."""
    async with asyncio.timeout(20):
        while not (found := right()):
            await asyncio.sleep(0.002)
    return found
