"""A checkpoint as PyTorch's own exporter writes it, run by onnxruntime: what one has without hrm-edge."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..exporters.graph.trace import OPSET, Program, quiet, segment_program, start_program
from ..measure.artifact import Artifact
from ..models import Checkpoint
from ..models.network import Wrapped
from ..runtimes.loops import NEXT, by_position
from ..runtimes.loops.host import HostLoop
from ..runtimes.onnx import as_graph, imported

NAME = "naive export"


def naive_export(checkpoint: Checkpoint, folder: Path) -> dict[str, Path]:
    """`torch.onnx.export` of one segment as the network is written, and of the start; ``folder`` is empty."""
    model = checkpoint.model.eval()
    written = {}
    for stem, program in {"start": start_program(model), "segment": segment_program(model)}.items():
        # The segment's module is in forms that backends fuse: a naive export takes the network as it is written.
        # Its start would come out for a fixed number of rows; that is done once a puzzle, and not what is compared.
        module = program.module if stem == "start" or isinstance(model, Wrapped) else model
        batch = torch.export.Dim("batch", min=1)
        shapes: Any = tuple({0: batch} for _ in program.inputs)
        written[stem] = folder / f"{stem}.onnx"
        with quiet(), torch.no_grad():
            torch.onnx.export(
                module,
                tuple(program.inputs.values()),
                written[stem],
                dynamo=True,
                opset_version=OPSET,
                input_names=list(program.inputs),
                output_names=list(program.outputs),
                dynamic_shapes=shapes if _takes_each(module, program) else (shapes,),
            )
    return written


def naive_artifact(checkpoint: Checkpoint, files: dict[str, Path], threads: int) -> Artifact:
    """The files in onnxruntime's own settings, with the loop around them that a host needs."""
    config, state = checkpoint.config, tuple(checkpoint.model.state)
    tokens = ("tokens", "puzzle_identifiers") if config.num_puzzle_identifiers > 1 else ("tokens",)
    following = (*(name + NEXT for name in state), "logits", "q")
    engine = HostLoop(
        checkpoint.task,
        config.halt_max_steps,
        by_position(_graph(files["start"], threads), tokens, ("e", *state)),
        by_position(_graph(files["segment"], threads), (*state, "e"), following),
        backend="onnx",
        no_ACT_continue=config.no_ACT_continue,
        num_puzzle_identifiers=config.num_puzzle_identifiers,
        kept_identifiers=checkpoint.kept_identifiers,
        numbering=checkpoint.numbering,
        state=state,
    )
    size = sum(file.stat().st_size for file in files["start"].parent.iterdir())
    return Artifact(
        NAME, files["start"].parent, engine, "fp32", size, checkpoint.content_hash, None, "nothing proved it"
    )


def _graph(file: Path, threads: int) -> Any:
    onnxruntime = imported()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    return as_graph(onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"]))


def _takes_each(module: nn.Module, program: Program) -> bool:
    """Whether its forward names its inputs; ``*inputs`` counts as one."""
    import inspect

    kinds = {each.kind for each in inspect.signature(module.forward).parameters.values()}
    return inspect.Parameter.VAR_POSITIONAL not in kinds
