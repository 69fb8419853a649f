"""A bundle explains itself: its facts as JSON, and a README that says how it is called without hrm-edge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..bundle import Manifest
from ..files import files_in
from ..portable import write_facts
from ..portable.readme import write_readme
from ..tasks import Task
from .calls import snippets
from .targets import target_named


def explain(
    folder: Path,
    manifest: Manifest,
    task: Task,
    accuracy: Mapping[str, Any] | None = None,
    notes: Sequence[str] = (),
) -> None:
    """Write `facts.json` and `README.md` into a bundle that is being made.

    May be called again once more is known: its examples, and what the gate measured (``accuracy``). ``notes``: what
    is to be said besides what the target says.
    """
    target = target_named(manifest.target)
    facts = write_facts(folder, manifest, task)
    write_readme(
        folder,
        manifest,
        task,
        facts,
        accuracy=accuracy,
        snippets=snippets(target.name, facts, files_in(folder)),
        interface=target.interface(folder, manifest),
        notes=(*target.device_notes(manifest), *notes),
    )
