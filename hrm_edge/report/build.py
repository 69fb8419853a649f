"""The quantization accuracy report of a bundle: gathered, read, and written as JSON, Markdown and HTML."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from ..bundle import Bundle
from ..bundle.manifest import Manifest
from ..bundle.quantization import Quantization
from ..data.leaks import shared_marks
from ..data.puzzles import PuzzleSet
from ..errors import InputError
from ..measure.accuracy import Score, rightness, token_accuracy
from ..measure.drift import Difference, SegmentDrift
from ..measure.statistics import CONFIDENCE, drop_interval, interval, mcnemar
from ..precision import FP32, PRECISIONS
from ..records import from_json, newer_version
from ..runtimes import Answers
from ..tasks.boards import wrong_cells
from ..tasks.carried import carried
from ..text import printable
from .format import FORMAT_VERSION, BundleFacts, Report, SpeedRow, Verdict
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
) -> Report:
    """Everything the report shows.

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
    content = {
        "bundle": _only(BundleFacts, {**manifest.architecture, **vars(manifest), "bytes": bundle_bytes}),
        "gate": _verdict(gate, right),
        "accuracy": {name: _side(gate, name, right[name], puzzles, sides[name]) for name in sides},
        "by_segments": _by_segments(by_segments or {}, drift),
        "drift": [asdict(each) for each in drift],
        "differences": _differences(differences) if drift else None,
        "halting": _halting(reference, candidate),
        "quantization": None if quantization is None else _quantization(quantization, puzzles),
        "speed": _speed(manifest, speed),
        "puzzles": _puzzles(puzzles, sides, right, differences),
        "task": (of_task := carried(puzzles.task)) and of_task.to_dict(),
    }
    return TypeAdapter(Report).validate_json(json.dumps(_plain(content)))


def write_report(report: Report, folder: Path) -> None:
    """Write `report.json`, `report.md` and `report.html` into a bundle that is being made.

    Equal reports give equal bytes. InputError where the packages that draw it are not installed; then nothing is
    written.
    """
    pages = {kind: render(report, kind) for kind in FILES}
    Path(folder).mkdir(parents=True, exist_ok=True)
    for kind, text in pages.items():
        (Path(folder) / FILES[kind]).write_bytes(text.encode())


def render(report: Report, kind: str) -> str:
    """The report as one "html", "md" or "json" text. InputError when it is another kind."""
    if kind == "json":
        return report.to_json()
    if kind == "md":
        return markdown_page(report)
    if kind == "html":
        return html_page(report)
    raise InputError(f"a report is written as html, md or json, not {kind!r}")


def read_report(path: Path | str) -> Report:
    """A `report.json`, every field checked. Raises InputError, one line, on anything amiss."""
    path = Path(path)
    again = "export the bundle again"
    try:
        if path.stat().st_size > _LARGEST:
            raise InputError(f"{path}: is too large to be a report ({_LARGEST >> 20} MiB at most); {again}")
        content = json.loads(path.read_bytes().decode("utf-8"))
        version = newer_version(content, FORMAT_VERSION)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); {again}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: is not valid JSON ({str(error).splitlines()[0]}); {again}") from error
    if version:
        raise InputError(
            f"{path}: has format version {version}, and this hrm-edge reads up to {FORMAT_VERSION}; "
            "upgrade hrm-edge"
        )
    return from_json(Report, json.dumps(_in_this_version(content)), path, again)


def _in_this_version(content: Any) -> Any:
    """A report of format 1 as one of today: there z_H and z_L were the states of every network."""
    if not isinstance(content, dict):
        return content
    content.setdefault("task", None)
    if content.get("format_version") != 1:
        return content
    fields = ("cosine", "cosine_low", "error")
    drift = []
    rows = content.get("drift")
    for row in rows if isinstance(rows, list) else ():
        olds = {name: {field: f"{name}_{field}" for field in fields} for name in ("z_H", "z_L")}
        if not isinstance(row, dict) or not all(key in row for each in olds.values() for key in each.values()):
            return content
        states = [{"name": name, **{f: row[key] for f, key in each.items()}} for name, each in olds.items()]
        gone = {key for each in olds.values() for key in each.values()}
        drift.append({**{key: value for key, value in row.items() if key not in gone}, "states": states})
    return {**content, "drift": drift, "format_version": FORMAT_VERSION}


def bundle_report(bundle: Bundle) -> Report:
    """The report inside an opened bundle. InputError, saying how to get one, when there is none."""
    if REPORT in bundle.manifest.files:
        return read_report(bundle.path / REPORT)
    if not bundle.manifest.gate.ran:
        why = "it was exported without its accuracy gate"
    elif PRECISIONS[bundle.manifest.precision].is_full:
        why = "nothing is quantized in it"
    else:
        why = "it was exported before there were reports"
    raise InputError(
        f"{bundle.path}: has no accuracy report ({why}); "
        "`hrm-edge export CHECKPOINT --precision int8`, with its gate, writes one into the bundle"
    )


# -- the parts, as JSON has them -------------------------------------------------------------------------


def _plain(value: Any) -> Any:
    """A JSON value of what was measured: numpy's numbers as Python's, not finite as None, text printable."""
    if isinstance(value, dict):
        return {_plain(name): _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, str):
        return printable(value)
    return value


def _only(kind: Any, content: Mapping[str, Any]) -> dict[str, Any]:
    """Those values that a record of this kind has fields for."""
    return {field.name: content[field.name] for field in fields(kind)}


def _verdict(gate: Mapping[str, Any], right: Mapping[str, np.ndarray]) -> dict[str, Any]:
    lost = int((right["reference"] & ~right["candidate"]).sum())
    won = int((~right["reference"] & right["candidate"]).sum())
    n = len(right["reference"])
    if (lost, won, n) != (gate["lost"], gate["won"], gate["n"]):
        raise ValueError("the gate's report is of other answers than those given")
    counted = {
        "drop_points": 100 * (lost - won) / n,
        "drop_interval": drop_interval(lost, won, n),
        "confidence": CONFIDENCE,
        "p_value": mcnemar(lost, won),
    }
    return _only(Verdict, {**gate, **counted})


def _side(
    gate: Mapping[str, Any], name: str, right: np.ndarray, puzzles: PuzzleSet, answers: Answers
) -> dict[str, Any]:
    """Puzzles are what is sampled, cells are not: so the interval of tokens is that of a rate over n puzzles
    too, which for fractions of puzzles is on the safe side."""
    n = len(right)
    token = token_accuracy(puzzles, answers.tokens)
    return {
        "engine": _engine(gate, name),
        "exact": right.mean(),
        "exact_interval": interval(int(right.sum()), n),
        "token": None if token is None else token.mean(),
        "token_interval": None if token is None else interval(min(float(token.sum()), n), n),
        "steps_mean": answers.steps.mean(),
        "halted": answers.halted.mean(),
    }


def _engine(gate: Mapping[str, Any], name: str) -> str:
    """Who answered: the reference by its name and content, the bundle by its loop and the arithmetic behind it."""
    engine = gate["reference" if name == "reference" else "bundle"]["engine"]
    if name == "reference":
        return f"{engine} {gate['reference_name']}, checkpoint {gate['reference_hash']}".removesuffix(
            " , checkpoint "
        )
    return f"{engine}, {gate['arithmetic']}".removesuffix(", ")


def _by_segments(scores: Mapping[str, Mapping[int, Score]], drift: Sequence[SegmentDrift]) -> list[dict[str, Any]]:
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
    margins = [each.margin for each in differences if each.margin is not None and math.isfinite(each.margin)]
    began = [each.segment for each in differences if each.segment is not None]
    return {
        "followed": len(differences),
        "only_stops": len(differences) - len(began),
        "segment_median": median(began) if began else None,
        "margin_median": median(margins) if margins else None,
        "margin_max": max(margins, default=None),
    }


def _halting(reference: Answers, candidate: Answers) -> dict[str, Any]:
    last = int(max(reference.steps.max(), candidate.steps.max()))
    apart = np.abs(reference.steps.astype(int) - candidate.steps.astype(int))
    return {
        "reference": np.bincount(reference.steps, minlength=last + 1)[1:].tolist(),
        "candidate": np.bincount(candidate.steps, minlength=last + 1)[1:].tolist(),
        "agree": (apart == 0).mean(),
        "within_one": (apart <= 1).mean(),
    }


def _quantization(record: Quantization, puzzles: PuzzleSet) -> dict[str, Any]:
    """Of the fingerprints, which only a machine reads, how many are of measured puzzles."""
    content = asdict(record)
    for name in ("comparison", "sensitivity", "budget"):
        content[name] = [
            {**asdict(trial), "drop_points": trial.drop_points, "p_value": mcnemar(trial.lost, trial.won)}
            for trial in getattr(record, name)
        ]
    if record.calibration is not None:
        calibrated = content["calibration"].pop("fingerprints")
        content["calibration"]["measured"] = shared_marks(calibrated, puzzles)
    return content


def _speed(manifest: Manifest, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """The rows, which of them is the bundle's, and how it compares with the same target in float32."""
    if not rows:
        return None
    kinds = [(row["backend"], row["precision"], row["loop"]) for row in rows]
    ours, theirs = ((manifest.target, precision, manifest.loop) for precision in (manifest.precision, FP32.name))
    own = kinds.index(ours) if ours in kinds else None
    shown = [_only(SpeedRow, row) for row in rows]
    ratios = {"ratio_vs_eager": None, "ratio_vs_float": None}
    if own is not None:
        # Timed before it was published, the bundle may still have had another name.
        shown[own]["engine"] = manifest.name
        ratios["ratio_vs_eager"] = rows[own]["ratio_vs_eager"]
        if theirs in kinds and theirs != ours:
            ratios["ratio_vs_float"] = rows[kinds.index(theirs)]["ms_per_segment"] / rows[own]["ms_per_segment"]
    return {"rows": shown, "own": own, **ratios}


def _puzzles(
    puzzles: PuzzleSet,
    sides: Mapping[str, Answers],
    right: Mapping[str, np.ndarray],
    differences: Sequence[Difference],
) -> dict[str, Any]:
    """The first few puzzles of each kind, with both answers and where they came apart."""
    before, after = right["reference"], right["candidate"]
    differ = (sides["reference"].tokens != sides["candidate"].tokens).any(axis=1)
    began = {
        each.puzzle: {"segment": each.segment, "cells": each.cells, "margin": each.margin}
        for each in differences
        if each.segment is not None
    }

    def shown(row: int) -> dict[str, Any]:
        return {
            "number": row + 1,
            "source": puzzles.sources[row],
            "question": puzzles.task.format(puzzles.questions[row]),
            "began": began.get(row),
            **{name: _answer(row, puzzles, answers, bool(right[name][row])) for name, answers in sides.items()},
        }

    kinds = {"lost": before & ~after, "won": ~before & after, "differ": differ & (before == after)}
    rows = {kind: np.flatnonzero(of_kind).tolist() for kind, of_kind in kinds.items()}
    return {kind: {"total": len(all_), "shown": list(map(shown, all_[:SHOWN]))} for kind, all_ in rows.items()}


def _answer(row: int, puzzles: PuzzleSet, answers: Answers, right: bool) -> dict[str, Any]:
    question, answer = puzzles.questions[row], answers.tokens[row]
    if right:
        wrong = np.zeros(len(question), bool)
    elif puzzles.answers is None:
        wrong = wrong_cells(puzzles.task, question, answer)
    else:
        wrong = answer != puzzles.answers[row]
    return {
        "answer": puzzles.task.format(answer),
        "right": right,
        "wrong": np.flatnonzero(wrong).tolist(),
        "steps": answers.steps[row],
    }
