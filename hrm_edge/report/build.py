"""The quantization accuracy report of a bundle: gathered as plain JSON, written as JSON, Markdown and HTML."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from ..bundle import Bundle
from ..bundle.manifest import Manifest
from ..bundle.quantization import Quantization
from ..data.leaks import fingerprints
from ..data.puzzles import PuzzleSet
from ..errors import InputError
from ..files import write_atomically
from ..measure.accuracy import Score, rightness, token_accuracy
from ..measure.drift import Difference, SegmentDrift
from ..measure.statistics import CONFIDENCE, drop_interval, interval, mcnemar
from ..runtimes import Answers
from ..tasks.boards import wrong_cells
from .format import FORMAT_VERSION, RECORDS, check_report
from .pages import html_page, markdown_page

REPORT = "report.json"
FILES = {"html": "report.html", "md": "report.md", "json": REPORT}
SHOWN = 12  # boards drawn of each kind of puzzle
_LARGEST = 64 * 2**20  # bytes; a report of 96 sites and 36 mazes is a quarter of one MB


def build_report(
    *,
    manifest: Manifest,
    gate: Mapping[str, Any],
    quantization: Quantization | None,
    puzzles: PuzzleSet,
    reference: Answers,
    candidate: Answers,
    drift: Sequence[SegmentDrift] = (),
    by_segments: Mapping[str, Mapping[int, Score]] | None = None,
    speed: Sequence[Mapping[str, Any]] = (),
    differences: Sequence[Difference] = (),
    bundle_bytes: int | None = None,
) -> dict[str, Any]:
    """Everything the report shows, as plain JSON values; fractions are 0 to 1, sizes bytes, times ms.

    Args:
        manifest: of the bundle; it need not be sealed yet.
        gate: `GateReport.to_dict()` of the comparison of `reference` and `candidate` on `puzzles`.
        drift: one entry a segment; of the same puzzles or of the first few of them.
        by_segments: {"reference": scores, "candidate": scores} by number of segments; drift's own counts
            when left out.
        speed: rows of `hrm-edge bench`, as dicts; the bundle's own is found by target, precision and loop.
        differences: of puzzles followed segment by segment, their rows being those of `puzzles`.
        bundle_bytes: of all files of the bundle.

    Raises:
        ValueError: `gate` is of other answers.
    """
    sides = {"reference": reference, "candidate": candidate}
    right = {name: rightness(puzzles, answers.tokens) for name, answers in sides.items()}
    report = {
        "format_version": FORMAT_VERSION,
        "bundle": _bundle(manifest, bundle_bytes),
        "gate": _gate(gate, right),
        "accuracy": {name: _accuracy(gate, name, right[name], puzzles, sides[name]) for name in sides},
        "by_segments": _by_segments(by_segments or {}, drift),
        "drift": [asdict(each) for each in drift],
        "differences": _differences(differences) if drift else None,
        "halting": _halting(reference, candidate),
        "quantization": None if quantization is None else _quantization(quantization, puzzles),
        "speed": _speed(manifest, speed),
        "puzzles": _puzzles(puzzles, sides, right, differences),
    }
    return _plain(report)


def write_report(report: Mapping[str, Any], folder: Path) -> None:
    """Write `report.json`, `report.md` and `report.html` into `folder`; equal reports give equal bytes.

    Raises:
        InputError: not a report, or the packages that draw it are not installed; then nothing is written.
    """
    pages = {kind: render(report, kind) for kind in FILES}
    for kind, text in pages.items():
        write_atomically(Path(folder) / FILES[kind], text)


def render(report: Mapping[str, Any], kind: str) -> str:
    """The report as one "html", "md" or "json" text. InputError when it is not a report, or another kind."""
    check_report(report, "the report")
    if kind == "json":
        return json.dumps(report, indent=1, sort_keys=True, allow_nan=False) + "\n"
    if kind == "md":
        return markdown_page(report)
    if kind == "html":
        return html_page(report)
    raise InputError(f"a report is written as html, md or json, not {kind!r}")


def read_report(path: Path | str) -> dict[str, Any]:
    """A `report.json`, every field checked. Raises InputError, one line, on anything amiss."""
    path = Path(path)
    again = "export the bundle again"
    try:
        if path.stat().st_size > _LARGEST:
            raise InputError(f"{path}: is too large to be a report ({_LARGEST >> 20} MiB at most); {again}")
        content = json.loads(path.read_bytes().decode("utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); {again}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: is not valid JSON ({str(error).splitlines()[0]}); {again}") from error
    check_report(content, str(path))
    return content


def bundle_report(bundle: Bundle) -> dict[str, Any]:
    """The report inside an opened bundle. InputError, saying how to get one, when there is none."""
    if REPORT in bundle.manifest.files:
        return read_report(bundle.path / REPORT)
    why = (
        "it was exported without its accuracy gate"
        if not bundle.manifest.gate.ran
        else "nothing is quantized in it"
    )
    if bundle.manifest.gate.ran and bundle.manifest.precision != "fp32":
        why = "it was exported before there were reports"
    raise InputError(
        f"{bundle.path}: has no accuracy report ({why}); "
        "`hrm-edge export CHECKPOINT --precision int8`, with its gate, writes one into the bundle"
    )


# -- the parts -----------------------------------------------------------------------------------------


def _bundle(manifest: Manifest, size: int | None) -> dict[str, Any]:
    """Which bundle this is about, and what it was made from and with."""
    return {
        "name": manifest.name,
        "task": manifest.task,
        "target": manifest.target,
        "precision": manifest.precision,
        "precision_parts": manifest.precision_parts,
        "loop": manifest.loop,
        "batch": manifest.batch,
        "parameters": manifest.architecture["parameters"],
        "hidden_size": manifest.architecture["hidden_size"],
        "halt_max_steps": manifest.architecture["halt_max_steps"],
        "bytes": size,
        "source": manifest.source,
        "tools": manifest.tools,
    }


_GATE_FIELDS = ("passed", "reason", "notes", "puzzles", "puzzles_hash", "n", "halt", "max_think_steps", "max_drop")


def _gate(gate: Mapping[str, Any], right: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The verdict, and what the paired comparison can show."""
    lost = int((right["reference"] & ~right["candidate"]).sum())
    won = int((~right["reference"] & right["candidate"]).sum())
    n = len(right["reference"])
    if (lost, won, n) != (gate["lost"], gate["won"], gate["n"]):
        raise ValueError("the gate's report is of other answers than those given")
    return {
        **{name: gate[name] for name in _GATE_FIELDS},
        "lost": lost,
        "won": won,
        "drop_points": 100 * (lost - won) / n,
        "drop_interval": drop_interval(lost, won, n),
        "confidence": CONFIDENCE,
        "p_value": mcnemar(lost, won),
        "answers_differ": gate["answers_differ"],
        "halt_shift": gate["halt_shift"],
        "max_halt_shift": gate["max_halt_shift"],
    }


def _accuracy(
    gate: Mapping[str, Any], name: str, right: np.ndarray, puzzles: PuzzleSet, answers: Answers
) -> dict[str, Any]:
    """One side's figures. Puzzles are what is sampled, cells are not: so the interval of tokens is that of a
    rate over n puzzles too, which for fractions of puzzles is on the safe side."""
    n = len(right)
    token = token_accuracy(puzzles, answers.tokens)
    return {
        "engine": gate["reference" if name == "reference" else "bundle"]["engine"],
        "exact": right.mean(),
        "exact_interval": interval(int(right.sum()), n),
        "token": None if token is None else token.mean(),
        "token_interval": None if token is None else interval(min(float(token.sum()), n), n),
        "steps_mean": answers.steps.mean(),
        "halted": answers.halted.mean(),
    }


def _by_segments(scores: Mapping[str, Mapping[int, Score]], drift: Sequence[SegmentDrift]) -> list[dict[str, Any]]:
    """Exact accuracy of both after k segments, halting off."""
    if scores.get("reference") and scores.get("candidate"):
        both = [(k, score, scores["candidate"][k]) for k, score in scores["reference"].items()]
        rows = [(int(k), a.n, a.exact, b.exact) for k, a, b in both if k in scores["candidate"]]
    else:
        counted = [each for each in drift if each.reference_exact is not None and each.candidate_exact is not None]
        rows = [(d.segment, d.n, d.reference_exact or 0.0, d.candidate_exact or 0.0) for d in counted]
    return [
        {"segments": k, "n": n, "reference": _rate(exact, n), "candidate": _rate(other, n)}
        for k, n, exact, other in sorted(rows)
    ]


def _rate(exact: float, n: int) -> dict[str, Any]:
    return {"exact": exact, "interval": interval(round(exact * n), n)}


def _differences(differences: Sequence[Difference]) -> dict[str, Any]:
    """Where answers that differ came apart, in one summary."""
    margins = [each.margin for each in differences if each.margin is not None and math.isfinite(each.margin)]
    began = [each.segment for each in differences if each.segment is not None]
    return {
        "followed": len(differences),
        "only_stops": sum(each.segment is None for each in differences),
        "segment_median": median(began) if began else None,
        "margin_median": median(margins) if margins else None,
        "margin_max": max(margins, default=None),
    }


def _halting(reference: Answers, candidate: Answers) -> dict[str, Any]:
    last = int(max(reference.steps.max(), candidate.steps.max()))
    apart = np.abs(reference.steps.astype(int) - candidate.steps.astype(int))
    return {
        "reference": np.bincount(reference.steps, minlength=last + 1)[1:].tolist(),  # puzzles that took 1, 2, …
        "candidate": np.bincount(candidate.steps, minlength=last + 1)[1:].tolist(),
        "agree": (apart == 0).mean(),
        "within_one": (apart <= 1).mean(),
    }


def _quantization(record: Quantization, puzzles: PuzzleSet) -> dict[str, Any]:
    """The record; of the fingerprints, which only a machine reads, how many are of measured puzzles."""
    products = record.products
    content = {
        name: getattr(record, name)
        for name in ("precision", "checkpoint", "weights_bytes", "float_weights_bytes", "trained", "notes")
    }
    for name in ("layers", "sites"):
        content[name] = [_only(RECORDS[name], asdict(item)) for item in getattr(record, name)]
    for name in ("comparison", "sensitivity", "budget"):
        content[name] = [
            {**asdict(trial), "drop_points": trial.drop_points, "p_value": mcnemar(trial.lost, trial.won)}
            for trial in getattr(record, name)
        ]
    content["calibration"] = None
    if record.calibration is not None:
        measured = set(record.calibration.fingerprints) & set(fingerprints(puzzles))
        facts = {**asdict(record.calibration), "measured": len(measured)}
        content["calibration"] = _only(RECORDS["calibration"], facts)
    content["products"] = None if products is None else asdict(products)
    return content


def _only(names: Sequence[str], record: Mapping[str, Any]) -> dict[str, Any]:
    return {name: record[name] for name in names}


def _speed(manifest: Manifest, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """The rows, which of them is the bundle's, and how it compares with the same target in float32."""
    if not rows:
        return None
    kinds = [(row["backend"], row["precision"], row["loop"]) for row in rows]
    ours, theirs = ((manifest.target, precision, manifest.loop) for precision in (manifest.precision, "fp32"))
    own = kinds.index(ours) if ours in kinds else None
    ratio = None
    if own is not None and theirs in kinds and theirs != ours:
        ratio = rows[kinds.index(theirs)]["ms_per_segment"] / rows[own]["ms_per_segment"]
    name = {"engine": manifest.name}
    return {
        # Timed before it was published, the bundle may still have had another name.
        "rows": [_only(RECORDS["speed"], {**row, **(name if i == own else {})}) for i, row in enumerate(rows)],
        "own": own,
        "ratio_vs_eager": None if own is None else rows[own]["ratio_vs_eager"],
        "ratio_vs_float": ratio,
    }


def _puzzles(
    puzzles: PuzzleSet,
    sides: Mapping[str, Answers],
    right: Mapping[str, np.ndarray],
    differences: Sequence[Difference],
) -> dict[str, Any]:
    """The first few puzzles of each kind, with both answers and where they came apart."""
    before, after = right["reference"], right["candidate"]
    differ = (sides["reference"].tokens != sides["candidate"].tokens).any(axis=1)
    kinds = {"lost": before & ~after, "won": ~before & after, "differ": differ & (before == after)}
    began = {each.puzzle: each for each in differences}
    shown = {}
    for kind, rows in kinds.items():
        numbers = np.flatnonzero(rows)
        entries = [_puzzle(int(row), puzzles, sides, right, began.get(int(row))) for row in numbers[:SHOWN]]
        shown[kind] = {"total": len(numbers), "shown": entries}
    return shown


def _puzzle(
    row: int,
    puzzles: PuzzleSet,
    sides: Mapping[str, Answers],
    right: Mapping[str, np.ndarray],
    difference: Difference | None,
) -> dict[str, Any]:
    question = puzzles.questions[row]
    entry: dict[str, Any] = {
        "number": row + 1,
        "source": puzzles.sources[row],
        "question": puzzles.task.format(question),
        "began": None,
    }
    for name, answers in sides.items():
        answer = answers.tokens[row]
        if right[name][row]:
            wrong = np.zeros(len(question), bool)
        elif puzzles.answers is None:
            wrong = wrong_cells(puzzles.task, question, answer)
        else:
            wrong = answer != puzzles.answers[row]
        entry[name] = {
            "answer": puzzles.task.format(answer),
            "right": right[name][row],
            "wrong": np.flatnonzero(wrong).tolist(),
            "steps": answers.steps[row],
        }
    if difference is not None and difference.segment is not None:
        entry["began"] = {
            "segment": difference.segment,
            "cells": difference.cells,
            "margin": difference.margin,
        }
    return entry


def _plain(value: Any) -> Any:
    """JSON values: numpy's numbers as Python's, tuples as lists, what is not finite as None, text printable."""
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, str):
        return "".join(c if c.isprintable() else "�" for c in value)
    return value
