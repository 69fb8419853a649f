"""Workers that are processes of this machine: whose end is no other's, that hear no Ctrl-C, and what they know."""

import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import job_workers
import pytest
import toys
from job_workers import ROWS, SHARD, left, rows, solve

import hrm_edge as he
from hrm_edge.errors import HrmEdgeError, InputError
from hrm_edge.jobs import crew, here
from hrm_edge.jobs.answers import Asking


@pytest.mark.parametrize("on_error", ["fail", "record"])
def test_a_row_that_ends_a_workers_process_is_found(bundle, place, expected, monkeypatch, on_error):
    """Really: the engine kills the process that it is in, of two, each time that it is given the row."""
    monkeypatch.setattr(here, "_work", job_workers.deadly)
    said, row = [], job_workers.DEADLY
    options = {"on_error": on_error, "workers": 2, "say": said.append}
    if on_error == "fail":
        with pytest.raises(InputError, match=f"row {row + 1}: it ended every worker that it was given to"):
            he.solve_file(bundle, place / "in.csv", place / "out.jsonl", **options)
        return
    done = he.solve_file(bundle, place / "in.csv", place / "out.jsonl", **options)
    found = rows(place / "out.jsonl")
    assert found[row]["error"] == "it ended every worker that it was given to"
    assert found[row]["answer"] is None
    assert found[:row] + found[row + 1 :] == [
        each | {"error": None} for each in expected[:row] + expected[row + 1 :]
    ]
    assert (done.rows, done.errors) == (ROWS, 1)
    assert sum("was ended by SIGKILL" in line for line in said) >= crew._LOSSES
    assert left(place) == ["out.jsonl"]
    assert not multiprocessing.active_children()


def test_what_is_raised_in_a_workers_process_is_raised_here(place, tmp_path_factory):
    """A bundle that changes between opening it and loading it in the process."""
    made = toys.write_toy_bundle(tmp_path_factory.mktemp("changed") / "toy", loop="graph")
    opened = he.open_bundle(made)
    worker = here.LocalWorker(opened, Asking(), lambda piece: None)
    (made / "model.onnx").write_bytes(b"another")
    with pytest.raises(HrmEdgeError):
        worker.start()
    worker.stop()


@pytest.mark.parametrize("where", ["imported", "main"])
def test_workers_know_a_task_that_the_script_registers(place, where, expected):
    family = (
        "from hrm_edge.tasks import get_task, register\n"
        "from hrm_edge.tasks.sudoku.task import Sudoku\n"
        "class Own(Sudoku):\n"
        "    @classmethod\n"
        "    def from_name(cls, name):\n"
        "        if name != 'own-4x4':\n"
        "            return None\n"
        "        made = cls(2, 2)\n"
        "        made.name = name\n"
        "        return made\n"
    )
    script = (
        "if __name__ == '__main__':\n"
        "    import hrm_edge as he\n"
        "    register(Own)\n"
        f"    he.solve_file({str(place / 'own')!r}, 'in.csv', 'out.jsonl', workers=1)\n"
    )
    if where == "imported":
        (place / "own_task.py").write_text(family)
        family = "from own_task import Own, register\n"
    (place / "script.py").write_text(family + script)
    toys.write_toy_bundle(place / "own", task="own-4x4")
    path = os.pathsep.join([str(Path(he.__file__).parent.parent), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path}
    subprocess.run([sys.executable, "script.py"], cwd=place, env=environment, check=True, timeout=120)
    assert [row["answer"] for row in rows(place / "out.jsonl")] == [row["answer"] for row in expected]
    if where == "main":  # where no file is, none can be run anew
        given = {"input": family + script.replace("out", "none"), "cwd": place, "env": environment, "timeout": 120}
        done = subprocess.run([sys.executable, "-"], text=True, capture_output=True, check=False, **given)
        assert "own-4x4: no process starts that finds its class" in done.stderr.splitlines()[-1]


@pytest.mark.skipif(os.name == "nt", reason="a terminal's signals are POSIX's")
def test_a_terminals_interrupt_reaches_the_command_alone(bundle, place, expected):
    """Ctrl-C goes to every process of a terminal, of which the workers say nothing."""
    code = (
        "import sys\n"
        f"sys.path.insert(0, {str(Path(job_workers.__file__).parent)!r})\n"
        "import job_workers\n"
        "from hrm_edge.cli import main\n"
        "from hrm_edge.jobs import folder, here, run\n"
        "built = run.job_of\n"
        f"run.job_of = lambda *given: folder.replace(built(*given), shard_rows={SHARD})\n"
        "here._work = job_workers.slow\n"
        "main(sys.argv[1:])\n"
    )
    given = ["solve", bundle, place / "in.csv", "-o", place / "out.jsonl", "--workers", "2"]
    process = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, given)], stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    work = place / ".out.jsonl.work.hrm-edge"
    until = time.monotonic() + 60
    while not list(work.glob("*.npz")) and time.monotonic() < until:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=60)
    kept = len(list(work.glob("*.npz")))
    assert process.returncode == 130, said
    lines = [line.rpartition("\r")[2].strip() for line in said.splitlines()]
    assert [line for line in lines if "Traceback" in line or "Error" in line] == []
    assert lines[-1] == "hrm-edge: stopped"
    assert re.fullmatch(rf"hrm-edge: \d+ of {ROWS} puzzles are answered and kept; the same .*", lines[-2])
    done, _ = solve(bundle, place)
    assert done.kept >= kept * SHARD - SHARD
    assert rows(place / "out.jsonl") == expected
