"""C: compiles a bundle's source with the machine's compiler, and calls it."""

from .backend import BACKEND

__all__ = ["BACKEND"]
