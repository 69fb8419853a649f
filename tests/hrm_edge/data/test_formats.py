"""Puzzle files in the forms people have: by argument, file, standard input and `data convert`, all the same."""

import bz2
import gzip
import io
import json
import lzma
import os
import signal
import threading
import zipfile
from pathlib import Path

import fuzz_formats
import numpy as np
import pytest
import toys

from hrm_edge.cli import main
from hrm_edge.data.formats import File, format_of
from hrm_edge.data.puzzles import load_puzzles
from hrm_edge.errors import InputError
from hrm_edge.solve.answer import read_puzzles
from hrm_edge.tasks import defined_task, get_task
from hrm_edge.tasks.boards import ASCII, UNICODE, board, legend
from hrm_edge.tasks.dataset import TaskDefinition

P = "53..7....6..195....98....6.8...6...34..8.3..17...2...6.6....28....419..5....8..79"
S = "534678912672195348198342567859761423426853791713924856961537284287419635345286179"
Q = "".join(P[c * 9 + r] for r in range(9) for c in range(9))
NINE, SIXTEEN = get_task("sudoku"), get_task("sudoku-16x16")
ANSWER16 = [(4 * (r % 4) + r // 4 + c) % 16 + 1 for r in range(16) for c in range(16)]
BIG = [0 if i % 3 == 1 else value for i, value in enumerate(ANSWER16)]
GRID = [[0 if cell == "." else int(cell) for cell in P[i : i + 9]] for i in range(0, 81, 9)]
OTHER = np.array(GRID).T.tolist()


def rows(puzzle, blank=".", end="\n"):
    return end.join(puzzle[i : i + 9] for i in range(0, 81, 9)).replace(".", blank) + end


def boxed(puzzle, bar="|", pad="", rule="*---+---+---*"):
    lines = [rule]
    for i, row in enumerate(rows(puzzle).split()):
        lines.append(bar + bar.join(pad + row[j : j + 3] + pad for j in (0, 3, 6)) + bar)
        lines += [rule] * (i in (2, 5, 8))
    return "\n".join(lines) + "\n"


def saved(save, *arrays, **named):
    made = io.BytesIO()
    save(made, *arrays, **named)
    return made.getvalue()


def zipped(**files):
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name, text in files.items():
            archive.writestr(f"{name}.txt", text)
        archive.writestr("__MACOSX/._a.txt", b"\0\1")
    return made.getvalue()


def sixteen(symbol, between="", end=""):
    return end.join(between.join(map(symbol, BIG[i : i + 16])) for i in range(0, 256, 16)) + "\n"


def one(symbols):
    return lambda value: symbols[value - 1] if value else "."


def drawn(glyphs):
    question, answer = NINE.parse(P), NINE.parse(S)
    said = [board(NINE, question, answer, glyphs=glyphs).plain, legend(NINE, question, answer, glyphs).plain]
    return "\n".join(["puzzle 1", *said, "verified, 3 segments, 5.0 ms", ""])


FORMS = {
    "bom.txt": f"\ufeff{P}\n{Q}\n",
    "utf16.txt": f"{P}\n{Q}\n".encode("utf-16"),
    "utf16_bare.txt": f"{P}\n{Q}\n".encode("utf-16-le"),
    "crlf_header.txt": f"rating,puzzle\r\n1.2,{P}\r\n3.4,{Q}\r\n",
    "spaced_header.txt": f"rating, puzzle\n1.2, {P}\n3.4, {Q}\n",
    "quoted.txt": f'"rating","puzzle"\n"1.2","{P}"\n',
    "cr.txt": f"question\r{P}\r{Q}\r",
    "mixed_ends.txt": f"{P}\r\n{Q}\r{P}\n",
    "semicolon.csv": f"question;answer\n{P};{S}\n",
    "told.csv": f"sep=;\nquestion;answer\n{P};{S}\n",
    "tabs.tsv": f"question\tanswer\n{P}\t{S}\n",
    "no_header.csv": f"{P.replace('.', '0')},{S}\n",
    "answer_first.csv": f"7,{S},{P}\n",
    "other_header.csv": f"Nr;Aufgabe;Ergebnis\n1;{P};{S}\n",
    "hodoku.txt": f"{P} #Easy\n{Q} #Medium (412)\n",
    "bank.txt": f"0000183b305c {P.replace('.', '0')}  1.2\n",
    "colon.txt": f"# id:solutions:answer\n{P}:1:{S}\n",
    "simple.ss": boxed(P, rule="*-----------*"),
    "boxes.txt": boxed(P, pad=" ") + boxed(Q, pad=" "),
    "space_boxes.txt": boxed(P, bar="│", rule="├───┼───┼───┤").replace(".", " "),
    "bands.txt": "\n".join(rows(P)[i : i + 30] for i in (0, 30, 60)),
    "euler.txt": f"Grid 01\n{rows(P, '0')}Grid 02\n{rows(Q, '0')}",
    "sadman.sdk": f"#ASomebody\n#DA puzzle\n[Puzzle]\n{rows(P, '-')}[State]\n{rows(S)}",
    "dash_comment.sdk": f"#Uhttp://puzzles.example/a_0.html\n{rows(P, '-')}",
    "open.opensudoku": '<?xml version="1.0"?>\n<opensudoku version="2">\n'
    f'<game created="0" data="{P.replace(".", "0")}" />\n<game data="{Q.replace(".", "0")}" />\n</opensudoku>\n',
    "spaces.txt": rows(P, " "),
    "trimmed.txt": "\n".join(row.rstrip() for row in rows(P, " ").split("\n")),
    "one_line.txt": P.replace(".", " ") + "\n",
    "x.txt": P.replace(".", "x") + "\n",
    "asked.txt": P.replace(".", "?") + "\n",
    "star.txt": P.replace(".", "*") + "\n",
    "middot.txt": rows(P, "·"),
    "dash.txt": P.replace(".", "-") + "\n",
    "grid.csv": "\n".join(",".join(map(str, row)) for row in GRID) + "\n",
    "empty_cells.csv": "\n".join(",".join(str(v or "") for v in row) for row in GRID) + "\n",
    "empty_cells.tsv": "\n".join("\t".join(str(v or "") for v in row) for row in GRID) + "\n",
    "cells.csv": f"{','.join(f'c{i}' for i in range(81))}\n{','.join(P.replace('.', '0'))}\n",
    "list.json": json.dumps(GRID),
    "pretty.json": json.dumps([GRID, OTHER], indent=1),
    "rows.json": json.dumps(rows(P).split()),
    "nulls.json": json.dumps({"puzzles": [{"grid": [[v or None for v in row] for row in GRID]}, {"grid": OTHER}]}),
    "lines.jsonl": json.dumps({"puzzle": P, "solution": S}) + "\n" + json.dumps({"puzzle": Q}) + "\n",
    "ours.jsonl": json.dumps({"question": P, "answer": S, "verified": True, "steps": 3}) + "\n",
    "wrong.jsonl": json.dumps({"question": P, "answer": P.replace(".", "?"), "verified": False}) + "\n",
    "grids.npy": saved(np.save, np.array([GRID, OTHER])),
    "flat.npy": saved(np.save, np.array([GRID, OTHER], np.uint8).reshape(2, 81)),
    "texts.npy": saved(np.save, np.array([P, Q])),
    "named.npz": saved(np.savez, quizzes=np.array([GRID]), solutions=np.array([[int(c) for c in S]])),
    "ours.txt": drawn(UNICODE),
    "ascii.txt": drawn(ASCII),
    "p.gz": gzip.compress(f"{P}\n".encode()),
    "p.xz": lzma.compress(f"{P}\n".encode()),
    "p.bz2": bz2.compress(f"{P}\n".encode()),
    "p.zip": zipped(a=P, b=rows(Q)),
    "hex16.txt": sixteen(one("0123456789ABCDEF")),
    "small_hex16.txt": sixteen(one("0123456789abcdef"), end="\n"),
    "letters16.txt": sixteen(one("ABCDEFGHIJKLMNOP")),
    "ours16.txt": sixteen(one("123456789ABCDEFG")),
    "numbers16.txt": sixteen(str, " ", "\n"),
    "numbers16.csv": sixteen(lambda value: str(value or ""), ",", "\n"),
    "from_zero16.txt": sixteen(lambda value: str(value - 1) if value else ".", " ", "\n"),
}


def content(name):
    form = FORMS[name]
    return form if isinstance(form, bytes) else form.encode()


def told(name):
    """Its task, and all that it may hold."""
    if "16." in name and "utf" not in name:
        return SIXTEEN, [np.array(BIG) + 1]
    return NINE, [NINE.parse(P), NINE.parse(Q), NINE.parse(P)]


def expect(name, found):
    task, puzzles = told(name)
    assert len(found) == (3 if name == "mixed_ends.txt" else 1 + (len(found) == 2))
    for got, puzzle in zip(found, puzzles, strict=False):
        assert task.format(got) == task.format(puzzle)
    return task


def asked(source, task):
    return [question for part in read_puzzles([source], task) for question in part.questions]


@pytest.mark.parametrize("name", FORMS)
def test_every_form_is_read_from_file_and_standard_input(tmp_path, monkeypatch, name):
    file = tmp_path / name
    file.write_bytes(content(name))
    task, _ = told(name)
    expect(name, asked(str(file), task))
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content(name))))
    expect(name, asked("-", task))


@pytest.mark.parametrize("name", [name for name in FORMS if "16" not in name and isinstance(FORMS[name], str)])
def test_every_text_is_an_argument_too(name):
    expect(name, asked(FORMS[name], NINE))


@pytest.mark.parametrize("name", [name for name in FORMS if "16." not in name or "utf" in name])
def test_every_form_is_converted(tmp_path, capsys, name):
    (tmp_path / name).write_bytes(content(name))
    with pytest.raises(SystemExit) as stopped:
        main(["data", "convert", str(tmp_path / name), "-o", str(tmp_path / "made.csv")])
    assert (stopped.value.code or 0, capsys.readouterr().err) == (0, "")
    made = load_puzzles(tmp_path / "made.csv", NINE)
    expect(name, made.questions)
    assert NINE.format(made.answers[0]) == S


CHANGED = drawn(UNICODE).replace("5 ", "5!", 1).replace("verified", "NOT verified: it changes the given '5'")
NO_G = [value if value not in (1, 16) else 0 for value in BIG]
REFUSED = {
    "two readings": ("sudoku-16x16", "".join(map(one("123456789ABCDEFG"), NO_G)), "1-9 A-G or 0-9 A-F"),
    "two readings of 0": ("sudoku", P.replace("9", "0"), "1-9 or 0-8"),
    "two puzzles on a line": ("sudoku", f"{P} {Q}", "holds 2 puzzles"),
    "two columns": ("sudoku", f"puzzle,question\n{P},{Q}\n", "'question' and 'puzzle' may both"),
    "two names": ("sudoku", json.dumps({"question": P, "puzzle": Q}), "may both be the puzzle"),
    "tokens or digits": (
        "sudoku",
        saved(np.save, np.array([[int(c) for c in S]])),
        "digits of full boards, or tokens",
    ),
    "two kinds of blank": ("sudoku", P[:80] + "x", "'x' at position 81"),
    "a changed given": ("sudoku", CHANGED, "changed a given"),
    "an entity": ("sudoku", f'<!DOCTYPE a [<!ENTITY b "c">]><a><puzzle>{P}</puzzle></a>', "are not read"),
    "a page": ("sudoku", "<!DOCTYPE html><html></html>", "a web page"),
    "deep": ("sudoku", "[" * 100_000, "no puzzles"),
    "a bomb": ("sudoku", gzip.compress(bytes(2**27), 9), "has a line of more than"),
    "a damaged file": ("sudoku", gzip.compress(f"{P}\n{Q}\n".encode() * 50)[:-9], "damaged gzip"),
    "an empty row": ("sudoku", rows(P, " ").replace("6  195   ", ""), "a row of them or the end"),
    "a short board": ("sudoku", rows(P)[:80], "puzzle has 72 characters"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_can_be_read_in_two_ways_or_in_none_is_refused_in_a_line(tmp_path, case):
    task, text, expected = REFUSED[case]
    (tmp_path / "p").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError) as error:
        load_puzzles(tmp_path / "p", get_task(task))
    assert expected in str(error.value)
    assert "\n" not in str(error.value)


def test_puzzles_with_several_solutions_are_counted(tmp_path, capsys):
    (tmp_path / "p.txt").write_text(f"{P}\n5{'.' * 80}\n{'.' * 81}\n")
    with pytest.raises(SystemExit):
        main(["data", "convert", str(tmp_path / "p.txt"), "-o", str(tmp_path / "o.csv")])
    assert "warning: 2 of 3 puzzles without an answer have several solutions" in capsys.readouterr().err
    maze = get_task("maze-5x5")
    assert maze.count_solutions(maze.parse("S....\n.....\n.....\n.....\n....G")) == 2
    assert maze.count_solutions(maze.parse("S###.\n.###.\n.###.\n.###.\n....G")) == 1


MAZE = "S.#..\n.#...\n...#.\n.#...\n...#G"


@pytest.mark.parametrize(
    "text",
    [
        MAZE,
        MAZE.replace("\n", "\r\n"),
        MAZE.replace("\n", ""),
        f"question\n{MAZE}",
        json.dumps(MAZE.split()),
        f"puzzle 1\n{MAZE}\n// note\n",
    ],
)
def test_mazes(text):
    task = get_task("maze-5x5")
    (found,) = asked(text, task)
    assert task.format(found) == MAZE.replace("\n", "").replace(".", " ")


def test_a_maze_that_was_drawn_with_its_path_is_the_question():
    task = get_task("maze-5x5")
    question = task.parse(MAZE)
    text = board(task, question, task.solve(question)).plain
    (found,) = asked(f"{text}\nverified, 1 segment, 2.0 ms\n", task)
    assert np.array_equal(found, question)


def test_puzzles_flow_as_they_come(monkeypatch):
    """The next one is not waited for: whoever writes may wait for the answer."""
    reading, writing = os.pipe()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(os.fdopen(reading, "rb")))
    parts = iter(read_puzzles(["-"], NINE))
    with os.fdopen(writing, "wb", 0) as pipe:
        for text, puzzle in ((f"{P}\n", P), (rows(Q), Q), (f"{P}\n", P)):
            timer = threading.Timer(20, pipe.close)
            timer.start()
            pipe.write(text.encode())
            assert NINE.format(next(parts).questions[0]) == puzzle
            timer.cancel()
    assert next(parts, None) is None


def test_an_argument_may_begin_with_a_dash(tmp_path, capsys):
    pytest.importorskip("onnxruntime")
    bundle = toys.write_toy_bundle(tmp_path / "b")
    for text in ("-2--1------3----", "--12------------"):
        with pytest.raises(SystemExit) as stopped:
            main(["solve", str(bundle), text, "--json"])
        assert not stopped.value.code
        assert json.loads(capsys.readouterr().out)["question"] == text.replace("-", ".")
    with pytest.raises(SystemExit):
        main(["solve", str(bundle), "--max-thinking-steps", "3"])
    assert "No such option" in capsys.readouterr().err


def test_files_in_changed_layouts_are_read_as_they_are_or_refused():
    counts, _ = fuzz_formats.run(1, 1500)
    assert {what for _, what in counts} <= set(fuzz_formats.RIGHT)
    whole = {name: counts[name, "read"] for name in fuzz_formats.WRITERS}
    refused = sum(counts[name, "refused as it is"] for name in fuzz_formats.WRITERS)
    assert min(whole.values()) > 40
    assert refused < 0.02 * sum(whole.values())


def test_a_form_is_known_before_it_is_read_whole():
    class Endless(io.BytesIO):
        def read1(self, size=-1):
            return f"{P}\n".encode()

    file = File(Path("endless"), Endless)
    part = next(iter(format_of(file).read(file, NINE)))
    assert NINE.format(part.questions[0]) == P


@pytest.mark.parametrize(
    ("content", "form"),
    [
        (f"puzzles:\n  - {P}\n".encode(), "YAML"),
    ],
)
def test_a_form_that_is_not_read_is_named(tmp_path, content, form):
    (tmp_path / "p").write_bytes(content)
    with pytest.raises(InputError, match=f"it looks like {form}, which is not read: save it as CSV or JSON"):
        load_puzzles(tmp_path / "p", NINE)


def test_a_table_of_markdown_is_read(tmp_path):
    (tmp_path / "p.md").write_text(f"| puzzle | solution |\n|:---|---:|\n| `{P}` | {S} |\n| {Q} | |\n")
    puzzles = load_puzzles(tmp_path / "p.md", NINE)
    assert [NINE.format(question) for question in puzzles.questions] == [P, Q]
    assert NINE.format(puzzles.answers[0]) == S


def test_a_board_may_begin_with_a_sign_of_xml():
    task = defined_task(TaskDefinition("signs", 1, 4, ("<", ">", "1", "2"), None, (), (), ()))
    for text, tokens in (("<1>2", [1, 3, 2, 4]), ("<<12", [1, 1, 3, 4]), ("< > > <", [1, 2, 2, 1])):
        assert [question.tolist() for question in asked(text, task)] == [tokens]


@pytest.fixture
def bounded():
    """What takes CPU time without end is stopped: this is no timing, as all of it is done in a hundredth."""
    before = signal.signal(signal.SIGVTALRM, lambda *_: pytest.fail("has no end"))
    signal.setitimer(signal.ITIMER_VIRTUAL, 20)
    yield
    signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    signal.signal(signal.SIGVTALRM, before)


@pytest.mark.parametrize(
    "line", ["abc" + " " * 200_000 + "x", "[ab" + " " * 200_000 + "x]x", "ab" + " .#" * 70_000]
)
def test_a_long_line_that_is_nearly_a_title_is_refused_at_once(tmp_path, bounded, line):
    (tmp_path / "p.txt").write_text(f"{line}\n{P}\n")
    with pytest.raises(InputError, match="line 1: puzzle has"):
        load_puzzles(tmp_path / "p.txt", NINE)


@pytest.mark.parametrize("title", ["Grid 01", "Puzzle no. 5 (easy)", "Puzzle #12", "Level - nr 3:", "[Puzzle]"])
def test_titles_are_no_puzzles(tmp_path, title):
    (tmp_path / "p.txt").write_text(f"{title}\n{P}\n")
    assert len(load_puzzles(tmp_path / "p.txt", NINE)) == 1


def test_a_header_longer_than_a_field_may_be_is_no_csv(tmp_path):
    (tmp_path / "p.csv").write_text('"' + "a," * 100_000 + "\n")
    with pytest.raises(InputError, match="line 1"):
        load_puzzles(tmp_path / "p.csv", NINE)
