"""Every file operation of the commands that write, broken one after the other (`fault_injection.py` says how).

`python tests/helpers/faults.py [EVERY [COMMAND...]]`, or `make faults`, breaks all of them, or every so many, and
prints a table; the suite takes a sample (`HRM_EDGE_FAULTS=all`: all).
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from fault_injection import Scenario, Trial, Wrong, run
from faulty_disk import FAULTS

TASK = "sudoku-4x4"
SPEC = 'baseline = "baseline.json"\n[[check]]\nname = "toy"\nbundle = "toy"\ndata = "puzzles.csv"\nmin_exact = 0\n'
SETTINGS = [
    "train.batch_size=4",
    "train.log_every=1",
    "train.save_every=1",
    "train.eval_puzzles=4",
    "train.final_puzzles=4",
    "arch.hidden_size=32",
    "arch.puzzle_emb_ndim=32",
    "arch.H_cycles=1",
    "arch.L_cycles=1",
    "arch.halt_max_steps=2",
]
TRAIN = ["train", "--task", TASK, "--preset", "tiny", "--data", "generated:20", "--device", "cpu"]
TRAIN += [word for setting in SETTINGS for word in ("--set", setting)]


def scenarios(folder: Path) -> list[Scenario]:
    """Commands, whose inputs are made in ``folder``, over what stood there before and in an empty place."""
    inputs = folder / "inputs"
    make_inputs(inputs)
    command = commands(inputs)

    def nothing(place: Path) -> None:
        pass

    def copied(source: str, target: str) -> Callable[[Path], None]:
        return lambda place: copy(inputs / source, place / target)

    def checked(place: Path) -> None:
        write_check(inputs, place)

    def checked_before(place: Path) -> None:
        checked(place)
        copy(inputs / "baseline.json", place / "baseline.json")

    return [
        Scenario("export", command["export"], nothing, "bundle"),
        Scenario("export over a bundle", command["export"], copied("hollow", "bundle"), "bundle"),
        Scenario("export --target openvino", command["openvino"], copied("hollow", "bundle"), "bundle"),
        Scenario("import", command["import"], nothing, "model"),
        Scenario("import over a checkpoint", command["import"], copied("earlier", "model"), "model"),
        Scenario("data generate", command["generate"], nothing, "set"),
        Scenario("data generate over a set", command["generate"], copied("set", "set"), "set"),
        Scenario(
            "data convert over a file", command["to csv"], copied("puzzles.csv", "puzzles.csv"), "puzzles.csv"
        ),
        Scenario("convert over one", command["convert"], copied("public", "public"), "public"),
        Scenario("data arc over a set", command["arc"], copied("built", "set"), "set"),
        Scenario(
            "data download over a file", command["download"], copied("puzzles.csv", "puzzles.csv"), "puzzles.csv"
        ),
        Scenario("solve -o", command["solve"], nothing, "answers.csv", kept=True),
        Scenario(
            "solve -o over a file", command["solve"], copied("puzzles.csv", "answers.csv"), "answers.csv", kept=True
        ),
        Scenario("check --update-baseline", command["check"], checked, "baseline.json"),
        Scenario("check --update-baseline over one", command["check"], checked_before, "baseline.json"),
        Scenario("train", command["train"], nothing, "run", steps_of, steps=True),
        Scenario("train, resumed", command["train"], copied("run", "run"), "run", steps_of, steps=True),
    ]


def commands(inputs: Path) -> dict[str, Callable[[Path], list[Any]]]:
    """Name → the command line that writes under a place."""
    export = ["export", inputs / "small", "--no-gate"]
    arc = ["data", "arc", "--data", inputs / "arc", "--task", "arc-5x5"]
    solve = ["solve", inputs / "sound", inputs / "puzzles.csv", "--workers", 1]
    made: dict[str, tuple[list[Any], str]] = {
        "export": (export, "bundle"),
        "openvino": ([*export, "--target", "openvino"], "bundle"),
        "import": (["import", inputs / "step_1", "--task", TASK, "--force"], "model"),
        "generate": (["data", "generate", "--task", TASK, "--n", 4, "--force"], "set"),
        "to csv": (["data", "convert", inputs / "set", "--task", TASK, "--force"], "puzzles.csv"),
        "convert": (["convert", inputs / "plain1", "--force"], "public"),
        "arc": ([*arc, "--augmentations", 1, "--force"], "set"),
        "download": (["data", "download", "sapientinc/sudoku-extreme", "--force"], "puzzles.csv"),
        "solve": ([*solve, "--force"], "answers.csv"),
        "train": ([*TRAIN, "--steps", "2"], "run"),
    }
    found = {name: _writes(*each) for name, each in made.items()}
    return found | {"check": lambda place: ["check", place / "spec.toml", "--update-baseline"]}


def _writes(arguments: list[Any], target: str) -> Callable[[Path], list[Any]]:
    return lambda place: [*arguments, "-o", place / target]


def make_inputs(inputs: Path) -> None:
    """What the commands read, and what stood before where they write."""
    import torch
    import toys
    import yaml
    from small_networks import network

    from hrm_edge.data.puzzles import generate_puzzles, save_puzzles
    from hrm_edge.models import load_checkpoint, save_checkpoint
    from hrm_edge.tasks import get_task

    inputs.mkdir()
    model = network(H_cycles=1, L_cycles=1)
    save_checkpoint(inputs / "small", model, TASK, "card", {})
    save_checkpoint(inputs / "earlier", network(seed=1), TASK, "another", {})
    for seed in (0, 1):  # as the public code has them
        plain = network(seed=seed, pos_encodings="rope", H_cycles=1, L_cycles=1)
        save_checkpoint(inputs / f"plain{seed}", plain, TASK, "card", {})
    torch.save(model.state_dict(), inputs / "step_1")
    (inputs / "all_config.yaml").write_text(yaml.safe_dump({"arch": {**model.config.to_dict()}}))
    toys.write_hollow_bundle(inputs / "hollow", gate=toys.Gate(ran=False, passed=None, reason="toy"))
    save_puzzles(generate_puzzles(get_task(TASK), 3, seed=1), inputs / "set")
    save_puzzles(generate_puzzles(get_task(TASK), 5, seed=2), inputs / "puzzles.csv")
    toys.write_toy_bundle(
        inputs / "toy",
        gate=toys.Gate(ran=False, passed=None, reason="toy"),
        source={"name": "small", "content_hash": load_checkpoint(inputs / "small").content_hash},
    )
    toys.write_toy_bundle(inputs / "sound", loop="graph")
    (inputs / "arc" / "training").mkdir(parents=True)
    (inputs / "arc" / "evaluation").mkdir()
    pair = {"input": [[1, 2], [3, 4]], "output": [[1]]}
    for split, color in (("training", 5), ("evaluation", 6)):
        held_out = {"input": [[color]], "output": [[color]]}
        (inputs / "arc" / split / "e0.json").write_text(json.dumps({"train": [pair], "test": [held_out]}))
    succeed(
        "data", "arc", "--data", inputs / "arc", "--task", "arc-5x5", "--augmentations", 0, "-o", inputs / "built"
    )
    succeed("convert", inputs / "plain0", "-o", inputs / "public")
    (inputs / "checked").mkdir()
    write_check(inputs, inputs / "checked")
    succeed("check", inputs / "checked" / "spec.toml", "--update-baseline")
    other = (inputs / "checked" / "baseline.json").read_text()
    (inputs / "baseline.json").write_text(other.replace('"toy"', '"tot"'))  # edited, and so replaced unread
    succeed(*TRAIN, "--steps", "1", "-o", inputs / "run")


def succeed(*arguments: Any) -> None:
    code, said = run(list(arguments))
    assert code == 0, said


def copy(source: Path, target: Path) -> None:
    """A folder or a file."""
    if source.is_dir():
        shutil.copytree(source, target)
    else:
        shutil.copy(source, target)


def write_check(inputs: Path, place: Path) -> None:
    """A check and what it reads."""
    for name in ("toy", "puzzles.csv"):
        copy(inputs / name, place / name)
    (place / "spec.toml").write_text(SPEC)


def steps_of(run: Path) -> list[int] | None:
    """Steps of its checkpoint and of its state, both whole; None where nothing is."""
    import torch

    from hrm_edge.models import load_checkpoint
    from hrm_edge.workspace import standing

    if not run.exists():
        return None
    steps = []
    if standing(run / "checkpoint").exists():
        steps.append(load_checkpoint(run / "checkpoint").metadata["steps"])
    if standing(run / "state").exists():
        state = standing(run / "state")
        torch.load(state / "rank0.pt", weights_only=True)
        steps.append(torch.load(state / "shared.pt", weights_only=True)["step"])
    return steps


@contextlib.contextmanager
def quick() -> Iterator[None]:
    """Traces and generated puzzles are made once, and no operations counted: they touch no file that is watched."""
    import job_workers
    import shared_traces

    from hrm_edge.data import download, puzzles
    from hrm_edge.exporters import build
    from hrm_edge.models import hrm
    from hrm_edge.tasks import get_task

    made: dict[Any, Any] = {}

    def generate(task: Any, n: int, seed: int, difficulty: str = "ordinary", *others: Any) -> Any:
        key = task.name, n, seed, difficulty
        if key not in made:
            made[key] = real(task, n, seed, difficulty, *others)
        return tuple(side.copy() for side in made[key])

    def fetch(name: str, filename: str, folder: Path) -> Path:
        """What the Hub would send."""
        question, answer = (row[0] for row in generate(get_task("sudoku"), 1, 3))
        texts = (get_task("sudoku").format(tokens) for tokens in (question, answer))
        (folder / filename).write_text(f"source,question,answer,rating\nhub,{','.join(texts)},1\n")
        return folder / filename

    real = puzzles.generate_distinct
    with contextlib.ExitStack() as patches:
        patches.enter_context(mock.patch.object(puzzles, "generate_distinct", generate))
        patches.enter_context(mock.patch.object(download, "_fetch", fetch))
        patches.enter_context(mock.patch.object(hrm, "count_flops", return_value=1))
        # Else a job's worker is a process, which takes a second to start and writes nothing.
        patches.enter_context(job_workers.in_place_of_engines())
        for name in ("trace_start", "trace_segment"):
            patches.enter_context(mock.patch.object(build, name, getattr(shared_traces, name)))
        yield


def main() -> None:
    """All faults at all operations of all commands, as a table."""
    import tempfile
    import time

    import shared_traces
    import torch

    torch.set_num_threads(1)
    every = int(sys.argv[1]) if len(sys.argv) > 1 else 1
    only = sys.argv[2:]  # names of commands; none: all
    wrong = 0
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as name, quick():
        base = Path(name).resolve()
        shared_traces.folder = base / "traces"
        made = scenarios(base)
        print("| command | operations | fault | injected | outcomes |\n|---|---:|---|---:|---|")
        total: Counter[str] = Counter()
        for scenario in (each for each in made if not only or each.name in only):
            begin = time.monotonic()
            trial = Trial(scenario, base)
            for fault in FAULTS:
                counted: Counter[str] = Counter()
                for at in range(1, len(trial.kinds) + 1, every):
                    if trial.applies(fault, at):
                        try:
                            counted[trial.meet(fault, at)] += 1
                        except Wrong as error:
                            wrong += 1
                            counted["WRONG"] += 1
                            print(f"WRONG: {error}", file=sys.stderr, flush=True)
                total += counted
                outcomes = ", ".join(f"{what} {count}" for what, count in sorted(counted.items()))
                print(f"| {scenario.name} | {len(trial.kinds)} | {fault.name} | {counted.total()} | {outcomes} |")
            print(f"{scenario.name}: {time.monotonic() - begin:.0f} s", file=sys.stderr, flush=True)
        print(f"\n{total.total()} faults: " + ", ".join(f"{what} {count}" for what, count in sorted(total.items())))
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
