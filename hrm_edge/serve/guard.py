"""What every request passes first: whose it is, how large it may be, and the headers of every response."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterable
from typing import Any

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .metrics import Metrics
from .settings import Limits, Token

# No page of another site may read, frame or script anything here, and nothing of it is kept.
SECURITY_HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}


_DISCARDED = 16  # times the largest body, of one that is too large


class TooLarge(Exception):
    """More of a body came than may; raised where it is read."""


class Guard:
    """ASGI middleware. ``hosts``: what a request may call this machine, None: anything.

    Without a token any page in a browser on this machine could ask, under a name of its own that it lets point
    here: so the name is looked at.
    """

    def __init__(
        self,
        app: ASGIApp,
        limits: Limits,
        metrics: Metrics,
        token: Token | None,
        hosts: Iterable[str] | None,
        paths: dict[str, bool],
    ) -> None:
        """``paths``: every path there is, and whether it is open to who has no token."""
        self.app, self._limits, self._metrics, self._token = app, limits, metrics, token
        self._hosts = None if hosts is None else frozenset(hosts)
        self._paths = paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begin, path = time.perf_counter(), scope["path"]
        label = path if path in self._paths else "other"
        status = 499  # as nginx has it: nobody waited for a response
        headers = dict(scope["headers"])

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                given = {name for name, _ in message["headers"]}
                message["headers"] = [
                    *message["headers"],
                    *((k.encode(), v.encode()) for k, v in SECURITY_HEADERS.items() if k.encode() not in given),
                ]
            await send(message)

        try:
            refused = self._refused(path, headers)
            if refused is None:
                await self.app(scope, self._bounded(receive), sending)
            else:
                if b"expect" not in headers:  # who asks first sends nothing yet
                    await self._discard(receive)
                await refused(scope, receive, sending)
        finally:
            method = scope["method"] if scope["method"] in ("GET", "HEAD", "POST") else "other"
            self._metrics.requests.labels(method, label, str(status)).inc()
            self._metrics.request_seconds.labels(label).observe(time.perf_counter() - begin)

    def _refused(self, path: str, headers: dict[bytes, bytes]) -> JSONResponse | None:
        if self._hosts is not None and _host(headers.get(b"host", b"")) not in self._hosts:
            return problem(421, "this is a service of this machine alone: ask for localhost", close=True)
        wants = self._token is not None and not self._paths.get(path, False)
        if wants and self._token is not None and not self._token.is_in(headers.get(b"authorization")):
            response = problem(401, "needs the header `Authorization: Bearer TOKEN`", close=True)
            response.headers["www-authenticate"] = "Bearer"
            return response
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length[:20]) > self._limits.body:
            return too_large(self._limits)
        return None

    def _bounded(self, receive: Receive) -> Receive:
        size = 0

        async def receiving() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > self._limits.body:
                if message.get("more_body"):
                    await self._discard(receive)
                raise TooLarge
            return message

        return receiving

    async def _discard(self, receive: Receive) -> None:
        """Read what still comes, up to a point: the response to who is cut off while sending would be lost."""
        size, more = 0, True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._limits.body_seconds):
                while more and size < _DISCARDED * self._limits.body:
                    message = await receive()
                    size += len(message.get("body", b""))
                    more = message.get("more_body", False)


def too_large(limits: Limits) -> JSONResponse:
    return problem(413, f"a request may have {limits.body} bytes; ask in several", close=True)


def problem(status: int, error: str, *, close: bool = False, **headers: Any) -> JSONResponse:
    """A refusal; ``close``: what else comes on its connection is not read."""
    shown = {name.replace("_", "-"): str(value) for name, value in headers.items()}
    return JSONResponse({"error": error}, status, {**shown, **({"connection": "close"} if close else {})})


def _host(header: bytes) -> str:
    """The name in a Host header, without its port."""
    text = header.decode("latin-1").lower()
    return text[: text.rfind("]") + 1] if text.startswith("[") else text.partition(":")[0]
