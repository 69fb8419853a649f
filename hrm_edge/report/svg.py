"""Plots as inline SVG whose colours are the page's own, so that dark mode and print restyle them."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from html import escape
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from ..packages import install
from ..text import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Colours matplotlib writes → the page's custom properties that take their place.
_COLOURS = {
    name: f"#0a0b{number:02x}"
    for number, name in enumerate(("ink", "soft", "line", "page", "float", "low", "deep", "teal"))
}
INK, SOFT, LINE, PAGE, FLOAT, LOW, DEEP, TEAL = _COLOURS.values()

WIDTH, HEIGHT = 5.2, 2.7  # inches of 72 units; text of 10 units stays legible when a phone shows it smaller


def require_matplotlib() -> None:
    """InputError where no plot can be drawn; asked before long work, too."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise InputError(f"a plot needs matplotlib, which is not installed; run: {install('report')}") from error


@contextmanager
def style(ink: str = INK, soft: str = SOFT, line: str = LINE) -> Iterator[Any]:
    """matplotlib set up to look like the report, whatever the user's own style is."""
    require_matplotlib()
    import matplotlib

    settings: Any = {
        "svg.fonttype": "none",
        "text.parse_math": False,  # a dollar in a name is one
        "svg.hashsalt": "hrm-edge",  # else ids are random
        "font.size": 10,
        "axes.edgecolor": line,
        "axes.labelcolor": soft,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": line,
        "grid.linewidth": 0.6,
        "xtick.color": soft,
        "ytick.color": soft,
        "text.color": ink,
        "lines.linewidth": 1.6,
        "lines.markersize": 4,
    }
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # a user's own style would make other bytes, and other colours
        matplotlib.rcParams.update(settings)
        yield matplotlib


def unknown_characters(text: str) -> str:
    """What of ``text`` the fonts of pictures, plain and bold, have no glyph for; each once, in its order."""
    from matplotlib.font_manager import FontProperties, findfont, get_font

    fonts = [
        get_font(findfont(FontProperties(family="DejaVu Sans", weight=weight))) for weight in ("normal", "bold")
    ]
    known = set.intersection(*(set(font.get_charmap()) for font in fonts))
    return "".join(dict.fromkeys(each for each in text if ord(each) not in known))


def drawable(text: str) -> str:
    """One line for a picture: :func:`printable`, and what its fonts lack is written out too, as ``\\u6f22``."""
    shown = printable(text)
    for each in unknown_characters(shown):
        shown = shown.replace(each, each.encode("unicode_escape").decode())
    return shown


def svg(draw: Callable[[Axes], None], label: str, height: float = HEIGHT) -> str:
    """What `draw` puts on one pair of axes, as markup for the page."""
    with style():
        from matplotlib.figure import Figure

        figure = Figure((WIDTH, height), layout="constrained")
        draw(figure.add_subplot())
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return _for_page(buffer.getvalue(), label)


def _for_page(drawn: str, label: str) -> str:
    """Only what the page needs: no prologue, metadata, style sheet, fonts, fixed size or ids nobody refers to."""
    body = drawn[drawn.index("<svg") :]
    view = re.search(r'viewBox="[^"]*"', body)
    assert view is not None
    body = body[body.index(">") + 1 :]
    body = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", body, flags=re.DOTALL)
    body = re.sub(r"font-family:[^;\"]*;?", "", body).replace("xlink:href", "href")
    used = set(re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', body))
    names = {name for pair in used for name in pair if name}
    body = re.sub(r' id="([^"]*)"', lambda match: match[0] if match[1] in names else "", body)
    tag = f"p{hashlib.sha256(label.encode()).hexdigest()[:6]}-"  # the page holds several plots
    for name in sorted(names):
        body = body.replace(f'"{name}"', f'"{tag}{name}"').replace(f"#{name}", f"#{tag}{name}")
    for name, colour in _COLOURS.items():
        body = body.replace(colour, f"var(--{name})")
    body = re.sub(r"\s*\n\s*", " ", body)
    label = escape(label)
    return f'<svg class="plot" {view[0]} role="img" aria-label="{label}"><title>{label}</title>{body}'.strip()


# -- axes ------------------------------------------------------------------------------------------------


def name_rows(ax: Axes, names: Sequence[str]) -> None:
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.tick_params(axis="y", labelcolor=INK)
    ax.grid(axis="x", color=LINE)
    ax.grid(axis="y", color=LINE)


def whole_numbers(axis: Any) -> None:
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 2.5, 5, 10], integer=True))


def log_scale(ax: Axes) -> None:
    """A few plain numbers, however many decades there are."""
    from matplotlib.ticker import LogLocator

    ax.set_xscale("log")
    low, high = ax.get_xlim()
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < 300 else (1,)))
    ax.xaxis.set_major_formatter(plain_number)
    ax.minorticks_off()


def plain_number(value: float, _: Any) -> str:
    return f"{value:g}"
