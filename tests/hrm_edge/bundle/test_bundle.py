"""Bundles open whole and untouched or not at all, and every refusal is one line."""

import dataclasses
import hashlib
import json
import os
import shutil

import pytest
import toys
from bundle_refusals import refusal, resealed
from hypothesis import given, settings
from hypothesis import strategies as st

from hrm_edge.bundle import Gate, Manifest, TensorSpec, open_bundle, seal_bundle
from hrm_edge.errors import InputError
from hrm_edge.records import from_json


def test_what_was_written_is_what_is_read(bundle):
    opened = open_bundle(bundle)
    assert opened.manifest.task == "sudoku-4x4"
    assert opened.manifest.inputs["segment"][0] == TensorSpec("z_H", "float32", ("batch", 16, 4))
    assert set(opened.manifest.files) == {"start.onnx", "segment.onnx", "accuracy.json"}
    assert dataclasses.asdict(opened.accuracy)["n"] == toys.accuracy()["n"]
    assert opened.ungated_warning is None
    assert opened.size == sum(path.stat().st_size for path in bundle.iterdir() if path.name != "manifest.json")
    assert from_json(Manifest, json.dumps(dataclasses.asdict(opened.manifest)), "here") == opened.manifest


def test_same_content_same_bytes(tmp_path):
    one, two = (toys.write_hollow_bundle(tmp_path / name) for name in ("one", "two"))
    for path in one.iterdir():
        assert path.read_bytes() == (two / path.name).read_bytes()


def test_a_bundle_may_move_and_be_reached_through_a_link(bundle, tmp_path):
    shutil.copytree(bundle, tmp_path / "copy")
    (tmp_path / "link").symlink_to(tmp_path / "copy")
    assert open_bundle(str(tmp_path / "link")).manifest.name == "toy"


def test_sealed_again_after_the_gate(tmp_path):
    folder = tmp_path / "b"
    folder.mkdir()
    for name in ("start.onnx", "segment.onnx"):
        (folder / name).write_bytes(b"graph")
    seal_bundle(folder, toys.manifest(gate=Gate(False, None, "not yet")))
    assert open_bundle(folder).accuracy is None
    assert "never checked (not yet)" in open_bundle(folder).ungated_warning
    seal_bundle(folder, toys.manifest(), toys.accuracy(n=9))
    assert open_bundle(folder).accuracy.n == 9
    assert open_bundle(folder).ungated_warning is None


def test_nothing_is_published_when_writing_fails(tmp_path):
    def produce(folder):
        (folder / "start.onnx").write_bytes(b"half")
        raise RuntimeError("disk full")

    with pytest.raises(RuntimeError):
        toys.write_bundle(tmp_path / "b", toys.manifest(), produce)
    assert list(tmp_path.iterdir()) == []


def test_a_manifest_that_would_not_open_is_not_written(tmp_path):
    with pytest.raises(InputError, match="precision must be fp32 or fp16 or bf16 or int8"):
        toys.write_hollow_bundle(tmp_path / "b", precision="fp8")
    assert list(tmp_path.iterdir()) == []


def test_what_a_mac_leaves_in_a_folder_is_no_damage(bundle):
    (bundle / ".DS_Store").write_bytes(b"Bud1")
    assert ".DS_Store" not in open_bundle(bundle).manifest.files


@pytest.mark.parametrize("name", ["._segment.onnx", "Thumbs.db", "desktop.ini"])
def test_what_a_system_leaves_in_a_folder_is_read_by_nobody(bundle, name):
    (bundle / name).write_bytes(b"x")
    opened = open_bundle(bundle)
    assert name not in opened.manifest.files
    assert name not in seal_bundle(bundle, opened.manifest, dataclasses.asdict(opened.accuracy)).files

    def listed(content):
        content["files"][name] = {"sha256": hashlib.sha256(b"x").hexdigest(), "size": 1}
        content["graphs"]["segment"] = name

    resealed(bundle, listed)
    assert repr(name) in refusal(bundle)


def test_a_replacement_that_was_cut_off_is_read_where_it_stands(bundle):
    work = bundle.parent / ".b.hrm-edge"
    work.mkdir()
    bundle.rename(work / "old")
    assert "no such bundle folder" in refusal(bundle)  # nothing says that it is ours
    (work / "owner").write_text(
        "hrm-edge writes beside this folder; it may be deleted when that has ended: process 1"
    )
    assert open_bundle(bundle).manifest.name == "toy"
    assert sorted(path.name for path in work.iterdir()) == ["old", "owner"]


# -- what is no bundle at all ----------------------------------------------------------------------------


def test_no_such_folder(tmp_path):
    assert "no such bundle folder" in refusal(tmp_path / "nothing")


def test_a_file(bundle):
    assert "is a file; give the bundle's folder" in refusal(bundle / "start.onnx")


def test_an_empty_folder(tmp_path):
    assert "is not a bundle" in refusal(tmp_path)


def test_a_checkpoint_is_told_what_to_do(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    assert f"is a checkpoint, not a bundle; first run `hrm-edge export {tmp_path}" in refusal(tmp_path)


@pytest.mark.parametrize("name", ["a\0b", "x" * 5000, "a\nb"])
def test_names_no_file_can_have(name):
    refusal(name)


# -- what was done to it ---------------------------------------------------------------------------------


def test_a_flipped_byte(bundle):
    data = bytearray((bundle / "segment.onnx").read_bytes())
    data[3] ^= 1
    (bundle / "segment.onnx").write_bytes(data)
    assert "segment.onnx: its content was changed (SHA-256 differs)" in refusal(bundle)


def test_a_cut_file(bundle):
    os.truncate(bundle / "segment.onnx", 5)
    assert "has 5 bytes instead of 240" in refusal(bundle)


@pytest.mark.parametrize("target", ["start.onnx", "/etc/passwd", "nowhere"])
def test_links(bundle, target):
    (bundle / "segment.onnx").unlink()
    (bundle / "segment.onnx").symlink_to(target)
    assert "'segment.onnx' is a link" in refusal(bundle)


def test_a_linked_folder(bundle, tmp_path):
    (bundle / "more").symlink_to(tmp_path)
    assert "is a link" in refusal(bundle)


def test_a_linked_manifest(bundle):
    (bundle / "manifest.json").rename(bundle.parent / "elsewhere.json")
    (bundle / "manifest.json").symlink_to(bundle.parent / "elsewhere.json")
    assert "is a link" in refusal(bundle)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_does_not_hang_it(bundle):
    os.mkfifo(bundle / "pipe")
    assert "not a plain file" in refusal(bundle)


@pytest.mark.parametrize("name", ["extra.onnx", "sub/extra.onnx"])
def test_an_unlisted_file(bundle, name):
    (bundle / name).parent.mkdir(exist_ok=True)
    (bundle / name).write_bytes(b"x")
    assert "is not listed in its manifest" in refusal(bundle)


@pytest.mark.parametrize("name", ["start.onnx", "accuracy.json"])
def test_a_missing_file(bundle, name):
    (bundle / name).unlink()
    assert f"{name!r} is missing" in refusal(bundle)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_no_permission(bundle):
    (bundle / "start.onnx").chmod(0)
    assert "Permission denied" in refusal(bundle)


# -- fuzzing ---------------------------------------------------------------------------------------------


@settings(max_examples=150)
@given(data=st.data())
def test_any_flipped_byte_in_any_file(shared, data):
    name = data.draw(st.sampled_from(sorted(path.name for path in shared.iterdir())))
    before = (shared / name).read_bytes()
    where = data.draw(st.integers(0, len(before) - 1))
    mask = data.draw(st.integers(1, 255))
    try:
        (shared / name).write_bytes(before[:where] + bytes([before[where] ^ mask]) + before[where + 1 :])
        refusal(shared)
    finally:
        (shared / name).write_bytes(before)
    open_bundle(shared)


@settings(max_examples=150)
@given(data=st.data())
def test_any_cut_or_lengthened_file(shared, data):
    name = data.draw(st.sampled_from(sorted(path.name for path in shared.iterdir())))
    before = (shared / name).read_bytes()
    keep = data.draw(st.integers(0, len(before)))
    tail = data.draw(st.binary(max_size=20))
    if before[:keep] + tail == before:
        return
    try:
        (shared / name).write_bytes(before[:keep] + tail)
        refusal(shared)
    finally:
        (shared / name).write_bytes(before)
