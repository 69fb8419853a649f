"""Parquet: a column of boards, as texts or lists, under the usual names; written as the tables of text are."""

from __future__ import annotations

import importlib
import importlib.util
import io
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, BinaryIO

from ...errors import InputError
from ...packages import install
from ...tasks import Task
from .base import ANSWER, QUESTION, Batches, File, Format, Rows, column_of
from .streams import UNPACKED
from .tables import Block, Column, as_set

_MAGIC = b"PAR1"
_ROWS = 4096  # read together
_KINDS = {"text": "string", "number": "int32", "flag": "bool_"}


def _need(what: str) -> None:
    if importlib.util.find_spec("pyarrow") is None:
        raise InputError(f"{what}: Parquet needs pyarrow, which is not installed; run: {install('parquet')}")


def _read(file: File, task: Task) -> Iterator[Rows]:
    _need(file.shown)
    import pyarrow

    batches = Batches(file, task, "row")
    try:
        for row, question, answer, source in _puzzles(file):
            batches.put(row, question, answer, source)
            if row % _ROWS == 0:
                yield from batches.take()
        yield from batches.take()
    except InputError as error:
        text = str(error)
        raise file.wrong(f"row{text.removeprefix('line')}" if text.startswith("line ") else text) from None
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        why = " ".join(str(error).split())
        raise file.wrong(f"a damaged Parquet file ({why:.200}); fetch or write it again") from None


def _puzzles(file: File) -> Iterator[tuple[int, Any, Any, str]]:
    """Row, question, answer and source, a group of rows at a time."""
    parquet: Any = importlib.import_module("pyarrow.parquet")
    local = file.content is None and file.stream is file.source and file.path.is_file()
    content = parquet.ParquetFile(str(file.path) if local else io.BytesIO(file.stream.read()), memory_map=False)
    names = content.schema_arrow.names
    asked, told, sources = (column_of(names, known) for known in (QUESTION, ANSWER, ("source",)))
    if len(asked) != 1:
        listed = ", ".join(names)[:80]
        if asked:
            raise InputError(
                f"{names[asked[0]]!r} and {names[asked[1]]!r} may both be the puzzle; keep one of them"
            )
        raise InputError(f"no column 'question' among {listed!r}; name it there")
    wanted = [names[column] for column in (asked[0], *told[:1], *sources[:1])]
    meta = content.metadata
    size = sum(meta.row_group(group).total_byte_size for group in range(meta.num_row_groups))
    if size > UNPACKED:
        raise InputError(f"unpacks to {size // 2**20} MiB, and {UNPACKED // 2**20} are read at most; split it")
    row, length = 0, file.progress()[1]
    for batch in content.iter_batches(_ROWS, columns=wanted):
        values = {name: batch.column(name).to_pylist() for name in wanted}
        nothing = [None] * batch.num_rows
        answers = values[names[told[0]]] if told else nothing
        origins = values[names[sources[0]]] if sources else nothing
        for question, answer, source in zip(values[names[asked[0]]], answers, origins, strict=True):
            row += 1
            # An empty one is a puzzle that cannot be read.
            file.source.count = length * row // max(meta.num_rows, 1)  # groups are not read in the order of bytes
            yield row, "" if question is None else question, answer, "" if source is None else str(source)


def _tabulate(columns: Sequence[Column], blocks: Iterable[Block], out: BinaryIO) -> None:
    """A group of rows for each block."""
    import pyarrow

    parquet: Any = importlib.import_module("pyarrow.parquet")
    types = [getattr(pyarrow, _KINDS[column.kind])() for column in columns]
    schema = pyarrow.schema([pyarrow.field(each.name, kind) for each, kind in zip(columns, types, strict=True)])
    with parquet.ParquetWriter(out, schema, compression="zstd") as writer:
        for block in blocks:
            arrays = [pyarrow.array(values, kind) for values, kind in zip(block, types, strict=True)]
            writer.write_table(pyarrow.Table.from_arrays(arrays, schema=schema))


PARQUET = Format(
    fits=lambda file: file.stream.peek(4).startswith(_MAGIC),
    read=_read,
    endings=(".parquet",),
    write=as_set(_tabulate),
    tabulate=_tabulate,
    need=_need,
)
