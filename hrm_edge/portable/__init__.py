"""What a bundle carries for people without our Python: its facts as plain JSON, and what reads them elsewhere."""

from .facts import FACTS, portable_facts, write_facts

__all__ = ["FACTS", "portable_facts", "write_facts"]
