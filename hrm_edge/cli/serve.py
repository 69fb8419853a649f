"""`hrm-edge serve`: bundles as a service over HTTP, or as tools for language models."""

from __future__ import annotations

import faulthandler
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .flags import Json, Streams, Threads

if TYPE_CHECKING:
    from ..serve.bundles import Bundles


def command(
    bundles: Annotated[
        list[str],
        typer.Argument(
            metavar="BUNDLE...",
            help="Bundle folders, served under their own names, or NAME=FOLDER.",
        ),
    ],
    mcp: Annotated[
        bool,
        typer.Option("--mcp", help="Be a Model-Context-Protocol server on standard input and output instead."),
    ] = False,
    mcp_http: Annotated[bool, typer.Option("--mcp-http", help="Offer those tools over HTTP too, at /mcp.")] = False,
    host: Annotated[
        str, typer.Option(help="Address to listen on; others than this machine's own need a token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 8000,
    token_file: Annotated[
        Path | None,
        typer.Option(help="A file with the token that callers must show; or set HRM_EDGE_TOKEN."),
    ] = None,
    threads: Threads = None,
    streams: Streams = None,
    queue: Annotated[int, typer.Option(min=1, help="Puzzles of a bundle that may wait; 429 beyond.")] = 1024,
    max_body: Annotated[int, typer.Option(min=1, help="Bytes of a request.")] = 2**20,
    max_puzzles: Annotated[int, typer.Option(min=1, help="Puzzles of a request.")] = 256,
    max_segments: Annotated[int, typer.Option(min=1, help="Segments that a request may ask for.")] = 4096,
    max_seconds: Annotated[float, typer.Option(help="Longest time of a puzzle, from queue to answer.")] = 60.0,
    header_seconds: Annotated[
        float, typer.Option(help="Longest time of a connection over a request's headers.")
    ] = 10.0,
    drain_delay: Annotated[
        float, typer.Option(help="Seconds from SIGTERM, when /readyz says 503, until new puzzles are refused.")
    ] = 0.0,
    drain_seconds: Annotated[
        float, typer.Option(help="Seconds for what was begun to be answered, before it is cut off.")
    ] = 30.0,
    json_: Json = False,
) -> None:
    """Answer puzzles over HTTP, at once or segment by segment.

    As JSON, or each segment as a server-sent event; /openapi.json says how. SIGHUP loads the bundles anew
    without losing a request. SIGTERM and Ctrl-C answer what was begun; exit code 0, or 128 + the signal's
    number where --drain-seconds were not enough. With --json one object tells where it listens, when it does.
    """
    from ..errors import InputError
    from ..packages import absent, install
    from ..serve.settings import Limits, read_token, require_token

    extra, modules = ("mcp", ("mcp",)) if mcp or mcp_http else ("serve", ())
    if missing := absent(("starlette", "uvicorn", "prometheus_client", *modules)):
        raise InputError(f"{missing}; run: {install(extra)}")
    if mcp and (mcp_http or json_):
        raise InputError("--mcp: the protocol has standard output for itself; drop --mcp-http and --json")
    limits = Limits(
        body=max_body,
        puzzles=max_puzzles,
        segments=max_segments,
        queue=queue,
        seconds=max_seconds,
        header_seconds=header_seconds,
    )
    from ..serve.bundles import Bundles, Loading, named
    from .unexpected import tell

    faulthandler.enable(2)  # on standard error: a crash of a library tells where each thread was
    paths, loading = named(bundles), Loading(threads, streams, queue)
    if mcp:
        from ..serve.mcp import run_stdio

        if code := run_stdio(_opened(Bundles(paths, loading)), limits, tell):
            raise typer.Exit(code)
        return
    token = read_token(token_file)
    require_token(host, token)
    import asyncio

    from ..progress import announce
    from ..serve.app import Service
    from ..serve.server import Drain, listen, run, url_of
    from ..text import echo_json

    drain = Drain(drain_delay, drain_seconds)
    listening = listen(host, port)  # before bundles are loaded, as that takes longer
    url = url_of(listening)

    async def main() -> int:
        served = _opened(Bundles(paths, loading))
        hosts = None if token else frozenset({"localhost", "127.0.0.1", "[::1]", host.lower()})
        tools = None
        if mcp_http:
            from ..serve.mcp import Tools

            tools = Tools(served, limits, tell)
        service = Service(served, limits, token, hosts, tell, tools)

        def ready() -> None:
            announce(f"{', '.join(served.names)} at {url} (Ctrl-C stops it)")
            if json_:
                echo_json({"url": url, "bundles": [each.info.model_dump() for each in served]})

        return await run(service, listening, drain, ready)

    if code := asyncio.run(main()):
        raise typer.Exit(code)


def _opened(served: Bundles) -> Bundles:
    """What is to be known of them before they are relied on."""
    from ..progress import announce

    for each in served:
        if each.info.warning:
            announce(f"warning: {each.info.warning}")
    return served
