"""A report as a page to look at: HTML with its plots and boards, or Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import InputError
from ..tasks import Task, get_task
from . import words
from .boards import board_legend, board_svg, board_text, wrong_cells_text

_TEXT_BOARDS = 3  # of each kind of puzzle in Markdown; the HTML draws all that the report holds


def html_page(report: Mapping[str, Any]) -> str:
    """One self-contained page; `report` was checked."""
    from . import plots

    task = get_task(report["bundle"]["task"])
    quantization = report["quantization"] or {"sensitivity": [], "sites": [], "layers": []}
    figures = {
        "accuracy": plots.accuracy_plot(report["by_segments"]) if report["by_segments"] else None,
        "drift": plots.drift_plots(report["drift"]) if report["drift"] else [],
        "halting": plots.halting_plot(report["halting"]) if report["halting"]["reference"] else None,
        "sensitivity": plots.sensitivity_plot(quantization["sensitivity"]) if quantization["sensitivity"] else None,
        "ranges": plots.range_plots(quantization["sites"], quantization["layers"]) if quantization["sites"] else [],
    }
    return _template("report.html.j2", html=True).render(
        r=report,
        tiles=words.tiles(report),
        plots=figures,
        task=task,
        board_legend=board_legend(task),
        draw=lambda puzzle, side, label: board_svg(task, puzzle, side, label),
        **_sentences(task),
    )


def markdown_page(report: Mapping[str, Any]) -> str:
    """The same figures as text, a few boards included; `report` was checked."""
    task = get_task(report["bundle"]["task"])
    return _template("report.md.j2", html=False).render(
        r=report,
        tiles=words.tiles(report),
        task=task,
        most=_TEXT_BOARDS,
        draw=lambda puzzle, side: board_text(task, puzzle, side),
        **_sentences(task),
    )


def _sentences(task: Task) -> dict[str, Any]:
    """What both templates call."""
    from .plots import short_name, sites_by_layer

    return {
        "target_name": words.target_name,
        "kinds": words.KINDS,
        "verdict": words.verdict,
        "origin": words.origin,
        "began": words.began,
        "calibration": words.calibration,
        "short": short_name,
        "by_layer": sites_by_layer,
        "wrong_cells": lambda cells: wrong_cells_text(task, cells),
    }


def _template(name: str, html: bool) -> Any:
    try:
        import jinja2
    except ImportError as error:
        raise InputError(
            "a report needs jinja2, which is not installed; run: pip install 'hrm-edge[report]'"
        ) from error
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("hrm_edge.report", "templates"),
        autoescape=html,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters.update({each.__name__: each for each in words.FILTERS})
    return environment.get_template(name)
