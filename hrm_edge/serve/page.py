"""The page for people at `/`: what can be asked, and how."""

from __future__ import annotations

import base64
import hashlib
import html
import re
from collections.abc import Sequence

from .openapi import Operation

_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:46rem;margin:2rem auto;padding:0 1rem}"
    "pre{background:#8882;padding:.8rem;overflow:auto}td{padding:.2rem .8rem .2rem 0;vertical-align:top}"
    ":root{color-scheme:light dark}"
)
_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
PAGE_POLICY = (
    f"default-src 'none'; style-src 'sha256-{_HASH}'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
# What a Host header may be to stand in a command that people copy.
_ADDRESS = re.compile(r"[A-Za-z0-9.:\[\]-]+")
_EXAMPLE = (
    "curl ADDRESS/v1/solve -H 'Content-Type: application/json' \\\n"
    '  -d \'{"puzzles": "53..7....6..195....98....6.8...6...34..8.3..17...2...6.6....28....419..5....8..79"}\''
)


def page(operations: Sequence[Operation], scheme: str, host: str) -> str:
    """HTML without scripts; its example asks where this page was asked for, ``host`` as the browser told it."""
    address = f"{scheme}://{host if _ADDRESS.fullmatch(host) else 'HOST:PORT'}"
    rows = "".join(
        f"<tr><td><code>{each.method}&nbsp;{each.path}</code></td><td>{_prose(each.summary)}</td></tr>"
        for each in operations
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width"><title>hrm-edge</title>'
        f"<style>{_STYLE}</style></head><body><h1>hrm-edge</h1>"
        "<p>Hierarchical Reasoning Models that answer puzzles. Everything that can be asked is in "
        '<a href="openapi.json">openapi.json</a>; where a token is asked for, it goes into the header '
        "<code>Authorization: Bearer TOKEN</code>.</p>"
        f"<table>{rows}</table><pre>{html.escape(_EXAMPLE.replace('ADDRESS', address))}</pre></body></html>\n"
    )


def _prose(text: str) -> str:
    """A sentence in which backticks mark code."""
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", html.escape(text))
