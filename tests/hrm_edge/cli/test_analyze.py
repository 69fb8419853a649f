"""`hrm-edge analyze` from the outside: bundles, files by their endings, and one line for what is wrong."""

import json
import sys
from pathlib import Path

import commands
import pytest
from toys import TASK, write_toy_bundle

from hrm_edge.bundle import Gate
from hrm_edge.data.puzzles import generate_puzzles, save_puzzles

pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("analyze")
    for loop in ("host", "graph"):
        write_toy_bundle(folder / loop, loop=loop)
    save_puzzles(generate_puzzles(TASK, 12, seed=0), folder / "puzzles.csv")
    return folder


def run(capsys: pytest.CaptureFixture, *arguments: object) -> tuple[int, str, str]:
    return commands.run(capsys, "analyze", *arguments)


def test_segments_of_bundles_with_both_loops(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    files = [tmp_path / f"s{ending}" for ending in (".png", ".svg", ".json", ".md")]
    outputs = [part for file in files for part in ("-o", file)]
    data = ("--data", folder / "puzzles.csv", "--segments", "1,2", "--retries", 2)
    code, out, _ = run(capsys, "segments", folder / "host", folder / "graph", *data, *outputs, "--json")
    assert code == 0
    first, second = json.loads(out)["results"]
    assert first["by_segments"] == second["by_segments"]
    assert first["by_segments_verified"] == second["by_segments_verified"]
    assert json.loads(files[2].read_text()) == json.loads(out)
    assert files[0].read_bytes().startswith(b"\x89PNG")
    assert files[3].read_text().count("\n| ") == 3  # the rule under the head, and a row each


def test_halting_of_a_bundle(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    file = tmp_path / "h.md"
    data = ("--data", folder / "puzzles.csv", "--n", 10)
    code, out, _ = run(capsys, "halting", folder / "host", *data, "-o", file)
    assert code == 0
    assert "q_halt as a predictor" in out
    assert "| all | 10 |" in file.read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("segments", "host", "--data", "puzzles.csv", "-o", "x.pdf"), "x.pdf: end it in .png, .svg, .json or .md"),
        (("segments", "host", "--data", "puzzles.csv", "--segments", "1,b"), "--segments 1,b: expected whole"),
        (("halting", "host"), "a bundle brings no puzzles with it"),
        (("participation",), "give a checkpoint, or --random-weights paper"),
        (("participation", "--random-weights", "huge"), "unknown size; choose paper"),
        (("halting", "nowhere", "-o", "puzzles.csv/x.json"), "cannot be written, as puzzles.csv is no folder"),
        (("segments", "nowhere", "-o", "puzzles.csv/a/x.md"), "cannot be written, as puzzles.csv is no folder"),
        (("participation", "nowhere", "-o", "."), ".: end it in"),
        (("ablations", "-o", "puzzles.csv", "--steps", "1"), "cannot be written, as puzzles.csv is no folder"),
        (("ablations", "-o", "runs"), "nothing says when to stop"),
    ],
)
def test_what_is_wrong_is_one_line(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    arguments: tuple[str, ...],
    message: str,
) -> None:
    monkeypatch.chdir(folder)
    code, _, err = run(capsys, *arguments)
    assert code == 2
    assert message in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("command", [("segments", "x"), ("halting", "x"), ("participation", "x"), ("ablations",)])
def test_a_plot_without_matplotlib_is_refused_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, command: tuple[str, ...]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    code, _, err = run(capsys, *command, "-o", tmp_path / ("runs" if command == ("ablations",) else "x.svg"))
    assert code == 2
    assert "a plot needs matplotlib, which is not installed" in err  # and not that there is no model x
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("command", ["segments", "halting"])
def test_a_bundle_that_was_never_checked_warns(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture, command: str
) -> None:
    write_toy_bundle(tmp_path / "unchecked", gate=Gate(False, None))
    for bundle, warned in ((folder / "host", False), (tmp_path / "unchecked", True)):
        code, out, err = run(capsys, command, bundle, "--data", folder / "puzzles.csv", "--json")
        assert code == 0
        assert ("warning: " in err) == warned
        assert json.loads(out)
