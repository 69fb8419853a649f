"""`hrm-edge export -o`: what may be replaced, what is refused before any work, and what a signal leaves."""

import json
import os
import shutil
import signal
import time

import pytest
import toys
from forked import Forked
from small_networks import TASK, network

from hrm_edge.bundle import Gate, open_bundle
from hrm_edge.cli import main
from hrm_edge.models import save_checkpoint

pytest.importorskip("onnxruntime")

UNGATED = Gate(ran=False, passed=None, reason="toy")


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    held_out = {"seed": 5, "difficulty": "ordinary", "n": 40}
    folder = tmp_path_factory.mktemp("checkpoints") / "small"
    return save_checkpoint(folder, network(H_cycles=1, L_cycles=1), TASK.name, "card", {"held_out": held_out})


@pytest.fixture
def export(small, tmp_path, monkeypatch, one_trace):
    """Exit code of an export without a gate, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def export(*arguments) -> int:
        with pytest.raises(SystemExit) as stop:
            main(["export", str(small), "--no-gate", *map(str, arguments)])
        return stop.value.code or 0

    return export


@pytest.fixture
def no_work(monkeypatch):
    """Nothing may be traced."""
    from hrm_edge.exporters import build

    for name in ("trace_start", "trace_segment"):
        monkeypatch.setattr(build, name, lambda model: pytest.fail("worked"))


def everything(folder):
    return {path.relative_to(folder): path.is_file() and path.read_bytes() for path in folder.rglob("*")}


def extension(folder):
    folder.mkdir()
    (folder / "manifest.json").write_text(json.dumps({"manifest_version": 3, "name": "mine", "version": "1"}))
    (folder / "background.js").write_text("console.log('mine')")


def look_alike(folder):
    """Another program's, with the keys of ours and files that it lists."""
    folder.mkdir()
    (folder / "a.bin").write_bytes(b"a")
    entry = {"sha256": "0" * 64, "size": 1}
    (folder / "manifest.json").write_text(
        json.dumps({"format_version": 1, "files": {"a.bin": entry}, "digest": "0"})
    )


def bundle_with(change):
    def make(folder):
        toys.write_hollow_bundle(folder, gate=UNGATED)
        change(folder)

    return make


FOREIGN = {
    "browser extension": (extension, "manifest.json"),
    "look-alike": (look_alike, "manifest.json"),
    "notes in a bundle": (bundle_with(lambda f: (f / "notes.txt").write_text("mine")), "'notes.txt'"),
    "hidden file in a bundle": (bundle_with(lambda f: (f / ".gitignore").write_text("mine")), "'.gitignore'"),
    "folder in a bundle": (
        bundle_with(lambda f: ((f / "sub").mkdir(), (f / "sub" / "a").write_text("mine"))),
        "'sub/a'",
    ),
    "changed file": (bundle_with(lambda f: (f / "start.onnx").write_text("mine")), "'start.onnx' was changed"),
    "changed manifest": (
        bundle_with(lambda f: (f / "manifest.json").write_text((f / "manifest.json").read_text() + " ")),
        "manifest.json",
    ),
    "link in a bundle": (bundle_with(lambda f: (f / "link").symlink_to("/etc/passwd")), "'link' is a link"),
    "other folder": (lambda f: (f.mkdir(), (f / "dear.txt").write_text("mine")), "'dear.txt'"),
    "empty manifest": (lambda f: (f.mkdir(), (f / "manifest.json").write_text("")), "manifest.json"),
}


@pytest.mark.parametrize(("make", "named"), FOREIGN.values(), ids=FOREIGN)
def test_what_is_not_wholly_ours_is_refused_before_any_work(export, no_work, tmp_path, capsys, make, named):
    make(tmp_path / "there")
    before = everything(tmp_path)
    assert export("-o", "there") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "there: holds something else than a bundle" in line
    assert named in line
    assert everything(tmp_path) == before


def test_a_bundle_of_ours_is_replaced_with_what_the_system_left_in_it(export, tmp_path):
    toys.write_hollow_bundle(tmp_path / "b", gate=UNGATED)
    for name in ("Thumbs.db", ".DS_Store", "._model.onnx", "desktop.ini"):
        (tmp_path / "b" / name).write_bytes(b"x")
    assert export("-o", "b") == 0
    assert open_bundle(tmp_path / "b").manifest.name == "b"
    assert [path.name for path in tmp_path.iterdir()] == ["b"]
    (tmp_path / "b" / "model.onnx").unlink()  # what is left is ours
    assert export("-o", "b") == 0
    open_bundle(tmp_path / "b")


@pytest.mark.parametrize("stray", [None, "Thumbs.db", ".DS_Store", "._manifest.json", "notes.txt", "start.onnx"])
def test_a_gated_bundle_is_replaced_by_a_gated_one_alone(export, no_work, tmp_path, capsys, stray):
    toys.write_hollow_bundle(tmp_path / "b")
    if stray is not None:
        (tmp_path / "b" / stray).write_bytes(b"x")
    before = everything(tmp_path)
    assert export("-o", "b") == 2
    assert "b: holds" in capsys.readouterr().err
    assert everything(tmp_path) == before


def test_a_gate_that_passes_while_another_works_is_not_overrun(small, tmp_path, one_trace):
    """What stood there when the work began is not what stands there when it ends."""
    from hrm_edge.errors import InputError
    from hrm_edge.export import GateOptions, export_bundle
    from hrm_edge.exporters.options import ExportOptions
    from hrm_edge.models import load_checkpoint

    def say(line):
        if not (tmp_path / "b").exists():
            shutil.copytree(toys.write_hollow_bundle(tmp_path / "made"), tmp_path / "b")

    options = ExportOptions.for_target("onnx", "fp32")
    with pytest.raises(InputError, match="holds a bundle that passed its gate"):
        export_bundle(load_checkpoint(small), options, tmp_path / "b", GateOptions(None), say=say)
    assert open_bundle(tmp_path / "b").manifest.name == "toy"
    assert {path.name for path in tmp_path.iterdir()} == {"b", "made"}


def test_one_that_was_not_judged_takes_no_gated_ones_place(small, tmp_path, monkeypatch, capsys, one_trace):
    """What was asked for was a gate, and so only its end tells."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HRM_EDGE_CACHE", str(tmp_path / "cache"))
    toys.write_hollow_bundle(tmp_path / "b")
    before = everything(tmp_path / "b")
    with pytest.raises(SystemExit) as stop:
        main(["export", str(small), "-o", "b", "--gate-puzzles", "4", "--max-drop", "30", "--not-judged"])
    assert stop.value.code == 2
    assert "holds a bundle that passed its gate" in capsys.readouterr().err
    assert everything(tmp_path / "b") == before


def test_the_folder_behind_a_link_is_replaced_and_the_link_stays(export, tmp_path):
    toys.write_hollow_bundle(tmp_path / "real", gate=UNGATED)
    (tmp_path / "link").symlink_to("real")
    assert export("-o", "link") == 0
    assert os.readlink(tmp_path / "link") == "real"
    assert "model.onnx" in open_bundle(tmp_path / "real").manifest.files
    assert {path.name for path in tmp_path.iterdir()} == {"link", "real"}


@pytest.mark.parametrize("place", [".", "{}", "../{name}", "./."])
def test_the_folder_one_is_in_is_refused_at_once(export, no_work, tmp_path, capsys, place):
    assert export("-o", place.format(tmp_path, name=tmp_path.name)) == 2
    assert "is the folder that you are in, which cannot be replaced" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_people_who_may_read_one_file_may_read_all(export, tmp_path):
    before = os.umask(0o077)
    try:
        assert export("-o", "b", "--target", "openvino") == 0
    finally:
        os.umask(before)
    modes = {path.stat().st_mode & 0o777 for path in (tmp_path / "b").rglob("*") if path.is_file()}
    assert (modes, (tmp_path / "b").stat().st_mode & 0o777) == ({0o600}, 0o700)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
@pytest.mark.parametrize("before", [False, True])
def test_a_signal_leaves_what_stood_there(small, tmp_path, number, before):
    if before:
        toys.write_hollow_bundle(tmp_path / "place" / "b")
    stood = everything(tmp_path / "place") if before else {}
    process = Forked.command(tmp_path / "said", ["export", small, "-o", tmp_path / "place" / "b"])
    while not (tmp_path / "place" / ".b.hrm-edge" / "new").exists():
        assert process.poll() is None, (tmp_path / "said").read_text()
        time.sleep(0.02)
    process.send_signal(number)
    assert process.wait() == 128 + number
    assert (tmp_path / "said").read_text().splitlines()[-1] == "hrm-edge: stopped"
    assert "Traceback" not in (tmp_path / "said").read_text()
    assert (everything(tmp_path / "place") if before else set(tmp_path.iterdir())) == (
        stood if before else {tmp_path / "said"}
    )


@pytest.mark.slow
def test_a_second_export_to_the_same_place_is_refused_at_once(small, tmp_path, capsys):
    process = Forked.command(tmp_path / "said", ["export", small, "--no-gate", "-o", tmp_path / "b"])
    while not (tmp_path / ".b.hrm-edge" / "new").exists():
        assert process.poll() is None, (tmp_path / "said").read_text()
        time.sleep(0.02)
    with pytest.raises(SystemExit) as stop:
        main(["export", str(small), "--no-gate", "-o", str(tmp_path / "b")])
    assert stop.value.code == 2
    assert f"another hrm-edge (process {process.process.pid}) is writing there" in capsys.readouterr().err
    assert process.wait() == 0
    open_bundle(tmp_path / "b")
    assert {path.name for path in tmp_path.iterdir()} == {"b", "said"}
