"""`export --layout triton`: a bundle whose folder is a model repository of NVIDIA's Triton Inference Server."""

from .repository import TRITON, arrange, configure, require_served

__all__ = ["TRITON", "arrange", "configure", "require_served"]
