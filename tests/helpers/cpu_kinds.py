"""INT8 answers by kind of CPU: ``python tests/helpers/cpu_kinds.py sudoku-9x9 [MODEL...]``, or ``make cpu-kinds``.

OpenVINO's kernels are oneDNN's, which `ONEDNN_MAX_CPU_ISA` holds to fewer instructions than the CPU has: without
VNNI, int8 products are summed in pairs of 16 bits. Each model is exported as INT8 once (with its gate, which puts
examples into the bundle) and asked the same held-out puzzles under each kind that this CPU can be; every answer is
compared with the float reference's and with those of the CPU as it is, and `selftest` is run. onnxruntime takes its
kernels by the CPU alone and cannot be told.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

# oneDNN's name for "no more than this", what people call it, and what the CPU must have.
KINDS = (
    ("AVX2", "AVX2, no VNNI", "avx2"),
    ("AVX2_VNNI", "AVX2 with VNNI", "avx_vnni"),
    ("AVX512_CORE", "AVX-512, no VNNI", "avx512f"),
    ("AVX512_CORE_VNNI", "AVX-512 VNNI", "avx512_vnni"),
    ("AVX512_CORE_AMX", "AMX", "amx_int8"),
)
LIMIT = "ONEDNN_MAX_CPU_ISA"


def answer(bundle: Path, puzzles: Path, out: Path) -> None:
    """In a process of its own, whose environment says which kind of CPU it may be."""
    from hrm_edge.data.puzzles import load_puzzles
    from hrm_edge.measure.accuracy import answer_all
    from hrm_edge.measure.selftest import self_test
    from hrm_edge.runtimes import load_engine

    engine = load_engine(bundle, threads=1)
    answers = answer_all(engine, load_puzzles(puzzles, engine.task))
    tested = self_test(bundle, threads=1)
    facts = {"differ": tested.answers_differ, "of": tested.n}
    np.savez(out, tokens=answers.tokens, steps=answers.steps, facts=json.dumps(facts))


def table(model: str, folder: Path, n: int, most_drop: float) -> None:
    from hrm_edge.data.choose import gate_puzzles
    from hrm_edge.data.puzzles import save_puzzles
    from hrm_edge.exporting import export
    from hrm_edge.measure.accuracy import rightness
    from hrm_edge.measure.arithmetic import cpu
    from hrm_edge.measure.reference import reference_answers
    from hrm_edge.models import load_checkpoint

    checkpoint = load_checkpoint(model)
    puzzles = gate_puzzles(checkpoint, n=n)
    bundle = folder / "bundle"
    say = lambda line: print(f"  {line}", file=sys.stderr, flush=True)  # noqa: E731
    made = export(
        model,
        target="openvino",
        precision="int8",
        loop="host",
        output=bundle,
        gate_puzzles=n,
        max_drop=most_drop,
        say=say,
    )
    save_puzzles(puzzles, folder / "puzzles.csv")
    wanted = rightness(puzzles, reference_answers(checkpoint, puzzles).tokens)
    _, has = cpu()
    found: dict[str, Any] = {}
    for limit, _, needs in ((None, "", None), *KINDS):
        if needs is not None and needs not in has:
            continue
        out = folder / f"{limit}.npz"
        environment = {**os.environ, **({} if limit is None else {LIMIT: limit})}
        call = [sys.executable, __file__, "--answer", bundle, folder / "puzzles.csv", out]
        subprocess.run([str(part) for part in call], check=True, env=environment)
        with np.load(out) as saved:
            found[str(limit)] = saved["tokens"], saved["steps"], json.loads(str(saved["facts"]))
    plain = found["None"][0]
    print(f"\n{model}, OpenVINO INT8, host loop, {len(puzzles)} held-out puzzles; gate: {made}")
    print(f"reference, float: exact {wanted.mean():.2%}\n")
    print("| kind of CPU | exact | lost, won | answers unlike this CPU's own | selftest: answers differ |")
    print("|---|---:|---:|---:|---:|")
    for limit, title, _ in ((None, "this CPU as it is", None), *KINDS):
        if str(limit) not in found:
            print(f"| {title} | this CPU is none | | | |")
            continue
        tokens, _, facts = found[str(limit)]
        right = rightness(puzzles, tokens)
        lost, won = int((wanted & ~right).sum()), int((~wanted & right).sum())
        unlike = int((tokens != plain).any(axis=1).sum())
        print(
            f"| {title} | {right.mean():.2%} | {lost}, {won} | {unlike} | {facts['differ']} of {facts['of']} |",
            flush=True,
        )


def main() -> None:
    if sys.argv[1:2] == ["--answer"]:
        answer(*map(Path, sys.argv[2:]))
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--n", type=int, default=1000)
    parser.add_argument("--max-drop", type=float, default=0.5)
    options = parser.parse_args()
    for model in options.models:
        with tempfile.TemporaryDirectory() as folder:
            table(model, Path(folder), options.n, options.max_drop)


if __name__ == "__main__":
    main()
