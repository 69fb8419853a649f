"""Files and places: texts with a byte-order mark wherever one is read, names of any bytes, no home."""

import json
from pathlib import Path

import pytest

from hrm_edge import files
from hrm_edge.data.puzzles import generate_puzzles, load_puzzles, save_puzzles
from hrm_edge.errors import InputError
from hrm_edge.files import cache_folder, read_text, require_utf8
from hrm_edge.tasks import get_task

TASK = get_task("sudoku-4x4")
MARKED = ["utf-8-sig", "utf-16"]


def mark(file: Path, encoding: str) -> None:
    """Save it as an editor would that writes byte-order marks."""
    file.write_text(file.read_text("utf-8"), encoding)


@pytest.mark.parametrize("encoding", ["utf-8", *MARKED])
def test_a_text_is_read_whatever_its_mark(tmp_path, encoding):
    (tmp_path / "t").write_text("ä\n", encoding)
    assert read_text(tmp_path / "t") == "ä\n"


@pytest.mark.parametrize("encoding", MARKED)
def test_puzzle_sets(tmp_path, encoding):
    puzzles = generate_puzzles(TASK, 3, 0)
    for name in ("p.csv", "folder"):
        save_puzzles(puzzles, tmp_path / name)
    (tmp_path / "p.txt").write_text("\n".join(TASK.format_many(puzzles.questions)))
    for file in ("p.csv", "p.txt", "folder/dataset.json"):
        mark(tmp_path / file, encoding)
    for name in ("p.csv", "p.txt", "folder"):
        assert load_puzzles(tmp_path / name, TASK).content_hash() == puzzles.content_hash()


@pytest.mark.parametrize("encoding", MARKED)
def test_puzzles_on_standard_input(monkeypatch, encoding):
    import io

    from hrm_edge.solve.answer import read_puzzles

    puzzles = generate_puzzles(TASK, 3, 0)
    text = "\n".join(TASK.format_many(puzzles.questions))
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text.encode(encoding))))
    (read,) = read_puzzles(["-"], TASK)
    assert (read.questions == puzzles.questions).all()


@pytest.mark.parametrize("encoding", MARKED)
def test_arc_sets_and_names(tmp_path, encoding):
    from hrm_edge.arc.collection import from_json
    from hrm_edge.data.public_layout import read_names

    pair = {"input": [[1, 2]], "output": [[2, 1]]}
    for part in ("training", "evaluation"):
        (tmp_path / part).mkdir()
        file = tmp_path / part / "a.json"
        file.write_text(json.dumps({"train": [pair], "test": [pair]}))
        mark(file, encoding)
    assert [task.name for task in from_json(tmp_path).training] == ["a"]
    (tmp_path / "identifiers.json").write_text('["<blank>", "a"]', encoding)
    assert read_names(tmp_path) == ["<blank>", "a"]


@pytest.mark.parametrize("encoding", MARKED)
def test_baselines(tmp_path, encoding):
    from hrm_edge.check.baseline import BundleEntry, read_baseline, write_baseline

    file = tmp_path / "baseline.json"
    write_baseline(file, {("a", "b"): BundleEntry("0" * 64, "1" * 64, 1.5, "learned", 16, None, {})})
    plain = read_baseline(file, "update")
    mark(file, encoding)
    assert read_baseline(file, "update") == plain


@pytest.mark.parametrize("encoding", MARKED)
def test_recipes_configs_and_lists_of_identifiers(tmp_path, encoding):
    pytest.importorskip("torch")
    from hrm_edge.exporting import _identifiers
    from hrm_edge.models.public import read_config
    from hrm_edge.trainer import load_recipe

    (tmp_path / "r.toml").write_text("[train]\nlr = 0.25\nsteps = 1\n", encoding)
    assert load_recipe("sudoku-4x4", "tiny", tmp_path / "r.toml")[1].lr == 0.25
    (tmp_path / "all_config.yaml").write_text("arch:\n  name: hrm.hrm_act_v1@X\n  hidden_size: 8\n", encoding)
    assert read_config(tmp_path / "all_config.yaml")[1]["hidden_size"] == 8
    (tmp_path / "ids").write_text("0-2,5", encoding)
    assert _identifiers(str(tmp_path / "ids"), TASK).tolist() == [0, 1, 2, 5]


@pytest.mark.parametrize("encoding", MARKED)
def test_checkpoints(tmp_path, encoding):
    pytest.importorskip("torch")
    from small_networks import TASK as task
    from small_networks import network

    from hrm_edge.models import load_checkpoint, save_checkpoint

    folder = save_checkpoint(tmp_path / "c", network(), task.name, "card")
    plain = load_checkpoint(folder)
    mark(folder / "config.json", encoding)
    assert load_checkpoint(folder).content_hash == plain.content_hash


def test_a_name_that_no_library_can_open_is_refused_in_a_line(tmp_path):
    require_utf8(tmp_path / "ä")
    with pytest.raises(InputError, match="is not a UTF-8 name") as error:
        require_utf8(tmp_path / "p\udcff")
    assert str(error.value).isprintable()


def test_a_checkpoint_and_a_bundle_of_such_a_name(tmp_path):
    pytest.importorskip("torch")
    pytest.importorskip("onnxruntime")
    import toys
    from small_networks import TASK as task
    from small_networks import network

    from hrm_edge.models import load_checkpoint, save_checkpoint
    from hrm_edge.runtimes import load_engine

    folder = save_checkpoint(tmp_path / "c", network(), task.name, "card")
    with pytest.raises(InputError, match="is not a UTF-8 name"):
        load_checkpoint(folder.rename(tmp_path / "c\udcff"))
    bundle = toys.write_toy_bundle(tmp_path / "b")
    with pytest.raises(InputError, match="is not a UTF-8 name"):
        load_engine(bundle.rename(tmp_path / "b\udcff"))


def test_puzzles_of_a_file_of_such_a_name_are_written(tmp_path):
    puzzles = generate_puzzles(TASK, 2, 0)
    (tmp_path / "p\udcff.txt").write_text("\n".join(TASK.format_many(puzzles.questions)))
    read = load_puzzles(tmp_path / "p\udcff.txt", TASK)
    for name in ("c.csv", "folder"):
        save_puzzles(read, tmp_path / name)
        assert load_puzzles(tmp_path / name, TASK).content_hash() == puzzles.content_hash()


def test_nobodys_home_has_no_cache_and_no_traceback(monkeypatch, capsys):
    """As in a container whose user has no name, and no HOME."""
    from hrm_edge.measure.cache import cache_file, cached_answers, read_answers
    from hrm_edge.runtimes import Answers

    def nobody():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(files.Path, "home", nobody)
    monkeypatch.delenv("HRM_EDGE_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    import numpy as np

    puzzles = generate_puzzles(TASK, 1, 0)
    answers = Answers(puzzles.answers, np.ones(1, np.int32), np.ones(1, bool), np.zeros((1, 2), np.float32))
    assert cached_answers("reference", {"a": 1}, puzzles, lambda: answers) is answers
    assert "not cached" in capsys.readouterr().err
    assert read_answers(cache_file("reference", {"a": 1}, puzzles), puzzles) is None
    assert not cache_folder().exists()
