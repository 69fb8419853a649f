"""What is replaced has one writer at a time, and is whole whenever that one is ended; readers change nothing."""

import contextlib
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from books import content, killed, ours, put, refusal
from faulty_disk import deliver
from forked import Forked, context

from hrm_edge import files, signals
from hrm_edge import workspace as workspace_room
from hrm_edge.errors import InputError
from hrm_edge.files import (
    check_place,
    owning,
    recover,
    replacing_folder,
    write_atomically,
)
from hrm_edge.signals import undisturbed
from hrm_edge.workspace import standing, unmixed, workspace, workspace_of

# -- one writer ----------------------------------------------------------------------------------------


def own_for_ever(folder, ready, go):
    with replacing_folder(folder, ours) as scratch:
        (scratch / "page").write_text("theirs")
        ready.set()
        while not go.exists():  # an event would hold up whoever sets it after a kill
            time.sleep(0.01)


@pytest.fixture
def other(tmp_path):
    """Another process that is writing `book`, until ``go`` is there."""
    ready, go = context.Event(), tmp_path / "said.go"
    process = Forked(tmp_path / "said", own_for_ever, tmp_path / "book", ready, go)
    assert ready.wait(60)
    yield process, go
    go.touch()
    process.wait()


def test_a_second_writer_is_told_of_the_first(tmp_path, other):
    process, go = other
    for call in (lambda: put(tmp_path / "book", "mine"), lambda: check_place(tmp_path / "book")):
        assert f"another hrm-edge (process {process.process.pid}) is writing there" in refusal(call)
    put(tmp_path / "another", "mine")
    go.touch()
    assert process.wait() == 0
    assert (tmp_path / "book" / "page").read_text() == "theirs"
    put(tmp_path / "book", "mine")
    assert content(tmp_path) == {"said", "said.go", "book", "book/page", "another", "another/page"}


def test_the_lock_ends_with_its_process(tmp_path, other):
    process, _ = other
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert workspace_of(tmp_path / "book").is_dir()
    put(tmp_path / "book", "mine")
    assert content(tmp_path) == {"said", "book", "book/page"}


def test_writers_of_one_file_wait_for_each_other(tmp_path):
    def write(number):
        for _ in range(20):
            write_atomically(tmp_path / "file", str(number) * 1000)

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(write, range(4))) == [None] * 4
    assert len(set((tmp_path / "file").read_text())) == 1
    assert content(tmp_path) == {"file"}


def test_a_workspace_that_changes_hands_between_two_looks_is_nobody_else_s(tmp_path, monkeypatch):
    """Its names are read of the process that leaves, and the mark of the one that has just come."""
    work = workspace_of(tmp_path / "file")
    work.mkdir()
    (work / "owner").touch()
    entries, looks = workspace_room.entries, []

    def listed(folder):
        looks.append(folder)
        return {"owner", "new"} if len(looks) == 1 else entries(folder)

    monkeypatch.setattr(workspace_room, "entries", listed)
    write_atomically(tmp_path / "file", "one")
    assert (tmp_path / "file").read_text() == "one"
    assert len(looks) > 1


def test_one_folder_is_owned_once_even_in_one_process(tmp_path):
    with owning(tmp_path / "run"):
        assert "is writing there" in refusal(lambda: owning(tmp_path / "run").__enter__())
    assert content(tmp_path) == set()


# -- kills ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("swapped", [False, True])
def test_a_reader_finds_the_last_whole_content_and_changes_nothing(tmp_path, swapped):
    killed(tmp_path / "book", swapped)
    before = content(tmp_path)
    assert (standing(tmp_path / "book") / "page").read_text() == "one"
    assert content(tmp_path) == before


@pytest.mark.parametrize("swapped", [False, True])
def test_the_next_writer_puts_it_right(tmp_path, swapped):
    killed(tmp_path / "book", swapped)
    recover(tmp_path / "book")
    assert content(tmp_path) == {"book", "book/page"}
    assert (tmp_path / "book" / "page").read_text() == "one"
    killed(tmp_path / "book", swapped)
    put(tmp_path / "book", "three")
    assert content(tmp_path) == {"book", "book/page"}
    assert (tmp_path / "book" / "page").read_text() == "three"


def test_what_was_put_there_meanwhile_is_not_taken_for_ours(tmp_path):
    """A kill between the renames, and then somebody makes a folder in the gap: neither of the two is lost."""
    killed(tmp_path / "book", swapped=True)
    (tmp_path / "book").mkdir()
    (tmp_path / "book" / "page").write_text("theirs")
    said = refusal(put, tmp_path / "book", "three")
    assert f"what stood there before a replacement that was cut off is in {workspace_of(tmp_path / 'book')}" in said
    assert (workspace_of(tmp_path / "book") / "old" / "page").read_text() == "one"
    assert (tmp_path / "book" / "page").read_text() == "theirs"


def test_a_failing_rename_is_taken_back(tmp_path, monkeypatch):
    put(tmp_path / "book", "one")
    real = os.rename

    def rename(source, target, **options):
        if str(source).endswith("new"):
            raise OSError(5, "Input/output error")
        real(source, target, **options)

    monkeypatch.setattr(os, "rename", rename)
    assert "Input/output error" in refusal(put, tmp_path / "book", "two")
    assert (tmp_path / "book" / "page").read_text() == "one"
    assert content(tmp_path) == {"book", "book/page"}


def test_a_wish_to_stop_waits_for_the_end_of_what_must_not_be_cut(monkeypatch):
    done = []

    def stop(number, frame):
        raise KeyboardInterrupt

    def work():
        with undisturbed():
            deliver(signal.SIGTERM)
            done.append("all of it")

    before = signal.signal(signal.SIGTERM, stop)
    try:
        with pytest.raises(KeyboardInterrupt):
            work()
    finally:
        assert signal.signal(signal.SIGTERM, before) is stop
    assert done == ["all of it"]


def test_a_wish_to_stop_that_comes_just_before_it_is_held_off_leaves_nothing(tmp_path, monkeypatch):
    real, calls = signals.undisturbed, []

    @contextlib.contextmanager
    def late():
        calls.append(1)
        if len(calls) == 1:
            raise KeyboardInterrupt
        with real():
            yield

    monkeypatch.setattr(signals, "undisturbed", late)
    with pytest.raises(KeyboardInterrupt), workspace(tmp_path / "page"):
        (tmp_path / "page").write_text("one")
    assert content(tmp_path) == {"page"}
    assert len(calls) == 2


def test_what_was_moved_away_while_it_was_written_is_not_published_by_half(tmp_path):
    def write():
        with replacing_folder(tmp_path / "place" / "book", ours) as scratch:
            (scratch / "page").write_text("first")
            os.rename(tmp_path / "place", tmp_path / "gone")
            scratch.mkdir(parents=True)
            (scratch / "page").write_text("second")

    with pytest.raises(InputError, match="nothing can be written there"):
        write()
    assert not (tmp_path / "place" / "book").exists()


def test_a_folder_that_is_replaced_while_it_is_read_is_read_anew(tmp_path):
    put(tmp_path / "book", "one")
    seen = []

    def read(folder):
        seen.append((folder / "page").read_text())
        if len(seen) == 1:
            put(tmp_path / "book", "two")
            raise ValueError("half of one and half of two")
        return seen[-1]

    assert unmixed(tmp_path / "book", read) == "two"
    assert seen == ["one", "two"]
    with pytest.raises(ValueError, match="really wrong"):
        unmixed(tmp_path / "book", lambda folder: exec("raise ValueError('really wrong')"))


def test_one_that_is_replaced_all_the_time_is_refused(tmp_path):
    put(tmp_path / "book", "one")
    with pytest.raises(InputError, match="replaces it all the time; try again"):
        unmixed(tmp_path / "book", lambda folder: put(tmp_path / "book", "another"))


def test_a_disk_without_locks_is_written_to_all_the_same(tmp_path, monkeypatch):
    fcntl = pytest.importorskip("fcntl")

    def unknown(handle, operation):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", unknown)
    put(tmp_path / "book", "one")
    assert content(tmp_path) == {"book", "book/page"}
    assert files.sha256(tmp_path / "book" / "page")
