"""What a bundle carries for people without our Python: its facts as plain JSON, and what reads them elsewhere."""

from .facts import FACTS, portable_facts, task_facts, write_facts
from .javascript import js_files

__all__ = ["FACTS", "js_files", "portable_facts", "task_facts", "write_facts"]
