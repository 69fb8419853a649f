"""The OpenAPI document, from the table of operations and the pydantic models that read and write."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic.json_schema import models_json_schema

from .. import __version__
from .events import STREAM
from .records import Problem, Wire
from .settings import Limits

_REFERENCE = "#/components/schemas/{model}"
_EVENT = _REFERENCE.format(model="Event")
_UNMODELLED: dict[str, dict[str, Any]] = {
    "application/json": {"type": "object"},
    "text/html": {"type": "string"},
    "text/plain": {"type": "string"},
    STREAM: {"$ref": _EVENT},
}
_PROBLEMS = {
    400: "The body is no JSON.",
    401: "The token is missing, or another.",
    403: "Not allowed as the service was started.",
    404: "No bundle of that name is served.",
    408: "The body took too long.",
    413: "The body is too large.",
    415: "The body is not declared to be JSON.",
    421: "This machine was called by a name that is not its own.",
    422: "The JSON is no request.",
    429: "The queue has no room. `Retry-After` tells when to try again.",
    503: "The service is stopping.",
}


@dataclass(frozen=True)
class Operation:
    """What a path does. ``answers``: media type and model by status; ``problems``: statuses of refusals."""

    method: str
    path: str
    handler: Callable[..., Any]
    summary: str
    answers: Mapping[int, tuple[str, type[Wire] | None]]
    body: type[Wire] | None = None
    problems: tuple[int, ...] = ()
    open: bool = False  # to who has no token
    streams: bool = False  # also as events, to who accepts these
    events: Mapping[str, type[Wire]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.path.strip("/").replace("/", "_").replace(".", "_") or "home"


def document(operations: Sequence[Operation], limits: Limits, *, protected: bool) -> dict[str, Any]:
    """The document of a service with these limits; ``protected``: it has a token."""
    read: set[type[Wire]] = {each.body for each in operations if each.body}
    written = {model for each in operations for _, model in each.answers.values() if model} | {Problem}
    events = {name: model for each in operations for name, model in each.events.items()}
    written |= set(events.values())
    order = [(model, "validation") for model in read] + [(model, "serialization") for model in written]
    _, schemas = models_json_schema(
        sorted(order, key=lambda pair: pair[0].__name__),  # type: ignore[arg-type]
        ref_template=_REFERENCE,
    )
    definitions = schemas["$defs"]
    definitions["Event"] = _event(events)
    asked = definitions["SolveRequest"]["properties"]
    for choice in asked["puzzles"]["anyOf"]:
        if choice["type"] == "array":
            choice["maxItems"] = limits.puzzles
    for choice in asked["max_think_steps"]["anyOf"]:
        if choice["type"] == "integer":
            choice["maximum"] = limits.segments
    paths: dict[str, Any] = {}
    for each in operations:
        paths.setdefault(each.path, {})[each.method.lower()] = _described(each, protected)
    components: dict[str, Any] = {"schemas": definitions}
    if protected:
        components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "hrm-edge",
            "version": __version__,
            "description": "Hierarchical Reasoning Models that answer puzzles, segment by segment. "
            f"A request may have {limits.body} bytes, {limits.puzzles} puzzles and {limits.seconds:g} s.",
        },
        "paths": paths,
        "components": components,
    }


def _described(each: Operation, protected: bool) -> dict[str, Any]:
    described: dict[str, Any] = {"operationId": each.name, "summary": each.summary}
    if each.body is not None:
        schema = {"$ref": _REFERENCE.format(model=each.body.__name__)}
        described["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    responses: dict[str, Any] = {}
    for status, (media, model) in each.answers.items():
        schema = {"$ref": _REFERENCE.format(model=model.__name__)} if model else _UNMODELLED[media]
        content = {media: {"schema": schema}}
        if each.streams:
            content[STREAM] = {"schema": {"$ref": _EVENT}}
        responses[str(status)] = {
            "description": "Answered." if status < 400 else "Not so.",
            "content": content,
        }
    needs_token = protected and not each.open
    for status in sorted({*each.problems, 421, *([401] if needs_token else [])}):
        responses.setdefault(str(status), _refusal(status))
    described["responses"] = responses
    if needs_token:
        described["security"] = [{"token": []}]
    return described


def _event(events: Mapping[str, type[Wire]]) -> dict[str, Any]:
    """One server-sent event."""
    models = [{"$ref": _REFERENCE.format(model=model.__name__)} for model in events.values()]
    data = {"type": "string", "contentMediaType": "application/json", "contentSchema": {"anyOf": models}}
    properties = {"event": {"enum": list(events)}, "data": data}
    return {"type": "object", "required": ["event", "data"], "properties": properties}


def _refusal(status: int) -> dict[str, Any]:
    schema = {"$ref": _REFERENCE.format(model=Problem.__name__)}
    told: dict[str, Any] = {
        "description": _PROBLEMS[status],
        "content": {"application/json": {"schema": schema}},
    }
    if status == 429:
        told["headers"] = {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer", "minimum": 1}}}
    return told
