"""Two processes that meet a mistake: both end with its exit code, one says why, nobody waits for ever."""

import functools

import pytest
from forked import Forked, ranks, wait_for_all

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
