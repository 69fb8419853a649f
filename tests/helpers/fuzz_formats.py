"""Puzzle files in changed layouts: ``python tests/helpers/fuzz_formats.py --inputs 100000``.

Each input is made of known puzzles by a writer that knows nothing of the readers. Some are only laid out
otherwise (line ends, encodings, comments, spaces, rulers, blanks, compression), and must be read as what they were
made from or be refused. The others are damaged too, where every line of ours and no traceback is right.
"""

from __future__ import annotations

import argparse
import bz2
import gzip
import io
import json
import lzma
import random
import sys
import traceback
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

from hrm_edge.data.formats import File, format_of
from hrm_edge.errors import InputError
from hrm_edge.tasks import get_task

Board = list[int]  # 0 is a blank
Write = Callable[[random.Random, list[Board], int], str]

# What may come of an input. (Of those that are not damaged only those that can be read in two ways are refused.)
RIGHT = ("read", "refused as it is", "refused", "accepted")
# Rows and columns of a box by the side of the board.
_SHAPES = {4: (2, 2), 6: (2, 3), 9: (3, 3), 16: (4, 4)}


def solved(side: int) -> Board:
    rows, cols = _SHAPES[side]
    return [(cols * (r % rows) + r // rows + c) % side + 1 for r in range(side) for c in range(side)]


def made(rng: random.Random, side: int) -> tuple[Board, Board]:
    """A board with blanks that still shows every value, and its answer."""
    names = rng.sample(range(1, side + 1), side)
    answer = [names[value - 1] for value in solved(side)]
    board = [0 if rng.random() < 0.5 else value for value in answer]
    board[:side] = [0, *answer[1:side]]
    board[-side:] = [*answer[-side:-1], 0]
    return board, answer


def _symbols(rng: random.Random, side: int) -> tuple[str, str]:
    """What values are written as, and the blank."""
    if side < 10:
        return "0123456789"[1 : side + 1], rng.choice(".0*_-xX?·")
    kind = rng.randrange(3)
    symbols = ("123456789ABCDEFG", "0123456789ABCDEF", "ABCDEFGHIJKLMNOP")[kind]
    return symbols, rng.choice("._*-" if kind == 1 else ".0_*-")


def _text(board: Board, symbols: str, blank: str) -> str:
    return "".join(symbols[value - 1] if value else blank for value in board)


def _lines(rng: random.Random, boards: list[Board], side: int) -> str:
    symbols, blank = _symbols(rng, side)
    behind = rng.choice(["", "", " #Easy", "  1.2", "\t# a note", ",", ";17", " (412)"])
    return "\n".join(_text(board, symbols, blank) + behind for board in boards)


def _rows(rng: random.Random, boards: list[Board], side: int) -> str:
    symbols, blank = _symbols(rng, side)
    between = rng.choice(["", " ", ",", ";", "\t", ", "])
    gap = rng.choice(["\n", "\n\n"])
    made = []
    for number, board in enumerate(boards, 1):
        text = _text(board, symbols, blank)
        title = rng.choice(["", "", f"Grid {number:02d}\n", f"Puzzle #{number} (easy)\n", "# a.0-note\n"])
        made.append(title + "\n".join(between.join(text[i : i + side]) for i in range(0, len(text), side)))
    return gap.join(made)


def _boxes(rng: random.Random, boards: list[Board], side: int) -> str:
    symbols, blank = _symbols(rng, side)
    if rng.random() < 0.2:
        blank = " "
    rows, cols = _SHAPES[side]
    pad, inner = rng.choice([("", ""), (" ", " "), ("", " ")])
    bar, dash, corner = rng.choice(
        [("|", "-", "+"), ("│", "─", "┼"), ("║", "═", "╬"), ("|", "-", "*"), ("|", "=", ":")]
    )
    width = cols + (cols - 1) * len(inner) + 2 * len(pad)
    rule = corner + corner.join([dash * width] * (side // cols)) + corner
    out = []
    for board in boards:
        text = _text(board, symbols, blank)
        out.append(rule)
        for row in range(side):
            cells = text[row * side : (row + 1) * side]
            parts = [pad + inner.join(cells[c : c + cols]) + pad for c in range(0, side, cols)]
            out.append(bar + bar.join(parts) + bar)
            if row % rows == rows - 1:
                out.append(rule)
        out += [""] * rng.randrange(2)
    return "\n".join(out)


def _spaces(rng: random.Random, boards: list[Board], side: int) -> str:
    symbols, _ = _symbols(rng, side)
    trim = rng.random() < 0.3
    rows = []
    for board in boards:
        text = _text(board, symbols, " ")
        some = [text[i : i + side] for i in range(0, len(text), side)]
        rows.append("\n".join(row.rstrip() if trim else row for row in some))
    return "\n\n".join(rows)


def _table(rng: random.Random, boards: list[Board], side: int) -> str:
    symbols, blank = _symbols(rng, side)
    mark = rng.choice(",;\t")
    names = rng.choice([("question",), ("Puzzle",), ("quizzes",), ("id", "puzzle"), ("rating", "question")])
    quote = rng.choice(["", '"'])
    lines = [mark.join(names)] if rng.random() < 0.8 or len(names) == 1 else []
    for number, board in enumerate(boards):
        cells = [str(number)] * (len(names) - 1) + [_text(board, symbols, blank)]
        lines.append(mark.join(f"{quote}{cell}{quote}" for cell in cells))
    return "\n".join(lines)


def _numbers(rng: random.Random, boards: list[Board], side: int) -> str:
    mark, wide = rng.choice([" ", ",", ";", "\t"]), rng.choice([0, 2])
    rows = [
        [f"{value:{wide or ''}d}" for value in board[i : i + side]]
        for board in boards
        for i in range(0, side * side, side)
    ]
    return "\n".join(mark.join(row) for row in rows)


def _json(rng: random.Random, boards: list[Board], side: int) -> str:
    symbols, blank = _symbols(rng, side)
    grids = [[board[i : i + side] for i in range(0, side * side, side)] for board in boards]
    texts = [_text(board, symbols, blank) for board in boards]
    name = rng.choice(["puzzle", "question", "grid", "board"])
    indent = rng.choice([None, 1])
    kind = rng.randrange(5)
    if kind == 0:
        return json.dumps(grids, indent=indent)
    if kind == 1:
        return json.dumps(texts, indent=indent)
    if kind == 2:
        return "\n".join(json.dumps({name: grid, "rating": 1}) for grid in grids)
    if kind == 3:
        return "\n".join(json.dumps({"id": 3, name: text}, indent=indent) for text in texts)
    return json.dumps({"puzzles": [{name: grid} for grid in grids]}, indent=indent)


def _xml(rng: random.Random, boards: list[Board], side: int) -> str:
    symbols, blank = _symbols(rng, side)
    games = "\n".join(f'<game created="0" data="{_text(board, symbols, blank)}"/>' for board in boards)
    return f'<?xml version="1.0"?>\n<opensudoku version="2">\n{games}\n</opensudoku>'


WRITERS: dict[str, Write] = {
    "lines": _lines,
    "rows": _rows,
    "boxes": _boxes,
    "spaces": _spaces,
    "table": _table,
    "numbers": _numbers,
    "JSON": _json,
    "XML": _xml,
}


def laid_out(rng: random.Random, text: str) -> bytes:
    """The same text otherwise: line ends, encoding, compression."""
    end = rng.choice(["\n", "\n", "\r\n", "\r"])
    text = text.replace("\n", end) + rng.choice(["", end, end * 2])
    encoding = rng.choice(["utf-8", "utf-8", "utf-8-sig", "utf-16", "utf-32", "utf-16-le"])
    data = text.encode(encoding if text[:2].isascii() else "utf-8")
    packed = rng.randrange(12)
    if packed == 0:
        return gzip.compress(data)
    if packed == 1:
        return bz2.compress(data)
    if packed == 2:
        return lzma.compress(data)
    if packed == 3:
        made = io.BytesIO()
        with zipfile.ZipFile(made, "w") as archive:
            archive.writestr("puzzles.txt", data)
        return made.getvalue()
    return data


def damaged(rng: random.Random, data: bytes) -> bytes:
    content = bytearray(data)
    for _ in range(rng.randint(1, 6)):
        at = rng.randrange(len(content) + 1)
        kind = rng.randrange(4)
        if kind == 0 and at < len(content):
            content[at] = rng.choice([rng.randrange(256), *b'\n ,;|-.019#[{"<'])
        elif kind == 1:
            content[at:at] = rng.choice(
                [b"\n", b" ", b"|", b'"', b"\0", b"[", b"{", b",", b"---------\n", b"[State]\n"]
            )
        elif kind == 2:
            del content[at : at + rng.randint(1, 9)]
        elif rng.random() < 0.2:
            del content[at:]
    return bytes(content)


def read(data: bytes, side: int) -> np.ndarray:
    """int32[N, S] with 0 for a blank."""
    file = File(Path("input"), lambda: io.BytesIO(data), "input")
    parts = [rows.questions for rows in format_of(file).read(file, get_task(f"sudoku-{side}x{side}"))]
    return np.concatenate(parts) - 1 if parts else np.zeros((0, side * side), np.int32)


def check(seed: int, number: int) -> tuple[str, str]:
    """(form, what came of it): "read", "refused", or what is wrong."""
    rng = random.Random(f"{seed}/{number}")
    side = rng.choice([4, 6, 9, 9, 9, 16])
    name = rng.choice(list(WRITERS))
    boards = [made(rng, side)[0] for _ in range(rng.randint(1, 3))]
    data = laid_out(rng, WRITERS[name](rng, boards, side))
    whole = rng.random() < 0.5
    if not whole:
        data = damaged(rng, data)
    try:
        found = read(data, side).tolist()
    except InputError as error:
        line = str(error)
        if "\n" in line or not 0 < len(line) < 2000:
            return name, f"an error of {len(line)} characters"
        return name, "refused as it is" if whole else "refused"
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        return name, f"{type(error).__name__} at {Path(last.filename).name}:{last.lineno}"
    if whole and found != boards:
        return name, "misread"
    return name, "read" if whole else "accepted"


def run(seed: int, inputs: int) -> tuple[Counter[tuple[str, str]], dict[tuple[str, str], int]]:
    """How many came to what, and the first number of each."""
    counts: Counter[tuple[str, str]] = Counter()
    first: dict[tuple[str, str], int] = {}
    for number in range(inputs):
        result = check(seed, number)
        counts[result] += 1
        first.setdefault(result, number)
    return counts, first


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    counts, first = run(options.seed, options.inputs)
    for (name, what), count in sorted(counts.items()):
        print(f"{name:10}{count:>8}  {what}  (first {first[name, what]})")
    wrong = [what for _, what in counts if what not in RIGHT]
    print(f"{sum(counts.values())} inputs, {len(wrong)} kinds of findings")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
