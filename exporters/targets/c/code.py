"""The C statements of every operation."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from . import kernels
from .blocks import Call, Item
from .ir import (
    Buffer,
    Convolution,
    IntProduct,
    Lookup,
    Loop,
    Op,
    Product,
    Reduce,
    Softmax,
    SparseProduct,
    Step,
    View,
)
from .schedule import Rows, Unit

# A function on scalars → its C expression, and the kernel of the templates that it needs.
_EXPRESSIONS = {
    "add": "{0} + {1}",
    "sub": "{0} - {1}",
    "mul": "{0} * {1}",
    "div": "{0} / {1}",
    "whole_div": "{0} / {1}",
    "neg": "-{0}",
    "sqrt": "sqrtf({0})",
    "exp": "hrm_exp({0})",
    "log": "logf({0})",
    "pow": "powf({0}, {1})",
    "sigmoid": "1.0f / (1.0f + hrm_exp(-{0}))",
    "tanh": "tanhf({0})",
    "erf": "erff({0})",
    "sin": "sinf({0})",
    "cos": "cosf({0})",
    "floor": "floorf({0})",
    "relu": "{0} > 0 ? {0} : 0",
    "abs": "{0} < 0 ? -{0} : {0}",
    "reciprocal": "1.0f / {0}",
    "max": "{0} > {1} ? {0} : {1}",
    "min": "{0} < {1} ? {0} : {1}",
    "equal": "{0} == {1}",
    "greater": "{0} > {1}",
    "greater_or_equal": "{0} >= {1}",
    "less": "{0} < {1}",
    "less_or_equal": "{0} <= {1}",
    "and": "{0} && {1}",
    "or": "{0} || {1}",
    "not": "!{0}",
    "truth": "{0} != 0",
    "where": "{0} ? {1} : {2}",
    "to_float": "(float){0}",
    "to_int32_t": "(int32_t){0}",
    "round": "hrm_round({0})",
    "widen": "hrm_widen({0})",
}
# Functions of <math.h> that compilers call once for each element.
_SCALAR = {"log", "pow", "tanh", "erf", "sin", "cos", "floor", "sqrt"}
_KERNELS = {"exp": "exp", "sigmoid": "exp", "round": "round", "widen": "widen"}


@dataclass
class Names:
    """How a buffer is called in the function that is being written: a pointer, or a constant's value."""

    pointer: Callable[[Buffer], str]
    value: Callable[[Buffer], str | None]  # of a constant of one element, where it has a name of its own


@dataclass
class Writer:
    """C statements under way, and the kernels that they call."""

    names: Names
    kernels: set[str]
    lines: list[str] = field(default_factory=list)
    depth: int = 1
    rows: str | None = None  # how many rows at a time, inside a loop over tiles
    local: set[Buffer] = field(default_factory=set)
    named: bool = True  # whether what is written runs once, and not once for each call of a function

    def line(self, text: str) -> None:
        self.lines.append("    " * self.depth + text)

    def open(self, text: str) -> None:
        self.line(text + " {")
        self.depth += 1

    def close(self) -> None:
        self.depth -= 1
        self.line("}")

    def address(self, view: View) -> str:
        """Where a view begins; inside a loop over tiles, where its rows of this tile do."""
        text = self.names.pointer(view.buffer)
        if view.offset:
            text += f" + {view.offset}"
        if self.rows is not None and view.buffer not in self.local:
            stride = view.in_rows()[2]
            if stride:
                text += f" + row * {stride}"
        return text

    def product(self, kernel: str, op: Op, *arguments: object) -> None:
        """A call of a kernel that multiplies matrices, which says which of the graph's products it is."""
        self.line(kernels.call(kernel, *arguments) + (kernels.product_names([op.name]) if self.named else ""))

    # -- units -------------------------------------------------------------------------------------------

    def unit(self, unit: Unit, call: Callable[[Call, int], str], number: int) -> None:
        """One unit of a schedule; ``call`` writes the call of a function."""
        if isinstance(unit, Rows):
            self._tiles(unit)
        elif isinstance(unit, Call):
            self.line(call(unit, number))
        else:
            self.op(unit)

    def _tiles(self, unit: Rows) -> None:
        if len(unit.ops) == 1 and not unit.local:
            self.op(unit.ops[0])
            return
        tile = unit.tile
        self.open(f"for (int row = 0; row < {unit.rows}; row += {tile})")
        left = f"{unit.rows} - row < {tile} ? {unit.rows} - row : {tile}"
        self.line(f"const int rows = {left if unit.rows % tile else tile};")
        self.rows, self.local = "rows", unit.local
        for op in unit.ops:
            self.op(op)
        self.rows, self.local = None, set()
        self.close()

    def op(self, op: Item) -> None:
        for kind, write in _FORMS.items():
            if isinstance(op, kind):
                write(self, op)
                return
        raise AssertionError(f"{type(op).__name__} has no statements")

    # -- elementwise -------------------------------------------------------------------------------------

    def nest(self, views: Sequence[View], shape: Sequence[int]) -> list[tuple[str | int, tuple[int, ...]]]:
        """The loops over a shape, dimensions joined where all views allow: (how often, stride of each view)."""
        if self.rows is not None:
            flat = [view.in_rows() for view in views]
            if all(row == flat[0][1] * step for _, _, row, step in flat):
                return [(f"{self.rows} * {flat[0][1]}", tuple(step for *_, step in flat))]
            outer = (self.rows, tuple(row for _, _, row, _ in flat))
            inner = (flat[0][1], tuple(step for *_, step in flat))
            return [outer, inner] if flat[0][1] != 1 else [outer]
        dims: list[tuple[int, tuple[int, ...]]] = []
        for i in sorted(range(len(shape)), key=lambda i: -views[-1].strides[i]):
            n = shape[i]
            strides = tuple(view.strides[i] for view in views)
            if n == 1:
                continue
            if dims and all(a == b * n for a, b in zip(dims[-1][1], strides, strict=True)):
                dims[-1] = (dims[-1][0] * n, strides)
            else:
                dims.append((n, strides))
        return list(dims) or [(1, (0,) * len(views))]

    def loops(
        self,
        dims: Sequence[tuple[str | int, tuple[int, ...]]],
        inputs: Sequence[View],
        body: Callable[[list[str]], None],
        plain: bool = False,
    ) -> None:
        """Nested loops. ``body`` gets, for every input, the expression of its element; views beyond ``inputs`` are
        indexed by :meth:`index`. ``plain``: the body is arithmetic, of which compilers make vectors."""
        self.dims = list(dims)
        expressions: list[str] = []
        pointers: list[tuple[int, str]] = []
        for k, view in enumerate(inputs):
            moving = [level for level, (_, strides) in enumerate(dims) if strides[k]]
            value = self.names.value(view.buffer)
            if value is not None:
                expressions.append(value)
            elif not moving:
                self.line(f"const {view.buffer.kind} x{k} = *({self.address(view)});")
                expressions.append(f"x{k}")
            else:
                self.line(f"const {view.buffer.kind} *const p{k} = {self.address(view)};")
                expressions.append(f"p{k}[{self.index(k)}]")
                if moving[-1] < len(dims) - 1:
                    pointers.append((moving[-1], f"const {view.buffer.kind} x{k} = {expressions[-1]};"))
                    expressions[-1] = f"x{k}"
        for level, (count, _) in enumerate(dims):
            if plain and level == len(dims) - 1:
                self.line("HRM_VECTORIZE")
            self.open(f"for (int i{level} = 0; i{level} < {count}; i{level}++)")
            for at, text in pointers:
                if at == level:
                    self.line(text)
        body(expressions)
        for _ in dims:
            self.close()

    def index(self, k: int) -> str:
        terms = []
        for level, (_, strides) in enumerate(self.dims):
            if strides[k]:
                terms.append(f"i{level}" if strides[k] == 1 else f"i{level} * {strides[k]}")
        return " + ".join(terms) or "0"

    def steps(self, steps: Sequence[Step], inputs: Sequence[str]) -> str:
        """Statements of a chain of steps; returns the expression of its last."""
        for number, step in enumerate(steps):
            args = [inputs[arg] if arg >= 0 else f"t{-1 - arg}" for arg in step.args]
            expression = _EXPRESSIONS[step.function].format(*args)
            if step.function in _KERNELS:
                self.kernels.add(_KERNELS[step.function])
            self.line(f"const {step.kind} t{number} = {expression};")
        return f"t{len(steps) - 1}" if steps else inputs[0]

    def block(self) -> _Block:
        return _Block(self)


class _Block:
    """Braces around statements, so that their names are their own."""

    def __init__(self, writer: Writer) -> None:
        self.writer = writer

    def __enter__(self) -> None:
        self.writer.line("{")
        self.writer.depth += 1

    def __exit__(self, *_: object) -> None:
        self.writer.close()


def _loop(w: Writer, op: Loop) -> None:
    with w.block():
        dims = w.nest([*op.inputs, op.output], op.output.shape)
        w.line(f"{op.output.buffer.kind} *const y = {w.address(op.output)};")

        def body(inputs: list[str]) -> None:
            result = w.steps(op.steps, inputs)
            w.line(f"y[{w.index(len(inputs))}] = {result};")

        w.loops(dims, op.inputs, body, all(step.function not in _SCALAR for step in op.steps))


_BEGINNINGS = {"mean": "0.0f", "sum": "0.0f", "max": "-3.402823466e+38f", "min": "3.402823466e+38f"}


def _reduce(w: Writer, op: Reduce) -> None:
    last = op.axes == (len(op.shape) - 1,)
    squares = op.steps == (Step("mul", (0, 0)),)
    if last and len(op.inputs) == 1 and op.inputs[0].strides[-1] == 1 and (squares or not op.steps):
        _row_sums(w, op, "squares" if squares else op.how)
        return
    size = math.prod(op.shape[axis] for axis in op.axes)
    kept = [i for i in range(len(op.shape)) if i not in op.axes]
    with w.block():
        w.line(f"float *const y = {w.address(op.output)};")
        outer = w.nest([op.output], op.output.shape)
        with w.block():
            w.loops(outer, [], lambda _: w.line(f"y[{w.index(0)}] = {_BEGINNINGS[op.how]};"))
        order = [*op.axes, *kept]
        over = op.output.broadcast(op.shape)
        views = [view.transposed(order) for view in (*op.inputs, over)]
        shape = [op.shape[i] for i in order]
        dims = w.nest([*op.inputs, over], op.shape) if w.rows is not None else w.nest(views, shape)

        def body(inputs: list[str]) -> None:
            result, at = w.steps(op.steps, inputs), f"y[{w.index(len(inputs))}]"
            sign = ">" if op.how == "max" else "<"
            sums = op.how in ("mean", "sum")
            w.line(f"{at} += {result};" if sums else f"if ({result} {sign} {at}) {at} = {result};")

        with w.block():
            w.loops(dims, op.inputs, body)
        if op.how == "mean":
            with w.block():
                w.loops(outer, [], lambda _: w.line(f"y[{w.index(0)}] *= {np.float32(1 / size)}f;"))


def _row_sums(w: Writer, op: Reduce, what: str) -> None:
    kernel = {"mean": "sum", "squares": "squares"}.get(what, what)
    w.kernels.add(f"row_{kernel}")
    view, width = op.inputs[0], op.shape[-1]
    factor = f" * {np.float32(1 / width)}f" if op.how == "mean" else ""
    with w.block():
        dims = w.nest([op.inputs[0]._replace(shape=(*op.shape[:-1], 1)), op.output], op.output.shape)
        w.line(f"const float *const x = {w.address(view)};")
        w.line(f"float *const y = {w.address(op.output)};")
        w.loops(
            dims, [], lambda _: w.line(f"y[{w.index(1)}] = hrm_row_{kernel}(x + {w.index(0)}, {width}){factor};")
        )


def _softmax(w: Writer, op: Softmax) -> None:
    w.kernels.update(("softmax", "exp", "row_max", "row_sum"))
    view, width = op.inputs[0], op.output.shape[-1]
    with w.block():
        one = [each._replace(shape=(*each.shape[:-1], 1)) for each in (view, op.output)]
        dims = w.nest(one, one[0].shape)
        w.line(f"const float *const x = {w.address(view)};")
        w.line(f"float *const y = {w.address(op.output)};")
        w.loops(dims, [], lambda _: w.line(f"hrm_softmax(x + {w.index(0)}, y + {w.index(1)}, {width});"))


_FORMS: dict[type[Op], Callable[[Writer, Any], None]] = {
    Loop: _loop,
    Reduce: _reduce,
    Softmax: _softmax,
    Product: kernels.product,
    IntProduct: kernels.int_product,
    SparseProduct: kernels.sparse,
    Convolution: kernels.convolution,
    Lookup: kernels.lookup,
}
