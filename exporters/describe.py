"""What a graph says of itself, in whatever format it is written: a summary, facts by name, and its bindings."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from .. import __version__
from ..files import readable_name
from ..halting import halting_head, numbered
from ..models import Checkpoint
from ..models.family import NETWORKS
from ..portable.meaning import GRAPHS, meanings
from ..text import printable
from .options import ExportOptions

if TYPE_CHECKING:
    import onnx

PREFIX = "hrm_edge."  # what our keys in a graph's metadata begin with
UNKNOWN = "unknown"
_DESCRIBED = dict.fromkeys(NETWORKS, "Hierarchical Reasoning Model")


def summary(checkpoint: Checkpoint, options: ExportOptions, graph: str) -> str:
    """Two sentences on the graph called "model", "start", "segment" or "stateful"."""
    config = checkpoint.config
    return (
        f"{_DESCRIBED.get(config.kind, config.title)} for {checkpoint.task.name}: {GRAPHS[graph]}. "
        f"{config.structure}, at most {config.halt_max_steps} segments; precision {options.precision}, loop "
        f"{options.loop}."
    )


def facts(checkpoint: Checkpoint, options: ExportOptions, graph: str) -> dict[str, str]:
    """What a program may look up, each value a text; lists and tables are JSON."""
    config, task = checkpoint.config, checkpoint.task
    found = {
        "task": task.name,
        "vocabulary": json.dumps(list(task.vocabulary)),
        "seq_len": str(task.seq_len),
        "halt_modes": json.dumps({rule.name: rule.number for rule in numbered()}),
        "halt_max_steps": str(config.halt_max_steps),
        "halting_rule": halting_head(config.no_ACT_continue).text("q[0]", "q[1]"),
        "graph": graph,
        "precision": options.precision,
        "loop": options.loop,
        "author": author(checkpoint),
        "license": licence(checkpoint),
        "source": _shown(checkpoint.name),
        "source_hash": checkpoint.content_hash,
        "version": __version__,
    }
    return {PREFIX + name: value for name, value in found.items()}


def bindings(checkpoint: Checkpoint) -> dict[str, str]:
    """Name of an input or output → what it means."""
    config = checkpoint.config
    return meanings(
        checkpoint.task,
        halt_max_steps=config.halt_max_steps,
        no_ACT_continue=config.no_ACT_continue,
        num_puzzle_identifiers=config.num_puzzle_identifiers,
        state=tuple(checkpoint.model.state),
    )


def describe(model: onnx.ModelProto, checkpoint: Checkpoint, options: ExportOptions, graph: str) -> None:
    """Fill in an ONNX graph's doc strings and metadata."""
    model.doc_string = summary(checkpoint, options, graph)
    del model.metadata_props[:]
    for name, value in sorted(facts(checkpoint, options, graph).items()):
        model.metadata_props.add(key=name, value=value)
    texts = bindings(checkpoint)
    for value in (*model.graph.input, *model.graph.output):
        value.doc_string = texts[value.name]


def author(checkpoint: Checkpoint) -> str:
    """What the checkpoint says of its author."""
    return _shown(checkpoint.metadata.get("author") or UNKNOWN)


def licence(checkpoint: Checkpoint) -> str:
    """What the checkpoint says of its licence, in its metadata or in a line of its card."""
    said = next((checkpoint.metadata[key] for key in ("license", "licence") if checkpoint.metadata.get(key)), None)
    line = re.search(r"^\W*licen[cs]e\W*:\s*(\S.*?)\s*$", checkpoint.card, re.MULTILINE | re.IGNORECASE)
    return _shown(said or (line[1] if line else UNKNOWN))


def _shown(text: object) -> str:
    """What a checkpoint says, as one line that every format can hold."""
    return printable(readable_name(str(text)))
