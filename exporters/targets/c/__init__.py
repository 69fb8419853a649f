"""Target c: graphs lowered to one header and one source of C99."""

from .target import TARGET

__all__ = ["TARGET"]
