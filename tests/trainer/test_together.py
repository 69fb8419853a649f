"""Two processes that meet a mistake: both end with its exit code, one says why, nobody waits for ever."""

import functools
import os
import signal

import pytest
from forked import Forked, ranks, wait_for_all

from hrm_edge.errors import UNEXPECTED

pytestmark = pytest.mark.slow

SMALL = ["--set", "train.batch_size=8", "--set", "train.final_puzzles=4", "--set", "train.eval_puzzles=4"]
TRAIN = ["train", "--task", "sudoku-4x4", "--preset", "tiny", "--steps", "2", "--device", "cpu", *SMALL]


@pytest.fixture
def two(tmp_path_factory):
    """Commands → [(exit code, lines of mistakes)] of two gloo processes, each with arguments of its own."""
    return functools.partial(_two, tmp_path_factory.mktemp("said"))


def _two(folder, *commands):
    started = [
        Forked.command(folder / rank["RANK"], arguments, **rank)
        for rank, arguments in zip(ranks(2), commands, strict=True)
    ]
    codes = wait_for_all(started)
    said = [process.said.read_text() for process in started]
    assert not any("Traceback" in text for text in said), said
    mistakes = [[line for line in text.splitlines() if line.startswith("hrm-edge:")] for text in said]
    return list(zip(codes, mistakes, strict=True))


def test_a_mistake_that_all_meet_is_said_once(tmp_path, two):
    arguments = [*TRAIN, "--data", "generated:50", "--set", "train.batch_size=9", "-o", tmp_path / "run"]
    first, second = two(arguments, arguments)
    assert first[0] == second[0] == 2
    (line,) = first[1] + second[1]
    assert "it must be a multiple of 2 (2 processes" in line
    assert not (tmp_path / "run").exists()


def test_a_mistake_that_only_the_first_meets_ends_both(tmp_path, two):
    """It alone reads the puzzles to measure on, while the other waits for it."""
    arguments = [*TRAIN, "--data", "generated:50", "--test", tmp_path / "missing.csv", "-o", tmp_path / "run"]
    (code, lines), silent = two(arguments, arguments)
    assert code == 2
    assert silent == (2, [])
    assert len(lines) == 1
    assert "missing.csv" in lines[0]
    assert not (tmp_path / "run").exists()


def test_a_folder_that_only_the_first_sees_ends_both(tmp_path, two):
    arguments = [*TRAIN, "--data", "generated:50", "-o"]
    silent, (code, lines) = two([*arguments, tmp_path / "here"], [*arguments, tmp_path / "there"])
    assert silent == (2, [])
    assert code == 2
    assert len(lines) == 1
    assert f"{tmp_path / 'there'}: a process does not see what the first one wrote there" in lines[0]
    assert not (tmp_path / "here" / "checkpoint").exists()


def test_a_folder_that_the_first_cannot_write_ends_both(tmp_path, two):
    """The system's refusals are mistakes as well."""
    (tmp_path / "file").write_text("")
    arguments = [*TRAIN, "--data", "generated:50", "-o", tmp_path / "file" / "run"]
    (code, lines), silent = two(arguments, arguments)
    assert code == 2
    assert silent == (2, [])
    assert len(lines) == 1
    assert str(tmp_path / "file") in lines[0]


def fails_at(rank, where, how, arguments):
    """The command, which at one of its places does not go on in one of the processes."""
    from hrm_edge.cli import main
    from hrm_edge.trainer import loop
    from hrm_edge.trainer.run import Run

    def fail(*_, **__):
        if how is None:
            os.kill(os.getpid(), signal.SIGKILL)
        raise how("no more of it")

    if os.environ["RANK"] == rank:
        setattr(loop if hasattr(loop, where) else Run, where, fail)
    main([str(argument) for argument in arguments])


PLACES = [
    ("0", "first_model", MemoryError),  # where ranks leave together
    ("1", "first_model", RuntimeError),
    ("1", "first_model", KeyboardInterrupt),
    ("1", "restore", AssertionError),  # and where they do not
    ("0", "train_step", ZeroDivisionError),
    ("1", "train_step", RuntimeError),
    ("1", "train_step", None),
]


@pytest.mark.parametrize(("rank", "where", "how"), PLACES)
def test_whatever_ends_one_ends_both(tmp_path, rank, where, how):
    """Not mistakes alone: the other would wait for hours."""
    arguments = [*TRAIN, "--data", "generated:30", "-o", tmp_path / "run"]
    started = [Forked(tmp_path / each["RANK"], fails_at, rank, where, how, arguments, **each) for each in ranks(2)]
    codes = wait_for_all(started)
    other = 1 - int(rank)
    assert codes[int(rank)] == {None: -signal.SIGKILL, KeyboardInterrupt: 130}.get(how, UNEXPECTED)
    assert codes[other] == (codes[int(rank)] if where == "first_model" else 1)
    said = [line for line in started[other].said.read_text().splitlines() if not line.startswith("sudoku-4x4:")]
    if where == "first_model":
        assert said == []
    else:
        (line,) = [line for line in said if line.startswith("hrm-edge:")]
        assert "another process of this run has ended" in line
        assert "Traceback" not in "\n".join(said)
