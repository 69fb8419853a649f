"""Target coreml: graphs lowered to ML programs, packages, and the Swift package beside them."""

from .target import TARGET

__all__ = ["TARGET"]
