"""Rooms that can be called: ``hrm_edge.solve`` is a folder of modules, and what people call to solve a puzzle.

Importing any module of such a room puts the room where the function of its name stood in ``hrm_edge``. It is
called like that function then, so that ``hrm_edge.solve(...)`` means one thing whatever was imported before.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any


class _CallableModule(ModuleType):
    _calls: str  # "package.module:function", imported at the first call

    @property
    def _function(self) -> Callable[..., Any]:
        home, _, name = self._calls.partition(":")
        function: Callable[..., Any] = getattr(importlib.import_module(home), name)
        return function

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(self._function)

    def __reduce__(self) -> tuple[Any, ...]:
        return importlib.import_module, (self.__name__,)

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return self._function(*arguments, **options)


def make_callable(module: str, function: str) -> None:
    """Have the module of this name, which is being imported, called as ``function`` ("package.module:function")."""
    room = sys.modules[module]
    room.__class__ = _CallableModule
    room._calls = function  # type: ignore[attr-defined]
