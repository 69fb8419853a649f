"""Runtimes: one file or folder a backend behind one small interface, picked by what a bundle was built for."""

from __future__ import annotations

from ..halting import HALT_MODES
from .base import Backend
from .engine import Answers, Engine
from .loader import backend, backends, load_engine
from .loops.graph import GraphLoop
from .loops.host import HostLoop
from .loops.slots import SlotLoop

__all__ = [
    "HALT_MODES",
    "Answers",
    "Backend",
    "Engine",
    "GraphLoop",
    "HostLoop",
    "SlotLoop",
    "backend",
    "backends",
    "load_engine",
]
