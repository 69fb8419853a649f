"""A report as Markdown for a job summary, and as JUnit XML for whatever collects test results."""

from __future__ import annotations

import html
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

from ..errors import InputError
from ..files import check_place, write_atomically
from ..tasks.boards import board
from ..text import code, printable
from ..text import markdown as plain
from .findings import Worst
from .run import CheckReport
from .verdicts import Verdict

COLUMNS = ("rule", "data", "limit", "figure", "95 % interval", "n", "result")


def check_places(*paths: Path | str | None) -> list[Path | None]:
    """Before any work, and not after it: can they be written at all? InputError where one can not."""
    places = [None if path is None else Path(path) for path in paths]
    for place in places:
        if place is not None and place.is_dir():
            raise InputError(f"{place}: is a folder; give the name of a file to write")
        if place is not None:
            check_place(place)
    return places


def write_reports(report: CheckReport, markdown_at: Path | None, junit_at: Path | None) -> None:
    """The report in the forms that a place was given for."""
    if markdown_at is not None:
        write_atomically(markdown_at, markdown(report))
    if junit_at is not None:
        write_atomically(junit_at, junit(report))


def cells(verdict: Verdict) -> tuple[str, ...]:
    """One verdict as the cells of a table, in the order of `COLUMNS`."""
    finding, unit = verdict.finding, verdict.rule.unit
    between = "" if finding.interval is None else unit.figures(*finding.interval)
    count = "" if finding.n is None else str(finding.n)
    result = verdict.outcome.replace("fail", "FAIL")
    limit, figure = unit.limit(verdict.limit), unit.figures(finding.figure)
    return verdict.rule.name, verdict.data or "", limit, figure, between, count, result


def by_bundle(report: CheckReport) -> list[tuple[str, list[Verdict]]]:
    """Verdicts in order, under one heading for each check and bundle."""
    groups: dict[str, list[Verdict]] = {}
    for verdict in report.verdicts:
        groups.setdefault(f"{verdict.check}: {verdict.bundle}", []).append(verdict)
    return list(groups.items())


def remark(verdict: Verdict) -> str | None:
    """What to say below the table: why it failed, or what it can not show; None where the row says it all."""
    on = f" on {verdict.data}" if verdict.data else ""
    if not verdict.passed:
        return f"{verdict.outcome}{on}: {verdict.reason}"
    if verdict.finding.sure:
        return None
    # Of a timing the text says what disturbed it; of a count the row has said it all.
    why = verdict.reason if verdict.finding.n is None else f"{verdict.rule.name}{on}: {verdict.doubt}"
    return f"{verdict.outcome}: {why}"


def worst_title(worst: Worst) -> str:
    return f"puzzle {worst.number}: {worst.cells} cells differ from {worst.against} (marked *)"


# -- Markdown ------------------------------------------------------------------------------------------


def markdown(report: CheckReport) -> str:
    """A heading, a table for each bundle, what to know about rules in doubt, and boards behind a fold."""
    mark = "❌" if report.failed else "✅"
    parts = [f"### {mark} hrm-edge check: {report.summary}", code(report.spec)]
    for heading, verdicts in by_bundle(report):
        table = [_row(COLUMNS), _row(["---"] * len(COLUMNS))]
        table += [_row([plain(cell) for cell in cells(verdict)]) for verdict in verdicts]
        parts += [f"**{plain(heading)}**", "\n".join(table)]
        if remarks := [plain(text) for verdict in verdicts if (text := remark(verdict))]:
            parts.append("\n".join(f"- {text}" for text in remarks))
        parts += [_fold(verdict) for verdict in verdicts if not verdict.passed and verdict.finding.worst]
    if report.updated is not None:
        lines = "\n".join(f"- {plain(line)}" for line in report.updated) or "- nothing changed"
        parts.append(f"Baseline written:\n\n{lines}")
    return "\n\n".join(parts) + "\n"


def _row(texts: tuple[str, ...] | list[str]) -> str:
    return f"| {' | '.join(texts)} |"


def _fold(verdict: Verdict) -> str:
    boards = "\n\n".join(
        f"{worst_title(w)}\n{board(w.task, w.question, w.answer, w.wanted).plain}" for w in verdict.finding.worst
    )
    title = html.escape(printable(f"{verdict.rule.name} on {verdict.data}: the worst puzzles"))
    return f"<details><summary>{title}</summary>\n\n```text\n{boards}\n```\n\n</details>"


# -- JUnit ---------------------------------------------------------------------------------------------


def junit(report: CheckReport) -> str:
    """One test case a rule; the reason is the failure's message, its body the worst puzzles."""
    totals = {"tests": str(len(report.verdicts)), "failures": str(len(report.failed)), "errors": "0"}
    root = ET.Element("testsuites", totals)
    suite = ET.SubElement(root, "testsuite", {"name": "hrm-edge check", **totals, "skipped": "0"})
    for verdict in report.verdicts:
        name = f"{verdict.rule.name} on {verdict.data}" if verdict.data else verdict.rule.name
        group = printable(f"{verdict.check}/{verdict.bundle}")
        case = ET.SubElement(suite, "testcase", {"classname": group, "name": printable(name), "time": "0"})
        if verdict.passed:
            ET.SubElement(case, "system-out").text = printable(f"{verdict.outcome}: {verdict.reason}")
            continue
        reason = printable(verdict.reason)
        failure = ET.SubElement(case, "failure", {"type": verdict.rule.name, "message": reason})
        failure.text = "\n".join([reason, *_worst(verdict)])
    ET.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ET.tostring(root, encoding="unicode")}\n'


def _worst(verdict: Verdict) -> Iterator[str]:
    for worst in verdict.finding.worst:
        text = worst.to_dict()
        yield worst_title(worst)
        yield from (printable(f"  {part:8} {text[part]}") for part in ("question", "answer", "wanted"))
