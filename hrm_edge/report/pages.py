"""A report as a page to look at: HTML with its plots and boards, or Markdown."""

from __future__ import annotations

from dataclasses import asdict
from functools import cache
from typing import Any

from ..errors import InputError
from ..packages import install
from ..tasks import Task
from ..text import printable
from . import words
from .boards import board_legend, board_svg, board_text, wrong_cells_text
from .format import Report

_TEXT_BOARDS = 3  # of each kind of puzzle in Markdown; the HTML draws all that the report holds


def html_page(report: Report) -> str:
    """One self-contained page."""
    from .plots import drift_columns, figures

    task = report.whole_task
    return _rendered(
        "report.html.j2",
        report,
        task,
        plots=figures(report),
        drift_columns=drift_columns(report.drift) if report.drift else (),
        board_legend=board_legend(task),
        draw=lambda puzzle, side, label: board_svg(task, asdict(puzzle), side, label),
    )


def markdown_page(report: Report) -> str:
    """The same figures as text, a few boards included."""
    from .plots import tables

    task = report.whole_task
    return _rendered(
        "report.md.j2",
        report,
        task,
        tables=tables(report),
        most=_TEXT_BOARDS,
        draw=lambda puzzle, side: board_text(task, asdict(puzzle), side),
    )


def _rendered(name: str, report: Report, task: Task, **own: Any) -> str:
    try:
        import jinja2
    except ImportError as error:
        raise InputError(f"a report needs jinja2, which is not installed; run: {install('report')}") from error
    template = _environment(jinja2, is_html=name == "report.html.j2").get_template(name)
    return template.render(r=report, task=task, wrong_cells=lambda cells: wrong_cells_text(task, cells), **own)


@cache
def _environment(jinja2: Any, is_html: bool) -> Any:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("hrm_edge.report", "templates"),
        autoescape=is_html,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
        # What a page says besides markup; Markdown's own texts have several lines, and filters for what is data.
        finalize=(lambda value: printable(value) if type(value) is str else value) if is_html else None,
    )
    environment.filters.update({each.__name__: each for each in words.FILTERS})
    environment.globals.update(words=words)
    return environment
