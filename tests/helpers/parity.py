"""How far a backend strays from PyTorch, segment by segment; run as a script it prints a table of the family.

python tests/helpers/parity.py [FOLDER...]
python tests/helpers/parity.py --random N [SECONDS]

Each FOLDER: a public checkpoint with the public code's outputs, expected.npz, which PyTorch's row compares with.
The second takes N networks of random configuration and weights (or as many as there is time for), and counts.
"""

from __future__ import annotations

import functools
import itertools
import random
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from run_onnx import run
from small_networks import TASK, network

from hrm_edge.models import HRM, HRMConfig

BACKENDS = ("onnx", "openvino")
SEGMENTS = 6
OUTPUTS = ("z_H_next", "z_L_next", "logits", "q")


KINDS = ("hrm", "trm", "recurrent", "direct")
SIZES = {"vocab_size": TASK.vocab_size, "seq_len": TASK.seq_len}
CLOSE = 1e-4


@functools.cache
def depths(kind: str, most_blocks: int) -> list[dict[str, int]]:
    """All the layers and cycles of 1 to 3 that make at most so many block calls in a segment."""
    H_layers = {"hrm": (1, 2, 3), "trm": (0,)}.get(kind, (0, 1, 2))
    cycles = (1,) if kind == "direct" else (1, 2, 3)
    found = []
    for values in itertools.product((1, 2, 3), H_layers, cycles, cycles):
        fields = dict(zip(("L_layers", "H_layers", "H_cycles", "L_cycles"), values, strict=True))
        limits = {"halt_max_steps": 1 if kind == "direct" else 6}
        if HRMConfig(kind=kind, **SIZES, **limits, **fields).block_calls <= most_blocks:
            found.append(fields)
    return found


def random_fields(
    choose: Callable[[Sequence[Any]], Any], most_blocks: int, kinds: Sequence[str] = KINDS
) -> dict[str, Any]:
    """Fields for :func:`small_networks.network` that make at most so many block calls in a segment."""
    kind = choose(kinds)
    fields = {"kind": kind, **choose(depths(kind, most_blocks))}
    mixing = choose(["attention", "mlp_t", "conv"])
    fields |= {"mlp_t": mixing == "mlp_t", "conv_kernel": choose([1, 3, 7]) if mixing == "conv" else 0}
    fields["unit_means"] = mixing == "conv" and choose([False, True])
    fields["num_heads"] = choose([1, 2, 3, 4])
    fields["hidden_size"] = 2 * fields["num_heads"] * choose([2, 3, 4, 5])
    axial = ["axial"] if fields["hidden_size"] // fields["num_heads"] % 4 == 0 else []
    fields["pos_encodings"] = choose(["rope", "learned", "grid", "none", *axial])
    fields["no_ACT_continue"] = choose([False, True])
    widths = [7, fields["hidden_size"], fields["hidden_size"] + 1]
    fields["puzzle_emb_ndim"] = choose(widths if fields["conv_kernel"] else [0, 0, *widths])
    if fields["puzzle_emb_ndim"]:
        needed = -(-fields["puzzle_emb_ndim"] // fields["hidden_size"])
        fields["puzzle_emb_len"] = choose([0, needed, needed + 2])
        fields["num_puzzle_identifiers"] = choose([1, 4])
    return fields


def identifiers(model: HRM, rows: int) -> np.ndarray | None:
    count = model.config.num_puzzle_identifiers
    return np.arange(rows, dtype=np.int32) % count if count > 1 else None


@torch.inference_mode()
def errors(
    model: HRM,
    start: onnx.ModelProto,
    segment: onnx.ModelProto,
    backend: str,
    tokens: np.ndarray,
    forced: bool = False,
) -> Iterator[float]:
    """Largest absolute difference of any output, after each of six segments from ``tokens`` int32 ``[B, S]``.

    ``forced``: every segment goes on from PyTorch's own state, so that each error stands for itself; else the
    backend goes on from what it computed, and errors add up as they do in use.
    """
    ids = identifiers(model, len(tokens))
    given = {"tokens": tokens} | ({} if ids is None else {"puzzle_identifiers": ids})
    values = run(backend, start, given)
    e = model.embed(torch.from_numpy(tokens), None if ids is None else torch.from_numpy(ids))
    z_H, z_L = model.initial_state(len(tokens))
    for _ in range(SEGMENTS):
        if forced:
            values |= {"z_H": z_H.numpy(), "z_L": z_L.numpy()}
        wanted = model.segment(z_H, z_L, e)
        made = run(backend, segment, values)
        yield max(float(np.abs(made[k] - w.numpy()).max()) for k, w in zip(OUTPUTS, wanted, strict=True))
        values |= {"z_H": made["z_H_next"], "z_L": made["z_L_next"]}
        z_H, z_L = wanted[:2]


@torch.inference_mode()
def errors_of_torch(model: HRM, expected: Mapping[str, np.ndarray]) -> Iterator[float]:
    """Largest absolute difference of PyTorch's logits and q from those of another implementation, by segment."""
    tokens, ids = (torch.from_numpy(expected[k]).long() for k in ("inputs", "puzzle_identifiers"))
    e = model.embed(tokens, ids)
    z_H, z_L = model.initial_state(len(tokens))
    for wanted in zip(expected["logits"], expected["q"], strict=True):
        z_H, z_L, *made = model.segment(z_H, z_L, e)
        yield max(float(np.abs(ours.numpy() - theirs).max()) for ours, theirs in zip(made, wanted, strict=True))


def count(networks: int, seconds: float) -> None:
    """A table: of random networks, how many stay within CLOSE of PyTorch for six segments."""
    from hrm_edge.exporters.graph.trace import trace_segment, trace_start

    torch.set_num_threads(1)
    furthest: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    until = time.monotonic() + seconds
    for seed in range(networks):
        if time.monotonic() > until:
            break
        fields = random_fields(random.Random(seed).choice, 6)
        model = network(seed, **fields)
        graphs = trace_start(model), trace_segment(model)
        tokens = TASK.generate(5, np.random.default_rng(seed))[0]
        for backend in BACKENDS:
            # One pass has one segment: what would go on from it are states that it never has.
            made = errors(model, *graphs, backend, tokens)
            most = max(itertools.islice(made, model.config.halt_max_steps))
            furthest[model.config.kind, model.config.mixer.name, backend].append(most)
    print("| kind | tokens mixed by | backend | networks | within 1e-4 | median | largest |")
    print("|---|---|---|---:|---:|---:|---:|")
    for key, found in sorted(furthest.items()):
        close = sum(each < CLOSE for each in found)
        print(f"| {' | '.join(key)} | {len(found)} | {close} | {np.median(found):.1e} | {max(found):.1e} |")
    for backend in BACKENDS:
        found = [each for key, some in furthest.items() if key[-1] == backend for each in some]
        share = sum(each < CLOSE for each in found) / len(found)
        print(f"{backend}: {share:.1%} of {len(found)} within 1e-4, largest {max(found):.1e}")


def main() -> None:
    if sys.argv[1:2] == ["--random"]:
        count(int(sys.argv[2]), float(sys.argv[3]) if len(sys.argv) > 3 else float("inf"))
        return
    from traced_networks import CONFIGS, traced

    from hrm_edge.exporters.graph.trace import trace_segment, trace_start
    from hrm_edge.models.public import import_public

    def row(name: str, backend: str, cells: Iterator[float]) -> None:
        print(f"| {name} | {backend} | {' | '.join(f'{cell:.1e}' for cell in cells)} |", flush=True)

    print(f"| network | backend | {' | '.join(str(k + 1) for k in range(SEGMENTS))} |")
    print("|---" * (SEGMENTS + 2) + "|")
    tokens = TASK.generate(5, np.random.default_rng(5))[0]
    for name in CONFIGS:
        for backend in BACKENDS:
            row(name, backend, errors(*traced(name), backend, tokens))
    for folder in sorted(Path(argument) for argument in sys.argv[1:]):
        model, task = import_public(folder)
        graphs = trace_start(model), trace_segment(model)
        expected = np.load(folder / "expected.npz")
        row(f"{folder.name} ({task.name})", "torch, to the public code", errors_of_torch(model, expected))
        tokens = expected["inputs"].astype(np.int32)
        for backend in BACKENDS:
            row(f"{folder.name} ({task.name})", backend, errors(model, *graphs, backend, tokens))


if __name__ == "__main__":
    main()
