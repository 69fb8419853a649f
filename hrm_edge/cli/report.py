"""`hrm-edge report`: what quantization did to a bundle's accuracy, as its export measured it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..text import echo, echo_json

if TYPE_CHECKING:
    from ..bundle import Bundle
    from ..measure.drift import SegmentDrift
    from ..report.format import Quantization, Report


def command(
    bundle: Annotated[str, typer.Argument(help="A quantized bundle that was exported with its gate.")],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Write the whole report to this file: .html, .md or .json."),
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="The whole report as one JSON object on stdout.")] = False,
) -> None:
    """Show how a quantized bundle compares with its checkpoint.

    And where the report's page is. Nothing is measured here: `hrm-edge export` did, and put the report into the
    bundle. With -o it is drawn anew from the figures there, as one page without any other file, as Markdown or
    as JSON.
    """
    from ..bundle import open_bundle
    from ..report import bundle_report

    opened = open_bundle(bundle)
    report = bundle_report(opened)
    if output is not None:
        _write(report, output)
    if json_:
        echo_json(report.to_dict())
    elif output is None:
        _print(opened, report)


def _write(report: Report, output: Path) -> None:
    """Drawn from the checked figures: what a page in a stranger's bundle holds is the stranger's."""
    from ..errors import InputError
    from ..files import check_file, write_atomically
    from ..progress import say
    from ..report import FILES, render

    kind = output.suffix.lower().removeprefix(".")
    if kind not in FILES:
        raise InputError(f"-o {output}: a report is written as .html, .md or .json; give it one of these names")
    check_file(output)
    write_atomically(output, render(report, kind), result=True)
    say(f"wrote {output}")


def _print(bundle: Bundle, report: Report) -> None:
    """The verdict, both sides, the worst layers and the end of the drift; the page has the rest."""
    from ..report import FILES
    from ..report.words import number, percent, span, tiles, verdict
    from .tables import print_rows

    gate = report.gate
    echo(f"{bundle.path}: {'passed' if gate.passed else 'FAILED'} {verdict(gate)}")
    if how := bundle.manifest.gate.reason:
        echo(f"  {how}")
    rows = []
    for label, side in (("float reference", report.accuracy.reference), ("this bundle", report.accuracy.candidate)):
        low, high = map(percent, side.exact_interval)
        figures = percent(side.exact), f"{low} to {high}", percent(side.token), number(side.steps_mean)
        rows.append((label, *figures, percent(side.halted)))
    print_rows(("", "exact", "95 % interval", "tokens", "segments", "halted"), rows)
    echo(f"  drop {gate.drop_points:.2f} points, 95 % interval {span(gate.drop_interval)}")
    for tile in tiles(report)[2:]:
        echo(f"  {tile['name']}: {tile['value']} ({tile['note']})")
    _print_drift(report.drift)
    _print_layers(report.quantization)
    echo(f"page: {bundle.path / FILES['html']}   (copy it out with -o FILE.html)")


def _print_drift(drift: tuple[SegmentDrift, ...]) -> None:
    from ..report.words import cosine, percent
    from .tables import print_rows

    if not drift:
        return
    states = (f"{state.name} cosine" for state in drift[0].states)
    head = ("segment", *states, "cells differ", "puzzles differ", "halting agrees")
    wanted = {1, 2, 4, 8, 16, drift[-1].segment}
    rows = [
        (
            *(str(row.segment), *(cosine(state.cosine) for state in row.states)),
            *map(percent, (row.cells_differ, row.puzzles_differ, row.halt_agree)),
        )
        for row in drift
        if row.segment in wanted
    ]
    print_rows(head, rows, left=0)


def _print_layers(quantization: Quantization | None) -> None:
    """What stays in float, and the layers that cost most when they alone are quantized."""
    from ..report.words import points

    if quantization is None:
        return
    for layer in quantization.layers:
        if layer.kept:
            echo(f"  more bits: {layer.name} ({layer.kept})")
    worst = sorted(quantization.sensitivity, key=lambda trial: -trial.drop_points)[:3]
    if worst:
        named = ", ".join(f"{trial.what} {points(trial.drop_points)}" for trial in worst)
        echo(f"  most sensitive alone, points of {worst[0].n} puzzles: {named}")
