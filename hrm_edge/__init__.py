"""hrm-edge: from a trained Hierarchical Reasoning Model to a bundle that solves puzzles on a device."""

__version__ = "0.1.0"
