"""The entry point itself: usage errors, full disks, closed pipes and Ctrl-C each end in one line at most."""

import os
import signal
import subprocess
import sys
import time

import pytest

COMMAND = [sys.executable, "-m", "hrm_edge.cli"]


def run(*arguments, **options):
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, check=False, **options)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["solve", "--nonsense"], "--nonsense"),
        (["nonsense"], "nonsense"),
        (["data", "generate", "--n", "many", "-o", "x.csv"], "--n"),
        (["train", "--steps", "1", "-o", "r", "--seed", "-1"], "--seed"),
    ],
)
def test_usage_errors_are_one_line(tmp_path, arguments, said):
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert said in done.stderr
    assert not list(tmp_path.iterdir())


def test_nothing_asked_is_the_help_and_version_is_the_packages():
    from hrm_edge import __version__

    assert "Usage:" in run().stdout
    assert run("--version").stdout.split()[-1] == __version__


def test_every_command_is_told_whole_in_80_columns():
    from hrm_edge.cli import command_line

    groups = [name for name, each in command_line().commands.items() if hasattr(each, "commands")]
    assert groups == ["analyze", "data"]
    for group in ([], *([name] for name in groups)):
        told = run(*group, "--help", env={**os.environ, "COLUMNS": "80"}).stdout.partition("\nCommands:\n")[2]
        assert len(told.splitlines()) >= 4
        assert "..." not in told


def test_an_output_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    done = run("data", "generate", "--task", "sudoku-4x4", "--n", "1", "-o", str(tmp_path / "file" / "x.csv"))
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1


def test_a_reader_that_has_enough_is_no_failure(tmp_path):
    """As in `| head -1`: the pipe is closed before anything is written."""
    puzzles = tmp_path / "p.csv"
    assert run("data", "generate", "--task", "sudoku-4x4", "--n", "3", "-o", str(puzzles)).returncode == 0
    show = [*COMMAND, "data", "show", str(puzzles), "--task", "sudoku-4x4"]
    process = subprocess.Popen(show, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process.stdout.close()
    assert process.wait(timeout=60) == 0
    assert process.stderr.read() == ""


@pytest.mark.parametrize("debug", [False, True])
def test_what_nothing_expects_is_told_without_commanding_the_terminal(tmp_path, monkeypatch, capsys, debug):
    from hrm_edge.cli import main
    from hrm_edge.data import puzzles

    def broken(*_, **__):
        raise TypeError("\x1b[2J\n::error::forged")

    monkeypatch.setattr(puzzles, "generate_distinct", broken)
    monkeypatch.setenv("HRM_EDGE_DEBUG", str(int(debug)))
    with pytest.raises(SystemExit) as stop:
        main(["data", "generate", "--task", "sudoku-4x4", "--n", "1", "-o", str(tmp_path / "new")])
    assert stop.value.code == 70
    said = capsys.readouterr().err
    *traceback, last = said.splitlines()
    assert last.startswith("hrm-edge: TypeError at test_main.py:")
    assert "HRM_EDGE_DEBUG=1" in last
    assert bool(traceback) == debug
    assert ("Traceback (most recent call last):" in traceback) == debug
    assert "\x1b" not in said
    assert not [line for line in said.splitlines() if line.lstrip().startswith("::")]


def test_what_ends_a_thread_is_told_in_the_same_way(monkeypatch, capsys):
    import threading

    from hrm_edge.cli import unexpected

    def broken():
        raise TypeError("\x1b[2J\n::error::forged")

    before = threading.excepthook
    with unexpected.told_of_threads():
        thread = threading.Thread(target=broken)
        thread.start()
        thread.join()
    assert threading.excepthook is before
    assert capsys.readouterr().err.startswith("hrm-edge: TypeError at test_main.py:")


def test_help_names_every_estimator():
    pytest.importorskip("torch")
    from hrm_edge.models.ranges import ESTIMATORS

    shown = " ".join(run("export", "--help").stdout.split()).partition("--calibration-method")[2]
    assert all(name in shown.partition(" --")[0] for name in ESTIMATORS)


def test_brackets_in_help_are_kept():
    assert "FILE[:SOURCE][@WEIGHT]" in " ".join(run("train", "--help").stdout.split())


@pytest.mark.slow
def test_ctrl_c_says_stopped_and_exits_130(tmp_path):
    arguments = ["train", "--task", "sudoku-4x4", "--preset", "tiny", "--data", "generated:50", "--steps", "100000"]
    process = subprocess.Popen(
        [*COMMAND, *arguments, "-o", str(tmp_path / "run"), "--set", "train.log_every=1"],
        stderr=subprocess.PIPE,
        text=True,
    )
    metrics = tmp_path / "run" / "metrics.jsonl"
    while process.poll() is None and not (metrics.exists() and metrics.stat().st_size):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said.splitlines()[-1].startswith("stopped and saved at step ")
    assert "Traceback" not in said
