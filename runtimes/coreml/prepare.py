"""Prepares an ML program for the interpreter: slots for values, constants computed, what can be freed when."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...errors import InputError
from ..base import first_line
from . import products, shapes  # noqa: F401  (they register their kinds)
from .ops import KINDS, Call, Kernel, rounded_to_float16
from .program import Block, Constant, Function, Operation, Value, storage_dtype

# A program's values while it runs, one slot for each; those of constants are filled from the start.
Frame = list[Any]
# What nothing is bound to; always None.
_NOTHING = 0
# A loop that runs longer is taken for one that never ends.
MAX_ROUNDS = 10_000
# What damaged programs make numpy raise.
FAILURES = (ValueError, TypeError, LookupError, ArithmeticError, MemoryError, AttributeError)


@dataclass(frozen=True)
class _Step:
    """One operation, ready: ``run(frame)`` reads and fills slots; ``free`` are slots not needed afterwards."""

    run: Callable[[Frame], None]
    free: tuple[int, ...]
    where: str


@dataclass(frozen=True)
class Body:
    """A block, ready to run."""

    inputs: tuple[int, ...]
    steps: tuple[_Step, ...]
    outputs: tuple[int, ...]

    def run(self, frame: Frame) -> None:
        step = None
        try:
            for step in self.steps:
                step.run(frame)
                for slot in step.free:
                    frame[slot] = None
        except FAILURES as error:
            raise InputError(f"{step.where if step else 'a block'} fails: {first_line(error)}") from error


@dataclass(frozen=True)
class Ready:
    """A function, ready to run on a copy of ``frame``; ``slots``: where its inputs go, by name."""

    frame: Frame
    slots: dict[str, int]
    body: Body


def prepare(function: Function) -> Ready:
    """Everything about a function that does not depend on what it is fed, done once.

    InputError names an operation that is not supported, or does not fit its inputs.
    """
    compiler = _Compiler()
    scope = {value.name: compiler.slot() for value in function.inputs}
    body, _ = compiler.block(function.block, scope)
    return Ready(compiler.frame, scope, body)


class _Compiler:
    """Gives every value a slot and every operation a function of slots."""

    def __init__(self) -> None:
        self.frame: Frame = [None]
        self._constants: dict[int, np.ndarray | str] = {}

    def slot(self) -> int:
        self.frame.append(None)
        return len(self.frame) - 1

    def block(self, block: Block, outer: dict[str, int]) -> tuple[Body, set[int]]:
        """The block ready to run, and every slot that it and the blocks inside it read."""
        scope = dict(outer)
        inputs = tuple(self.slot() for _ in block.inputs)
        scope.update(zip((value.name for value in block.inputs), inputs, strict=True))
        own = set(inputs)
        steps: list[tuple[Callable[[Frame], None], set[int], str]] = []
        for operation in block.operations:
            made = self._operation(operation, scope)
            for value, slot in zip(operation.outputs, made.outputs, strict=True):
                scope[value.name] = slot
            if made.run is not None:
                own.update(made.outputs)
                steps.append((made.run, made.reads | set(made.outputs), operation.where))
        outputs = tuple(_found(scope, name, "a block's output") for name in block.outputs)
        # Backwards: the first step from the end that touches a slot is the last to need it.
        needed, ready = set(outputs), []
        for run, touched, where in reversed(steps):
            ready.append(_Step(run, tuple((touched & own) - needed), where))
            needed |= touched
        return Body(inputs, tuple(reversed(ready)), outputs), needed - own

    def _operation(self, operation: Operation, scope: dict[str, int]) -> _Made:
        special = _SPECIAL.get(operation.kind)
        if special is not None:
            return special(self, operation, scope)
        if operation.kind not in KINDS:
            raise InputError(f"{operation.where}: this operation is not supported by the interpreter")
        kind = KINDS[operation.kind]
        bound = {name: self._bound(items, scope, operation) for name, items in operation.inputs.items()}
        constants = {
            name: self._constants[slots[0]]
            for name, slots in bound.items()
            if len(slots) == 1 and slots[0] in self._constants
        }
        if len(operation.outputs) != 1:
            raise InputError(f"{operation.where}: names {'several outputs' if operation.outputs else 'no output'}")
        (output,) = operation.outputs
        call = Call(operation.where, frozenset(bound), constants, output)
        ins = tuple(slot for name in kind.operands for slot in _operand(name, bound, operation))
        out = self.slot()
        try:
            run = _runner(kind.make(call), ins, out, _checked(output, kind.exact))
        except FAILURES as error:
            raise InputError(f"{operation.where}: {first_line(error)}") from error
        known = self._constants.keys() | {_NOTHING}
        if all(slot in known for slot in ins):
            self._fold(run, out, operation)
            return _Made((out,), None, set())
        return _Made((out,), run, set(ins))

    def _fold(self, run: Callable[[Frame], None], out: int, operation: Operation) -> None:
        """Compute now what depends on constants alone; the result is a constant too."""
        with np.errstate(all="ignore"):
            Body((), (_Step(run, (), operation.where),), ()).run(self.frame)
        self._constants[out] = self.frame[out]

    def _bound(
        self, items: tuple[str | Constant, ...], scope: dict[str, int], operation: Operation
    ) -> tuple[int, ...]:
        return tuple(
            self._constant(item) if isinstance(item, Constant) else _found(scope, item, operation.where)
            for item in items
        )

    def _constant(self, constant: Constant) -> int:
        slot = self.slot()
        self.frame[slot] = self._constants[slot] = constant.value
        return slot

    def const(self, operation: Operation, scope: dict[str, int]) -> _Made:
        items = operation.inputs.get("val", ())
        if len(items) != 1 or not isinstance(items[0], Constant) or len(operation.outputs) != 1:
            raise InputError(f"{operation.where}: holds no value")
        constant, declared = items[0], operation.outputs[0]
        shape = () if isinstance(constant.value, str) else constant.value.shape
        if constant.dtype != declared.dtype or not fits(shape, declared.shape):
            raise InputError(f"{operation.where}: its value is not what it is declared to be")
        return _Made((self._constant(constant),), None, set())

    def while_loop(self, operation: Operation, scope: dict[str, int]) -> _Made:
        ins = self._bound(operation.inputs.get("loop_vars", ()), scope, operation)
        outs = tuple(self.slot() for _ in operation.outputs)
        blocks = [self.block(block, scope) for block in operation.blocks]
        if len(blocks) != 2 or not len(ins) == len(outs) == len(blocks[1][0].outputs):
            raise InputError(f"{operation.where}: its blocks do not fit its variables")
        (test, tested), (body, used) = blocks
        if not len(ins) == len(test.inputs) == len(body.inputs) or len(test.outputs) != 1:
            raise InputError(f"{operation.where}: its blocks do not fit its variables")

        def run(frame: Frame) -> None:
            values = [frame[slot] for slot in ins]
            for _ in range(MAX_ROUNDS):
                _put(frame, test.inputs, values)
                test.run(frame)
                if not bool(frame[test.outputs[0]]):
                    break
                _put(frame, body.inputs, values)
                body.run(frame)
                values = [frame[slot] for slot in body.outputs]
            else:
                raise InputError(f"{operation.where} did not end within {MAX_ROUNDS} rounds")
            _put(frame, outs, values)

        return _Made(outs, run, set(ins) | tested | used)

    def read_state(self, operation: Operation, scope: dict[str, int]) -> _Made:
        source = self._state_of(operation, scope)
        if len(operation.outputs) != 1:
            raise InputError(f"{operation.where}: names no output")
        out = self.slot()

        def run(frame: Frame) -> None:
            frame[out] = frame[source][0]

        return _Made((out,), run, {source})

    def write_state(self, operation: Operation, scope: dict[str, int]) -> _Made:
        target = self._state_of(operation, scope)
        data = self._bound(operation.inputs.get("data", ()), scope, operation)
        if len(data) != 1 or operation.outputs:
            raise InputError(f"{operation.where}: must write one value, and gives none")

        def run(frame: Frame) -> None:
            cell, value = frame[target], frame[data[0]]
            if value.shape != cell[0].shape or value.dtype != cell[0].dtype:
                raise ValueError(f"writes {value.dtype}{list(value.shape)} to a state of {list(cell[0].shape)}")
            cell[0] = value

        return _Made((), run, {target, data[0]})

    def _state_of(self, operation: Operation, scope: dict[str, int]) -> int:
        slots = self._bound(operation.inputs.get("input", ()), scope, operation)
        if len(slots) != 1:
            raise InputError(f"{operation.where}: names no state")
        return slots[0]


_SPECIAL = {
    "const": _Compiler.const,
    "while_loop": _Compiler.while_loop,
    "read_state": _Compiler.read_state,
    "write_state": _Compiler.write_state,
}


@dataclass(frozen=True)
class _Made:
    """An operation ready to run; ``run`` is None when its outputs are known already."""

    outputs: tuple[int, ...]
    run: Callable[[Frame], None] | None
    reads: set[int]


def _runner(kernel: Kernel, ins: tuple[int, ...], out: int, check: Callable[[Any], Any]) -> Callable[[Frame], None]:
    """The kernel between slots."""

    def run(frame: Frame) -> None:
        frame[out] = check(kernel(*[frame[slot] for slot in ins]))

    return run


def _checked(value: Value, exact: bool) -> Callable[[Any], Any]:
    """What rounds a result where the program says float16, and makes sure that it is what the program declares.

    A wrong one would go unnoticed for long.
    """
    dtype, shape = storage_dtype(value.dtype), value.shape
    rounding = value.dtype == "float16" and not exact
    fixed = shape is not None and None not in shape

    def check(result: Any) -> Any:
        if result.dtype != dtype or (result.shape != shape if fixed else not fits(result.shape, shape)):
            raise ValueError(
                f"gives {result.dtype} of shape {list(result.shape)} where {value.dtype} of shape "
                f"{sizes(value)} is declared"
            )
        return rounded_to_float16(result) if rounding else result

    return check


def _operand(name: str, bound: dict[str, tuple[int, ...]], operation: Operation) -> tuple[int, ...]:
    """Slots of one operand of a kind, whose name may be ``*name`` or ``name?``."""
    slots = bound.get(name.strip("*?"), ())
    if name.startswith("*"):
        if slots:
            return slots
    elif len(slots) == 1:
        return slots
    elif not slots and name.endswith("?"):
        return (_NOTHING,)
    raise InputError(f"{operation.where}: its {name.strip('*?')!r} is missing")


def _found(scope: dict[str, int], name: str, where: str) -> int:
    if name not in scope:
        raise InputError(f"{where}: uses {name!r}, which nothing before it gives")
    return scope[name]


def _put(frame: Frame, slots: tuple[int, ...], values: list[Any]) -> None:
    for slot, value in zip(slots, values, strict=True):
        frame[slot] = value


def fits(shape: tuple[int, ...], declared: tuple[int | None, ...] | None) -> bool:
    if declared is None:
        return True
    return len(shape) == len(declared) and all(
        wanted in (None, size) for size, wanted in zip(shape, declared, strict=True)
    )


def sizes(value: Value) -> list[Any]:
    return ["?" if size is None else size for size in value.shape or ()]
