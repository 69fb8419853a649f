"""Methods that another's network calls over and over in a segment: each is traced once, and written at every call.

Which they are it says itself, in ``repeated`` (see :class:`hrm_edge.models.network.Network`): nobody else can tell.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import onnx
import onnx.inliner
import torch
from onnx import helper
from torch import Tensor, nn

from ...errors import InputError
from ...models.network import Wrapped, bare
from .edit import rename
from .passes import drop_unused
from .repeat import DOMAIN


class Method(nn.Module):
    """A method of a network as a module, of tensors alone."""

    def __init__(self, network: nn.Module, name: str):
        super().__init__()
        self.network, self.name = network, name

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        given = getattr(self.network, self.name)(*tensors)
        return (given,) if isinstance(given, Tensor) else tuple(given)


@dataclass
class Repeated:
    """What a segment calls over and over, by name: what the first call was given, and what it gave."""

    network: nn.Module
    given: dict[str, tuple[Tensor, ...]] = field(default_factory=dict)
    made: dict[str, tuple[Tensor, ...]] = field(default_factory=dict)
    plain: set[str] = field(default_factory=set)  # those that give one tensor rather than several

    @classmethod
    def of(cls, model: Wrapped, inputs: Sequence[Tensor]) -> Repeated:
        """As a segment of these inputs calls them; InputError where a method is not one of such tensors."""
        network = bare(model)
        found, held = cls(network), _held(network)

        def watched(name: str, method: Callable) -> Callable:
            def call(*given: Tensor) -> Tensor | tuple[Tensor, ...]:
                before = [each._version for each in given if isinstance(each, Tensor)]
                outputs = method(*given)
                if before != [each._version for each in given if isinstance(each, Tensor)]:
                    raise InputError(
                        f"network {model.config.name}: {name} is one of its repeated methods, and changes in place "
                        "what it is given; let it give a new tensor"
                    )
                if changed := _changed(held, _held(network)):
                    raise InputError(
                        f"network {model.config.name}: {changed} changes between calls of {name}, one of its "
                        "repeated methods, which are traced once; let it be given and give all that changes"
                    )
                made = (outputs,) if isinstance(outputs, Tensor) else tuple(outputs)
                first = (*found.given.setdefault(name, given), *found.made.setdefault(name, made))
                if [_form(each, rows) for each in first] != [_form(each, rows) for each in (*given, *made)]:
                    raise InputError(
                        f"network {model.config.name}: {name} is not called with the same shapes each time"
                    )
                if not all(_form(each, rows) for each in first):
                    raise InputError(
                        f"network {model.config.name}: {name} is one of its repeated methods, which take and give "
                        "tensors alone, the batch first"
                    )
                found.plain |= {name} if isinstance(outputs, Tensor) else set()
                return outputs

            return call

        rows = len(inputs[0])
        with _methods(network, watched), torch.no_grad():
            model(*inputs)
        return found

    @contextlib.contextmanager
    def standing_in(self) -> Iterator[None]:
        """While a segment is traced, a node stands for each call."""

        def stand_in(name: str, _: Callable) -> Callable:
            def call(*given: Tensor) -> Tensor | tuple[Tensor, ...]:
                outputs = torch.onnx.ops.symbolic_multi_out(
                    f"{DOMAIN}::{name}",
                    given,
                    dtypes=[each.dtype for each in self.made[name]],
                    shapes=[(given[0].shape[0], *each.shape[1:]) for each in self.made[name]],
                    version=1,
                )
                return outputs[0] if name in self.plain else tuple(outputs)

            return call

        with _methods(self.network, stand_in):
            yield


def _held(network: nn.Module) -> dict[str, tuple[object, int]]:
    """All that a network's modules hold, by name, and how often it was changed in place."""
    return {
        f"{path}.{name}".lstrip("."): (value, getattr(value, "_version", 0))
        for path, module in network.named_modules()
        for name, value in {**vars(module), **module._parameters, **module._buffers}.items()
        if name not in getattr(network, "repeated", ())
    }


def _changed(before: dict[str, tuple[object, int]], now: dict[str, tuple[object, int]]) -> str | None:
    """The name of something that is another than before, if anything is."""
    for name, (value, version) in now.items():
        held, earlier = before.get(name, (None, -1))
        if value is not held or version != earlier:
            return name
    return None


def _form(tensor: object, rows: int) -> tuple | None:
    """Type and shape; None of what is no tensor with the batch first."""
    return (tensor.dtype, tensor.shape) if isinstance(tensor, Tensor) and tensor.shape[:1] == (rows,) else None


@contextlib.contextmanager
def _methods(network: nn.Module, exchange: Callable[[str, Callable], Callable]) -> Iterator[None]:
    """A network's repeated methods are others for a while."""
    names = tuple(getattr(network, "repeated", ()))
    own = {name: vars(network)[name] for name in names if name in vars(network)}
    try:
        for name in names:
            setattr(network, name, exchange(name, getattr(network, name)))
        yield
    finally:
        for name in names:
            vars(network).pop(name, None)
        vars(network).update(own)


def call_methods(model: onnx.ModelProto, bodies: dict[str, onnx.ModelProto]) -> None:
    """Write the traces of methods wherever a node stands for a call of one."""
    for name, body in bodies.items():
        graph = body.graph
        own = {tensor.name: f"{name}.{tensor.name}" for tensor in graph.initializer}
        rename(graph, own)
        model.graph.initializer.extend(graph.initializer)
        stored = [tensor.name for tensor in graph.initializer]
        for node in model.graph.node:
            if (node.domain, node.op_type) == (DOMAIN, name):
                node.input.extend(stored)
        inputs = [value.name for value in graph.input] + stored
        outputs = [value.name for value in graph.output]
        function = helper.make_function(DOMAIN, name, inputs, outputs, graph.node, body.opset_import)
        model.functions.append(function)
    model.CopyFrom(onnx.inliner.inline_local_functions(model))
    drop_unused(model)
