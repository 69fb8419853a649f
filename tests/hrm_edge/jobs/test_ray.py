"""Jobs on a real Ray cluster of several nodes on this host: killed workers, a killed node, a killed command."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest
import toys

import hrm_edge as he
from hrm_edge.errors import InputError
from hrm_edge.jobs import folder
from hrm_edge.jobs import ray as actors

ray = pytest.importorskip("ray", reason="needs the extra ray (make test-distributed)")

ROWS, SHARD = 4000, 16


@pytest.fixture(scope="module")
def cluster():
    """A head without workers, and two nodes of two."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.delenv("RAY_ADDRESS", raising=False)
        made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        made.nodes = [made.add_node(num_cpus=2) for _ in range(2)]
        made.wait_for_nodes()
        yield made
        made.shutdown()


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("jobs")
    toys.write_toy_bundle(place / "toy", loop="graph")
    lines = toys.TASK.format_many(toys.puzzles(ROWS, seed=9))
    (place / "in.csv").write_text("question\n" + "".join(f"{text}\n" for text in lines))
    he.solve_file(place / "toy", place / "in.csv", place / "here.csv", workers=1)
    return place


@pytest.fixture
def started(monkeypatch):
    """Processes of the workers that have started."""
    pids, start = [], actors.RayWorker.start

    def noted(self):
        start(self)
        pids.append(int(self._who.rsplit(" ", 1)[1]))

    monkeypatch.setattr(actors.RayWorker, "start", noted)
    return pids


def solve(cluster, place, name, **options):
    given = {"distributed": "ray", "address": cluster.address, "workers": 3, **options}
    return he.solve_file(place / "toy", place / "in.csv", place / name, **given)


def same(place, name):
    return (place / name).read_bytes() == (place / "here.csv").read_bytes()


def test_it_says_what_one_machine_says(cluster, place, started):
    done = solve(cluster, place, "calm.csv")
    assert same(place, "calm.csv")
    assert (done.rows, done.kept) == (ROWS, 0)
    assert len(started) == 3


def test_killed_workers_lose_and_repeat_nothing(cluster, place, started):
    killed, said = [], []

    def kill(what, done, total):
        """At every tenth shard the worker that was started last, with -9."""
        if what.startswith("puzzles") and "read" not in what and done // SHARD % 60 == 30 and len(killed) < 4:
            waiting = [pid for pid in started if pid not in killed]
            if waiting:
                os.kill(waiting[-1], signal.SIGKILL)
                killed.append(waiting[-1])

    solve(cluster, place, "killed.csv", progress=kill, say=said.append)
    assert same(place, "killed.csv")
    assert len(killed) == 4
    assert sum("worker was lost" in line for line in said) >= 4
    assert len(started) >= 3 + 3  # the last one may be lost when hardly anything is left


def test_a_killed_command_is_gone_on_with(cluster, place):
    code = (
        "import sys, os, signal\n"
        "from dataclasses import replace\n"
        "import hrm_edge as he\n"
        "from hrm_edge.jobs import run\n"
        "built = run.job_of\n"
        f"run.job_of = lambda *given: replace(built(*given), shard_rows={SHARD})\n"
        "def die(what, done, total):\n"
        f"    if what == 'puzzles' and done >= {ROWS // 4}: os.kill(os.getpid(), signal.SIGKILL)\n"
        "he.solve_file(*sys.argv[1:4], distributed='ray', address=sys.argv[4], workers=3, progress=die)\n"
    )
    given = [place / "toy", place / "in.csv", place / "cut.csv", cluster.address]
    ended = subprocess.run([sys.executable, "-c", code, *map(str, given)], check=False, timeout=300)
    assert ended.returncode == -signal.SIGKILL
    assert not (place / "cut.csv").exists()
    done = solve(cluster, place, "cut.csv")
    assert done.kept >= ROWS // 4 - SHARD
    assert same(place, "cut.csv")
    assert not (place / ".cut.csv.work.hrm-edge").exists()


def test_a_bundle_that_changed_on_the_way_is_not_run(cluster, place, monkeypatch):
    opened = actors.Actor.open
    monkeypatch.setattr(
        actors.Actor, "open", lambda self, files, *rest: opened(self, {**files, "model.onnx": b"other"}, *rest)
    )
    with pytest.raises(InputError, match=r"model.onnx: has 5 bytes instead of"):
        # A class that was changed here is pickled by its value, and so is what stands in for it.
        solve(cluster, place, "never.csv", workers=1)
    assert not (place / "never.csv").exists()


def test_no_cluster_is_one_line(place):
    with pytest.raises(InputError, match=r"--distributed ray: no cluster at 127\.0\.0\.1:1 "):
        he.solve_file(place / "toy", place / "in.csv", place / "no.csv", distributed="ray", address="127.0.0.1:1")


def test_the_shipped_model_says_on_a_cluster_what_it_says_here(cluster, tmp_path):
    """sudoku-9x9 in OpenVINO, Parquet in and out."""
    from hrm_edge.data.puzzles import generate_puzzles, save_puzzles
    from hrm_edge.tasks import get_task

    made = he.export("sudoku-9x9", target="openvino", gate=False, output=tmp_path / "bundle").folder
    save_puzzles(generate_puzzles(get_task("sudoku-9x9"), 200, seed=4), tmp_path / "in.parquet")
    he.solve_file(made, tmp_path / "in.parquet", tmp_path / "here.parquet", workers=1)
    he.solve_file(
        made,
        tmp_path / "in.parquet",
        tmp_path / "ray.parquet",
        workers=2,
        distributed="ray",
        address=cluster.address,
    )
    assert (tmp_path / "ray.parquet").read_bytes() == (tmp_path / "here.parquet").read_bytes()


def test_a_killed_node_loses_nothing(cluster, place, started):
    """All processes of one of two nodes, at once; last, as it is gone."""
    gone = threading.Event()

    def kill(what, done, total):
        if what.startswith("puzzles") and "read" not in what and done > ROWS // 3 and not gone.is_set():
            gone.set()
            cluster.remove_node(cluster.nodes[0], allow_graceful=False)

    begin = time.monotonic()
    solve(cluster, place, "node.csv", workers=4, progress=kill)
    assert gone.is_set()
    assert same(place, "node.csv")
    assert time.monotonic() - begin < 280
    assert not folder.Work(place / "node.csv").path.exists()
