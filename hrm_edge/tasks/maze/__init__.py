"""Mazes: the shortest path through a grid, as a task with rules and a generator."""

from .task import Maze

__all__ = ["Maze"]
