"""What OpenVINO compiled and kept answers like what is compiled anew, and whoever meddles with it gains nothing."""

import os
import shutil
import subprocess
import sys
from dataclasses import fields

import numpy as np
import pytest
import toys

pytest.importorskip("openvino")

from hrm_edge.runtimes import _kept, load_engine, openvino
from hrm_edge.runtimes._openvino_cache import Cache, Source


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A real network, and boards for it."""
    torch = pytest.importorskip("torch")
    from pathlib import Path

    from ungated import build_bundle

    from hrm_edge.exporters.options import ExportOptions
    from hrm_edge.models import HRM, Checkpoint, HRMConfig

    torch.manual_seed(3)
    task, changes = toys.TASK, {"hidden_size": 32, "num_heads": 2, "H_layers": 1, "L_layers": 1}
    config = HRMConfig(vocab_size=task.vocab_size, seq_len=task.seq_len, halt_max_steps=6, **changes)
    checkpoint = Checkpoint(
        HRM(config, task.position_ids).eval(), task, card="", metadata={}, content_hash="0" * 64, path=Path("small")
    )
    folder = tmp_path_factory.mktemp("exported") / "b"
    folder.mkdir()
    build_bundle(checkpoint, ExportOptions("openvino", "fp32", "host"), folder, "small")
    return folder, toys.unique_puzzles()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HRM_EDGE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "openvino"


@pytest.fixture
def compiled(monkeypatch):
    """Grows whenever a graph is compiled."""
    seen, real = [], openvino._for_rows
    monkeypatch.setattr(openvino, "_for_rows", lambda read, rows: seen.append(rows) or real(read, rows))
    return seen


def asked(bundle, boards=None):
    """All that is answered, alone and together."""
    engine = load_engine(bundle, threads=1)
    if boards is None:
        boards = toys.unique_puzzles()
    alone = [engine.solve(boards[row : row + 1], 4, "fixed") for row in range(2)]
    answers = [*alone, engine.solve(boards, 4), engine.solve(boards, 4, "verified")]
    return [getattr(each, field.name) for each in answers for field in fields(each) if field.name != "trace"]


def same(one, other):
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        assert a.dtype == b.dtype
        assert a.tobytes() == b.tobytes()


def test_answers_are_to_the_bit_those_of_a_graph_that_is_compiled_anew(exported, cache, compiled, monkeypatch):
    bundle, boards = exported
    monkeypatch.setenv("HRM_EDGE_CACHE", os.devnull)
    anew = asked(bundle, boards)
    most = len(compiled)
    assert most >= 3  # start and segment for a row, and for any number
    monkeypatch.setenv("HRM_EDGE_CACHE", str(cache.parent))
    same(asked(bundle, boards), anew)
    assert len(compiled) == 2 * most
    same(asked(bundle, boards), anew)
    assert len(compiled) == 2 * most  # nothing, this time
    assert not cache.stat().st_mode & 0o077
    assert all(not file.stat().st_mode & 0o077 for file in cache.iterdir())


@pytest.mark.parametrize("what", ["cut", "flipped", "swapped", "garbage", "empty", "writable", "link", "folder"])
def test_what_was_meddled_with_is_compiled_anew(tmp_path, cache, compiled, what):
    bundle = toys.write_toy_bundle(tmp_path / "b", "openvino")
    wanted = asked(bundle)
    files = sorted(cache.iterdir())
    most = len(compiled)
    assert len(files) == most
    contents = [file.read_bytes() for file in files]
    for number, (file, content) in enumerate(zip(files, contents, strict=True)):
        if what == "cut":
            file.write_bytes(content[: len(content) // 2])
        elif what == "flipped":
            file.write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
        elif what == "swapped":
            file.write_bytes(contents[number - 1])
        elif what == "garbage":
            file.write_bytes(os.urandom(500))
        elif what == "empty":
            file.write_bytes(b"")
        elif what == "writable":
            file.chmod(0o666)
        elif what == "link":
            shutil.move(file, tmp_path / file.name)
            file.symlink_to(tmp_path / file.name)
    if what == "folder":
        cache.chmod(0o777)
    same(asked(bundle), wanted)
    assert len(compiled) == 2 * most
    same(asked(bundle), wanted)
    assert len(compiled) == (3 if what == "folder" else 2) * most  # the others were written anew


def test_a_blob_that_is_whole_and_that_openvino_does_not_take_is_compiled_anew(tmp_path, cache, compiled):
    """As after a change of OpenVINO's that its version does not tell."""
    bundle = toys.write_toy_bundle(tmp_path / "b", "openvino")
    wanted = asked(bundle)
    most = len(compiled)
    for file, content in zip(
        cache.iterdir(), (b"", b"[]\n", b'[["x"], []]\nno blob', b"{\n", b"[[], []]\n"), strict=False
    ):
        _kept.keep(file, content)
    same(asked(bundle), wanted)
    assert len(compiled) == 2 * most


def test_another_graph_and_other_settings_have_blobs_of_their_own(tmp_path, cache, compiled):
    path = tmp_path / "b"
    toys.write_toy_bundle(path, "openvino", "graph")
    before = load_engine(path, threads=1), len(list(cache.iterdir()))
    load_engine(path, threads=2)
    assert len(list(cache.iterdir())) == 2 * before[1]
    file = path / "model.xml"
    openvino.BACKEND.load_graph(file, 1, keep=True)
    assert len(list(cache.iterdir())) == 2 * before[1]
    file.write_text(file.read_text() + "\n")
    openvino.BACKEND.load_graph(file, 1, keep=True)
    assert len(list(cache.iterdir())) == 3 * before[1]
    openvino.BACKEND.load_graph(file, 4)  # what an export only tries is not kept
    assert len(list(cache.iterdir())) == 3 * before[1]


def test_what_was_used_last_is_kept(tmp_path):
    for number in range(9):
        _kept.keep(tmp_path / f"{number}", b"x")
        os.utime(tmp_path / f"{number}", (number, number))
    os.utime(tmp_path / "2")
    for name in ("letter", "writing-cut"):
        (tmp_path / name).write_text("x")
        os.utime(tmp_path / name, (1, 1))
    (tmp_path / "gone").symlink_to("nowhere")
    _kept.only_newest(tmp_path, 3, "[0-9]")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["2", "7", "8", "gone", "letter"]


@pytest.mark.parametrize("linked", [False, True])
def test_a_cache_folder_with_other_things_in_it_loses_none(tmp_path, cache, linked):
    cache.parent.mkdir()
    other = tmp_path / "letters" if linked else cache
    other.mkdir(0o700)
    letters = [other / f"{number}.txt" for number in range(99)]
    for letter in letters:
        letter.write_text("x")
    if linked:
        cache.symlink_to(other)
    load_engine(toys.write_toy_bundle(tmp_path / "b", "openvino"), threads=1)
    assert all(letter.exists() for letter in letters)
    assert linked == (len(list(other.iterdir())) == len(letters))  # nothing is written where a link leads


def test_weights_that_are_written_over_meanwhile_are_not_kept_under_the_name_of_others(exported, cache, tmp_path):
    bundle = shutil.copytree(exported[0], tmp_path / "b")
    file = next(bundle.glob("*.bin"))
    core, imported = openvino.core(), openvino.imported()
    source = Source(file.with_suffix(".xml"))
    kept = Cache(core, source, imported.__version__, {}, True)
    with file.open("r+b") as weights:
        weights.seek(file.stat().st_size // 2)
        weights.write(b"\1\2")
    model = core.compile_model(source.model(core, imported.Tensor), "CPU", {})
    kept.write(True, model, [], [])
    assert not list(cache.iterdir())


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no such pipes")
def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe", 0o600)
    assert _kept.read_private(tmp_path / "pipe") is None


def test_what_would_fill_the_memory_is_not_read(tmp_path):
    with open(os.open(tmp_path / "large", os.O_CREAT | os.O_WRONLY, 0o600), "wb") as file:
        file.truncate(2**40)
    assert _kept.read_private(tmp_path / "large") is None


def test_what_is_compiled_is_what_was_hashed(tmp_path):
    """A file that comes in its place meanwhile is not compiled under its name."""
    bundle = toys.write_toy_bundle(tmp_path / "b", "openvino", "graph")
    other = toys.write_toy_bundle(tmp_path / "c", "openvino", "graph", 1)
    core, source = openvino.core(), Source(bundle / "model.xml")
    wanted = core.read_model(str(bundle / "model.xml"))
    for name in ("model.xml", "model.bin"):
        if (other / name).exists():
            os.replace(other / name, bundle / name)
    read = source.model(core, openvino.imported().Tensor)
    assert [str(item.partial_shape) for item in read.inputs] == [str(item.partial_shape) for item in wanted.inputs]


def test_the_converter_is_imported_for_who_asks_and_tells_nobody():
    script = (
        "import sys\n"
        "from hrm_edge.runtimes.openvino import imported\n"
        "openvino = imported()\n"
        "assert 'openvino.tools.ovc' not in sys.modules\n"
        "assert callable(openvino.convert_model)\n"
        "from openvino.tools.ovc import convert_model\n"
        "assert openvino.convert_model is convert_model\n"
        "assert 'openvino_telemetry' not in sys.modules\n"
        "assert not hasattr(openvino, 'nothing')\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, env={**os.environ, "HOME": os.devnull})


def test_boards_differ():
    """So that what is compared above is more than one answer."""
    assert len(np.unique(toys.unique_puzzles(), axis=0)) > 1
