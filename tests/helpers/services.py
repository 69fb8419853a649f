"""Services of toy engines, and what asks them without a socket: an ASGI client that can hang up."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import toys

from hrm_edge.bundle import Bundle
from hrm_edge.runtimes import Engine, HostLoop
from hrm_edge.serve import bundles
from hrm_edge.serve.app import Service
from hrm_edge.serve.bundles import Bundles, Loading

ROOT = Path(__file__).parents[2]
SERVE = [sys.executable, "-m", "hrm_edge.cli", "serve"]
SECRET = "a-token-of-twenty-characters"


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

    def load(opened: Bundle, threads: int | None, streams: int) -> Engine:
        engine = make(opened.path)
        engine.streams = streams
        return engine

    patch.setattr(bundles, "load_engine", load)
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


# -- as a process --------------------------------------------------------------------------------------------


class Process:
    """One `hrm-edge serve` of bundles, with flags, on a free port."""

    def __init__(self, *arguments: str | Path, token: str | None = SECRET) -> None:
        command = [*SERVE, *map(str, arguments), "--port", "0", "--json"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        if token:
            environment["HRM_EDGE_TOKEN"] = token
        self.run = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert self.run.stdout is not None
        self.told = json.loads(self.run.stdout.readline())
        self.port = int(self.told["url"].rpartition(":")[2])

    def ask(self, path: str, body: Any = None, *, token: str | None = SECRET, wait: bool = True) -> Any:
        """(status, body), the body read where it is JSON; without ``wait`` the connection that it comes by."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        if body is not None:
            headers["Content-Type"] = "application/json"
        connection.request("GET" if body is None else "POST", path, body and json.dumps(body), headers)
        if not wait:
            return connection
        response = connection.getresponse()
        content = response.read()
        connection.close()
        is_json = response.headers["content-type"] == "application/json"
        return response.status, json.loads(content) if is_json else content

    def busy(self) -> float:
        """How many puzzles it has."""
        lines = self.ask("/metrics")[1].decode().split("\n")
        return next(float(x.split()[-1]) for x in lines if x.startswith("hrm_edge_puzzles_in_progress{"))

    def until_busy(self) -> None:
        while not self.busy():
            time.sleep(0.02)

    def end(self, number: int) -> tuple[int, str]:
        """The exit code after a signal, and all that was printed."""
        self.run.send_signal(number)
        _, errors = self.run.communicate(timeout=60)
        return self.run.returncode, errors
