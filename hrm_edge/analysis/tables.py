"""The analyses' results as tables: what the terminal shows and what Markdown holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..measure.statistics import interval
from ..text import markdown

if TYPE_CHECKING:
    from .ablations import AblationRow
    from .halting import Halting, HaltingRow
    from .participation import Participation
    from .segments import Rate, SegmentRates


@dataclass(frozen=True)
class Table:
    """Its first `left` columns hold names, the others figures; `notes` are lines below it."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    left: int = 1
    notes: Sequence[str] = ()

    def markdown(self) -> str:
        rule = ["---"] * self.left + ["---:"] * (len(self.head) - self.left)
        head, *rows = (list(map(markdown, cells)) for cells in (self.head, *self.rows))
        lines = [f"| {' | '.join(cells)} |" for cells in (head, rule, *rows)]
        return "\n".join([*lines, *(f"\n{markdown(note)}" for note in self.notes)]) + "\n"


def segment_tables(result: SegmentRates) -> list[Table]:
    """One artifact's solve rates with their intervals: by segments, the same with retries, by retries."""
    blocks = [("halting off", "segments", result.fixed)]
    if result.verified:
        blocks.append((f"{result.retries} retries, verified", "segments", result.verified))
        blocks.append((f"verified, {result.limit} segments", "retries", result.by_retries))
    tables = []
    for title, what, groups in blocks:
        rows = []
        for name, rates in groups.items():
            n = next(iter(rates.values())).n
            rows.append([name, str(n), *map(_with_interval, rates.values())])
        tables.append(Table([title, "n", *(f"{k} {what}" for k in next(iter(groups.values())))], rows))
    return tables


def _with_interval(rate: Rate) -> str:
    low, high = interval(rate.solved, rate.n)
    return f"{rate.exact:.1%} ({100 * low:.1f}–{100 * high:.1f})"


def card_table(results: Sequence[SegmentRates]) -> Table:
    """Every artifact and source by segments, without and with retries: one table for a model's card."""
    first = results[0]
    counts = list(next(iter(first.fixed.values())))
    head = ["model", "source", "puzzles", *map(str, counts)]
    note = "Exactly solved after so many segments, halting off"
    if first.verified:
        head += [f"{k}, {first.retries} retries" for k in counts]
        note += f"; with retries: up to {first.retries} symmetric variants, each until its guess verifies"
    rows = []
    for result in results:
        for source, rates in result.fixed.items():
            again = result.verified.get(source, {})
            cells = [f"{rate.exact:.1%}" for rate in (*rates.values(), *again.values())]
            rows.append([result.artifact, source, str(rates[counts[0]].n), *cells])
    return Table(head, rows, 2, [f"{note}. Puzzles: {first.puzzles}."])


def halting_table(result: Halting) -> Table:
    """By rating, by source, and all; and what the halting head knows."""
    head = ["puzzles", "n", "segments", "exact", "ran to the limit", "halted on a wrong answer"]
    sources = result.by_source if len(result.by_source) > 1 else ()
    rows = [_halting_cells(row) for row in (*result.by_rating, *sources, result.total)]
    rank = "–" if result.correlation is None else f"{result.correlation:+.2f}"
    quality = result.head
    by_segments = ", ".join(f"{k}: {_three(auc)}" for k, auc in quality.auc_by_segments.items())
    notes = [
        f"{result.artifact} on {result.puzzles}, at most {result.limit} segments.",
        f"Rank correlation of rating and halting step: {rank}.",
        f"q_halt as a predictor of a right guess, halting off: AUC {_three(quality.auc)} over {quality.n} guesses "
        f"(by segments {by_segments}); calibration error {quality.error:.1%}.",
    ]
    return Table(head, rows, 1, notes)


def _halting_cells(row: HaltingRow) -> list[str]:
    wrong = f"{row.halted_wrong / row.halted:.1%} of {row.halted}" if row.halted else "–"
    limit = f"{1 - row.halted / row.n:.1%}"
    return [row.group, str(row.n), f"{row.steps_mean:.2f}", f"{row.right / row.n:.1%}", limit, wrong]


def _three(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def participation_table(results: Sequence[Participation]) -> Table:
    """A row for each number of trajectories, a column for each model and state."""
    columns = [(result, state) for result in results for state in result.growth]
    head = ["trajectories", "sets", *(f"{result.model}, {state}" for result, state in columns)]
    rows = []
    for points in zip(*(result.growth[state] for result, state in columns), strict=True):
        rows.append([str(points[0].trajectories), str(points[0].sets), *(f"{point.mean:.2f}" for point in points)])
    note = (
        f"Participation ratio, D = {results[0].hidden_size}: every cell's state at the end of each of "
        f"{results[0].segments} segments, centred; means over disjoint sets of puzzles."
    )
    return Table(head, rows, 0, [note])


def ablations_table(rows: Sequence[AblationRow], n: int) -> Table:
    """A row a variant; with several seeds each figure has its worst and best."""
    head = ["variant", "parameters", "blocks/segment", *(f"{k} segm." for k in rows[0].exact), "minutes"]
    found = []
    for row in rows:
        cells = []
        for mean, least, most in row.exact.values():
            cells.append(f"{mean:.1%}" + (f" ({100 * least:.1f}–{100 * most:.1f})" if row.seeds > 1 else ""))
        found.append([row.title, f"{row.parameters:,}", str(row.block_calls), *cells, f"{row.minutes:.1f}"])
    seeds = max(row.seeds for row in rows)
    what = f"mean of {seeds} seeds (worst–best)" if seeds > 1 else "one seed"
    return Table(head, found, 1, [f"Exactly solved of {n} held-out puzzles, halting off; {what}."])
