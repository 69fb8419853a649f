"""Lowering: a clean ONNX graph of fixed shapes as a torch module, in the forms that XNNPACK's partitioner takes.

Int8 pairs of the one quantization plan become ``quantized_decomposed`` operators with its scales.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from ...graph.edit import ensure
from ...graph.lowering import Few, Lowering
from .ops import EMIT

STEPS = 127


class TorchLowering(Lowering):
    """One graph on tensors; what it stores becomes buffers of ``module``."""

    target, format = "executorch", "ExecuTorch"
    table = "exporters/targets/executorch/ops.py"
    emit = EMIT

    def __init__(self, module: LoweredModule, inputs: Sequence[Tensor]) -> None:
        names = [value.name for value in module.graph.input]
        super().__init__(module.graph, dict(zip(names, inputs, strict=True)), module.weights)
        self.module, self.dtype = module, module.dtype

    def outputs(self) -> tuple[Tensor, ...]:
        self.walk()
        return tuple(self.var(value.name) for value in self.graph.output)

    def shape(self, name: str) -> tuple[int, ...]:
        value = self.values[name]
        return tuple(value.shape)

    def var(self, name: str) -> Tensor:
        """A value as a tensor; what is known becomes a buffer, once."""
        value = self.values[name]
        if isinstance(value, Few):
            return self.steps(name).T
        return self.module.stored(name, value) if isinstance(value, np.ndarray) else value

    def turned(self, name: str, rows: bool = False) -> Tensor:
        """A product's stored weight [N, K]; ``rows``: it is stored so already."""
        array = self.array(name)
        return self.module.stored(f"{name}, rows" if rows else name, array if rows else array.T)

    def steps(self, name: str, results: np.ndarray | None = None) -> Tensor:
        """A weight of int8 steps [N, K], widened; ``results`` float32[N]: the steps its products are told in."""
        few = self.values[name]
        ensure(few.scale.ndim == 1 and few.steps.dtype == np.int8, f"lower: {name} is not int8 by output channel")
        scale = few.scale if results is None else few.scale / results
        stored = self.module.stored
        return torch.ops.quantized_decomposed.dequantize_per_channel(
            stored(few.name, few.steps.T),
            stored(f"{few.name}.scales.{hash(scale.tobytes())}", scale),
            stored(f"{few.name}.zeros", np.zeros(len(scale), np.int64)),
            0,
            -STEPS,
            STEPS,
            torch.int8,
        )

    def rounded(self, x: Tensor, scale: float) -> Tensor:
        """int8 steps of ``scale``."""
        return torch.ops.quantized_decomposed.quantize_per_tensor(x, scale, 0, -128, STEPS, torch.int8)

    def widened(self, x: Tensor, scale: float) -> Tensor:
        return torch.ops.quantized_decomposed.dequantize_per_tensor(x, scale, 0, -128, STEPS, torch.int8)


class LoweredModule(nn.Module):
    """The graph as ``forward``, its bindings in float32; ``half``: computed in float16 inside."""

    def __init__(self, model: onnx.ModelProto, half: bool = False) -> None:
        super().__init__()
        # Registers the quantized_decomposed operators.
        import torch.ao.quantization.fx._decomposed

        self.graph, self.dtype = model.graph, torch.float16 if half else torch.float32
        self.weights = {each.name: onnx.numpy_helper.to_array(each) for each in model.graph.initializer}
        self.names: dict[str, str] = {}  # buffer → what is stored in it
        self._buffers_of: dict[str, str] = {}

    def stored(self, name: str, array: np.ndarray) -> Tensor:
        """A buffer of that name's content, made when first asked for: before the module is exported."""
        if name not in self._buffers_of:
            tensor = torch.from_numpy(np.array(array, order="C"))
            if tensor.dtype == torch.float32 and not name.rpartition(".")[2].lstrip("-").isdigit():
                tensor = tensor.to(self.dtype)
            self._buffers_of[name] = f"stored_{len(self._buffers_of)}"
            self.names[self._buffers_of[name]] = name
            self.register_buffer(self._buffers_of[name], tensor)
        return getattr(self, self._buffers_of[name])

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        given = [x.to(self.dtype) if x.dtype == torch.float32 else x for x in inputs]
        made = TorchLowering(self, given).outputs()
        made = tuple(y.float() if y.dtype == torch.float16 else y for y in made)
        # A binding of its own, where the graph hands an input or a stored tensor through.
        own = {id(x) for x in (*given, *inputs, *self.buffers())}
        return tuple(y.clone() if id(y) in own else y for y in made)

    def example(self) -> tuple[Tensor, ...]:
        """Zeros for each input; asked for once, they also make every buffer."""
        kinds: dict[int, Any] = {onnx.TensorProto.FLOAT: torch.float32, onnx.TensorProto.INT32: torch.int32}
        types = [value.type.tensor_type for value in self.graph.input]
        sizes = [[dim.dim_value for dim in kind.shape.dim] for kind in types]
        zeros = tuple(torch.zeros(size, dtype=kinds[t.elem_type]) for size, t in zip(sizes, types, strict=True))
        with torch.no_grad():
            self(*zeros)
        return zeros
