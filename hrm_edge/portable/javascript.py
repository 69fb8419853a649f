"""The JavaScript that bundles and pages carry: ES modules without a DOM, which read, judge and think as we do."""

from __future__ import annotations

from importlib.resources import files

from .. import __version__

FOLDER = "web"  # of a bundle, where they stand


def js_files() -> dict[str, bytes]:
    """Content of each module by its file name, with the `package.json` that makes Node read them as modules."""
    found = {each.name: each.read_bytes() for each in files(__package__).joinpath("js").iterdir() if each.is_file()}
    found["package.json"] = found["package.json"].replace(b"0.0.0", __version__.encode())
    return dict(sorted(found.items()))


def web_files() -> dict[str, bytes]:
    """What a bundle of ONNX graphs carries for JavaScript by its place there: the modules and an example."""
    return {f"{FOLDER}/{name}": content for name, content in js_files().items()}
