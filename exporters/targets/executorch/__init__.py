"""Target executorch: ExecuTorch programs for phones, their operators handed to the XNNPACK delegate."""

from .target import TARGET

__all__ = ["TARGET"]
