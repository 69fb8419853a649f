"""Core ML packages: read, interpreted on any machine, run by Core ML on macOS."""

from __future__ import annotations

from .backend import BACKEND

__all__ = ["BACKEND"]
