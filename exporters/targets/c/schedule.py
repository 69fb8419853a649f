"""In what order operations run, and where their results lie.

Elementwise operations that only one other reads become part of it. Neighbours that treat every row by itself run on
a few rows at a time, so what lies between them is as large as these rows. Whatever is not needed at the same time
shares memory.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from .blocks import Call, Item, reads, writes
from .ir import Buffer, IntProduct, Loop, Op, Product, Reduce, Softmax, Step, View

# Rows at a time: few, so that what lies between operations is small; more where weights outgrow the caches near a
# core, and would come from afar for each few.
_TILE, _LARGE_TILE = 8, 48
_LARGE = 1 << 20  # bytes of float weights
_ALIGNED = 64  # bytes, of what a vector unit reads


# -- one operation of several ----------------------------------------------------------------------------


def fuse(items: Sequence[Item], kept: set[Buffer]) -> list[Item]:
    """Make elementwise operations part of their only readers; ``kept``: what is read from outside stays."""
    items = list(items)
    while (found := _fusable(items, kept)) is not None:
        producer, consumer = found
        items[items.index(consumer)] = _joined(producer, consumer)
        items.remove(producer)
    return items


def _fusable(items: list[Item], kept: set[Buffer]) -> tuple[Loop, Loop | Reduce] | None:
    readers: dict[Buffer, list[Item]] = {}
    writers: dict[Buffer, list[Item]] = {}
    for item in items:
        for buffer in reads(item):
            readers.setdefault(buffer, []).append(item)
        for buffer in writes(item):
            writers.setdefault(buffer, []).append(item)
    for item in items:
        if not isinstance(item, Loop) or item.output.buffer.kind == "int8_t":
            continue
        buffer = item.output.buffer
        reading = {id(reader): reader for reader in readers.get(buffer, [])}
        if buffer in kept or buffer.field is not None or len(writers[buffer]) > 1 or len(reading) != 1:
            continue
        (consumer,) = reading.values()
        if not isinstance(consumer, Loop | Reduce):
            continue
        uses = {view.geometry: view for view in consumer.inputs if view.buffer is buffer}
        if len(uses) == 1 and _unharmed(items, item, consumer):
            (use,) = uses.values()
            producer = item if use.geometry == item.output.geometry else _seen_as(item, use)
            if producer is not None:
                items[items.index(item)] = producer
                return producer, consumer
    return None


def _seen_as(producer: Loop, use: View) -> Loop | None:
    """The same operation over the shape in which its reader sees the result; None: strides can not say that."""
    order = sorted(range(len(producer.output.shape)), key=lambda i: -producer.output.strides[i])
    turned = [view.transposed(order) for view in (*producer.inputs, producer.output)]
    if not (turned[-1].whole and use.whole):
        return None
    seen = [view.reshaped(use.shape) for view in turned]
    views = [view for view in seen if view is not None]
    if len(views) < len(seen):
        return None
    return dataclasses.replace(producer, inputs=views[:-1], output=views[-1])


def _unharmed(items: list[Item], producer: Loop, consumer: Item) -> bool:
    """Whether nothing that the producer reads is written before the consumer runs."""
    between = items[items.index(producer) + 1 : items.index(consumer)]
    read = set(reads(producer))
    return not any(buffer in read for item in between for buffer in writes(item))


def _joined(producer: Loop, consumer: Loop | Reduce) -> Loop | Reduce:
    """The consumer, computing for itself what it read."""
    inputs = list(producer.inputs)
    made = len(producer.steps)
    result = -made if made else 0  # of the producer: its last step, or its input where it copies
    places: list[int] = []
    for view in consumer.inputs:
        if view.buffer is producer.output.buffer:
            places.append(result)
        else:
            places.append(len(inputs))
            inputs.append(view)
    moved = tuple(
        Step(step.function, tuple(places[arg] if arg >= 0 else arg - made for arg in step.args), step.kind)
        for step in consumer.steps
    )
    return dataclasses.replace(
        consumer, inputs=inputs, steps=producer.steps + moved, name=consumer.name or producer.name
    )


def in_place(items: Sequence[Item]) -> list[Item]:
    """Results that are only copied to where the state keeps them are made there, where nothing is read any more."""
    items = list(items)
    for copy in [item for item in items if isinstance(item, Loop) and not item.steps]:
        source, target = copy.inputs[0], copy.output.buffer
        if target.field is None or not (source.whole and copy.output.whole) or source.buffer.data is not None:
            continue
        if source.buffer.field is not None or source.buffer.kind != target.kind:
            continue
        place = items.index(copy)
        written = [i for i, item in enumerate(items) if source.buffer in writes(item)]
        read = [i for i, item in enumerate(items) if target in reads(item)]
        others = [i for i, item in enumerate(items) if target in writes(item) and i != place]
        if others or (read and max(read) >= min(written)):
            continue
        del items[place]
        for item in items:
            _rename(item, source.buffer, target)
    return items


def _rename(item: Item, old: Buffer, new: Buffer) -> None:
    if isinstance(item, Call):
        item.buffers = [new if buffer is old else buffer for buffer in item.buffers]
        return
    item.inputs = [view._replace(buffer=new) if view.buffer is old else view for view in item.inputs]
    if item.output.buffer is old:
        item.output = item.output._replace(buffer=new)


# -- a few rows at a time --------------------------------------------------------------------------------


@dataclass(eq=False)
class Rows:
    """Operations that run together on :attr:`tile` of ``rows`` rows after the other."""

    rows: int
    ops: list[Op]
    local: set[Buffer] = field(default_factory=set)  # as large as a tile

    @property
    def tile(self) -> int:
        """How many rows at a time."""
        weights = {op.inputs[1].buffer for op in self.ops if isinstance(op, Product) and op.packed}
        large = sum(weight.bytes for weight in weights) > _LARGE
        return min(self.rows, _LARGE_TILE if large else _TILE)


Unit = Item | Rows


def rows_of(op: Op) -> int | None:
    """How many rows an operation treats each by itself; None: it does not."""
    views = [*op.inputs, op.output]
    if isinstance(op, Product | IntProduct):
        right, views = op.inputs[1], [op.inputs[0], op.output]
        if isinstance(op, Product) and not op.packed and any(right.strides[:-2]):
            return None
    elif isinstance(op, Reduce):
        if op.axes != (len(op.shape) - 1,):
            return None
    elif not isinstance(op, Loop | Softmax):
        return None
    flat = [view.as_rows() for view in views]
    if any(each is None for each in flat) or not op.output.shape:
        return None
    counts = {each[0] for each in flat if each is not None}
    return counts.pop() if len(counts) == 1 and counts != {1} else None


def in_rows(items: Sequence[Item], kept: set[Buffer]) -> list[Unit]:
    """Put neighbours that work row by row together."""
    units: list[Unit] = []
    for item in items:
        rows = rows_of(item) if isinstance(item, Op) else None
        if rows is None:
            units.append(item)
            continue
        assert isinstance(item, Op)
        last = units[-1] if units else None
        if isinstance(last, Rows) and last.rows == rows and _goes_on(last.ops, item):
            last.ops.append(item)
        else:
            units.append(Rows(rows, [item]))
    for unit in units:
        if isinstance(unit, Rows):
            unit.local = set(_local(unit, units, kept))
    return units


def _goes_on(ops: list[Op], op: Op) -> bool:
    """Whether an operation reads of what the others make only the same rows, and writes nothing that they read."""
    made = {other.output.buffer: other.output for other in ops}
    if any(op.output.buffer in reads(other) for other in ops) or op.output.buffer in made:
        return False
    for number, view in enumerate(op.inputs):
        written = made.get(view.buffer)
        if written is None:
            continue
        if number and isinstance(op, Product | IntProduct):
            return False
        _, _, stride, _ = written.in_rows()
        _, width, own, step = view.in_rows()
        shift = view.offset - written.offset
        if own != stride or not stride or shift < 0 or shift + (width - 1) * step >= stride:
            return False
    return True


def _local(unit: Rows, units: list[Unit], kept: set[Buffer]) -> Iterator[Buffer]:
    others = {
        buffer
        for other in units
        if other is not unit
        for item in (other.ops if isinstance(other, Rows) else [other])
        for buffer in (*reads(item), *writes(item))
    }
    for op in unit.ops:
        buffer = op.output.buffer
        fills = op.output.offset == 0 and buffer.size == unit.rows * op.output.in_rows()[2]
        if fills and buffer not in others and buffer not in kept and buffer.field is None:
            yield buffer


# -- where results lie -----------------------------------------------------------------------------------


@dataclass
class Plan:
    """Byte offsets in the arena, and how much of it is used at most."""

    places: dict[Buffer | int, int]
    size: int = 0


def plan_memory(units: Sequence[Unit], outside: set[Buffer], frames: dict[int, int]) -> Plan:
    """Place all buffers but those from ``outside``; ``frames``: bytes that each function's own results take.

    A call's frame is found under the number of its unit.
    """
    spans: dict[Buffer | int, list[int]] = {}
    sizes: dict[Buffer | int, int] = {}
    time = 0

    def seen(buffer: Buffer, begin: int, end: int, size: int) -> None:
        if buffer in outside or buffer.data is not None or buffer.field is not None:
            return
        sizes[buffer] = size
        span = spans.setdefault(buffer, [begin, end])
        span[0], span[1] = min(span[0], begin), max(span[1], end)

    for number, unit in enumerate(units):
        begin = time
        parts = unit.ops if isinstance(unit, Rows) else [unit]
        local = unit.local if isinstance(unit, Rows) else set()
        end = begin + len(parts) - 1
        for part in parts:
            for buffer in (*reads(part), *writes(part)):
                if buffer in local and isinstance(unit, Rows):
                    seen(buffer, time, time, buffer.bytes // unit.rows * unit.tile)
                else:
                    seen(buffer, begin, end, buffer.bytes)
            time += 1
        if isinstance(unit, Call) and frames[unit.function.number]:
            spans[number], sizes[number] = [begin, end], frames[unit.function.number]
    plan = Plan({})
    placed: list[tuple[int, int, list[int]]] = []
    for key in sorted(sizes, key=lambda key: (-sizes[key], spans[key][0])):
        size, (begin, end) = sizes[key], spans[key]
        offset = 0
        for start, stop, other in sorted(placed, key=lambda each: each[0]):
            if other[0] <= end and begin <= other[1] and start < offset + size and offset < stop:
                offset = -(-stop // _ALIGNED) * _ALIGNED
        plan.places[key] = offset
        placed.append((offset, offset + size, spans[key]))
        plan.size = max(plan.size, offset + size)
    plan.size = -(-plan.size // _ALIGNED) * _ALIGNED
    return plan
