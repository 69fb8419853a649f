"""The products of another's network with its own weights, found and exchanged where PyTorch computes them.

Modules do not tell which these are: public code multiplies by plain parameters, and ``nn.MultiheadAttention`` by
one that holds three, or by parts of it. So functions are looked at, and a weight is known by where it lies: it is a
matrix within the storage of one of the network's own tensors.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

# Function → names of its input and its weight, and whether the weight is [out, in] rather than [in, out].
_PRODUCTS: dict[Any, tuple[tuple[str, ...], int, int, bool]] = {
    F.linear: (("input", "weight", "bias"), 0, 1, True),
    torch.addmm: (("input", "mat1", "mat2"), 1, 2, False),
    **dict.fromkeys((torch.matmul, Tensor.matmul, torch.mm, Tensor.mm), (("input", "other"), 0, 1, False)),
}
# It would be seen as one function: what is asked there, whether somebody looks, is answered with no, so that its
# inner ones are seen.
_attention = F.multi_head_attention_forward
_ATTENTION = types.FunctionType(
    _attention.__code__,
    {**_attention.__globals__, "has_torch_function": lambda tensors: False},
    _attention.__name__,
    _attention.__defaults__,
)
_ATTENTION.__kwdefaults__ = _attention.__kwdefaults__


class Place(NamedTuple):
    """Where a weight ``[out, in]`` lies: as a view of one of the network's tensors."""

    tensor: str
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    def of(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """The weight itself, float ``[out, in]``, of a network's ``state_dict``."""
        return tensors[self.tensor].as_strided(self.size, self.stride, self.offset)


# What to do with a product: its layer, input and weight [out, in] → those to multiply instead, or None.
Exchange = Callable[[str, Tensor, Tensor], tuple[Tensor, Tensor] | None]


class Products(TorchFunctionMode):
    """Within it, each product with a weight in one of ``places`` (by layer) goes through ``exchange``."""

    def __init__(self, network: nn.Module, places: Mapping[str, Place], exchange: Exchange):
        super().__init__()
        self._exchange = exchange
        tensors = network.state_dict()
        self._layers = {_key(place.of(tensors)): layer for layer, place in places.items()}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is _attention:
            with self:
                return _ATTENTION(*args, **kwargs)
        if func in _PRODUCTS:
            names, first, second, turned = _PRODUCTS[func]
            given = {**dict(zip(names, args, strict=False)), **kwargs}
            x, weight = given.get(names[first]), given.get(names[second])
            if isinstance(x, Tensor) and isinstance(weight, Tensor) and weight.ndim == 2:
                weight = weight if turned else weight.T
                layer = self.layer_of(weight)
                instead = None if layer is None else self._exchange(layer, x, weight)
                if instead is not None:
                    x, weight = instead
                    given |= {names[first]: x, names[second]: weight if turned else weight.T}
                    args = tuple(given.pop(name) for name in names[: len(args)])
                    kwargs = given
        return func(*args, **kwargs)

    def layer_of(self, weight: Tensor) -> str | None:
        """The layer of a weight ``[out, in]``."""
        return self._layers.get(_key(weight))


def find_layers(network: nn.Module, prefix: str, segment: Callable[[], tuple[Tensor, ...]], states: int) -> Layers:
    """The layers that a call of ``segment`` multiplies by; its first ``states`` results are the next state.

    Layers are called as their parameters, less a last ``.weight``; parts of a parameter are numbered as they come.
    """
    with torch.no_grad(), _Finder(network, prefix) as finder:
        results = segment()
    inside = set[str]().union(*(finder.reached(tensor) for tensor in results[:states])) or finder.feed_others
    return Layers(finder.places, tuple(layer for layer in finder.places if layer in inside))


def both_ways(places: Mapping[str, Place]) -> list[str]:
    """Names of the tensors that products take both as they are and transposed."""
    seen = {(place.tensor, place.offset, place.size, place.stride) for place in places.values()}
    return sorted(
        {
            place.tensor
            for place in places.values()
            if (place.tensor, place.offset, place.size[::-1], place.stride[::-1]) in seen
            and (place.size[0] != place.size[1] or place.stride[0] != place.stride[1])
        }
    )


class Layers(NamedTuple):
    """All layers of a network, and those among them that the next state depends on; the others are heads."""

    places: dict[str, Place]
    inside: tuple[str, ...]


class _Finder(Products):
    """Writes down every product with a weight of the network's own, and which products each tensor comes from."""

    def __init__(self, network: nn.Module, prefix: str):
        super().__init__(network, {}, self._see)
        self.places: dict[str, Place] = {}
        self.feed_others: set[str] = set()  # layers that another's input comes from
        self._prefix = prefix
        tensors = reversed(network.state_dict().items())  # of two that are tied the first gives the name
        self._tensors = {t.untyped_storage().data_ptr(): (name, t) for name, t in tensors}
        self._reached: dict[int, set[str]] = {}  # by storage
        self._kept: list[Tensor] = []  # so that no storage is given away again
        self._layer: str | None = None  # of the product that is computed now

    def layer_of(self, weight: Tensor) -> str | None:
        name, whole = self._tensors.get(weight.untyped_storage().data_ptr(), ("", weight))
        if not name or not weight.is_floating_point():
            return None
        key = _key(weight)
        if key not in self._layers:
            alone = weight.numel() == whole.numel()
            layer = self._prefix + (name.removesuffix(".weight") if alone else name)
            if not alone or layer in self.places:
                layer = f"{layer}.{sum(place.tensor == name for place in self.places.values())}"
            self._layers[key] = layer
            self.places[layer] = Place(name, int(weight.storage_offset()), tuple(weight.shape), weight.stride())
        return self._layers[key]

    def _see(self, layer: str, x: Tensor, weight: Tensor) -> None:
        self._layer = layer
        self.feed_others |= self.reached(x) - {layer}

    def reached(self, tensor: Tensor) -> set[str]:
        return self._reached.get(tensor.untyped_storage().data_ptr(), set())

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = super().__torch_function__(func, types, args, kwargs)
        read = list(_tensors_in((args, kwargs or {})))
        found = set[str]().union(*(self.reached(tensor) for tensor in read))
        if func in _PRODUCTS and self._layer is not None:
            found.add(self._layer)
            self._layer = None
        name = getattr(func, "__name__", "")
        changed = read[:1] if name == "__setitem__" or (name.endswith("_") and not name.endswith("__")) else []
        for tensor in (*_tensors_in(made), *changed, *_tensors_in((kwargs or {}).get("out"))):
            if found and tensor.layout is torch.strided:
                self._reached.setdefault(tensor.untyped_storage().data_ptr(), set()).update(found)
                self._kept.append(tensor)
        return made


def _key(weight: Tensor) -> tuple[Any, ...]:
    return weight.untyped_storage().data_ptr(), weight.storage_offset(), tuple(weight.shape), weight.stride()


def _tensors_in(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        yield from _tensors_in(tuple(value.values()))
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _tensors_in(each)
