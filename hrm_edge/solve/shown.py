"""What prints as boards, wherever it is printed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any


class Shown(ABC):
    """Boards for ``print``, and the same in colours for notebooks."""

    @abstractmethod
    def _drawn(self) -> list[Any]:
        """The pictures, from top to bottom."""

    def __str__(self) -> str:
        from .pictures import plain

        return plain(*self._drawn())

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        from .pictures import html

        return html(*self._drawn())
