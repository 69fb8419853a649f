"""``hrm-edge env``: which backends this machine can use, why not the others, and what to install."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ..environment import Backend, BundleState, Environment

_ROLES = {"run": "run bundles", "train": "train", "export": "export"}


def command(
    bundles: Annotated[
        list[str] | None, typer.Argument(metavar="BUNDLES", help="Bundles to check; by default those in ./bundles.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")] = False,
) -> None:
    """Say what this machine can run, train and export, and which bundles nobody has checked."""
    import json

    from ..environment import look_around

    environment = look_around(bundles or [])
    if as_json:
        print(json.dumps(environment.to_dict(), indent=2))
    else:
        _print(environment)


def _print(environment: Environment) -> None:
    print(f"hrm-edge {environment.hrm_edge}, Python {environment.python}, {environment.platform}")
    threads = f"{environment.threads} thread{'s' if environment.threads > 1 else ''}"
    print(f"CPU: {environment.cpu}, {threads}, {' '.join(environment.features) or 'features unknown'}")
    for role, title in _ROLES.items():
        print(f"\n{title}")
        for backend in environment.backends:
            if backend.role == role:
                print(f"  {backend.name:<10} {_backend(backend)}")
    if environment.bundles:
        print("\nbundles")
        width = max(len(state.path) for state in environment.bundles)
        for state in environment.bundles:
            print(f"  {state.path:<{width}}  {_bundle(state)}")


def _backend(backend: Backend) -> str:
    if backend.usable:
        return f"yes  {backend.version}"
    version = f" ({backend.version} is installed)" if backend.version else ""
    install = f"; run: {backend.install}" if backend.install else ""
    return f"no   {backend.why_not}{version}{install}"


def _bundle(state: BundleState) -> str:
    if state.target is None:
        return f"BROKEN  {state.problem}"
    kind = f"{state.target} {state.precision}, {state.loop} loop"
    gate = "gated" if state.gated else f"NOT GATED: {state.ungated}"
    return f"{kind}, {gate}" + (f"; can not run: {state.problem}" if state.problem else "")
