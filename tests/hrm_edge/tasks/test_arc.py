"""ARC's canvas: grids there and back, translations, text, and one clear line for what only rules give."""

import io
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from rich.console import Console

from hrm_edge.data.puzzles import PuzzleSet, generate_puzzles
from hrm_edge.errors import InputError
from hrm_edge.measure.accuracy import rightness, token_accuracy
from hrm_edge.report.boards import board_legend, board_svg
from hrm_edge.solve.answer import read_puzzles
from hrm_edge.tasks import get_task
from hrm_edge.tasks.boards import board

SMALL = get_task("arc-6x6")


def grids(side):
    return st.tuples(st.integers(1, side), st.integers(1, side)).flatmap(
        lambda shape: arrays(np.int32, shape, elements=st.integers(0, 9))
    )


def canvas_cell_by_cell(grid, side, down=0, right=0):
    """The public layout, written out one cell at a time."""
    tokens = np.zeros((side, side), np.int32)
    height, width = grid.shape
    for r in range(side):
        for c in range(side):
            y, x = r - down, c - right
            if 0 <= y < height and 0 <= x < width:
                tokens[r, c] = grid[y, x] + 2
            elif (y == height and 0 <= x < width) or (x == width and 0 <= y < height):
                tokens[r, c] = 1
    return tokens.reshape(-1)


@given(grid=grids(6))
def test_grids_there_and_back(grid):
    tokens = SMALL.encode(grid)
    assert np.array_equal(tokens, canvas_cell_by_cell(grid, 6))
    assert np.array_equal(SMALL.decode(tokens), grid)
    assert np.array_equal(SMALL.parse(SMALL.format(tokens)), tokens)
    assert np.array_equal(SMALL.parse(SMALL.render(tokens)), tokens)


@given(grid=grids(6), junk=st.integers(0, 2**32 - 1))
def test_what_lies_beyond_the_end_does_not_matter(grid, junk):
    tokens = SMALL.encode(grid)
    noise = np.random.default_rng(junk).integers(0, 12, tokens.shape)
    unlabelled = tokens == 0
    tokens[unlabelled] = noise[unlabelled]
    assert np.array_equal(SMALL.decode(tokens), grid)


@given(tokens=arrays(np.int32, 36, elements=st.integers(0, 11)))
def test_the_largest_rectangle_is_found(tokens):
    colour = tokens.reshape(6, 6) >= 2
    areas = [h * w for h in range(1, 7) for w in range(1, 7) if colour[:h, :w].all()]
    assert SMALL.decode(tokens).size == max(areas, default=0)


@given(pair=st.tuples(grids(5), grids(5)), seed=st.integers(0, 1000))
def test_translations_move_both_grids_alike(pair, seed):
    question, answer = (SMALL.encode(grid)[None] for grid in pair)
    moved = SMALL.augment(np.random.default_rng(seed), question, answer)
    height, width = (max(grid.shape[axis] for grid in pair) for axis in (0, 1))
    possible = [
        (down, right)
        for down in range(6 - height + 1)
        for right in range(6 - width + 1)
        if all(
            np.array_equal(side[0], canvas_cell_by_cell(grid, 6, down, right))
            for side, grid in zip(moved, pair, strict=True)
        )
    ]
    assert possible


def test_every_translation_is_drawn():
    grid = SMALL.encode(np.ones((4, 5), int))
    question = np.tile(grid, (300, 1))
    moved, _ = SMALL.augment(np.random.default_rng(0), question, question)
    assert len({row.tobytes() for row in moved}) == 3 * 2


def test_labels_alone_judge():
    grids_ = np.stack([SMALL.encode(np.full((2, 2), c)) for c in range(3)])
    answers = grids_.copy()
    answers[2] = 0  # not known
    puzzles = PuzzleSet(SMALL, grids_, answers, ["x"] * 3, "x")
    guess = grids_.copy()
    guess[0, -1] = 7  # beyond the end of the grid
    guess[1, 0] = 7
    assert rightness(puzzles, guess).tolist() == [True, False, False]
    # 4 colours and 4 ends of grid are labelled, one of them wrong in the second row
    assert token_accuracy(puzzles, guess).tolist() == [1.0, 7 / 8, 0.0]


@pytest.mark.parametrize(
    "ask",
    [
        lambda: generate_puzzles(SMALL, 3, 0),
        lambda: SMALL.verify(np.zeros((1, 36)), np.zeros((1, 36))),
        lambda: SMALL.symmetries(np.random.default_rng(0), 2),
        lambda: SMALL.solve(np.zeros(36)),
        lambda: read_puzzles(["12"], SMALL),
    ],
)
def test_what_takes_rules_is_refused_in_a_line(ask):
    with pytest.raises(InputError, match="arc-6x6 has no rules: ") as error:
        ask()
    assert "\n" not in str(error.value)


def test_names_and_sizes():
    assert get_task("arc-30x30") is get_task("arc")
    assert (get_task("arc").seq_len, get_task("arc").vocab_size) == (900, 12)
    for name in ("arc-31x31", "arc-0x0", "arc-5x6"):
        with pytest.raises(InputError):
            get_task(name)
    for grid in (np.zeros((7, 1), int), np.full((1, 1), 10), np.zeros((0, 1), int), np.zeros((1, 1))):
        with pytest.raises(InputError):
            SMALL.encode(grid)


def test_a_grid_is_drawn_in_its_colours():
    tokens = SMALL.encode(np.array([[0, 2], [4, 9]]))
    console = Console(file=io.StringIO(), force_terminal=True, color_system="truecolor")
    console.print(board(SMALL, tokens))
    drawn = console.file.getvalue()
    for colour in ("0;0;0", "255;65;54", "255;220;0", "135;12;37"):  # black, red, yellow, maroon
        assert drawn.count(f"48;2;{colour}m") == 1
    text = SMALL.format(tokens)
    sides = {side: {"answer": text, "wrong": [0]} for side in ("reference", "candidate")}
    root = ElementTree.fromstring(board_svg(SMALL, {"question": text, **sides}, "reference", "a grid"))
    paths = [(path.get("class"), path.get("style"), path.get("d")) for path in root.iter("path")]
    fills = {style: d for kind, style, d in paths if kind == "fill"}
    assert fills["fill:#ffdc00"] == "M0 10h10v10h-10z"
    assert sorted(fills) == ["fill:#000000", "fill:#870c25", "fill:#ff4136", "fill:#ffdc00"]
    assert [style for kind, style, _ in paths if kind == "cross"] == ["stroke:var(--page);stroke-width:3", None]
    assert board_legend(SMALL) == ""
