"""Small networks as C, the driver that runs them, and the same numbers from onnxruntime."""

import functools
import os
import shutil
import subprocess
from pathlib import Path
from unittest import mock

import numpy as np
from run_onnx import run
from small_networks import TASK
from traced_networks import plan, traced

from hrm_edge.exporters.graph.edit import copied
from hrm_edge.exporters.graph.passes import fix_batch
from hrm_edge.exporters.targets.c import source
from hrm_edge.exporters.targets.c.source import Source, write_source
from hrm_edge.runtimes.c.weights import WEIGHTS

COMPILERS = [name for name in ("gcc", "clang") if shutil.which(name)]
WARNINGS = ("-std=c99", "-Wall", "-Wextra", "-pedantic", "-Wconversion", "-Wdouble-promotion", "-Werror")
DRIVER = Path(__file__).parent / "driver.c"
SEGMENTS = 4
# A 64-bit Arm core: what compiles for it, what runs that here, and the flags of one with and without dot products.
ARM_CC, ARM_EMULATOR = "aarch64-linux-gnu-gcc", "qemu-aarch64"
ARM_MISSING = [name for name in (ARM_CC, ARM_EMULATOR) if not shutil.which(name)]
ARM_FLAGS = ("-O3", "-static")
DOTTED, UNDOTTED = "-march=armv8.2-a+dotprod", "-march=armv8-a"


def graphs(name, precision="fp32"):
    model, start, segment = traced(name)
    if precision == "int8":
        segment, _ = plan(name).apply(segment, "c")
    return model, start, segment


@functools.cache
def written(name, precision="fp32", apart=False) -> Source:
    """``apart``: with its weights in a file, as large models have them."""
    model, start, segment = graphs(name, precision)
    single = [copied(graph) for graph in (start, segment)]
    for graph in single:
        fix_batch(graph, 1)
    steps, rule = model.config.halt_max_steps, model.config.no_ACT_continue
    with mock.patch.object(source, "MOST_NUMBERS", 0 if apart else source.MOST_NUMBERS):
        every = [(0, model.config.num_puzzle_identifiers - 1)]
        return write_source(
            *single, TASK, name=name, max_think_steps=steps, no_ACT_continue=rule, identifiers=every
        )


@functools.cache
def sanitizers(compiler) -> tuple[str, ...]:
    """The flags of both, where the compiler has their libraries, which distributions may pack apart."""
    flags = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")
    command = [compiler, *flags, "-x", "c", "-", "-o", os.devnull]
    done = subprocess.run(command, input=b"int main(void) { return 0; }", capture_output=True, check=False)
    return flags if done.returncode == 0 else ()


def compiled(folder, made, compiler, *flags) -> Path:
    """The driver with a source, every warning an error."""
    (folder / "hrm.h").write_text(made.header)
    (folder / "hrm.c").write_text(made.source)
    if made.weights:
        made.weights.write(folder / WEIGHTS)
    program = folder / f"solve-{compiler}"
    command = [compiler, *WARNINGS, *flags, "hrm.c", str(DRIVER), "-I.", "-o", str(program), "-lm"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return program


def answers(program, question, identifier=0, emulator=()) -> tuple[np.ndarray, list[list[int]]]:
    """(q and logits float32[segments, 2 + S V], steps and answer by learned, fixed and verified halting)."""
    text = " ".join(map(str, [SEGMENTS, identifier, *question]))
    weights = [file for file in (program.parent / WEIGHTS,) if file.exists()]
    command = [*emulator, program, *weights]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    numbers = [np.array(line.split(), np.float32) for line in lines[:SEGMENTS]]
    return np.stack(numbers), [list(map(int, line.split())) for line in lines[SEGMENTS:]]


def expected(model, start, segment, question, identifier=0) -> np.ndarray:
    """The same numbers from onnxruntime."""
    given = {"tokens": question[None]}
    if model.config.num_puzzle_identifiers > 1:
        given["puzzle_identifiers"] = np.array([identifier], np.int32)
    values, rows = run("onnx", start, given), []
    for _ in range(SEGMENTS):
        made = run("onnx", segment, values)
        rows.append(np.concatenate([made["q"].ravel(), made["logits"].ravel()]))
        values |= {"z_H": made["z_H_next"], "z_L": made["z_L_next"]}
    return np.stack(rows)
