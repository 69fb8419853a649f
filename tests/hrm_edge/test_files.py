"""Files and folders are replaced whole, by one writer, where they are ours; readers change nothing."""

import contextlib
import os
import signal
import stat
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import toys
from fault_injection import deliver
from forked import Forked, context

from hrm_edge import files, signals
from hrm_edge import workspace as workspace_room
from hrm_edge.errors import InputError
from hrm_edge.files import (
    check_file,
    check_place,
    check_replaceable,
    files_in,
    is_system_file,
    owning,
    recover,
    replacing_folder,
    require_apart,
    write_atomically,
)
from hrm_edge.signals import undisturbed
from hrm_edge.workspace import standing, unmixed, workspace, workspace_of

SYSTEM = (".DS_Store", "._weights.bin", "Thumbs.db", "thumbs.db", "desktop.ini", "Desktop.ini", "ehthumbs.db")


def ours(folder):
    """Whatever is called `page*`."""
    if others := [path.name for path in folder.iterdir() if not path.name.startswith("page")]:
        raise InputError(f"{folder}: holds {others[0]!r}")


def put(folder, text):
    with replacing_folder(folder, ours) as scratch:
        (scratch / "page").write_text(text)


def content(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def refusal(call, *arguments) -> str:
    with pytest.raises(InputError) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# -- what is ours --------------------------------------------------------------------------------------


def test_a_folder_takes_the_place_of_one_that_is_ours_and_of_no_other(tmp_path):
    put(tmp_path / "book", "one")
    put(tmp_path / "book", "two")
    assert (tmp_path / "book" / "page").read_text() == "two"
    (tmp_path / "book" / "dear.txt").write_text("mine")
    assert "'dear.txt'" in refusal(put, tmp_path / "book", "three")
    assert content(tmp_path) == {"book", "book/page", "book/dear.txt"}


def test_a_part_of_what_is_being_made_has_no_workspace_that_a_disk_could_refuse_to_remove(tmp_path, monkeypatch):
    seen = []
    real = files.replacing_file
    monkeypatch.setattr(files, "replacing_file", lambda path, *rest: seen.append(path) or real(path, *rest))
    with replacing_folder(tmp_path / "book", ours) as scratch:
        (scratch / "new").mkdir()
        write_atomically(scratch / "new" / "page", "one")
    (tmp_path / "new").mkdir()
    write_atomically(tmp_path / "new" / "page", "two")
    assert (tmp_path / "book" / "new" / "page").read_text() == "one"
    assert seen == [tmp_path / "new" / "page"]


def test_what_comes_while_it_works_is_seen_before_the_swap(tmp_path):
    put(tmp_path / "book", "one")

    def late():
        with replacing_folder(tmp_path / "book", ours) as scratch:
            (scratch / "page").write_text("two")
            (tmp_path / "book" / "dear.txt").write_text("mine")

    assert "'dear.txt'" in refusal(late)
    assert content(tmp_path) == {"book", "book/page", "book/dear.txt"}
    assert (tmp_path / "book" / "page").read_text() == "one"


@pytest.mark.parametrize(
    "name", [".book.old", ".book.tmp", ".book.next", ".book.lock", ".book.abc.tmp", "book.old"]
)
def test_a_neighbour_of_any_name_is_not_ours(tmp_path, name):
    """Names that earlier versions took for theirs among them."""
    (tmp_path / name).mkdir()
    (tmp_path / name / "mine").write_text("mine")
    standing(tmp_path / "book")
    recover(tmp_path / "book")
    put(tmp_path / "book", "one")
    put(tmp_path / "book", "two")
    assert content(tmp_path) == {"book", "book/page", name, f"{name}/mine"}


@pytest.mark.parametrize("inside", [{"mine"}, {"new"}, {"old"}, {"owner"}, {"owner", "new", "old"}])
def test_not_even_the_name_of_our_workspace_makes_a_folder_ours(tmp_path, inside):
    work = tmp_path / ".book.hrm-edge"
    work.mkdir()
    for name in inside:
        (work / name).write_text("mine")
    assert standing(tmp_path / "book") == tmp_path / "book"
    for call in (put, lambda folder, _: write_atomically(folder, b"x"), lambda folder, _: recover(folder)):
        with pytest.raises((InputError, OSError), match="in the way and not ours"):
            call(tmp_path / "book", "one")
    assert {path.name for path in work.iterdir()} == inside
    assert not (tmp_path / "book").exists()


def test_a_workspace_with_something_else_in_it_is_left_alone(tmp_path):
    killed(tmp_path / "book", swapped=True)
    (workspace_of(tmp_path / "book") / "notes").write_text("mine")
    assert "in the way and not ours" in refusal(put, tmp_path / "book", "three")
    assert (workspace_of(tmp_path / "book") / "notes").read_text() == "mine"


@pytest.mark.parametrize("name", SYSTEM)
def test_the_systems_files_are_no_part_of_a_folder(tmp_path, name):
    assert is_system_file(name)
    put(tmp_path / "book", "one")
    (tmp_path / "book" / name).write_bytes(b"x")
    assert files_in(tmp_path / "book") == {"page"}
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / name).write_bytes(b"x")
    check_replaceable(tmp_path / "empty", ours)


def test_a_folder_of_such_a_name_is_looked_into(tmp_path):
    (tmp_path / "book" / ".DS_Store").mkdir(parents=True)
    (tmp_path / "book" / ".DS_Store" / "hidden").write_bytes(b"x")
    assert files_in(tmp_path / "book") == {".DS_Store/hidden"}


def test_a_link_is_told_with_the_way_to_copy_it(tmp_path):
    (tmp_path / "book").mkdir()
    (tmp_path / "book" / "page").symlink_to(tmp_path)
    assert f"`cp -rL {tmp_path / 'book'} COPY`" in refusal(files_in, tmp_path / "book")
    (tmp_path / "book" / "page").unlink()
    (tmp_path / "book" / ".DS_Store").symlink_to(tmp_path)  # a plain file of that name is the system's
    assert "is a link" in refusal(files_in, tmp_path / "book")


# -- places --------------------------------------------------------------------------------------------


def test_the_folder_behind_a_link_is_replaced_and_the_link_stays(tmp_path):
    (tmp_path / "there").mkdir()
    put(tmp_path / "there" / "book", "one")
    (tmp_path / "link").symlink_to("there/book")
    put(tmp_path / "link", "two")
    assert os.readlink(tmp_path / "link") == "there/book"
    assert (tmp_path / "there" / "book" / "page").read_text() == "two"
    write_atomically(tmp_path / "there" / "file", "one")
    (tmp_path / "file").symlink_to("there/file")
    write_atomically(tmp_path / "file", "two")
    assert (os.readlink(tmp_path / "file"), (tmp_path / "there" / "file").read_text()) == ("there/file", "two")
    (tmp_path / "new").symlink_to("there/new")  # to nothing yet
    put(tmp_path / "new", "one")
    assert (tmp_path / "there" / "new" / "page").read_text() == "one"
    assert content(tmp_path / "there") == {"book", "book/page", "file", "new", "new/page"}


@pytest.mark.parametrize("name", [".", "..", "../here", "../../{}"])
def test_the_folder_one_is_in_is_refused_at_once(tmp_path, monkeypatch, name):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    name = name.format(tmp_path.name)
    with pytest.raises(InputError, match=r"is the folder that you are in|holds"), replacing_folder(name, ours):
        pytest.fail("worked")
    assert content(tmp_path) == {"here"}


def test_a_mount_point_is_refused_at_once(tmp_path, monkeypatch):
    (tmp_path / "disk").mkdir()
    monkeypatch.setattr(os.path, "ismount", lambda path: str(path) == str(tmp_path / "disk"))
    assert "is where a disk is mounted" in refusal(check_replaceable, tmp_path / "disk", ours)


def test_a_device_is_written_to_and_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    said = []
    reader = threading.Thread(target=lambda: said.append((tmp_path / "pipe").read_bytes()))
    reader.start()
    check_file(tmp_path / "pipe")
    write_atomically(tmp_path / "pipe", "hello")
    reader.join()
    assert said == [b"hello"]
    assert stat.S_ISFIFO(os.stat(tmp_path / "pipe").st_mode)


@pytest.mark.parametrize("mask", [0o077, 0o022, 0o002, 0o027])
def test_all_of_it_may_be_read_by_whom_the_umask_lets(tmp_path, mask):
    before = os.umask(mask)
    try:
        with replacing_folder(tmp_path / "a" / "book", ours) as scratch:
            (scratch / "page").mkdir()
            (scratch / "page" / "one").write_text("one")
            (scratch / "page" / "private").touch(0o600)
            (scratch / "page" / "private").chmod(0o600)
        write_atomically(tmp_path / "a" / "file", "one")
    finally:
        os.umask(before)
    for path in (tmp_path / "a").rglob("*"):
        usual = 0o777 if path.is_dir() else 0o666
        assert stat.S_IMODE(path.stat().st_mode) == usual & ~mask


def test_folders_made_on_the_way_go_again(tmp_path):
    with pytest.raises(ZeroDivisionError), replacing_folder(tmp_path / "a" / "b" / "book", ours):
        raise ZeroDivisionError
    check_place(tmp_path / "a" / "b" / "file")
    assert content(tmp_path) == set()
    put(tmp_path / "a" / "b" / "book", "one")
    assert content(tmp_path) == {"a", "a/b", "a/b/book", "a/b/book/page"}


def test_a_place_where_nothing_can_be_made_is_told_beforehand(tmp_path, monkeypatch):
    def refused(self, *arguments, **options):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr("pathlib.Path.mkdir", refused)
    assert "nothing can be written there (Permission denied)" in refusal(check_place, tmp_path / "file")


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


def killed(folder, swapped: bool):
    """What a kill leaves in the middle of writing `two`, or between the two renames of putting it in place."""
    put(folder, "one")
    with workspace(folder) as work:
        (work / "new").mkdir()
        (work / "new" / "page").write_text("two")
        if swapped:
            folder.rename(work / "old")
        work.rename(f"{work}.kept")
    os.rename(f"{work}.kept", work)


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


def test_nothing_is_written_into_a_bundle(tmp_path):
    toys.write_hollow_bundle(tmp_path / "toy")
    (tmp_path / "link").symlink_to("toy")
    before = content(tmp_path)
    for place in (tmp_path / "toy", tmp_path / "toy" / "deep" / "in", tmp_path / "link"):
        for write in (
            lambda path: write_atomically(path, "x"),
            lambda path: put(path, "x"),
            check_place,
            check_file,
        ):
            with pytest.raises(InputError, match=r"lies inside .*toy, a bundle, which may not change"):
                write(place / "x")
    assert content(tmp_path) == before
    for other in ("{}", "[]", "not JSON", '{"manifest_version": 3, "name": "an extension"}', "[" * 9999):
        (tmp_path / "manifest.json").write_text(other)
        write_atomically(tmp_path / "sub" / "x", "x")


def test_what_is_read_or_written_already_is_no_place_for_a_result(tmp_path):
    (tmp_path / "p.csv").write_text("mine")
    (tmp_path / "link").symlink_to("p.csv")
    read = ["..3.31..13.2.2..", "a\0b", None, tmp_path / "p.csv"]
    require_apart([tmp_path / "new", None, tmp_path / "other"], read)
    for path in (tmp_path / "p.csv", tmp_path / "link", tmp_path / "none" / ".." / "p.csv"):
        with pytest.raises(InputError, match="is read too, and would be lost"):
            require_apart([path], read)
    with pytest.raises(InputError, match="is to be written twice"):
        require_apart([tmp_path / "new", tmp_path / "." / "new"], read)


def test_a_file_that_cannot_be_replaced_is_named_as_it_was_given(tmp_path, monkeypatch):
    """As one that is mounted by itself, which is how containers are given a single file."""

    def mounted(old, new):
        raise OSError(16, "Device or resource busy", old, None, new)

    monkeypatch.setattr(os, "replace", mounted)
    with pytest.raises(OSError, match="busy") as caught:
        write_atomically(tmp_path / "baseline.json", "x")
    assert caught.value.filename == str(tmp_path / "baseline.json")
    assert content(tmp_path) == set()
