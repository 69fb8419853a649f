"""Streams as people have them: narrow, closed, full or broken; names of any bytes; text of strangers."""

import csv
import io
import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import toys
from commands import run
from sample_report import report as sample

from hrm_edge.bundle import Gate, seal_bundle
from hrm_edge.cli import main
from hrm_edge.data.overlap import classes
from hrm_edge.report import write_report

pytest.importorskip("onnxruntime")

TASK = toys.TASK
_PROPER = np.stack([row for row in toys.puzzles(20) if TASK.count_solutions(row) == 1])
PUZZLES = _PROPER[np.sort(np.unique(classes(TASK, _PROPER)[0]))]  # each once, up to symmetry
LINES = [TASK.format(row) for row in PUZZLES]
HOSTILE = "[/hard] [hard]\x1b]8;;x\x07\x1b[2J\r\n::error file=x::forged\u202e\u200b\u2028 ##[error]y <b>|`z`"
SHOWN = r"[/hard] [hard]\x1b]8;;x\x07\x1b[2J\r\n\x3a:error file=x::forged\u202e\u200b\u2028"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Bundles and puzzle files."""
    folder = tmp_path_factory.mktemp("streams")
    toys.write_toy_bundle(folder / "toy")
    toys.write_toy_bundle(folder / "stranger", gate=Gate(False, None, HOSTILE), name=HOSTILE)
    (folder / "p.txt").write_text("".join(f"{line}\n" for line in LINES))
    with open(folder / "sources.csv", "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["source", "question"])
        rows.writerows(zip([HOSTILE, HOSTILE, "[/hard]", "[/hard]"], LINES[:4], strict=True))
    return folder


def shell(folder, command: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """What a shell makes of `hrm-edge …` with its redirections."""
    script = command.replace("hrm-edge", f"'{sys.executable}' -m hrm_edge.cli")
    variables = {**os.environ, **environment}
    return subprocess.run(["sh", "-c", script], cwd=folder, env=variables, capture_output=True, check=False)


@pytest.mark.parametrize(
    ("command", "encoding"),
    [
        ("models sudoku-9x9", "ascii"),
        ("solve toy p.txt", "cp1252"),
        ("eval toy --data p.txt", "ascii"),
        ("data show p.txt --task sudoku-4x4", "ascii"),
    ],
)
def test_what_a_stream_cannot_hold_is_replaced(made, command, encoding):
    done = shell(made, f"hrm-edge {command}", PYTHONIOENCODING=encoding)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode(encoding)


def test_a_name_of_any_bytes_is_a_line_or_a_file(made):
    missing = shell(made, "hrm-edge solve toy \"$(printf 'p\\377.txt')\"")
    assert (missing.returncode, missing.stdout) == (2, b"")
    assert missing.stderr == b"hrm-edge: there is no file p\\udcff.txt\n"
    (made / "q\udcff.txt").write_text(LINES[0])
    done = shell(made, "hrm-edge data convert q*.txt --task sudoku-4x4 -o \"$(printf 'c\\377.csv')\"")
    assert (done.returncode, done.stderr) == (0, b"")
    assert (made / "c\udcff.csv").read_text("utf-8").splitlines()[1].startswith("q\ufffd")


def test_closed_streams_end_quietly(made):
    nothing = shell(made, "hrm-edge solve toy <&-")
    assert (nothing.returncode, nothing.stdout) == (2, b"")
    assert len(nothing.stderr.splitlines()) == 1
    alone = shell(made, f"hrm-edge solve stranger {LINES[0]} --json 2>&-")
    assert alone.returncode == 0
    assert json.loads(alone.stdout)["verified"]  # one line, and no warning before it
    for streams in (">&-", ">&- 2>&-", "<&- >&- 2>&-"):
        done = shell(made, f"hrm-edge solve toy {LINES[0]} {streams}")
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_a_reader_that_has_enough_ends_it_quietly(made):
    for command in ("solve toy p.txt --json", "solve toy p.txt"):
        done = shell(made, f"{{ hrm-edge {command}; echo $? >&2; }} | head -1")
        assert done.stdout.count(b"\n") == 1
        assert done.stderr == b"0\n"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_a_full_disk_is_told_and_the_exit_code_says_what_stands_there(made):
    lost = shell(made, "hrm-edge solve toy p.txt >/dev/full")
    assert (lost.returncode, lost.stderr) == (2, b"hrm-edge: cannot write: No space left on device\n")
    done = shell(made, "hrm-edge data generate --task sudoku-4x4 --n 2 -o new.csv >/dev/full")
    assert done.returncode == 0
    assert b"could not be printed" in done.stderr
    assert (made / "new.csv").is_file()
    deaf = shell(made, f"hrm-edge solve stranger {LINES[0]} --json 2>/dev/full")
    assert deaf.returncode == 0
    assert json.loads(deaf.stdout)["verified"]


# -- text of strangers, in this process --------------------------------------------------------------------


def harmless(text: str) -> bool:
    lines = text.split("\n")
    return all(line.isprintable() and not line.lstrip().startswith("::") for line in lines) and "##[" not in text


@pytest.mark.parametrize(
    "arguments",
    [
        ["solve", "stranger", LINES[0]],
        ["solve", "stranger", LINES[0], "--json"],
        ["solve", "stranger", LINES[0], "--trace"],
        ["solve", "stranger", HOSTILE],
        ["solve", HOSTILE, LINES[0]],
        ["eval", "stranger", "--data", "sources.csv"],
        ["eval", "stranger", "toy", "--data", "sources.csv", "--json"],
        ["eval", HOSTILE],
        ["report", "stranger"],
        ["env", "stranger", "toy"],
        ["env", "stranger", "--json"],
        ["compile", "stranger"],
        ["data", "show", "sources.csv", "--task", "sudoku-4x4"],
        ["data", "overlap", "sources.csv", "p.txt", "--task", "sudoku-4x4"],
        ["data", "show", "p.txt", "--task", HOSTILE],
        ["analyze", "segments", "stranger", "--data", "sources.csv", "--segments", "1,2"],
        ["analyze", "halting", "stranger", "--data", "sources.csv", "-o", "h.md", "-o", "h.svg"],
        ["models", HOSTILE],
        ["check", HOSTILE],
        [HOSTILE],
        ["solve", f"--{HOSTILE}"],
    ],
)
def test_strangers_text_is_shown_and_commands_nothing(made, capsys, monkeypatch, arguments):
    monkeypatch.chdir(made)
    code, out, err = run(capsys, *arguments)
    assert code in (0, 1, 2)
    assert harmless(out)
    assert harmless(err)
    assert "Traceback" not in err


def test_names_are_whole(made, capsys, monkeypatch):
    monkeypatch.chdir(made)
    _, _, err = run(capsys, "solve", "stranger", LINES[0])
    assert SHOWN in err
    _, out, _ = run(capsys, "eval", "stranger", "--data", "sources.csv")
    assert re.search(r"^ \[/hard\] +2 ", out, re.MULTILINE)
    assert SHOWN in " ".join(out.split())


def test_a_strangers_page_is_drawn_from_its_figures(tmp_path, capsys):
    """Whatever page lies in the bundle, hashed or not."""
    bundle = tmp_path / "stranger"
    toys.write_hollow_bundle(bundle, precision="int8")
    write_report(sample(), bundle)
    for name in ("report.html", "report.md"):
        (bundle / name).write_text("<script>alert(1)</script>")
    seal_bundle(bundle, toys.manifest(precision="int8"))
    for name in ("x.html", "x.md"):
        assert run(capsys, "report", bundle, "-o", tmp_path / name)[0] == 0
        assert "<script" not in (tmp_path / name).read_text()
    page = (tmp_path / "x.html").read_text()
    policy = re.search('<meta http-equiv="Content-Security-Policy" content="([^"]*)">', page)[1]
    assert "default-src 'none'" in policy
    assert "script" not in policy
    assert page.index("Content-Security-Policy") < page.index("<title>")


def test_a_line_for_a_terminal_of_any_encoding(monkeypatch):
    """As `main` sets streams up: a traceback would follow a result that stands on the disk."""
    raw = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(raw, encoding="ascii"))
    with pytest.raises(SystemExit) as stopped:
        main(["models", "sudoku-9x9"])
    sys.stdout.flush()
    assert not stopped.value.code
    assert b"?" in raw.getvalue()
