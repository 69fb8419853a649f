"""Target litert: TensorFlow Lite models for LiteRT and its XNNPACK delegate, on phones above all."""

from .target import TARGET

__all__ = ["TARGET"]
