"""TensorRT and TensorRT-RTX: engines built, audited, kept, and run with their state on the GPU."""

from __future__ import annotations

from .backend import BACKEND

__all__ = ["BACKEND"]
