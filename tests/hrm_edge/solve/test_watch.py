"""Thinking that is watched is the thinking that `solve` does, and what is shown of it is what happened."""

import contextlib
import io
import signal
import subprocess
import sys

import numpy as np
import pytest
import toys
from datasets import LATIN, write_latin
from scripted import ByHeart

import hrm_edge as he
from hrm_edge.console import Console
from hrm_edge.data.formats import Rows
from hrm_edge.errors import InputError
from hrm_edge.report.colours import page_colours
from hrm_edge.report.film import Film, opened_film
from hrm_edge.solve.answer import Questions, read_puzzles, solve_each
from hrm_edge.solve.live import LiveBoard
from hrm_edge.solve.watch import told_all
from hrm_edge.tasks import get_task

TASK = toys.TASK
PUZZLES = toys.puzzles(12)


def asked(questions, identifiers=None):
    return Questions([Rows(questions, np.zeros_like(questions), lambda row: f"row {row}", identifiers=identifiers)])


def answers(engine, questions=PUZZLES, **options):
    options = {"trace": True, **options}
    return list(solve_each(engine, asked(questions), **options))


@pytest.mark.parametrize("make", [toys.host_engine, toys.graph_engine])
@pytest.mark.parametrize(
    "options",
    [{}, {"halt": "fixed", "max_think_steps": 3}, {"halt": "verified"}, {"halt": "verified", "retries": 3}],
    ids=str,
)
def test_watched_answers_are_those_that_nobody_watches(make, options):
    seen = []
    watched = answers(make(), watch=seen.append, **options)
    for one, other in zip(watched, answers(make(), **options), strict=True):
        own = [moment for moment in seen if moment.puzzle == one.number]
        assert len(own) == one.segments == other.segments
        assert (one.steps, one.halted, one.verified, one.variant) == (
            other.steps,
            other.halted,
            other.verified,
            other.variant,
        )
        assert np.array_equal(one.trace, other.trace)
        assert np.array_equal(one.answer, other.answer)
        assert one.ms > 0


def test_a_moment_says_what_changed_and_whether_it_stops():
    seen = []
    (solved,) = answers(toys.host_engine(), PUZZLES[:1], watch=seen.append)
    previous = PUZZLES[0]
    for number, moment in enumerate(seen, 1):
        assert moment.segment == number
        assert moment.changed == (moment.guess != previous).sum()
        assert moment.stops == (moment.margin > 0) == (moment.confidence > 0.5)
        previous = moment.guess
    assert seen[-1].last
    assert np.array_equal(previous, solved.answer)


# -- the terminal ------------------------------------------------------------------------------------------


def interrupt(moment):
    if moment.segment == 2:
        raise KeyboardInterrupt


def shown(**options):
    return Console(file=io.StringIO(), width=80, height=40, **options)


def test_a_terminal_shows_boards_and_is_left_as_it_was():
    console = shown(force_terminal=True)
    with LiveBoard(console, seconds=0) as live, contextlib.suppress(KeyboardInterrupt):
        answers(toys.host_engine(), PUZZLES[:1], watch=told_all([live, interrupt]))
    written = console.file.getvalue()
    assert written.count("segment 1 of at most 8") == 1
    assert "█" in written
    assert written.rindex("\x1b[?25h") > written.rindex("\x1b[?25l")  # the cursor is back


def test_without_a_terminal_each_segment_is_a_line(capsys):
    seen = []
    with LiveBoard(shown(), seconds=60) as live:
        answers(toys.host_engine(), PUZZLES[:2], watch=told_all([live, seen.append]))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(seen)
    for line, moment in zip(lines, seen, strict=True):
        assert line.startswith(f"puzzle {moment.puzzle}, segment {moment.segment} of at most 8: ")
        assert f"{moment.changed} changed" in line
        assert line.endswith("stops" if moment.stops else "more segments" if moment.last else "thinks on")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    return str(toys.write_toy_bundle(tmp_path_factory.mktemp("bundle") / "toy"))


def solve(*arguments):
    command = [sys.executable, "-m", "hrm_edge.cli", "solve", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, encoding="utf-8")


def test_the_command_watches_and_films(bundle, tmp_path):
    line = TASK.format(PUZZLES[0])
    done = solve(bundle, line, "--watch", "--gif", tmp_path / "one.gif")
    assert done.returncode == 0, done.stderr
    segments = done.stdout.count("changed")
    assert f" {segments} segment" in done.stdout.splitlines()[-1]
    image = pytest.importorskip("PIL.Image").open(tmp_path / "one.gif")
    assert image.n_frames == segments + 1
    wrong = solve(bundle, line, "--watch", "--json")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "--watch and --json" in wrong.stderr


def test_a_signal_while_it_is_watched_leaves_the_terminal_in_order(bundle):
    pty = pytest.importorskip("pty")
    import os

    parent, child = pty.openpty()
    command = [sys.executable, "-m", "hrm_edge.cli", "solve", bundle, "--watch", "--halt", "fixed"]
    command += ["--max-think-steps", "9999", TASK.format(PUZZLES[0])]
    process = subprocess.Popen(command, stdin=child, stdout=child, stderr=child, close_fds=True)
    os.close(child)
    written = b""
    while b"segment 2 of" not in written:
        written += os.read(parent, 4096)
    process.send_signal(signal.SIGINT)
    try:
        while part := os.read(parent, 4096):
            written += part
    except OSError:  # Linux says so that the other end is closed
        pass
    assert process.wait() == 130
    assert written.rindex(b"\x1b[?25h") > written.rindex(b"\x1b[?25l")
    assert b"Traceback" not in written


# -- the film ----------------------------------------------------------------------------------------------


def frames(film):
    import PIL.Image

    image = PIL.Image.open(io.BytesIO(film.gif()))
    found = []
    for number in range(image.n_frames):
        image.seek(number)
        found.append(np.asarray(image.convert("RGB")).astype(int))
    return found


def colour(name):
    return np.array([int(page_colours()[name][i : i + 2], 16) for i in (1, 3, 5)])


def near(frame, wanted):
    """The part of a frame's pixels that are of a colour, but for what a palette moves it."""
    return (np.abs(frame - wanted).max(axis=-1) < 12).mean()


def test_a_film_has_a_frame_a_segment_and_marks_what_changed():
    pytest.importorskip("matplotlib")
    film = Film()
    answers(toys.host_engine(), PUZZLES[:1], watch=film)
    puzzle, *segments = frames(film)
    assert len(segments) == len(film.moments) > 1
    mark = 255 - 0.25 * (255 - colour("teal"))
    assert near(puzzle, mark) < 0.001
    cell = 1 / 16 * 0.5  # of the board, of the frame; not where the digit is
    for moment, frame in zip(film.moments, segments, strict=True):
        if moment.changed:
            assert near(frame, mark) > 0.5 * cell * moment.changed
        else:
            assert near(frame, mark) < 0.001
    assert near(segments[-1], colour("good")) > 0.002  # it stopped by itself
    assert film.gif() == film.gif()


@pytest.mark.parametrize(("name", "kind"), [("maze-5x5", "wall"), ("arc-4x4", "#0074d9")])
def test_boards_have_the_colours_of_their_task(name, kind):
    """Walls are the page's grey, and a 1 of ARC is ARC's blue."""
    pytest.importorskip("matplotlib")
    task = get_task(name)
    if task.by_example:
        question = task.encode(np.array([[1, 1], [0, 2]]))[None]
    else:
        question = task.generate(1, np.random.default_rng(0))[0]
    film = Film()
    engine = ByHeart(task, question, question)
    (solved,) = solve_each(engine, asked(question), watch=film, warm_up=False, halt="fixed", max_think_steps=2)
    assert solved.steps == 2
    wanted = colour(kind) if kind in page_colours() else np.array([int(kind[i : i + 2], 16) for i in (1, 3, 5)])
    symbol = "#" if kind == "wall" else "1"
    cells = (question[0] == task.vocabulary.index(symbol)).mean()
    board = 0.92**2 * 3.9 / (3.6 + 1.15)  # roughly the part of a frame that the board takes
    assert 0.6 * cells * board < near(frames(film)[1], wanted) < 1.2 * cells * board + 0.01


def test_what_cannot_be_filmed_is_said_in_a_line(bundle, tmp_path):
    pytest.importorskip("matplotlib")
    with pytest.raises(InputError, match=r"an animation is a \.gif"):
        opened_film(tmp_path / "film.mp4", TASK)
    with pytest.raises(InputError, match="shows one puzzle"):
        he.solve(bundle, [TASK.format(row) for row in PUZZLES[:2]], gif=tmp_path / "two.gif")
    assert list(tmp_path.iterdir()) == []


def test_symbols_that_the_font_lacks_are_refused_before_any_thinking(tmp_path):
    pytest.importorskip("matplotlib")
    told = {}
    for symbols in (".1234", ".日月火水", ".é√Ж♞"):
        root = tmp_path / symbols
        write_latin(root, n=2)
        (root / "task.toml").write_text(LATIN.replace(".1234", symbols))
        try:
            opened_film(tmp_path / "one.gif", get_task(root / "train"))
        except InputError as error:
            told[symbols] = str(error)
    assert list(told) == [".日月火水"]
    assert "cannot show the symbol '日'" in told[".日月火水"]
    assert "--trace-html" in told[".日月火水"]
    assert not (tmp_path / "one.gif").exists()


def test_puzzles_by_example_are_watched_with_their_identifiers(tmp_path):
    task = get_task("arc-4x4")
    with pytest.raises(InputError, match="hrm-edge arc"):
        read_puzzles([], task, tmp_path)
    with pytest.raises(InputError, match="hrm-edge arc"):
        read_puzzles(["1234"], task, to_watch=True)
    assert read_puzzles([], task, tmp_path, to_watch=True).count == 0
