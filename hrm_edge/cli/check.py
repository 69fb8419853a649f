"""`hrm-edge check`: the regression gate for CI; every rule of a spec on every bundle, exit 1 when one fails."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..text import best_effort, echo, echo_json
from .flags import Json

if TYPE_CHECKING:
    from ..check.run import CheckReport
    from ..check.verdicts import Verdict


class Command(typer.core.TyperCommand):
    """The command, whose help ends with the rules that a spec may set."""

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        from ..check.rules import RULES

        with formatter.section("Rules"):
            formatter.write_dl([(rule.name, f"{rule.unit.expected}: {rule.text}") for rule in RULES.values()])


def command(
    spec: Annotated[
        Path, typer.Argument(metavar="SPEC.toml", help="Bundles, data sets and rules; see the README.")
    ],
    update_baseline: Annotated[
        bool,
        typer.Option(
            "--update-baseline", help="Write the baseline that the spec names, and print what changed in it."
        ),
    ] = False,
    markdown: Annotated[Path | None, typer.Option(help="Also write Markdown, for a job summary.")] = None,
    junit: Annotated[Path | None, typer.Option(help="Also write JUnit XML, one test case a rule.")] = None,
    json_: Json = False,
) -> None:
    """Judge bundles by the rules of a spec, for CI.

    Of accuracy, drop, agreement, size and speed. Exit 0: every rule holds. 1: one failed, all are reported. 2:
    the spec, or what it names, is wrong. Where too few puzzles were given to show a difference, that is said,
    and the spec decides.
    """
    from ..check.output import check_places, write_reports
    from ..check.run import run_check
    from ..progress import progress, say

    places = check_places(markdown, junit)
    with progress() as show:
        report = run_check(spec, update_baseline=update_baseline, writes=places, say=say, progress=show)
    # First, as a file may still fail to be written, on a disk that has filled up: the figures are not lost then.
    with best_effort():
        if json_:
            echo_json(report.to_dict())
        else:
            _print(report)
    write_reports(report, *places)
    if update_baseline and report.updated is None:
        say("the baseline was not written: a bundle that fails is none to compare with")
    report.raise_if_failed()


def _print(report: CheckReport) -> None:
    from ..check.output import COLUMNS, by_bundle, cells, remark
    from .tables import plain_table, print_table

    for heading, verdicts in by_bundle(report):
        echo(heading)
        table = plain_table()
        for column in COLUMNS:
            number = column in ("limit", "figure", "95 % interval", "n")
            table.add_column(column, justify="right" if number else "left", no_wrap=column != "data")
        for verdict in verdicts:
            table.add_row(*cells(verdict), style=None if verdict.passed else "bold red")
        print_table(table)
        for verdict in verdicts:
            if text := remark(verdict):
                echo(f"  {text}")
        drawn: set[tuple[str | None, int, str]] = set()
        for verdict in verdicts:
            if not verdict.passed and verdict.finding.worst:
                _print_worst(verdict, drawn)
        echo("")
    echo(report.summary)
    if report.updated is not None:
        echo("baseline written:" if report.updated else "baseline written; nothing changed")
        for line in report.updated:
            echo(f"  {line}")


def _print_worst(verdict: Verdict, drawn: set[tuple[str | None, int, str]]) -> None:
    """Boards, but for those `drawn` for a rule above, and every puzzle as a line that can be solved again."""
    from rich.columns import Columns
    from rich.text import Text

    from ..check.output import worst_title
    from ..console import Console
    from ..tasks.boards import board, glyphs_for

    console = Console()
    echo("", f"{verdict.rule.name} on {verdict.data}: the worst puzzles")
    boards = []
    for worst in verdict.finding.worst:
        key = (verdict.data, worst.number, worst.against)
        if key not in drawn:
            drawn.add(key)
            answer = board(worst.task, worst.question, worst.answer, worst.wanted, glyphs_for(console))
            boards.append(Text.assemble((worst_title(worst), "italic"), "\n", answer, "\n"))
    if boards:
        console.print(Columns(boards, padding=(0, 3)))
    for worst in verdict.finding.worst:
        echo(f"puzzle {worst.number}: {worst.task.format(worst.question)}")
