"""The bundle: a folder with a manifest, graph files and their hashes, whole and untouched or refused."""

from .folder import (
    ACCURACY,
    MANIFEST,
    Bundle,
    open_bundle,
    require_replaceable,
    require_unchanged,
    seal_bundle,
)
from .manifest import FORMAT_VERSION, FileEntry, Gate, Manifest, TensorSpec

__all__ = [
    "ACCURACY",
    "FORMAT_VERSION",
    "MANIFEST",
    "Bundle",
    "FileEntry",
    "Gate",
    "Manifest",
    "TensorSpec",
    "open_bundle",
    "require_replaceable",
    "require_unchanged",
    "seal_bundle",
]
