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


def scenarios(folder: Path) -> list[Scenario]:
    """Commands, whose inputs are made in ``folder``, over what stood there before and in an empty place."""
    import torch
    import toys
    import yaml
    from small_networks import TASK, network

    from hrm_edge.data.puzzles import generate_puzzles, save_puzzles
    from hrm_edge.models import load_checkpoint, save_checkpoint

    inputs = folder / "inputs"
    inputs.mkdir()
    model = network(H_cycles=1, L_cycles=1)
    save_checkpoint(inputs / "small", model, TASK.name, "card", {})
    save_checkpoint(inputs / "earlier", network(seed=1), TASK.name, "another", {})
    for seed in (0, 1):  # as the public code has them
        plain = network(seed=seed, pos_encodings="rope", H_cycles=1, L_cycles=1)
        save_checkpoint(inputs / f"plain{seed}", plain, TASK.name, "card", {})
    torch.save(model.state_dict(), inputs / "step_1")
    (inputs / "all_config.yaml").write_text(yaml.safe_dump({"arch": {**model.config.to_dict()}}))
    toys.write_hollow_bundle(inputs / "hollow", gate=toys.Gate(ran=False, passed=None, reason="toy"))
    save_puzzles(generate_puzzles(TASK, 3, seed=1), inputs / "set")
    save_puzzles(generate_puzzles(TASK, 5, seed=2), inputs / "puzzles.csv")
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
    for made, arguments in (
        ("built", ["data", "arc", "--data", inputs / "arc", "--task", "arc-5x5", "--augmentations", 0]),
        ("public", ["convert", inputs / "plain0"]),
    ):
        code, said = run([*arguments, "-o", inputs / made])
        assert code == 0, said
    spec = (
        'baseline = "baseline.json"\n[[check]]\nname = "toy"\nbundle = "toy"\ndata = "puzzles.csv"\nmin_exact = 0\n'
    )

    def copied(source: str, target: str) -> Callable[[Path], None]:
        def prepare(place: Path) -> None:
            if (inputs / source).is_dir():
                shutil.copytree(inputs / source, place / target)
            else:
                shutil.copy(inputs / source, place / target)

        return prepare

    def nothing(place: Path) -> None:
        pass

    def checked(place: Path) -> None:
        copied("toy", "toy")(place)
        copied("puzzles.csv", "puzzles.csv")(place)
        (place / "spec.toml").write_text(spec)

    def checked_before(place: Path) -> None:
        checked(place)
        shutil.copy(inputs / "baseline.json", place / "baseline.json")

    (inputs / "checked").mkdir()
    checked(inputs / "checked")
    code, said = run(["check", inputs / "checked" / "spec.toml", "--update-baseline"])
    assert code == 0, said
    other = (inputs / "checked" / "baseline.json").read_text()
    (inputs / "baseline.json").write_text(other.replace('"toy"', '"tot"'))  # edited, and so replaced unread

    train = ["train", "--task", TASK.name, "--preset", "tiny", "--data", "generated:20", "--device", "cpu"]
    for each in ("train.batch_size=4", "train.log_every=1", "train.eval_puzzles=4", "train.final_puzzles=4"):
        train += ["--set", each]
    for each in ("train.save_every=1", "arch.hidden_size=32", "arch.puzzle_emb_ndim=32"):
        train += ["--set", each]
    for each in ("arch.H_cycles=1", "arch.L_cycles=1", "arch.halt_max_steps=2"):
        train += ["--set", each]
    code, said = run([*train, "--steps", "1", "-o", inputs / "run"])
    assert code == 0, said

    def trained(path: Path) -> Any:
        """Steps of the checkpoint and of the state, both whole, and whether the run is what it says."""
        if not path.exists():
            return None
        from hrm_edge.workspace import standing

        steps = []
        if standing(path / "checkpoint").exists():
            steps.append(load_checkpoint(path / "checkpoint").metadata["steps"])
        if standing(path / "state").exists():
            state = standing(path / "state")
            torch.load(state / "rank0.pt", weights_only=True)
            steps.append(torch.load(state / "shared.pt", weights_only=True)["step"])
        return steps

    def export(place: Path) -> list[Any]:
        return ["export", inputs / "small", "--no-gate", "-o", place / "bundle"]

    def openvino(place: Path) -> list[Any]:
        return [*export(place), "--target", "openvino"]

    def imported(place: Path) -> list[Any]:
        return ["import", inputs / "step_1", "--task", TASK.name, "-o", place / "model", "--force"]

    def generated(place: Path) -> list[Any]:
        return ["data", "generate", "--task", TASK.name, "--n", 4, "--force", "-o", place / "set"]

    def converted(place: Path) -> list[Any]:
        return ["data", "convert", inputs / "set", "--task", TASK.name, "--force", "-o", place / "puzzles.csv"]

    def written_back(place: Path) -> list[Any]:
        return ["convert", inputs / "plain1", "--force", "-o", place / "public"]

    def built(place: Path) -> list[Any]:
        return [
            "data",
            "arc",
            "--data",
            inputs / "arc",
            "--task",
            "arc-5x5",
            "--augmentations",
            1,
            "--force",
            "-o",
            place / "set",
        ]

    def fetched(place: Path) -> list[Any]:
        return ["data", "download", "sapientinc/sudoku-extreme", "--force", "-o", place / "puzzles.csv"]

    def answered(place: Path) -> list[Any]:
        return [
            "solve",
            inputs / "sound",
            inputs / "puzzles.csv",
            "--workers",
            1,
            "--force",
            "-o",
            place / "answers.csv",
        ]

    def updated(place: Path) -> list[Any]:
        return ["check", place / "spec.toml", "--update-baseline"]

    def resumed(place: Path) -> list[Any]:
        return [*train, "--steps", "2", "-o", place / "run"]

    return [
        Scenario("export", export, nothing, "bundle"),
        Scenario("export over a bundle", export, copied("hollow", "bundle"), "bundle"),
        Scenario("export --target openvino", openvino, copied("hollow", "bundle"), "bundle"),
        Scenario("import", imported, nothing, "model"),
        Scenario("import over a checkpoint", imported, copied("earlier", "model"), "model"),
        Scenario("data generate", generated, nothing, "set"),
        Scenario("data generate over a set", generated, copied("set", "set"), "set"),
        Scenario("data convert over a file", converted, copied("puzzles.csv", "puzzles.csv"), "puzzles.csv"),
        Scenario("convert over one", written_back, copied("public", "public"), "public"),
        Scenario("data arc over a set", built, copied("built", "set"), "set"),
        Scenario("data download over a file", fetched, copied("puzzles.csv", "puzzles.csv"), "puzzles.csv"),
        Scenario("solve -o", answered, nothing, "answers.csv", kept=True),
        Scenario("solve -o over a file", answered, copied("puzzles.csv", "answers.csv"), "answers.csv", kept=True),
        Scenario("check --update-baseline", updated, checked, "baseline.json"),
        Scenario("check --update-baseline over one", updated, checked_before, "baseline.json"),
        Scenario("train", resumed, nothing, "run", trained, steps=True),
        Scenario("train, resumed", resumed, copied("run", "run"), "run", trained, steps=True),
    ]


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
