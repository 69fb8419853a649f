"""The calls of the templates' kernels: products of matrices, convolutions, lookups."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .ir import PANEL, Convolution, IntProduct, Lookup, Product, SparseProduct, View

if TYPE_CHECKING:
    from .code import Writer


def _matrix(w: Writer, view: View) -> tuple[str, str, int]:
    """(address, rows, stride of a row) of a matrix whose leading dimensions are rows too."""
    rows, _, stride, _ = view.in_rows()
    return w.address(view), w.rows or str(rows), stride


def product(w: Writer, op: Product) -> None:
    w.kernels.add("matmul")
    left, right = op.inputs
    K, N = left.shape[-1], op.output.shape[-1]
    if all(view.as_rows() for view in (left, op.output)) and (op.packed or not any(right.strides[:-2])):
        (x, rows, ldx), (y, _, ldy) = _matrix(w, left), _matrix(w, op.output)
        weight = w.names.pointer(right.buffer) + _plus(right.offset)
        panel = right.strides[0] if op.packed else PANEL
        w.product("hrm_matmul", op, x, ldx, weight, right.strides[-2], panel, y, ldy, rows, K, N)
        return
    with w.block():
        views = [*op.inputs, op.output]
        batch = [each._replace(shape=each.shape[:-2], strides=each.strides[:-2]) for each in views]
        for name, view in zip("xwy", views, strict=True):
            const = "" if name == "y" else "const "
            w.line(f"{const}float *const {name} = {w.address(view)};")

        def body(_: list[str]) -> None:
            x, weight, y = (f"{name} + {w.index(k)}" for k, name in enumerate("xwy"))
            ldx, ldw, ldy = (view.strides[-2] for view in views)
            w.product("hrm_matmul", op, x, ldx, weight, ldw, PANEL, y, ldy, left.shape[-2], K, N)

        w.loops(w.nest(batch, op.output.shape[:-2]), [], body)


def product_names(names: Sequence[str]) -> str:
    """The comment behind a call that says which products of the graph it computes; the backend reads it."""
    plain = (re.sub(r"[^\w./:-]", "_", name) for name in names)
    return f" /* products: {' '.join(plain)} */" if names else ""


def _plus(offset: int) -> str:
    return f" + {offset}" if offset else ""


def call(function: str, *arguments: object) -> str:
    return f"{function}({', '.join(map(str, arguments))});"


def int_product(w: Writer, op: IntProduct) -> None:
    w.kernels.add("matmul_int8")
    steps, weight, sums, scale, scales = op.inputs
    depth = weight.shape[1]
    (x, rows, ldx), (y, _, ldy) = _matrix(w, steps), _matrix(w, op.output)
    value = w.names.value(scale.buffer) or f"*({w.names.pointer(scale.buffer)})"
    known = [w.names.pointer(view.buffer) for view in (weight, sums, scales)]
    width = op.output.shape[-1]
    w.product("hrm_matmul_int8", op, x, ldx, *known, value, y, ldy, rows, depth, width)


def sparse(w: Writer, op: SparseProduct) -> None:
    w.kernels.add("sparse")
    known, view = op.inputs[:3], op.inputs[3]
    begins, columns, values = (w.names.pointer(each.buffer) for each in known)
    x, y = w.address(view), w.address(op.output)
    rows, width = op.output.shape[-2:]
    strides = view.strides[-2], op.output.strides[-2]
    w.product("hrm_sparse", op, begins, columns, values, x, strides[0], y, strides[1], rows, width)


def convolution(w: Writer, op: Convolution) -> None:
    view, weight = op.inputs[:2]
    (_, channels, *size), (_, made, *out) = view.shape, op.output.shape
    kernel = "depthwise" if op.depthwise else "convolution"
    w.kernels.add(kernel)
    bias = w.names.pointer(op.inputs[2].buffer) if len(op.inputs) > 2 else "(const float *)0"
    facts = [*size, *out, *op.kernel, *op.pads, *op.strides, *op.dilations]
    place = f"(hrm_grid){{{', '.join(map(str, facts))}}}"
    x, y = w.address(view), w.address(op.output)
    weights = w.names.pointer(weight.buffer)
    if op.depthwise:
        ends = (*view.strides[2:], *op.output.strides[2:])
        w.line(call("hrm_depthwise", x, weights, bias, y, channels, *ends, place))
        return
    ends = (*view.strides[1:], *op.output.strides[1:])
    w.line(call("hrm_convolution", x, weights, bias, y, channels, made, op.groups, *ends, place))


def lookup(w: Writer, op: Lookup) -> None:
    table, index = op.inputs
    width = table.shape[1]
    with w.block():
        w.line(f"const {table.buffer.kind} *const table = {w.address(table)};")
        flat = View(index.buffer, index.offset, (*index.shape, 1), (*index.strides, 0)).broadcast(
            (*index.shape, width)
        )
        columns = View(op.output.buffer, 0, op.output.shape, (*(0,) * len(index.shape), 1))
        w.line(f"{op.output.buffer.kind} *const y = {w.address(op.output)};")
        dims = w.nest([flat, columns, op.output], op.output.shape)

        def body(inputs: list[str]) -> None:
            w.line(f"y[{w.index(2)}] = table[{inputs[0]} * {width} + {w.index(1)}];")

        w.loops(dims, [flat], body)
