"""One header and one source of C99 for a start and a segment: weights, memory and statements.

Weights stand in the source as arrays or, where a compiler would have too many, in a file beside it (`weights.py`).
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from ....files import read_text
from ....halting import FIXED, LEARNED, VERIFIED, halting_head, numbered
from ....runtimes.c.library import STATE
from ....runtimes.c.weights import WEIGHTS
from ....tasks import Task
from ...graph.edit import ensure
from .blocks import Call, Function, Item, fold_repeats, reads, writes
from .code import Names, Writer
from .ir import Buffer, Kind, Loop, Op, whole
from .kernels import product_names
from .lowering import Lowering
from .schedule import Plan, Rows, Unit, fuse, in_place, in_rows, plan_memory
from .weights import WeightsFile, weights_file

_TEMPLATES = Path(__file__).parent / "templates"
# Kernels in the order in which they stand in the source: those that others call come first.
_KERNELS = (
    *("exp", "round", "widen", "row_sum", "row_squares", "row_max", "row_min", "softmax"),
    *("sparse", "depthwise", "convolution", "matmul", "matmul_int8"),
)
_IN_TEMPLATE = (LEARNED, FIXED, VERIFIED)  # rules that hrm_solve knows
_IN_A_LINE = 16
_OURS = ("tokens", "puzzle_identifiers", "e", "logits", "q")  # tensors that every network has
# Compilers take most of a minute and gigabytes for more numbers than this; where there are more, none stands in the
# source.
MOST_NUMBERS = 12_000_000
# Bytes in the state for where the weights are: a pointer, and what compilers leave free to align it.
_POINTER = 16
# Bytes of code, roughly: what a statement and a kernel come to on a 32-bit microcontroller.
_STATEMENT, _KERNEL = 12, 600


@dataclass(frozen=True)
class Sizes:
    """Bytes: all memory of one caller, of it what operations share, and of what is stored."""

    state: int
    arena: int
    weights: int
    code: int  # about

    @property
    def flash(self) -> int:
        return self.weights + self.code


@dataclass(frozen=True)
class Source:
    """The two files, and what they take; ``weights``: the third, where weights are none of the source's."""

    header: str
    source: str
    sizes: Sizes
    weights: WeightsFile | None = None


def write_source(
    start: onnx.ModelProto,
    segment: onnx.ModelProto,
    task: Task,
    *,
    name: str,
    max_think_steps: int,
    no_ACT_continue: bool,
    identifiers: Sequence[tuple[int, int]] = ((0, 0),),
) -> Source:
    """C for graphs of one row. InputError where an operator has no form in C.

    ``identifiers``: first and last of the puzzle identifiers whose rows the model's table has, in their order.
    """
    return _Assembling(start, segment, task).files(name, max_think_steps, no_ACT_continue, identifiers)


@dataclass(eq=False)
class _Body:
    """A function of the source: its schedule, and where its results lie."""

    name: str
    units: list[Unit]
    plan: Plan
    text: list[str] = field(default_factory=list)


class _Assembling:
    def __init__(self, start: onnx.ModelProto, segment: onnx.ModelProto, task: Task) -> None:
        self.task = task
        self.kernels: set[str] = set()
        self.constants: dict[Buffer, str] = {}
        self.sums: set[Buffer] = set()
        self.whole_numbers = 0  # elements of int32 results, which share no memory
        self.places: dict[Buffer, int] = {}
        self.frames: dict[int, int] = {}
        self.fields = {"tokens": Buffer(task.seq_len, "int32_t", field="tokens")}
        for value in (*start.graph.input, *start.graph.output, *segment.graph.input, *segment.graph.output):
            key = value.name.removesuffix("_next")
            size = math.prod(dim.dim_value for dim in value.type.tensor_type.shape.dim)
            kind: Kind = "float" if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT else "int32_t"
            self.fields.setdefault(key, Buffer(size, kind, field=_member(key)))
        self.functions: list[tuple[Function, _Body]] = []
        self.start = self._top("hrm_start", start)
        self.think = self._top("hrm_think", segment)
        self.apart = sum(buffer.size for buffer in self._stored()) > MOST_NUMBERS

    # -- schedules ---------------------------------------------------------------------------------------

    def _top(self, name: str, model: onnx.ModelProto) -> _Body:
        program = Lowering(model, self.fields).program()
        ops: list[Op] = list(program.ops)
        for output, view in program.outputs.items():
            target = self.fields[output.removesuffix("_next")]
            if view.buffer is not target:
                ops.append(Loop([view], whole(target, view.shape)))
        items, functions = fold_repeats(_without_unread(ops), set())
        for function in functions:
            function.number += len(self.functions)
            self._function(function)
        return self._body(name, in_place(fuse(items, set())), set())

    def _function(self, function: Function) -> None:
        outside = set(function.buffers)
        items = fuse(list(function.ops), outside)
        body = self._body(f"hrm_block_{function.number}", items, outside)
        self.frames[function.number] = body.plan.size
        self.functions.append((function, body))

    def _body(self, name: str, items: Sequence[Item], outside: set[Buffer]) -> _Body:
        for item in items:
            for buffer in (*reads(item), *writes(item)):
                if buffer.kind == "int32_t" and buffer.field is None and buffer not in (outside | set(self.places)):
                    self.places[buffer] = self.whole_numbers
                    self.whole_numbers += buffer.size
        units = in_rows(items, outside)
        return _Body(name, units, plan_memory(units, outside | set(self.places), self.frames))

    def _stored(self) -> set[Buffer]:
        """The constants that statements and calls read."""
        bodies = [self.start, self.think, *(body for _, body in self.functions)]
        found = {buffer for f, _ in self.functions for values in f.instances for buffer in values}
        for unit in (unit for body in bodies for unit in body.units):
            for item in unit.ops if isinstance(unit, Rows) else [unit]:
                if isinstance(item, Op):
                    found.update(view.buffer for view in item.inputs if view.buffer.data is not None)
        return found

    # -- names -------------------------------------------------------------------------------------------

    def _constant(self, buffer: Buffer) -> str:
        return self.constants.setdefault(buffer, f"hrm_k{len(self.constants)}")

    def _names(self, body: _Body, function: Function | None) -> Names:
        members = {buffer: f"c->k{i}" for i, buffer in enumerate(function.constants)} if function else {}
        parameters = {buffer: f"b{i}" for i, buffer in enumerate(function.buffers)} if function else {}

        def pointer(buffer: Buffer) -> str:
            if buffer.data is not None:
                name = members.get(buffer) or self._constant(buffer)
                return f"HRM_WEIGHT({buffer.kind}, {name})" if self.apart else name
            if buffer in parameters:
                return parameters[buffer]
            if buffer.field is not None:
                return f"s->{buffer.field}"
            if buffer in self.places:
                return f"s->integers + {self.places[buffer]}"
            offset = body.plan.places[buffer]
            if buffer.kind == "int8_t":
                return f"(int8_t *)arena + {offset}"
            return f"arena + {offset // 4}"

        def value(buffer: Buffer) -> str | None:
            if buffer.data is None or buffer.size != 1:
                return None
            return members.get(buffer) or _literal(buffer)

        return Names(pointer, value)

    def _write(self, body: _Body, function: Function | None) -> int:
        """The statements of a function; returns how many there are."""
        names = self._names(body, function)
        writer = Writer(names, self.kernels, named=function is None)
        for number, unit in enumerate(body.units):
            writer.unit(unit, lambda call, at: self._call(call, names, body, at), number)
        body.text = writer.lines
        return len(writer.lines)

    def _call(self, call: Call, names: Names, body: _Body, unit: int) -> str:
        function = call.function
        arguments = ["s", f"arena + {body.plan.places.get(unit, 0) // 4}"]
        if function.constants:
            arguments.append(f"&hrm_block_{function.number}_constants[{call.instance}]")
        arguments += [names.pointer(buffer) for buffer in call.buffers]
        return f"hrm_block_{function.number}({', '.join(arguments)});{product_names(call.names)}"

    # -- files -------------------------------------------------------------------------------------------

    def files(
        self, name: str, max_think_steps: int, no_ACT_continue: bool, identifiers: Sequence[tuple[int, int]]
    ) -> Source:
        unknown = [rule.name for rule in numbered() if rule not in _IN_TEMPLATE]
        ensure(not unknown, f"write_source: hrm.c.j2 has no form for the halting rules {unknown}")
        statements = sum(self._write(body, function) for function, body in self.functions)
        statements += sum(self._write(body, None) for body in (self.start, self.think))
        instances = [list(self._instances(function)) for function, _ in self.functions]
        weights = weights_file(self.constants) if self.apart else None
        sizes = self._sizes(statements, weights)
        task, groups, rules = self.task, self.task.groups, self.task.portable_rules or {}
        facts = {
            "name": re.sub(r"[^\w .,()+-]", "_", name),
            "task": re.sub(r"[^\w .,()+-]", "_", task.name),
            "seq_len": task.seq_len,
            "vocabulary": [_string(text) for text in task.vocabulary],
            "max_think_steps": max_think_steps,
            "rules": numbered(),
            "says_stop": halting_head(no_ACT_continue).text("s->q[0]", "s->q[1]"),
            "groups": None if groups is None else np.asarray(groups),
            "maze": rules if rules.get("kind") == "maze" else None,
            "columns": task.cols,
            "values": task.value_tokens,
            "blank": task.blank,
            "sizes": sizes,
            "arena": max(self.start.plan.size, self.think.plan.size, 64),
            "integers": self.whole_numbers,
            "fields": [buffer for key, buffer in self.fields.items() if key != "tokens"],
            "identifiers": "puzzle_identifiers" in self.fields,
            "kept": identifiers,
            "rows": sum(last - first + 1 for first, last in identifiers),
            "kernels": [
                read_text(_TEMPLATES / "kernels" / f"{each}.c") for each in _KERNELS if each in self.kernels
            ],
            "kernel_names": self.kernels,
            "constants": [] if weights else [self._array(buffer, each) for buffer, each in self.constants.items()],
            "weights": weights,
            "weights_name": WEIGHTS,
            "functions": [(f, b, made) for (f, b), made in zip(self.functions, instances, strict=True)],
            "bodies": [self.start, self.think],
        }
        header, source = (_environment().get_template(f"hrm.{end}.j2") for end in "hc")
        written = source.render(facts)
        digest = hashlib.sha256((header.render(facts, digest="") + written).encode()).hexdigest()[:8]
        return Source(header.render(facts, digest=digest), written, sizes, weights)

    def _instances(self, function: Function) -> Iterator[str]:
        """The constants of every different call, as C initialises them."""
        for values in function.instances:
            texts = [_literal(buffer) if buffer.size == 1 else self._constant(buffer) for buffer in values]
            yield "{" + ", ".join(texts) + "}"

    def _array(self, buffer: Buffer, name: str) -> str:
        """The definition of a constant."""
        assert buffer.data is not None
        texts = [_number(each) for each in buffer.data] if buffer.kind == "float" else list(map(str, buffer.data))
        if buffer.kind == "float" and np.isfinite(buffer.data).all():
            texts = [f"{each}f" for each in buffer.data.astype(str)]
        if buffer.only is not None:
            head = f"#ifdef {buffer.only}\n"
            tail = f"\n#else\n#define {name} ((const {buffer.kind} *)0)\n#endif"
        else:
            head = tail = ""
        lines = [", ".join(texts[i : i + _IN_A_LINE]) for i in range(0, len(texts), _IN_A_LINE)]
        return f"{head}static const {buffer.kind} {name}[{buffer.size}] = {{\n" + ",\n".join(lines) + "};" + tail

    def _sizes(self, statements: int, apart: WeightsFile | None) -> Sizes:
        state = sum(buffer.bytes for buffer in self.fields.values()) + 4 * self.whole_numbers
        arena = max(self.start.plan.size, self.think.plan.size, 64)
        weights = sum(buffer.bytes for buffer in self.constants if buffer.only is None)
        if apart:
            state, weights = state + _POINTER, apart.bytes
        return Sizes(state + arena, arena, weights, statements * _STATEMENT + len(self.kernels) * _KERNEL)


@cache
def _environment() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(_TEMPLATES),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _without_unread(ops: list[Op]) -> list[Op]:
    """Operations on whose results something depends that the state keeps."""
    wanted: set[Buffer] = set()
    kept: list[Op] = []
    for op in reversed(ops):
        if op.output.buffer.field is not None or op.output.buffer in wanted:
            wanted.update(reads(op))
            kept.append(op)
    return kept[::-1]


def _member(name: str) -> str:
    """A tensor's name as a member of the state; one of a network's own may be a word of C, such as `short`."""
    return name if name in _OURS else STATE + re.sub(r"\W", "_", name, flags=re.ASCII)


def _literal(buffer: Buffer) -> str:
    assert buffer.data is not None
    value = buffer.data[0]
    return _number(value) if buffer.kind == "float" else str(value)


def _number(value: np.float32) -> str:
    """A float32 as C reads the same back."""
    if np.isfinite(value):
        return f"{value!s}f"
    return "NAN" if np.isnan(value) else "-INFINITY" if value < 0 else "INFINITY"


def _string(text: str) -> str:
    """A C string of any text: bytes that are no plain letter or digit are written in octal."""
    plain = (chr(b) if chr(b).isalnum() and b < 128 else f"\\{b:03o}" for b in text.encode())
    return '"' + "".join(plain) + '"'
