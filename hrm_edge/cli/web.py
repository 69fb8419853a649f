"""`hrm-edge web`: a bundle as a static site that thinks on the visitor's own machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .flags import Json


def command(
    bundle: Annotated[
        str,
        typer.Argument(
            metavar="BUNDLE", help="A bundle folder of target onnx, or of target c, which needs clang and lld here."
        ),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the site.")],
    runtime: Annotated[
        Path | None,
        typer.Option(
            help="An archive of onnxruntime-web as `npm pack` writes it; by default npm fetches it, once."
        ),
    ] = None,
    webgpu: Annotated[
        bool, typer.Option("--webgpu", help="Think on the visitor's GPU where it can; 27 MB more to load.")
    ] = False,
    json_: Json = False,
) -> None:
    """Write a page that solves puzzles on its visitors' machines.

    Weights, code and runtime, for any host of static files. It shows every segment with its confidence, works
    offline and can be installed. No part of it comes from another host, and what visitors ask does not leave
    their machine.
    """
    from ..bundle import open_bundle
    from ..progress import announce
    from ..text import best_effort, echo, echo_json
    from ..web.engines import Wishes
    from ..web.site import build_site

    opened = open_bundle(bundle)
    if opened.ungated_warning:
        announce(f"warning: {opened.ungated_warning}")
    site = build_site(opened, output, Wishes(runtime, webgpu), announce)
    with best_effort():
        if json_:
            echo_json(site.to_dict())
        else:
            echo(f"{output}: {len(site.files)} files, {site.size / 1e6:.2f} MB, thinks by {site.words}")
            echo(f"next: python -m http.server --directory {output}, and open http://localhost:8000")
