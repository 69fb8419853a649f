"""``hrm-edge env``: which backends this machine can use, why not the others, and what to install."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Annotated

import typer

from ..text import best_effort, echo, echo_json, printable

if TYPE_CHECKING:
    from ..environment import BackendState, BundleState, Environment, Lack

_ROLES = {"run": "run bundles", "train": "train", "export": "export bundles"}
_WIDTH = 79
_NAME = 10  # the longest name of a backend
_LONGEST_LABEL = 40  # what is longer gets a line of its own


def command(
    bundles: Annotated[
        list[str] | None, typer.Argument(metavar="BUNDLE", help="Bundles to check; by default those in ./bundles.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")] = False,
) -> None:
    """Say what this machine can run, train and export.

    And which bundles nobody has checked. Exits with 2 when a bundle that was named can not be opened.
    """
    from dataclasses import asdict

    from ..environment import look_around

    environment = look_around(bundles or [])
    with best_effort():  # whether a bundle is broken, the exit code says too
        if as_json:
            echo_json(asdict(environment), indent=2)
        else:
            _print(environment)
    if bundles and any(state.broken for state in environment.bundles):
        raise typer.Exit(2)


def _print(environment: Environment) -> None:
    echo(*_wrapped(f"hrm-edge {environment.hrm_edge}, Python {environment.python}, {environment.platform}", 4))
    threads = f"{environment.threads} thread{'s' if environment.threads > 1 else ''}"
    features = " ".join(environment.features) or "features unknown"
    echo(*_wrapped(f"CPU: {environment.cpu}, {threads}, {features}", 5))
    for gpu in environment.gpus:
        driver = f"driver {gpu.driver}" if gpu.driver else "version of the driver unknown"
        echo(*_wrapped(f"NVIDIA GPU: {gpu.name}, compute capability {gpu.compute_capability}, {driver}", 4))
    if not environment.gpus:
        echo("NVIDIA GPU: none")
    for role, title in _ROLES.items():
        echo("", title)
        lack = environment.exports_lack if role == "export" else None
        if lack:
            _print_lack("all", lack.why_not, lack.install)
        for backend in environment.backends:
            if backend.role == role:
                _print_backend(backend, lack)
    if environment.bundles:
        echo("", "bundles")
        width = min(max(len(printable(state.path)) for state in environment.bundles), _LONGEST_LABEL)
        for state in environment.bundles:
            _print_row(state.path, width, _bundle(state))


def _print_backend(backend: BackendState, lack: Lack | None) -> None:
    """``lack``: what it shares with the others of its role, which was told for all of them."""
    version = f" ({backend.version} is installed)" if backend.version else ""
    why_not = backend.why_not or ""
    if backend.usable:
        _print_row(backend.name, _NAME, f"yes  {backend.version}", hang=5)
    elif lack:  # the command that adds what it lacks besides stands above, where it can not be run
        besides = why_not.removeprefix(lack.why_not).removeprefix("; ")
        _print_lack(backend.name, f"the same, and {besides}" if besides else "the same")
    else:
        _print_lack(backend.name, why_not + version, backend.install)
    if backend.note:
        _print_row("", _NAME, f"     {backend.note}", hang=5)


def _print_lack(name: str, why_not: str, install: str | None = None) -> None:
    _print_row(name, _NAME, f"no   {why_not}", hang=5)
    if install:  # whole, however long: it is there to be copied
        echo(f"{'':{_NAME + 9}}run: {install}")


def _print_row(label: str, width: int, text: str, hang: int = 0) -> None:
    """A label, and beside it a text of several lines where it is long."""
    indent = width + 4
    label = printable(label)
    if len(label) > width:
        echo(f"  {label}")
        label = ""
    first, *more = _wrapped(" " * indent + text, indent + hang)
    echo(f"  {label:<{width}}{first[width + 2 :]}", *more)


def _wrapped(text: str, indent: int) -> list[str]:
    """Lines of a terminal's width; commands and paths are not cut."""
    return textwrap.wrap(
        printable(text), _WIDTH, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False
    )


def _bundle(state: BundleState) -> str:
    if state.broken:
        return f"BROKEN  {state.problem}"
    kind = f"{state.target} {state.precision}, {state.loop} loop"
    gated = f"gated, {state.gated_by}" if state.gated_by else "gated"
    gate = gated if state.gated else f"NOT GATED: {state.ungated}"
    return f"{kind}, {gate}" + (f"; can not run: {state.problem}" if state.problem else "")
