"""What is said of a bundle that does not open, and manifests changed by who knows how to fix their digest."""

import hashlib
import json

import pytest

from hrm_edge.bundle import open_bundle
from hrm_edge.errors import InputError


def refusal(path) -> str:
    """The one line with which opening it is refused."""
    with pytest.raises(InputError) as caught:
        open_bundle(path)
    line = str(caught.value)
    assert "\n" not in line
    return line


def resealed(path, change) -> None:
    """Change the manifest as someone would who also knows how to fix its digest."""
    content = json.loads((path / "manifest.json").read_text())
    content.pop("digest")
    change(content)
    text = json.dumps(content, indent=2, sort_keys=True) + "\n"
    content["digest"] = hashlib.sha256(text.encode()).hexdigest()
    (path / "manifest.json").write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")
