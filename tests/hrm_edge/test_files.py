"""Files and folders are replaced whole, by one writer, where they are ours; readers change nothing."""

import os
import stat
import threading

import pytest
import toys
from books import content, killed, ours, put, refusal

from hrm_edge import files
from hrm_edge.errors import InputError
from hrm_edge.files import (
    check_file,
    check_place,
    check_replaceable,
    files_in,
    is_system_file,
    recover,
    replacing_folder,
    require_apart,
    write_atomically,
)
from hrm_edge.workspace import standing, workspace_of

SYSTEM = (".DS_Store", "._weights.bin", "Thumbs.db", "thumbs.db", "desktop.ini", "Desktop.ini", "ehthumbs.db")


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


# -- what is no place ----------------------------------------------------------------------------------


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
