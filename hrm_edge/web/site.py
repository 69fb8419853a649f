"""A bundle as a static site: the page, its facts, what thinks, and what keeps it for use without a network."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import __version__
from ..bundle import Bundle, require_unchanged
from ..bundle.examples import examples_in
from ..errors import InputError
from ..files import check_place, check_replaceable, files_in, replacing_folder
from ..portable import FACTS, portable_facts
from ..progress import Say
from ..tasks.carried import read_task
from ..text import printable
from .engines import Parts, Wishes, engine_for
from .pages import site_files

SITE = "site.json"
_WORKER = "sw.js"
_INSTALLED = "manifest.webmanifest"


@dataclass(frozen=True)
class Site:
    """A site as it was written: size of each file in bytes, by its place."""

    path: Path
    files: dict[str, int]
    words: str  # what thinks in it

    @property
    def size(self) -> int:
        """Bytes of all of it, which is what a first visit loads."""
        return sum(self.files.values())

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"path": str(self.path), "bytes": self.size, "engine": self.words, "files": self.files}


def build_site(bundle: Bundle, output: Path, wishes: Wishes | None = None, say: Say = lambda stage: None) -> Site:
    """Write the site of an opened bundle to ``output``, whole or not at all; a site of ours makes way for it.

    InputError where ``output`` holds anything else, or no page can run the bundle.
    """
    check_replaceable(output, require_site)
    check_place(output)
    engine = engine_for(bundle)
    say("collecting what thinks in the page")
    parts = engine.parts(bundle, wishes or Wishes())
    say("writing the site")
    content = _content(bundle, parts)
    require_unchanged(bundle)  # else the page could be of two
    with replacing_folder(output, require_site, result=True) as folder:
        for name, data in content.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
    return Site(output, {name: len(data) for name, data in sorted(content.items())}, parts.words)


def _content(bundle: Bundle, parts: Parts) -> dict[str, bytes]:
    """Every file of the site by its place."""
    manifest = bundle.manifest
    task = read_task(bundle.path, manifest.task)
    facts = portable_facts(manifest, task, examples_in(bundle.path))
    content = {**site_files(), **parts.files, FACTS: json.dumps(facts, separators=(",", ":")).encode()}
    content[_INSTALLED] = _installed(task.name).encode()
    worker = content.pop(_WORKER).decode()
    weights = sum(len(data) for name, data in parts.files.items() if name.startswith("model/"))
    described: dict[str, Any] = {
        "engine": parts.named,
        "subtitle": printable(
            f"{manifest.architecture['parameters']:,} parameters, {manifest.precision}, "
            f"{_size(weights)} of {parts.holds}"
        ),
        "about": printable(f"Made by hrm-edge {__version__} from the bundle {manifest.name}; {parts.words}."),
        "bytes": sum(map(len, content.values())),
        "files": {name: hashlib.sha256(data).hexdigest() for name, data in sorted(content.items())},
    }
    version = _digest(described)
    kept = ["./", *sorted(content), SITE]
    worker = worker.replace("const FILES = [];", f"const FILES = {json.dumps(kept)};", 1)
    worker = worker.replace('const VERSION = "";', f'const VERSION = "{version[:16]}";', 1)
    content[_WORKER] = worker.encode()
    described["files"][_WORKER] = hashlib.sha256(content[_WORKER]).hexdigest()
    content[SITE] = _dump({**described, "digest": _digest(described)})
    return content


def _installed(name: str) -> str:
    """The web app manifest, by which browsers offer to install the page."""
    icons = [
        {"src": "icon.svg", "type": "image/svg+xml", "sizes": "any"},
        *(
            {"src": f"icon-{size}.png", "type": "image/png", "sizes": f"{size}x{size}", "purpose": "any maskable"}
            for size in (192, 512)
        ),
    ]
    described = {
        "name": f"{name} by hrm-edge",
        "short_name": name,
        "start_url": "./",
        "scope": "./",
        "display": "standalone",
        "background_color": "#14151a",
        "theme_color": "#14151a",
        "icons": icons,
    }
    return json.dumps(described, indent=1)


def require_site(folder: Path) -> None:
    """InputError where a site in the place of ``folder`` would lose anything but an older site of ours."""
    elsewhere = "which would be replaced; move it away, or give -o another"
    if not folder.is_dir():
        raise InputError(f"{folder}: is a file; give -o a folder to write the site to")
    present = files_in(folder)
    listed = _listed(folder)
    if listed is None:
        raise InputError(f"{folder}: holds something else than a site of hrm-edge, {elsewhere}")
    for name in sorted(present - {SITE}):
        if name not in listed:
            raise InputError(f"{folder}: holds {name!r}, which is no part of its site, {elsewhere}")
        if hashlib.sha256((folder / name).read_bytes()).hexdigest() != listed[name]:
            raise InputError(f"{folder}: {name!r} was changed after it was written, {elsewhere}")


def _listed(folder: Path) -> dict[str, str] | None:
    """SHA-256 of each file that a site's own list has; None where there is none, or it was changed."""
    try:
        content = json.loads((folder / SITE).read_bytes())
        digest = content.pop("digest")
        listed = content["files"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return listed if digest == _digest(content) and isinstance(listed, dict) else None


def _dump(content: dict[str, Any]) -> bytes:
    return json.dumps(content, indent=1, sort_keys=True).encode()


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(_dump(content)).hexdigest()


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.0f} kB"
