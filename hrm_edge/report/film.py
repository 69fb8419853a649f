"""A puzzle being thought over, as an animated GIF: a frame a segment, in the colours of the report's boards."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError
from ..files import check_file, write_atomically
from ..solve.watch import Moment
from ..tasks import Task
from ..tasks.base import PADDING
from ..tasks.boards import wrong_cells
from ..tasks.drawing import WALL, WAY
from ..text import printable
from .colours import page_colours
from .svg import require_matplotlib, style, unknown_characters

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from PIL.Image import Image

_WIDTH, _BESIDE, _DPI = 3.6, 1.15, 100  # inches: of the board, and of what stands above and below it
_MS_A_FRAME, _MS_FIRST, _MS_LAST = 700, 1200, 3500
_COLOURS = 64  # enough for text with smooth edges, and small
_CHANGED = 0.25  # opacity of the mark on a changed cell


class Film:
    """Told every :class:`Moment` of one puzzle; :meth:`gif` is what it saw."""

    def __init__(self) -> None:
        require_matplotlib()
        self.moments: list[Moment] = []

    def __call__(self, moment: Moment) -> None:
        if self.moments and moment.puzzle != self.moments[0].puzzle:
            raise InputError("a GIF shows one puzzle; give one alone")
        self.moments.append(moment)

    def gif(self) -> bytes:
        """The whole animation, which begins with the puzzle and repeats; equal thinking gives equal bytes."""
        from PIL.Image import Dither, Quantize

        page = page_colours()
        with style(page["ink"], page["soft"], page["line"]):
            drawn = [_frame(self.moments, seen) for seen in range(len(self.moments) + 1)]
        # One palette for all, or the colours of cells that did not change would flicker.
        palette = _side_by_side(drawn).quantize(_COLOURS, Quantize.MAXCOVERAGE)
        frames = [image.quantize(palette=palette, dither=Dither.NONE) for image in drawn]
        durations = [_MS_FIRST, *[_MS_A_FRAME] * (len(frames) - 2), _MS_LAST]
        file = io.BytesIO()
        frames[0].save(
            file, "GIF", save_all=True, append_images=frames[1:], duration=durations, loop=0, optimize=True
        )
        return file.getvalue()

    def write(self, path: Path) -> None:
        """The animation as a file, whole or not at all."""
        write_atomically(path, self.gif())


def opened_film(path: Path, task: Task) -> Film:
    """A film of ``task`` to be written to ``path``; InputError where it cannot, before any thinking."""
    if path.suffix.lower() != ".gif":
        raise InputError(f"{path}: an animation is a .gif; end the name so")
    check_file(path)
    film = Film()
    drawn = [symbol for symbol in task.vocabulary[1:] if symbol not in task.drawing.fills]
    if unknown := next((symbol for symbol in drawn if unknown_characters(printable(symbol))), None):
        raise InputError(
            f"a GIF of {task.name} cannot show the symbol {unknown!r}, which its font lacks; --trace-html writes a "
            "page that shows it"
        )
    return film


def _side_by_side(images: Sequence[Image]) -> Image:
    """The first image and the last ones, in which every colour stands."""
    from PIL import Image as pil

    some = [images[0], *images[-3:]]
    whole = pil.new("RGB", (sum(image.width for image in some), some[0].height))
    for number, image in enumerate(some):
        whole.paste(image, (number * image.width, 0))
    return whole


def _frame(moments: Sequence[Moment], seen: int) -> Image:
    """The board after ``seen`` segments, with the halting head's course so far below it."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from PIL import Image as pil

    moment, page = moments[max(seen, 1) - 1], page_colours()
    task = moment.task
    height = _WIDTH * task.drawn_rows / task.drawn_cols
    total = height + _BESIDE
    figure = Figure((_WIDTH + 0.3, total), dpi=_DPI, facecolor=page["page"])
    canvas = FigureCanvasAgg(figure)
    board = figure.add_axes((0.04, (_BESIDE - 0.32) / total, 0.92, height / total))
    if seen:
        _draw(board, task, moment.question, moment.guess, moment.previous)
    else:
        _draw(board, task, moment.question, moment.question, moment.question)
    figure.text(0.04, 1 - 0.2 / total, _title(moment) if seen else "the puzzle", color=page["ink"], size=10)
    said, colour = _verdict(moment) if seen else ("", page["soft"])
    figure.text(
        0.96, 1 - 0.2 / total, said, color=page[colour] if seen else colour, size=10, ha="right", weight="bold"
    )
    _course(figure.add_axes((0.04, 0.16 / total, 0.92, (_BESIDE - 0.66) / total)), moments, seen)
    canvas.draw()
    return pil.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy())


def _title(moment: Moment) -> str:
    variant = f", variant {moment.variant}" if moment.variant else ""
    return f"segment {moment.segment}{variant}: {moment.changed} changed"


def _verdict(moment: Moment) -> tuple[str, str]:
    """What the last frame says, and the page's colour that it says it in."""
    if not moment.last:
        return "", "soft"
    if moment.verified is None:
        return ("stops", "ink") if moment.stops else ("no more segments", "soft")
    return ("✓ verified", "good") if moment.verified else ("✗ not verified", "bad")


# -- the halting head --------------------------------------------------------------------------------------


def _course(ax: Axes, moments: Sequence[Moment], seen: int) -> None:
    """A bar a segment: how much the model wants to stop, whose middle line is where it does."""
    page = page_colours()
    confidences = [moment.confidence for moment in moments[:seen]]
    colours = [page["good"] if moment.margin > 0 else page["deep"] for moment in moments[:seen]]
    ax.bar(np.arange(len(moments)), 1, 0.72, color=page["card"])
    ax.bar(np.arange(seen), confidences, 0.72, color=colours)
    ax.axhline(0.5, color=page["soft"], linewidth=0.8, linestyle=(0, (3, 2)))
    ax.set(xlim=(-0.6, max(len(moments), 8) - 0.4), ylim=(0, 1))
    ax.set_axis_off()
    ax.text(1, -0.06, "wants to stop; above the line it does", color=page["soft"], size=7.5, ha="right", va="top",
            transform=ax.transAxes)  # fmt: skip


# -- the board ---------------------------------------------------------------------------------------------


def _draw(ax: Axes, task: Task, question: np.ndarray, guess: np.ndarray, previous: np.ndarray) -> None:
    """A board on axes whose unit is a cell: as the report draws it, and what changed marked."""
    page, rows, cols = page_colours(), task.drawn_rows, task.drawn_cols
    ax.set(xlim=(-0.04, cols + 0.04), ylim=(rows + 0.04, -0.04), aspect="equal")
    ax.set_axis_off()
    symbols = [task.vocabulary[token] if token else PADDING for token in guess.tolist()]
    changed = guess != previous
    wrong = wrong_cells(task, question, guess) & (guess != question)  # what is still blank is no mistake
    given = task.givens(question)
    fills = task.drawing.fills
    for cell, symbol in enumerate(symbols):
        at, fill = (cell % cols, cell // cols), fills.get(symbol)
        if fill == WALL:
            _square(ax, at, page["wall"])
        elif fill is not None and fill != WAY:
            _square(ax, at, fill)
        if changed[cell]:
            _square(ax, at, page["teal"], _CHANGED)
        elif wrong[cell]:
            _square(ax, at, page["tint"])
        if fill == WAY:
            _square(ax, at, page["bad" if wrong[cell] else "float"], inside=0.2)
    if not fills or task.drawing.is_coloured:
        _lines(ax, range(1, rows), range(1, cols), rows, cols, page["line"], 0.7)
    box = (rows, cols) if fills else task.drawing.box or (rows, cols)
    edges = (range(0, rows + 1, box[0]), range(0, cols + 1, box[1]))
    _lines(ax, *edges, rows, cols, page["soft"], 1.5)
    blank = task.vocabulary[task.blank] if task.blank else PADDING
    size = 54 * _WIDTH / cols
    for cell, symbol in enumerate(symbols):
        if symbol in fills or symbol == blank or (symbol == PADDING and not wrong[cell]):
            continue
        colour = page["bad" if wrong[cell] else "ink" if given[cell] else "float"]
        weight = "bold" if given[cell] or wrong[cell] else "normal"
        ax.text(cell % cols + 0.5, cell // cols + 0.53, printable(symbol), color=colour, weight=weight,
                size=size / max(1, len(symbol) - 0.5), ha="center", va="center")  # fmt: skip


def _square(ax: Axes, at: tuple[int, int], colour: str, alpha: float = 1, inside: float = 0) -> None:
    from matplotlib.patches import Rectangle

    x, y = at
    side = 1 - 2 * inside
    ax.add_patch(Rectangle((x + inside, y + inside), side, side, facecolor=colour, alpha=alpha, linewidth=0))


def _lines(
    ax: Axes, across: Iterable[int], down: Iterable[int], rows: int, cols: int, colour: str, width: float
) -> None:
    look: Any = {"color": colour, "linewidth": width, "solid_capstyle": "projecting"}
    for y in across:
        ax.plot((0, cols), (y, y), **look)
    for x in down:
        ax.plot((x, x), (0, rows), **look)
