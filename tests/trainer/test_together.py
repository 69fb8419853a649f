"""Two processes that meet a mistake: both end with its exit code, one says why, nobody waits for ever."""

import os
import socket
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

SMALL = ["--set", "train.batch_size=8", "--set", "train.final_puzzles=4", "--set", "train.eval_puzzles=4"]
TRAIN = ["train", "--task", "sudoku-4x4", "--preset", "tiny", "--steps", "2", "--device", "cpu", *SMALL]


def two(*commands):
    """[(exit code, lines of mistakes)] of two gloo processes, each with arguments of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    meet = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "hrm_edge.cli", *map(str, arguments)],
            env={**os.environ, **meet, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank, arguments in enumerate(commands)
    ]
    try:
        said = [process.communicate(timeout=200)[1] for process in started]
    finally:
        for process in started:
            process.kill()
    assert not any("Traceback" in text for text in said), said
    mistakes = [[line for line in text.splitlines() if line.startswith("hrm-edge:")] for text in said]
    return [(process.returncode, lines) for process, lines in zip(started, mistakes, strict=True)]


def test_a_mistake_that_all_meet_is_said_once(tmp_path):
    arguments = [*TRAIN, "--data", "generated:50", "--set", "train.batch_size=9", "-o", tmp_path / "run"]
    first, second = two(arguments, arguments)
    assert first[0] == second[0] == 2
    (line,) = first[1] + second[1]
    assert "it must be a multiple of 2 (2 processes" in line
    assert not (tmp_path / "run").exists()


def test_a_mistake_that_only_the_first_meets_ends_both(tmp_path):
    """It alone reads the puzzles to measure on, while the other waits for it."""
    arguments = [*TRAIN, "--data", "generated:50", "--test", tmp_path / "missing.csv", "-o", tmp_path / "run"]
    (code, lines), silent = two(arguments, arguments)
    assert code == 2
    assert silent == (2, [])
    assert len(lines) == 1
    assert "missing.csv" in lines[0]
    assert not (tmp_path / "run").exists()


def test_a_folder_that_only_the_first_sees_ends_both(tmp_path):
    arguments = [*TRAIN, "--data", "generated:50", "-o"]
    silent, (code, lines) = two([*arguments, tmp_path / "here"], [*arguments, tmp_path / "there"])
    assert silent == (2, [])
    assert code == 2
    assert len(lines) == 1
    assert f"{tmp_path / 'there'}: a process does not see what the first one wrote there" in lines[0]
    assert not (tmp_path / "here" / "checkpoint").exists()


def test_a_folder_that_the_first_cannot_write_ends_both(tmp_path):
    """The system's refusals are mistakes as well."""
    (tmp_path / "file").write_text("")
    arguments = [*TRAIN, "--data", "generated:50", "-o", tmp_path / "file" / "run"]
    (code, lines), silent = two(arguments, arguments)
    assert code == 2
    assert silent == (2, [])
    assert len(lines) == 1
    assert str(tmp_path / "file") in lines[0]
