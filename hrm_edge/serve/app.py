"""The service itself: what each path answers. One table names the operations; routes and OpenAPI come from it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any, Protocol, TypeVar

from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from ..records import problem as first_problem
from ..solve.scheduler import QueueFull
from ..text import printable
from .asking import Asking, Tell
from .bundles import Bundles, Served
from .events import STREAM, EventStream, unless_gone
from .guard import Guard, TooLarge, problem, too_large
from .metrics import CONTENT_TYPE, Metrics
from .openapi import Operation, document
from .page import PAGE_POLICY, page
from .records import (
    Answer,
    BundleList,
    Done,
    Health,
    Readiness,
    Refused,
    ReloadResponse,
    Segment,
    SolveRequest,
    SolveResponse,
    Wire,
)
from .settings import Limits, Token

T = TypeVar("T")

READY, DRAINING, CLOSED = "ready", "draining", "closed"  # as asked for; told not to be; refused what is new
_SLACK = 5  # seconds beyond a puzzle's longest, in which a stream has to be read


class ToolRoutes(Protocol):
    """Tools over HTTP, as :mod:`.mcp` has them. ``busy``: calls under way."""

    busy: int

    def routes(self, *, local: bool) -> Sequence[BaseRoute]: ...

    def running(self) -> contextlib.AbstractAsyncContextManager[None]: ...


class Service:
    """What answers requests. An ASGI application; its bundles belong to it from when it starts to when it ends.

    ``hosts``: names that a request may call this machine by; None where any will do. ``tell``: of what nothing
    here expects. ``tools``: for language models, served beside these.
    """

    def __init__(
        self,
        bundles: Bundles,
        limits: Limits | None = None,
        token: Token | None = None,
        hosts: frozenset[str] | None = None,
        tell: Tell = lambda error: None,
        tools: ToolRoutes | None = None,
    ) -> None:
        self.bundles, self.limits, self._token = bundles, limits or Limits(), token
        self.tell, self._tools = tell, tools
        self.phase = READY
        self._asking: set[Asking] = set()
        self.metrics = Metrics()
        self.metrics.served([each.info for each in bundles])
        self.operations = self._operations()
        self._document = document(self.operations, self.limits, protected=token is not None)
        routes: list[BaseRoute] = [
            Route(each.path, each.handler, methods=[each.method], name=each.name) for each in self.operations
        ]
        paths = {each.path: each.open for each in self.operations}
        for route in tools.routes(local=hosts is not None) if tools else ():
            routes.append(route)
            paths[getattr(route, "path", "")] = False
        self._routed = Starlette(
            routes=routes,
            lifespan=self._lifespan,
            exception_handlers={HTTPException: _told, TooLarge: self._too_large, Exception: self._fault},
        )
        self.guard = Guard(self._routed, self.limits, self.metrics, token, hosts, paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.guard(scope, receive, send)

    @contextlib.asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        async with self._tools.running() if self._tools else contextlib.nullcontext():
            yield
        await self.bundles.close(drain=False)

    def _operations(self) -> list[Operation]:
        asked = (400, 404, 408, 413, 415, 422, 429, 503)
        return [
            Operation("GET", "/", self._home, "This page, for people.", {200: ("text/html", None)}, open=True),
            Operation(
                "POST",
                "/v1/solve",
                self._solve,
                "Answers puzzles. With `Accept: text/event-stream` it is `/v1/think`.",
                {200: ("application/json", SolveResponse)},
                body=SolveRequest,
                problems=asked,
                streams=True,
            ),
            Operation(
                "POST",
                "/v1/think",
                self._think,
                "Answers puzzles as server-sent events: `segment` for each guess, `answer` or `refused` for each "
                "puzzle, and `done`. Hanging up cancels what is not answered.",
                {200: (STREAM, None)},
                body=SolveRequest,
                problems=asked,
                events={"segment": Segment, "answer": Answer, "refused": Refused, "done": Done},
            ),
            Operation("GET", "/v1/bundles", self._list, "What is served.", {200: ("application/json", BundleList)}),
            Operation(
                "POST",
                "/v1/reload",
                self._reload,
                "Opens every bundle anew; what is asked meanwhile is answered. Only where the service has a token. "
                "409: a bundle could not be opened, and the one before goes on.",
                {200: ("application/json", ReloadResponse), 409: ("application/json", ReloadResponse)},
                problems=(403, 503),
            ),
            Operation(
                "GET", "/healthz", self._healthz, "Is it alive?", {200: ("application/json", Health)}, open=True
            ),
            Operation(
                "GET",
                "/readyz",
                self._readyz,
                "Should it be sent requests? 503 from when it is asked to stop.",
                {200: ("application/json", Readiness), 503: ("application/json", Readiness)},
                open=True,
            ),
            Operation("GET", "/metrics", self._metrics, "For Prometheus.", {200: ("text/plain", None)}),
            Operation(
                "GET",
                "/openapi.json",
                self._openapi,
                "This service in OpenAPI 3.1.",
                {200: ("application/json", None)},
                open=True,
            ),
        ]

    # -- puzzles ---------------------------------------------------------------------------------------------

    async def _solve(self, request: Request) -> Response | ASGIApp:
        if STREAM in request.headers.get("accept", ""):
            return await self._think(request)
        served, asking = self._begun(await self._read(request), watched=False)
        try:
            results = await unless_gone(request.receive, asking.results())
        finally:
            self._ended(asking)
        if results is None:
            return Response(status_code=499)  # to nobody
        return _json(
            SolveResponse(bundle=served.name, task=served.task.name, results=results, refused=asking.refused)
        )

    async def _think(self, request: Request) -> ASGIApp:
        served, asking = self._begun(await self._read(request), watched=True)
        return EventStream(served, asking, self.limits.seconds + _SLACK, self._ended)

    async def _read(self, request: Request) -> SolveRequest:
        """The request's body. HTTPException says what is wrong with it."""
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise HTTPException(415, "the body must be JSON, with the header `Content-Type: application/json`")
        try:
            async with asyncio.timeout(self.limits.body_seconds):
                body = await request.body()
        except TimeoutError:
            raise HTTPException(408, f"the body took over {self.limits.body_seconds:g} s", _CLOSE) from None
        except ClientDisconnect:
            raise HTTPException(400, "the connection ended before the body did") from None
        try:
            asked = SolveRequest.model_validate_json(body)
        except ValidationError as error:
            status = 400 if error.errors(include_url=False)[0]["type"] == "json_invalid" else 422
            raise HTTPException(status, _line(error)) from None
        count = 1 if isinstance(asked.puzzles, str) else len(asked.puzzles)
        if count > self.limits.puzzles:
            raise HTTPException(
                422, f"a request may hold {self.limits.puzzles} puzzles, not {count}; ask in several"
            )
        if (asked.max_think_steps or 0) > self.limits.segments:
            raise HTTPException(422, f"max_think_steps may be {self.limits.segments}, not {asked.max_think_steps}")
        if asked.puzzle_identifiers is not None and len(asked.puzzle_identifiers) != count:
            raise HTTPException(
                422, f"puzzle_identifiers must be one a puzzle: {count}, not {len(asked.puzzle_identifiers)}"
            )
        return asked

    def _begun(self, asked: SolveRequest, *, watched: bool) -> tuple[Served, Asking]:
        """The request's puzzles on their way. Nothing is waited for from the look at the bundles to the queue, so
        that no reload comes between."""
        if self.phase == CLOSED:
            raise HTTPException(503, "this service is stopping; ask another", {**_CLOSE, "retry-after": "5"})
        served = self.bundles.find(asked.bundle)
        if served is None:
            known = ", ".join(self.bundles.names)
            wrong = "" if asked.bundle is None else f", not {_short(asked.bundle)}"
            raise HTTPException(404, f"bundle must be one of {known}{wrong}")
        seconds, metrics = self.limits.seconds, self.metrics
        try:
            asking = Asking(served, asked, seconds=seconds, metrics=metrics, tell=self.tell, watched=watched)
        except QueueFull:
            wait = metrics.retry_after(served.name, self.limits.queue)
            raise HTTPException(
                429, f"{served.name}: its queue has no room; try again in {wait} s", {"retry-after": str(wait)}
            ) from None
        self._asking.add(asking)
        return served, asking

    def _ended(self, asking: Asking) -> None:
        """Its answers were sent, or nobody waits for them."""
        asking.cancel()
        self._asking.discard(asking)

    @property
    def unanswered(self) -> int:
        """Requests and calls of tools that are thought about."""
        return len(self._asking) + (self._tools.busy if self._tools else 0)

    def cancel(self) -> None:
        """Every request that is not answered is told that it was cancelled."""
        for asking in self._asking:
            asking.cancel()

    # -- everything else -------------------------------------------------------------------------------------

    async def _list(self, request: Request) -> Response:
        return _json(BundleList(bundles=[each.info for each in self.bundles]))

    async def _reload(self, request: Request) -> Response:
        if self._token is None:
            raise HTTPException(403, "start the service with a token to reload it by a request, or send it SIGHUP")
        if self.phase != READY:
            raise HTTPException(503, "this service is stopping")
        found = await self.reload()
        return _json(found, 409 if any(each.error for each in found.bundles) else 200)

    async def reload(self) -> ReloadResponse:
        """Open every bundle anew."""
        found = await self.bundles.reload()
        for each in found:
            self.metrics.reloads.labels(each.name, "failed" if each.error else "loaded").inc()
        self.metrics.served([each.info for each in self.bundles])
        return ReloadResponse(bundles=found)

    async def _home(self, request: Request) -> Response:
        shown = page(self.operations, request.scope["scheme"], request.headers.get("host", ""))
        return HTMLResponse(shown, headers={"content-security-policy": PAGE_POLICY})

    async def _healthz(self, request: Request) -> Response:
        return _json(Health(status="ok"))

    async def _readyz(self, request: Request) -> Response:
        ready = self.phase == READY
        return _json(Readiness(status="ready" if ready else "draining"), 200 if ready else 503)

    async def _metrics(self, request: Request) -> Response:
        for each in self.bundles:
            self.metrics.queue.labels(each.name).set(each.scheduler.waiting)
        return Response(self.metrics.text(), media_type=CONTENT_TYPE)

    async def _openapi(self, request: Request) -> Response:
        return JSONResponse(self._document)

    async def _too_large(self, request: Request, error: Exception) -> Response:
        return too_large(self.limits)

    async def _fault(self, request: Request, error: Exception) -> Response:
        return problem(500, "this service failed at it, which is told in its log")


_CLOSE = {"connection": "close"}


async def _told(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    response = problem(error.status_code, error.detail)
    response.headers.update(error.headers or {})
    return response


def _json(content: Wire, status: int = 200) -> Response:
    return Response(content.model_dump_json(), status, media_type="application/json")


def _short(value: Any) -> str:
    text = printable(repr(value))
    return text if len(text) <= 80 else f"{text[:80]}…"


def _line(error: ValidationError) -> str:
    """What is wrong with a request, in one line."""
    first = error.errors(include_url=False)[0]
    if first["loc"][:1] == ("puzzles",) and first["type"] != "missing":
        return "puzzles must be one puzzle as text, or a list of puzzles, each as text or as a list of its tokens"
    return printable(first_problem(error))
