"""The operations of an ML program in numpy: each is prepared once, when a program is loaded, then only called.

Values of type float16 are float32 arrays that hold float16 numbers: numpy computes float16 several times slower,
one number at a time. An operation computes in float32 and its result is rounded once; sums within it (products,
means, softmax) are therefore more exact than on hardware that accumulates in float16.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...errors import InputError
from .program import MAX_SIZE, Value, storage_dtype

Kernel = Callable[..., np.ndarray]  # of the operands
_REQUIRED = object()


@dataclass(frozen=True)
class Call:
    """One operation being prepared. ``constants``: its inputs that are known already, by name."""

    where: str
    inputs: frozenset[str]
    constants: dict[str, np.ndarray | str]
    output: Value

    def parameter(self, name: str, default: Any = _REQUIRED) -> Any:
        """A parameter as numpy array or text, which must not depend on what the program is fed."""
        if name in self.constants:
            return self.constants[name]
        if name in self.inputs:
            raise InputError(f"{self.where}: its {name!r} is computed, which is supported only when it is constant")
        if default is _REQUIRED:
            raise InputError(f"{self.where}: its {name!r} is missing")
        return default

    def integer(self, name: str, default: Any = _REQUIRED) -> int:
        value = self.parameter(name, default)
        try:
            return int(value)
        except (TypeError, ValueError) as error:
            raise InputError(f"{self.where}: its {name!r} is no number") from error

    def integers(self, name: str, default: Any = _REQUIRED) -> tuple[int, ...] | None:
        value = self.parameter(name, default)
        if value is None:
            return None
        if isinstance(value, str) or value.ndim != 1 or value.dtype.kind not in "iub":
            raise InputError(f"{self.where}: its {name!r} is no list of whole numbers")
        return tuple(value.tolist())

    def flag(self, name: str, default: bool = False) -> bool:
        return bool(self.integer(name, default))

    def text(self, name: str, default: Any = _REQUIRED) -> str:
        value = self.parameter(name, default)
        if not isinstance(value, str):
            raise InputError(f"{self.where}: its {name!r} is no text")
        return value

    @property
    def dtype(self) -> np.dtype:
        """What the output is kept in."""
        return storage_dtype(self.output.dtype)


@dataclass(frozen=True)
class Kind:
    """How a kind of operation is prepared: ``make(call)`` gives a function of the ``operands``.

    ``*name`` stands for any number of operands, ``name?`` for one that may be missing (given as None).
    ``exact``: it only moves or picks numbers, so that its result needs no rounding.
    """

    operands: tuple[str, ...]
    make: Callable[[Call], Kernel]
    exact: bool = False


KINDS: dict[str, Kind] = {}


def kind(name: str, *operands: str, exact: bool = False) -> Callable[[Callable[[Call], Kernel]], Any]:
    """Registers the decorated function as what prepares operations of a kind."""

    def register(make: Callable[[Call], Kernel]) -> Callable[[Call], Kernel]:
        KINDS[name] = Kind(operands or ("x",), make, exact)
        return make

    return register


def rounded_to_float16(x: np.ndarray) -> np.ndarray:
    """float32[…] → the nearest float16 numbers (ties to even), as float32.

    numpy converts one number at a time; done on whole arrays of bits this is ten times faster.
    """
    if x.size < 256:
        return x.astype(np.float16).astype(np.float32)
    size = np.abs(x)
    if not size.max() < 65520:  # what becomes infinite, or is no number
        return x.astype(np.float16).astype(np.float32)
    bits = x.view(np.uint32)
    nearest = bits >> 13
    nearest &= 1
    nearest += 0xFFF
    nearest += bits
    nearest &= np.uint32(0xFFFFE000)
    result = nearest.view(np.float32)
    small = size < 2.0**-14  # there float16 has a fixed step instead of fixed digits
    if small.any():
        steps = x * np.float32(2.0**24)
        np.rint(steps, out=steps)
        steps *= np.float32(2.0**-24)
        np.copyto(result, steps, where=small)
    return result


_erf = np.frompyfunc(math.erf, 1, 1)


def erf(x: np.ndarray) -> np.ndarray:
    """The error function of float32[…], rounded once."""
    return np.asarray(_erf(x), np.float32)


def _elementwise() -> None:
    unary: dict[str, Kernel] = {
        "abs": np.abs,
        "cos": np.cos,
        "erf": erf,
        "exp": np.exp,
        "identity": lambda x: x,
        "logical_not": np.logical_not,
        "relu": lambda x: np.maximum(x, 0),
        "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
        "silu": lambda x: x / (1 + np.exp(-x)),
        "sin": np.sin,
        "sqrt": np.sqrt,
        "square": np.square,
        "tanh": np.tanh,
    }
    for name, function in unary.items():
        KINDS[name] = Kind(("x",), lambda call, function=function: function, exact=name == "identity")  # type: ignore[misc]
    binary: dict[str, Kernel] = {
        "add": np.add,
        "sub": np.subtract,
        "mul": np.multiply,
        "maximum": np.maximum,
        "minimum": np.minimum,
        "pow": np.power,
        "equal": np.equal,
        "less": np.less,
        "less_equal": np.less_equal,
        "greater": np.greater,
        "greater_equal": np.greater_equal,
        "logical_and": np.logical_and,
        "logical_or": np.logical_or,
    }
    for name, function in binary.items():
        KINDS[name] = Kind(("x", "y"), lambda call, function=function: function)  # type: ignore[misc]


_elementwise()


@kind("real_div", "x", "y")
def _real_div(call: Call) -> Kernel:
    if call.dtype.kind == "f":
        return np.true_divide
    dtype = call.dtype
    return lambda x, y: np.true_divide(x, y).astype(dtype)


@kind("rsqrt")
def _rsqrt(call: Call) -> Kernel:
    epsilon = np.float32(call.parameter("epsilon", 1e-12))
    return lambda x: 1 / np.sqrt(x + epsilon)


@kind("select", "cond", "a", "b", exact=True)
def _select(call: Call) -> Kernel:
    return np.where


@kind("cast")
def _cast(call: Call) -> Kernel:
    dtype = call.dtype  # of the output; what the parameter says is the same
    return lambda x: x.astype(dtype)


# Reductions


def _reductions() -> None:
    def reduction(function: Kernel) -> Callable[[Call], Kernel]:
        def make(call: Call) -> Kernel:
            axes = call.integers("axes", None)
            keep, dtype = call.flag("keep_dims"), call.dtype
            return lambda x: function(x, axis=axes, keepdims=keep).astype(dtype, copy=False)

        return make

    exact: dict[str, Kernel] = {"reduce_max": np.max, "reduce_min": np.min}
    functions: dict[str, Kernel] = {"reduce_mean": np.mean, "reduce_sum": np.sum, **exact}
    for name, function in functions.items():
        KINDS[name] = Kind(("x",), reduction(function), exact=name in exact)


_reductions()


@kind("reduce_argmax")
def _argmax(call: Call) -> Kernel:
    axis, keep, dtype = call.integer("axis", -1), call.flag("keep_dims"), call.dtype
    return lambda x: np.argmax(x, axis=axis, keepdims=keep).astype(dtype)


@kind("softmax")
def _softmax(call: Call) -> Kernel:
    axis = call.integer("axis", -1)

    def kernel(x: np.ndarray) -> np.ndarray:
        y = x - np.max(x, axis=axis, keepdims=True)
        np.exp(y, out=y)
        y /= np.sum(y, axis=axis, keepdims=True)
        return y

    return kernel


@kind("layer_norm", "x", "gamma?", "beta?")
def _layer_norm(call: Call) -> Kernel:
    axes, epsilon = call.integers("axes"), np.float32(call.parameter("epsilon", 1e-5))

    def kernel(x: np.ndarray, gamma: np.ndarray | None, beta: np.ndarray | None) -> np.ndarray:
        centred = x - np.mean(x, axis=axes, keepdims=True)
        y = centred / np.sqrt(np.mean(np.square(centred), axis=axes, keepdims=True) + epsilon)
        if gamma is not None:
            y = y * gamma
        return y if beta is None else y + beta

    return kernel


@kind("gelu")
def _gelu(call: Call) -> Kernel:
    mode = call.text("mode", "EXACT")
    if mode == "EXACT":
        return lambda x: x * np.float32(0.5) * (1 + erf(x * np.float32(math.sqrt(0.5))))
    if mode == "TANH_APPROXIMATION":
        root, cubic = np.float32(math.sqrt(2 / math.pi)), np.float32(0.044715)
        return lambda x: x * np.float32(0.5) * (1 + np.tanh(root * (x + cubic * x * x * x)))
    raise InputError(f"{call.where}: its mode {mode!r} is not supported")


@kind("tile", "x", "reps", exact=True)
def _tile(call: Call) -> Kernel:
    def kernel(x: np.ndarray, reps: np.ndarray) -> np.ndarray:
        times = reps.tolist()
        shape = [x.size, *times]
        if math.prod(shape) > MAX_SIZE:
            raise InputError(f"{call.where}: makes {shape}, more than {MAX_SIZE} values; the program is damaged")
        return np.tile(x, times)

    return kernel
