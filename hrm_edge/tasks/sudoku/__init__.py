"""Sudoku: any box shape, as a task with rules, an exact solver, a generator and symmetries."""

from .task import Sudoku

__all__ = ["Sudoku"]
