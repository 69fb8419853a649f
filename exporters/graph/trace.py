"""Tracing: one segment and the start of a puzzle as ONNX graphs, in the operator forms that backends fuse.

The network is the checkpoint's own; only leaves of its blocks are exchanged for others with the same result. What
each form buys was measured (CPU, one row, 0.9 M and 27 M parameters):

- q, k, v and gate, up as separate products: OpenVINO splits a fused one's result with a slow reference kernel;
- the attention scale in the stored q weight: one multiplication less, and OpenVINO then fuses attention whole;
- the norm as ``x / sqrt(mean(x²) + eps) · 1``: the form that both OpenVINO and onnxruntime fuse;
- the rotated halves by slices: OpenVINO fuses that into one rotary operator.

A product over the sequence (TRM's mlp_t) gets its input transposed, never its weight: quantizers look for weights
that are stored as MatMul reads them.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import inspect
import io
import logging
import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import onnx
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import InputError
from ...models import HRM
from ...models.layers import RMSNorm, SwiGLU
from ...models.mixers import Attention
from ...models.network import Wrapped
from ...runtimes.loops import NEXT
from .edit import ensure
from .methods import Method, Repeated, call_methods
from .passes import BATCH, clean, fold_views, split_products
from .repeat import OneOfEach, write_segment

OPSET = 20
# Any number but 0 and 1, which the tracer takes for constants.
_EXAMPLE_ROWS = 3


class ExportedAttention(nn.Module):
    """Attention with q, k and v apart and the scale inside q's weight."""

    def __init__(self, attention: Attention):
        super().__init__()
        self.num_heads, self.head_dim = attention.num_heads, attention.head_dim
        q, k, v = attention.qkv_proj.weight.detach().chunk(3)
        self.q_proj = _linear(q * self.head_dim**-0.5)
        self.k_proj, self.v_proj = _linear(k), _linear(v)
        self.o_proj = attention.o_proj

    def forward(self, x: Tensor, *rope: Tensor) -> Tensor:
        B, S, D = x.shape
        q, k, v = (
            project(x).view(B, S, self.num_heads, self.head_dim).transpose(1, 2)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        if rope:
            q, k = _rotate(q, *rope), _rotate(k, *rope)
        y = torch.softmax(q @ k.transpose(-1, -2), dim=-1) @ v
        return self.o_proj(y.transpose(1, 2).reshape(B, S, D))


class ExportedSwiGLU(nn.Module):
    """SwiGLU with gate and up apart."""

    def __init__(self, mlp: SwiGLU):
        super().__init__()
        gate, up = mlp.gate_up_proj.weight.detach().chunk(2)
        self.gate_proj, self.up_proj = _linear(gate), _linear(up)
        self.down_proj = mlp.down_proj

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class ExportedNorm(nn.Module):
    """The norm with a gain of one that makes it recognisable."""

    gain: Tensor

    def __init__(self, norm: RMSNorm):
        super().__init__()
        self.eps = norm.eps
        self.register_buffer("gain", torch.ones(norm.width))

    def forward(self, x: Tensor) -> Tensor:
        return self.gain * (x / torch.sqrt(x.pow(2).mean(-1, keepdim=True) + self.eps))


def _linear(weight: Tensor) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    layer.weight = nn.Parameter(weight.clone(), requires_grad=False)
    return layer


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    half = x.shape[-1] // 2
    return x * cos + torch.cat((-x[..., half:], x[..., :half]), dim=-1) * sin


# Leaf of the network → the form it is exported in.
_FORMS: dict[type[nn.Module], Callable[[Any], nn.Module]] = {
    Attention: ExportedAttention,
    SwiGLU: ExportedSwiGLU,
    RMSNorm: ExportedNorm,
}


def exported_form(model: HRM) -> HRM:
    """A copy of the model that computes the same in the forms above; its ``forward`` is one segment."""
    model = copy.deepcopy(model).eval().requires_grad_(False)
    for parent in list(model.modules()):
        for name, leaf in parent.named_children():
            form = next((form for kind, form in _FORMS.items() if isinstance(leaf, kind)), None)
            if form is not None:
                setattr(parent, name, form(leaf))
    return model


class Start(nn.Module):
    """What happens once per puzzle: tokens → the input embedding and the initial state.

    Scales, positions and the prefix of the only puzzle identifier are summed into two stored tables, so that
    one lookup and one addition are left.
    """

    table: Tensor
    offset: Tensor
    prefix: Tensor
    H_init: Tensor
    L_init: Tensor

    def __init__(self, model: HRM):
        super().__init__()
        config = model.config
        D, P = config.hidden_size, config.prefix_len
        self.prefix_len, self.sequence_len, self.width = P, config.sequence_len, D
        token_scale = prefix_scale = math.sqrt(D)
        positions = torch.zeros(config.sequence_len, D)
        if config.pos_encodings == "learned":  # positions cover the prefix too
            token_scale = prefix_scale = math.sqrt(D / 2)
            positions = model.embed_pos.weight.detach() * token_scale
        elif config.on_grid:
            grid = F.embedding(model.position_ids, model.embed_pos.weight).detach()  # [K, S, D]
            token_scale = math.sqrt(D / (1 + len(grid)))
            positions[P:] = grid.sum(0) * token_scale
        self.register_buffer("table", model.embed_tokens.weight.detach() * token_scale)
        self.register_buffer("offset", positions[P:].clone())
        if P:
            prefix = F.pad(model.puzzle_emb.weight.detach(), (0, P * D - config.puzzle_emb_ndim))
            self.register_buffer("prefix", prefix * prefix_scale + positions[:P].flatten())
        self.register_buffer("H_init", model.H_init.float().clone())
        self.register_buffer("L_init", model.L_init.float().clone())

    def forward(self, tokens: Tensor, puzzle_identifiers: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        rows = tokens.shape[0]
        e = _looked_up(self.table, tokens) + self.offset
        if self.prefix_len:
            if puzzle_identifiers is None:
                prefix = self.prefix[:1].expand(rows, -1)
            else:
                prefix = _looked_up(self.prefix, puzzle_identifiers)
            e = torch.cat((prefix.reshape(rows, self.prefix_len, self.width), e), dim=1)
        shape = (rows, self.sequence_len, self.width)
        return e, self.H_init.expand(shape).clone(), self.L_init.expand(shape).clone()


def _looked_up(table: Tensor, numbers: Tensor) -> Tensor:
    """Rows of a table. A number that it has not becomes the nearest it has.

    What a lookup gives there else, an error or what lies beside the table, differs from backend to backend.
    """
    return F.embedding(numbers.clamp(0, len(table) - 1), table)


@dataclass(frozen=True)
class Program:
    """A graph before it is traced: a module for ``torch.export``, example inputs by name, names of the outputs.

    Dimension 0 of every input and output is the batch.
    """

    module: nn.Module
    inputs: dict[str, Tensor]
    outputs: tuple[str, ...]


class _WrappedStart(Wrapped):
    """The same network, called for its start."""

    forward = Wrapped.start  # type: ignore[assignment]


def start_program(model: HRM | Wrapped, rows: int | None = None) -> Program:
    """``tokens int32[batch, S] (, puzzle_identifiers int32[batch]) → e, *state``, each float32[batch, …]."""
    rows = rows or _EXAMPLE_ROWS
    inputs = {"tokens": torch.zeros(rows, model.config.seq_len, dtype=torch.int32)}
    if model.config.num_puzzle_identifiers > 1:
        inputs["puzzle_identifiers"] = torch.zeros(rows, dtype=torch.int32)
    if isinstance(model, Wrapped):
        begin: nn.Module = copy.copy(model)
        begin.__class__ = _WrappedStart
    else:
        begin = Start(model).eval()
    return Program(begin, inputs, ("e", *model.state))


def segment_program(model: HRM | Wrapped, rows: int | None = None) -> Program:
    """``*state, e → *state, logits [batch, S, V], q [batch, 2]``, the state's names ending in ``_next`` then."""
    if isinstance(model, Wrapped):
        module: nn.Module = model
        shapes = {**model.config.state, "e": model.e_shape}
    else:
        module = exported_form(model)
        shapes = dict.fromkeys((*model.state, "e"), (model.config.sequence_len, model.config.hidden_size))
    inputs = {name: torch.zeros(rows or _EXAMPLE_ROWS, *shape) for name, shape in shapes.items()}
    return Program(module, inputs, (*(name + NEXT for name in model.state), "logits", "q"))


def programs(model: HRM | Wrapped, rows: int | None = None) -> dict[str, Program]:
    """Both programs of a host loop, by stem; ``rows`` of the example inputs, or None where any number is to do."""
    return {"start": start_program(model, rows), "segment": segment_program(model, rows)}


def trace_start(model: HRM | Wrapped) -> onnx.ModelProto:
    """:func:`start_program` as a clean graph."""
    return _trace(start_program(model))


def trace_segment(model: HRM | Wrapped) -> onnx.ModelProto:
    """:func:`segment_program` as a clean graph."""
    traced = _trace(segment_program(model))
    if isinstance(model, Wrapped):
        return traced  # its products are looked at where it is made a checkpoint
    stored = {tensor.name for tensor in traced.graph.initializer}
    for node in traced.graph.node:
        if node.op_type == "MatMul" and "_proj" in node.name:
            ensure(node.input[1] in stored, f"trace_segment: the weight of {node.name} is computed, not stored")
    return traced


@functools.cache
def _operators() -> Any:
    """What torch.onnx knows of operators. Its public call reads their sources anew, in half a second or more."""
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    return ONNXRegistry.from_torchlib(OPSET)


def _trace(program: Program) -> onnx.ModelProto:
    module = program.module
    named = dict(module.state_dict())
    if isinstance(module, HRM):
        parts = OneOfEach(module)
        model = _exported(Program(parts, program.inputs, parts.outputs))
        write_segment(model, parts)
    elif isinstance(module, Wrapped):
        model = _exported_once(program) if "e" in program.inputs else _exported(program)
        fold_views(model)
        split_products(model)
        # Before all others, as they may be parts of them.
        named = {f"{layer}.weight": w for layer, w in module.layer_weights().items()} | named
    else:
        model = _exported(program)
    clean(model, {name: t.detach().cpu().numpy() for name, t in named.items()})
    return model


def _exported_once(program: Program) -> onnx.ModelProto:
    """A segment of another's network; the methods that it calls over and over are traced once each."""
    repeated = Repeated.of(cast(Wrapped, program.module), tuple(program.inputs.values()))
    bodies = {}
    for name, tensors in repeated.given.items():
        inputs = {f"given_{index}": torch.zeros_like(each) for index, each in enumerate(tensors)}
        outputs = tuple(f"made_{index}" for index in range(len(repeated.made[name])))
        bodies[name] = _exported(Program(Method(repeated.network, name), inputs, outputs))
        ensure_free_rows(bodies[name], cast(Wrapped, program.module).config.name, name)
    with repeated.standing_in():
        model = _exported(program)
    call_methods(model, bodies)
    return model


def ensure_free_rows(model: onnx.ModelProto, network: str, method: str) -> None:
    """InputError where what a network's method takes or gives has a fixed number of rows."""
    values = (*model.graph.input, *model.graph.output)
    if {value.type.tensor_type.shape.dim[0].dim_param for value in values} != {BATCH}:
        raise InputError(
            f"network {network}: {method} fixes the number of rows; take it as x.shape[0] rather than len(x), and "
            "keep the batch first in all that it gives"
        )


def _exported(program: Program) -> onnx.ModelProto:
    """As the tracer writes it."""
    # What `torch.onnx.export(dynamo=True)` does, which takes no operators that were read before.
    from torch.onnx._internal.exporter._core import export

    batch = torch.export.Dim(BATCH, min=1)
    module = program.module
    shapes = tuple({0: batch} for _ in program.inputs)
    kinds = {each.kind for each in inspect.signature(module.forward).parameters.values()}
    if inspect.Parameter.VAR_POSITIONAL in kinds:  # which count as one argument
        dynamic: tuple[Any, ...] = (shapes,)
    else:
        dynamic = shapes
    with quiet(), torch.no_grad():
        inputs = tuple(program.inputs.values())
        traced = export(
            (None if isinstance(module, Wrapped | Method) else _captured(module, inputs, dynamic)) or module,
            inputs,
            registry=_operators(),
            input_names=list(program.inputs),
            output_names=list(program.outputs),
            dynamic_shapes=dynamic,
            opset_version=OPSET,
            verbose=False,
        )
        traced._rename_dynamic_axes(dynamic)
    model: onnx.ModelProto = traced.model_proto
    opset = next(item.version for item in model.opset_import if item.domain == "")
    ensure(opset == OPSET, f"torch.onnx wrote opset {opset} instead of {OPSET}")
    return model


def _captured(module: nn.Module, inputs: tuple[Tensor, ...], dynamic: Any) -> torch.export.ExportedProgram | None:
    """What ``export`` captures of a module itself, but for a second look where that would change nothing.

    It runs what it captured once more, to write operators that ONNX has no form for as others: half the time of a
    trace. Ours have one, all but casts to what a value is already; of others' nobody knows. None: not captured.
    """
    from torch.onnx._internal.exporter._capture_strategies import TorchExportNonStrictStrategy

    capture = TorchExportNonStrictStrategy(verbose=False)
    captured = capture(module, inputs, None, dynamic_shapes=dynamic).exported_program
    if captured is None:
        return None
    calls = [node for node in captured.graph.nodes if node.op == "call_function"]
    casts = [node for node in calls if _casts_nothing(node)]
    known = _operators().is_registered
    whole = (known(n.target) or n.target in _ASSERTIONS for n in calls if n not in casts)
    if all(whole) and not any(n.target is torch.ops.aten.conv2d.default for n in calls):  # written otherwise
        for node in casts:
            node.replace_all_uses_with(node.args[0])
            captured.graph_signature.replace_all_uses(node.name, node.args[0].name)  # it may be an output
            captured.graph.erase_node(node)
        captured.run_decompositions = lambda *_: captured
    return captured


# What the tracer drops.
_ASSERTIONS = {torch.ops.aten._assert_scalar.default, torch.ops.aten._assert_tensor_metadata.default}


def _casts_nothing(node: torch.fx.Node) -> bool:
    """Whether it is a cast to the type that its input has."""
    if node.target is not torch.ops.aten.to.dtype:
        return False
    value, dtype, *_ = node.args
    return isinstance(value, torch.fx.Node) and value.meta["val"].dtype == dtype


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence the tracer's progress lines, warnings and logs: they tell of its inside, not of the model."""
    disabled = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        sink = io.StringIO()
        with warnings.catch_warnings(), contextlib.redirect_stdout(sink), contextlib.redirect_stderr(sink):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
