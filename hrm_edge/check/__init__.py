"""`hrm-edge check`: bundles × data sets × rules, from a TOML spec; judged with what n puzzles can show."""

from .run import Report, run_check

__all__ = ["Report", "run_check"]
