"""``hrm-edge compile``: build a TensorRT bundle's engines ahead of time, for this GPU or for a named kind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ..text import best_effort, echo, echo_json

if TYPE_CHECKING:
    from ..runtimes.base import Compiled

_STATES = {"built": "built", "kept": "already built", "bundle": "comes with the bundle"}


def command(
    bundle: Annotated[
        str,
        typer.Argument(metavar="BUNDLE", help="A bundle folder, as `hrm-edge export --target tensorrt` writes it."),
    ],
    compute_capability: Annotated[
        str | None,
        typer.Option(
            help="The kinds of GPU to build for, as 8.6,8.9 or 86,89; by default the one that is here. "
            "With tensorrt-rtx none needs to be here."
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Build again what is there already.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")] = False,
) -> None:
    """Build the engines of a TensorRT bundle before they are needed.

    They are kept in the cache folder. `solve` and all other commands build them when no engine fits; this is for
    doing it beforehand. What is built for the GPU that is here is also loaded and run once. Bundles for other
    targets need no compiling.
    """
    from dataclasses import asdict

    from ..bundle import open_bundle
    from ..progress import progress, say
    from ..runtimes import backends
    from ..runtimes.tensorrt.flavours import as_numbers

    opened = open_bundle(bundle)
    wanted = () if compute_capability is None else as_numbers(compute_capability)
    done: list[Compiled] | None = None
    if backend := backends().get(opened.manifest.target):
        with progress() as show:
            done = backend.compile(opened, wanted, force=force, say=say, progress=show)
    with best_effort():
        if as_json:
            engines = [
                {**asdict(one), "file": str(one.file), "seconds": round(one.seconds, 3)} for one in done or []
            ]
            echo_json({"bundle": bundle, "engines": engines})
        elif done is not None:
            _print(done, compute_capability)
        else:
            echo(f"{bundle}: is for {opened.manifest.target}, where nothing needs compiling")


def _print(done: list[Compiled], compute_capability: str | None) -> None:
    for one in done:
        capability = f"{one.compute_capability // 10}.{one.compute_capability % 10}"
        time = f" in {one.seconds:.1f} s" if one.state == "built" else ""
        what = f"{one.graph}, compute capability {capability}, {one.flavour} {one.version}"
        echo(f"{what}: {_STATES[one.state]}{time}: {one.file}")
    if compute_capability is not None and any(one.state != "bundle" for one in done):
        echo(
            "for another machine: copy the file to the folder `tensorrt` in its cache (HRM_EDGE_CACHE, else "
            "~/.cache/hrm-edge), or put it into the bundle with `hrm-edge export --compute-capability`"
        )
    echo("next, on that GPU: hrm-edge check SPEC   as its answers there have been compared with nothing yet")
