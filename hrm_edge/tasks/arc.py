"""ARC-AGI grids as tokens: 0 padding, 1 end of grid, 2..11 the colours 0..9 (layout of the public trainers)."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

from ..errors import InputError
from .base import PAD, Tokens
from .drawing import WALL, Drawing
from .labelled import LabelledTask

END, FIRST_COLOUR = 1, 2
COLOURS = 10
SIDE = 30  # of the largest grid there is
# Black, blue, red, green, yellow, grey, magenta, orange, light blue, maroon: as ARC's public viewers show 0 to 9.
_SHOWN_AS = ("#000000", "#0074d9", "#ff4136", "#2ecc40", "#ffdc00",
             "#aaaaaa", "#f012be", "#ff851b", "#7fdbff", "#870c25")  # fmt: skip


class Arc(LabelledTask):
    """One ``side`` × ``side`` canvas with a grid on it, an end-of-grid token along its right and bottom edge.

    Which transformation is asked for only a puzzle's identifier tells, so that there are no rules to verify,
    solve or generate by.
    """

    spellings = "arc (30x30), arc-NxN"
    vocabulary = ("<pad>", "|", *"0123456789")
    aliases: Mapping[str, int] = {"?": PAD}
    blank = PAD
    drawing = Drawing(fills={"|": WALL, **{str(value): colour for value, colour in enumerate(_SHOWN_AS)}})
    by_example = True
    made_with = "hrm-edge data arc"
    answered_with = "hrm-edge arc"

    def __init__(self, side: int = SIDE) -> None:
        if not 1 <= side <= SIDE:
            raise InputError(f"arc-{side}x{side}: ARC's grids have sides of 1 to {SIDE}")
        self.rows = self.cols = side
        self.name = "arc" if side == SIDE else f"arc-{side}x{side}"
        cell = np.arange(side * side)
        self.position_ids = np.stack([cell // side, side + cell % side]).astype(np.int32)
        self.n_positions = 2 * side

    @classmethod
    def from_name(cls, name: str) -> Arc | None:
        if name == "arc":
            return cls()
        match = re.fullmatch(r"arc-(\d{1,3})x(\d{1,3})", name)
        return cls(int(match[1])) if match and match[1] == match[2] else None

    # -- grids -----------------------------------------------------------------------------------------

    def encode(self, grid: np.ndarray) -> Tokens:
        """A grid int[h, w] of colours 0..9 as int32[S], at the canvas's top left."""
        grid = np.asarray(grid)
        if grid.ndim != 2 or not all(1 <= length <= self.rows for length in grid.shape):
            raise InputError(f"a grid of {self.name} has 1 to {self.rows} rows and columns, not shape {grid.shape}")
        if grid.dtype.kind not in "iu" or grid.min() < 0 or grid.max() >= COLOURS:
            raise InputError("a grid's colours are whole numbers from 0 to 9")
        height, width = grid.shape
        canvas = np.full((self.rows, self.cols), PAD, np.int32)
        canvas[:height, :width] = grid + FIRST_COLOUR
        canvas[height : height + 1, :width] = END
        canvas[:height, width : width + 1] = END
        return canvas.reshape(-1)

    def decode(self, tokens: Tokens) -> np.ndarray:
        """The largest all-colour rectangle at the top left of ``tokens[S]``: int32[h, w], (0, 0) if there is none.

        What lies beyond the end of the grid is never learned, hence of no account.
        """
        colour = np.asarray(tokens).reshape(self.rows, self.cols) >= FIRST_COLOUR
        # Row r of a rectangle can be as wide as the narrowest run of colours in rows 0..r.
        widths = np.minimum.accumulate(np.cumprod(colour, axis=1).sum(axis=1))
        areas = widths * np.arange(1, self.rows + 1)
        height = int(areas.argmax()) + 1 if areas.any() else 0
        width = int(widths[height - 1]) if height else 0
        return np.asarray(tokens, np.int32).reshape(self.rows, self.cols)[:height, :width] - FIRST_COLOUR

    # -- text ------------------------------------------------------------------------------------------

    def parse(self, text: str) -> Tokens:
        """S characters (``|`` ends the grid, ``?`` is padding), or a grid's rows of digits, one on a line."""
        lines = text.split()
        if len(lines) == 1 and len(lines[0]) == self.seq_len and self.seq_len > 1:
            return self.parse_cells(lines[0], "no colour 0 to 9, '|' or '?'")
        if not lines or not all(line.isascii() and line.isdigit() for line in lines):
            raise InputError(f"a grid is rows of digits, or {self.seq_len} characters of 0 to 9, '|' and '?'")
        if len({len(line) for line in lines}) > 1:
            raise InputError("the rows of a grid must be of one length")
        return self.encode(np.array([[int(c) for c in line] for line in lines]))

    def parse_many(self, text: str) -> list[Tokens]:
        """Grids with empty lines between them, and canvases of S characters on a line."""
        found: list[Tokens] = []
        block: list[str] = []
        for number, line in enumerate([*text.splitlines(), ""], 1):
            whole = len(line.strip()) == self.seq_len
            if block and (whole or not line.strip()):
                found.append(self._parse_at(number - len(block), "\n".join(block)))
                block = []
            if whole:
                found.append(self._parse_at(number, line))
            elif line.strip():
                block.append(line)
        return found

    def _parse_at(self, line: int, text: str) -> Tokens:
        try:
            return self.parse(text)
        except InputError as error:
            raise InputError(f"line {line}: {error}") from None

    def render(self, question: Tokens, answer: Tokens | None = None) -> str:
        """The grid alone, of the answer where one is given; the whole canvas where it holds none."""
        tokens = np.asarray(question if answer is None else answer)
        grid = self.decode(tokens)
        if grid.size:
            return "\n".join("".join(map(str, row)) for row in grid.tolist())
        line = self.format(tokens)
        return "\n".join(line[start : start + self.cols] for start in range(0, self.seq_len, self.cols))

    # -- checks ----------------------------------------------------------------------------------------

    def check_question(self, tokens: Tokens) -> None:
        tokens = np.asarray(tokens)
        if tokens.shape != (self.seq_len,):
            raise InputError(f"a {self.name} puzzle has {self.seq_len} cells, got an array of shape {tokens.shape}")
        if not ((tokens >= 0) & (tokens < self.vocab_size)).all():
            raise InputError(f"{self.name} has tokens 0 to {self.vocab_size - 1}")
        if not (tokens >= FIRST_COLOUR).any():
            raise InputError("the puzzle holds no grid: every cell is padding or end of grid")

    def rating(self, question: Tokens, answer: Tokens) -> int:
        """Cells of the answer's grid."""
        return int((np.asarray(answer) >= FIRST_COLOUR).sum())

    # -- augmentation ----------------------------------------------------------------------------------

    def sample_symmetries(self, rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
        raise self.no_rules("a turned or recoloured task is another puzzle, with an identifier of its own")

    def augment(
        self, rng: np.random.Generator, questions: np.ndarray, answers: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Move both grids of each row down and right together by as much as there is room for, at random.

        Turns and colours are a puzzle's own (see :mod:`hrm_edge.arc`). Translations are drawn anew each time; in
        the public sets they are fixed, with one example of each puzzle left in place.
        """
        shape = (len(questions), self.rows, self.cols)
        coloured = ((questions >= FIRST_COLOUR) | (answers >= FIRST_COLOUR)).reshape(shape)
        places = []
        for axis in (1, 2):
            used = np.asarray(coloured.any(axis=3 - axis))  # [B, side]: rows, then columns
            room = np.where(used.any(axis=1), used[:, ::-1].argmax(axis=1), 0)
            shift = (rng.random(len(room)) * (room + 1)).astype(np.int64)
            places.append(np.arange(self.rows) - shift[:, None])  # where each new row or column comes from
        down, right = places[0][:, :, None], places[1][:, None, :]
        inside = (down >= 0) & (right >= 0)
        batch = np.arange(len(questions))[:, None, None]

        def move(tokens: np.ndarray) -> np.ndarray:
            moved = tokens.reshape(shape)[batch, down.clip(min=0), right.clip(min=0)]
            return np.where(inside, moved, PAD).reshape(len(tokens), -1).astype(np.int32)

        return move(questions), move(answers)
