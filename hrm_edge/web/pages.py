"""The page's own files: as they stand for a site, or joined into one self-contained page."""

from __future__ import annotations

import base64
import hashlib
import json
import posixpath
import re
from importlib.resources import files
from typing import Any

from ..portable import js_files

LIBRARY = "lib"  # of a site, where the modules of `hrm_edge.portable` stand
_NO_POLICY = "default-src 'none'"
_ENGINE = re.compile(r"<!-- engine -->.*?<!-- /engine -->\n", re.DOTALL)
_IMPORT = re.compile(r'^import \{[^}]*\} from "([^"]+)";\n', re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(?:async )?(?:function|class|const|let)\b)", re.MULTILINE)
_NAME = re.compile(r"^(?:async )?(?:function\*?|class|const|let) (\w+)", re.MULTILINE)

# Of a site nothing comes from elsewhere, and no script but its files runs; WebAssembly is compiled from them too.
SITE_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self' 'wasm-unsafe-eval'",
        *(f"{kind} 'self'" for kind in ("worker-src", "connect-src", "style-src", "img-src", "manifest-src")),
        *(f"{kind} 'none'" for kind in ("base-uri", "form-action")),
    )
)


def site_files() -> dict[str, bytes]:
    """The page's files by their place in a site, the library's among them."""
    source = files(__package__).joinpath("site")
    found = {each.name: each.read_bytes() for each in source.iterdir() if each.is_file()}
    found |= {f"app/{each.name}": each.read_bytes() for each in source.joinpath("app").iterdir()}
    found |= {f"{LIBRARY}/{name}": content for name, content in js_files().items() if name.endswith(".js")}
    found["index.html"] = found["index.html"].replace(_NO_POLICY.encode(), SITE_POLICY.encode())
    return found


def recorded_page(content: dict[str, Any], title: str) -> str:
    """One page that shows ``content`` (see `app/recorded.js`), with everything in it and nothing from elsewhere."""
    source = site_files()
    script = _joined(source, "app/recorded.js")
    style = source["style.css"].decode()
    icon = base64.b64encode(source["icon.svg"]).decode()
    policy = (
        f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    # In JSON a "<" stands in texts alone, where it may be written so; then no text of it ends the element.
    data = json.dumps(content, separators=(",", ":")).replace("<", "\\u003c")
    page = files(__package__).joinpath("site", "index.html").read_bytes().decode().replace(_NO_POLICY, policy)
    chooser = '<select id="chosen" aria-label="Puzzle" hidden></select>\n'
    page = _ENGINE.sub("", _ENGINE.sub(chooser, page, count=1))
    head = (
        f'<link rel="icon" href="data:image/svg+xml;base64,{icon}">\n<style>{style}</style>\n'
        f'<script type="application/json" id="recorded">{data}</script>\n'
    )
    links = re.compile(r'<link rel="stylesheet".*?</script>\n', re.DOTALL)
    page = links.sub(lambda _: head, page, count=1)
    page = page.replace("<title>hrm-edge</title>", f"<title>{title}</title>")
    return page.replace("</body>", f'<script type="module">{script}</script>\n</body>')


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _joined(source: dict[str, bytes], entry: str) -> str:
    """A module with all that it imports, each once and before what needs it, as one script without imports.

    The names of all of them must differ, which is checked.
    """
    parts: dict[str, str] = {}

    def add(name: str, within: tuple[str, ...] = ()) -> None:
        if name in parts or name in within:
            return
        text = source[name].decode()
        for other in _IMPORT.findall(text):
            add(posixpath.normpath(posixpath.join(posixpath.dirname(name), other)), (*within, name))
        parts[name] = _EXPORT.sub("", _IMPORT.sub("", text))

    add(entry)
    names = [name for text in parts.values() for name in _NAME.findall(text)]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"modules of the page share the names {', '.join(twice)}")
    joined = "\n".join(parts.values())
    if re.search(r"^(?:import|export)\b", joined, re.MULTILINE) or "</script" in joined:
        raise ValueError("a module of the page is written in a way that cannot be joined")
    return joined
