"""Public sets from the Hub, with the Hub's client replaced: kept whole when right, and nothing left otherwise."""

import builtins
import errno
import gzip
from pathlib import Path

import commands
import huggingface_hub
import numpy as np
import pytest
from huggingface_hub import errors

from hrm_edge.data.puzzles import generate_puzzles, load_puzzles, save_puzzles
from hrm_edge.packages import install
from hrm_edge.tasks import get_task

SUDOKU, MAZE = "sapientinc/sudoku-extreme", "sapientinc/maze-30x30-hard-1k"


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """Files as they are on the Hub, by repository and name; ratings of theirs that are none of ours."""
    folder, files = tmp_path_factory.mktemp("hub"), {}
    for repository, task in ((SUDOKU, "sudoku"), (MAZE, "maze-30x30")):
        for split, seed in (("train", 0), ("test", 1)):
            file = folder / f"{task}-{split}.csv"
            save_puzzles(generate_puzzles(get_task(task), 5, seed, processes=1), file)
            lines = file.read_text().splitlines()
            lines[1:] = [line.rpartition(",")[0] + ",4321" for line in lines[1:]]
            files[repository, f"{split}.csv"] = ("\n".join(lines) + "\n").encode()
    return files


@pytest.fixture
def hub(monkeypatch, published):
    """Serves `published`. Set `hub.cut` to serve only so many bytes, `hub.fail` to raise after half of them."""

    class Hub:
        cut, fail, served = None, None, []

        def __call__(self, repo_id, filename, *, repo_type, local_dir):
            assert repo_type == "dataset"
            content = published[repo_id, filename]
            file = Path(local_dir, filename)
            if self.fail:
                Path(local_dir, ".cache").mkdir()
                Path(local_dir, ".cache", "incomplete").write_bytes(content[: len(content) // 2])
                raise self.fail
            file.write_bytes(content[: self.cut])
            self.served.append((repo_id, filename))
            return str(file)

    served = Hub()
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", served)
    return served


def run(capsys, *arguments):
    return commands.run(capsys, "data", "download", *arguments)


@pytest.mark.parametrize(("name", "task"), [(SUDOKU, "sudoku"), (MAZE, "maze-30x30")])
def test_a_public_set_is_kept_as_published(tmp_path, capsys, hub, published, name, task):
    plain, packed, folder = tmp_path / "new" / "p.csv", tmp_path / "p.csv.gz", tmp_path / "set"
    code, out, err = run(capsys, name, "-o", plain)
    assert (code, err) == (0, "")
    assert out == f"wrote 5 {get_task(task).name} puzzles, all answers checked, to {plain}\n"
    assert plain.read_bytes() == published[name, "train.csv"]
    assert run(capsys, name, "--split", "test", "-o", packed)[0] == 0
    assert gzip.decompress(packed.read_bytes()) == published[name, "test.csv"]
    assert run(capsys, name, "-o", folder)[0] == 0
    sets = [load_puzzles(path, get_task(task)) for path in (plain, folder, packed)]
    assert sets[0].content_hash() == sets[1].content_hash() != sets[2].content_hash()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "p.csv.gz", "set"]
    assert [path.name for path in plain.parent.iterdir()] == ["p.csv"]


FAILURES = [
    (errors.LocalEntryNotFoundError("no\nconnection"), "the Hub cannot be reached; check the network"),
    (errors.OfflineModeIsEnabled("offline mode"), "OfflineModeIsEnabled: offline mode; try again"),
    (errors.EntryNotFoundError("404"), "has no such file"),
    (ConnectionResetError(errno.ECONNRESET, "reset"), "ConnectionResetError: [Errno 104] reset; try again"),
    (OSError("Consistency check failed: 5 bytes\nand more"), "OSError: Consistency check failed: 5 bytes; try"),
    (OSError(errno.ENOSPC, "No space left"), "is full"),
    (RuntimeError(), "RuntimeError: no reason given; try again"),
]


@pytest.mark.parametrize(("failure", "message"), FAILURES)
@pytest.mark.parametrize("before", [False, True])
def test_a_download_that_fails_leaves_what_there_was(tmp_path, capsys, hub, failure, message, before):
    target = tmp_path / "p.csv"
    if before:
        target.write_text("mine")
    hub.fail = failure
    code, out, err = run(capsys, SUDOKU, "-o", target, *(["--force"] if before else []))
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"hrm-edge: cannot download train.csv of {SUDOKU}: ")
    assert message in err
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == ([("p.csv", "mine")] if before else [])


@pytest.mark.parametrize("output", ["p.csv", "p.csv.gz", "set"])
@pytest.mark.parametrize("missing", [7, 40, 88, 170, 187, 800])
def test_a_truncated_file_is_refused(tmp_path, capsys, hub, published, output, missing):
    """Cut within a line, before its rating. (Whole lines that are missing are the Hub client's to notice.)"""
    hub.cut = len(published[SUDOKU, "train.csv"]) - missing
    code, _, err = run(capsys, SUDOKU, "-o", tmp_path / output)
    assert (code, err.count("\n")) == (2, 1)
    assert f"what came of {SUDOKU} train.csv is damaged, nothing was kept: line " in err
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_answer_is_refused(tmp_path, capsys, hub, published, monkeypatch):
    content = bytearray(published[MAZE, "test.csv"])
    place = content.rindex(b"o")
    content[place : place + 1] = b" "
    monkeypatch.setitem(published, (MAZE, "test.csv"), bytes(content))
    code, _, err = run(capsys, MAZE, "--split", "test", "-o", tmp_path / "p.csv")
    assert code == 2
    assert "nothing was kept: line 6: the answer is not a solution" in err
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_one_line(tmp_path, capsys, hub, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("hrm_edge.data.download.shutil.copyfileobj", full)
    code, _, err = run(capsys, SUDOKU, "-o", tmp_path / "p.csv.gz")
    assert (code, err) == (2, f"hrm-edge: cannot write {tmp_path / 'p.csv.gz'}: No space left on device\n")
    assert list(tmp_path.iterdir()) == []


def test_stopping_leaves_nothing(tmp_path, capsys, hub):
    hub.fail = KeyboardInterrupt()
    assert run(capsys, SUDOKU, "-o", tmp_path / "set")[0] == 130
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sudoku-extreme", "-o", "p.csv"], f"unknown public set 'sudoku-extreme'; there are {SUDOKU}, {MAZE}"),
        ([SUDOKU, "-o", "p.csv", "--split", "dev"], "--split dev: choose train or test"),
        ([SUDOKU, "-o", "p.json"], "cannot write p.json: end it in .csv"),
        ([SUDOKU, "-o", "there.csv"], "there.csv exists; choose another name, or replace it with --force"),
    ],
)
def test_mistakes_are_found_before_anything_is_fetched(tmp_path, capsys, hub, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    Path("there.csv").write_text("mine")
    hub.fail = AssertionError("fetched")
    code, _, err = run(capsys, *arguments)
    assert (code, err.count("\n")) == (2, 1)
    assert message in err
    assert Path("there.csv").read_text() == "mine"


def test_without_the_client_the_extra_is_named(tmp_path, capsys, monkeypatch):
    importing = builtins.__import__

    def missing(name, *rest, **more):
        if name == "huggingface_hub":
            raise ModuleNotFoundError(name)
        return importing(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", missing)
    code, _, err = run(capsys, SUDOKU, "-o", tmp_path / "p.csv")
    assert code == 2
    assert install("hub") in err


def test_the_client_is_called_as_it_is(monkeypatch):
    """The replacement above takes what the real function takes."""
    import inspect

    parameters = inspect.signature(huggingface_hub.hf_hub_download).parameters
    assert {"repo_id", "filename", "repo_type", "local_dir"} <= set(parameters)
    assert np.all([issubclass(e, Exception) for e in (errors.RepositoryNotFoundError, errors.EntryNotFoundError)])


def test_the_help_lists_what_there_is():
    from hrm_edge.cli.data import download as command
    from hrm_edge.data.download import PUBLIC_SETS

    help_ = command.__annotations__["name"]
    assert all(name in str(help_) for name in PUBLIC_SETS)
