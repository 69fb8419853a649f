"""Runtimes: one file per backend behind one small interface, picked by what a bundle was built for."""

from __future__ import annotations

from .base import HALT_MODES, Answers, Engine
from .loader import BACKENDS, load_engine
from .loops.graph import GraphLoop
from .loops.host import HostLoop
from .loops.slots import SlotLoop

__all__ = ["BACKENDS", "HALT_MODES", "Answers", "Engine", "GraphLoop", "HostLoop", "SlotLoop", "load_engine"]
