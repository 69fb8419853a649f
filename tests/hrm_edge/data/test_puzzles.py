"""Puzzle sets: every file format there and back, wrong files named in one line, generation that repeats."""

import functools
import gzip
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hrm_edge.data import formats
from hrm_edge.data.formats import Format, Rows
from hrm_edge.data.puzzles import PuzzleSet, generate_puzzles, load_puzzles, save_puzzles
from hrm_edge.errors import InputError
from hrm_edge.tasks import get_task, parallel
from hrm_edge.tasks.parallel import generate_distinct

QUESTION = "53..7....6..195....98....6.8...6...34..8.3..17...2...6.6....28....419..5....8..79"
ANSWER = "534678912672195348198342567859761423426853791713924856961537284287419635345286179"


@pytest.fixture(scope="module")
def few():
    return generate_puzzles(get_task("sudoku-4x4"), 12, 0)


def refused(path, task="sudoku"):
    with pytest.raises(InputError) as error:
        load_puzzles(path, get_task(task))
    message = str(error.value)
    assert "\n" not in message
    return message


def written(tmp_path, content, name="p.csv"):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


# -- generating ----------------------------------------------------------------------------------------


def test_generation_repeats_and_extends():
    task = get_task("sudoku-6x6")
    twenty = generate_puzzles(task, 20, 7)
    assert generate_puzzles(task, 20, 7).content_hash() == twenty.content_hash()
    assert np.array_equal(generate_puzzles(task, 5, 7).questions, twenty.questions[:5])
    assert not np.array_equal(generate_puzzles(task, 20, 8).questions, twenty.questions)
    assert task.verify(twenty.questions, twenty.answers).all()


def test_difficulties_share_no_boards():
    task = get_task("sudoku")
    sets = [generate_puzzles(task, 5, 0, difficulty) for difficulty in ("easy", "ordinary")]
    assert not {a.tobytes() for a in sets[0].answers} & {a.tobytes() for a in sets[1].answers}


def test_the_number_of_processes_does_not_matter(monkeypatch):
    monkeypatch.setattr("hrm_edge.tasks.parallel._SERIAL_SECONDS", 0.0)  # start workers at once
    task, told = get_task("sudoku-6x6"), []
    alone = generate_distinct(task, 40, 3, processes=1)
    together = generate_distinct(task, 40, 3, processes=2, progress=lambda what, done, total: told.append(done))
    assert all(np.array_equal(a, b) for a, b in zip(alone, together, strict=True))
    assert told == list(range(1, 41))


def test_a_set_holds_no_puzzle_twice_and_says_when_there_are_too_few():
    task = get_task("sudoku-4x4")
    many = generate_puzzles(task, 3000, 0, processes=1)
    assert len(np.unique(many.questions, axis=0)) == 3000
    prefix = generate_puzzles(task, 2000, 0, processes=1)
    assert np.array_equal(prefix.questions, many.questions[:2000])


@pytest.mark.parametrize(("n", "seed"), [(0, 0), (-1, 0), (1, -1)])
def test_generation_refuses_impossible_numbers(n, seed):
    with pytest.raises(InputError):
        generate_puzzles(get_task("sudoku-4x4"), n, seed)


def test_what_no_memory_holds_is_refused_before_anything_is_made(monkeypatch):
    def make(*_):
        pytest.fail("one was made")

    monkeypatch.setattr(parallel, "_drawn", make)
    with pytest.raises(InputError, match=r"0 sudoku-4x4 puzzles take at least 1280+ GB, .*ask for fewer"):
        generate_puzzles(get_task("sudoku-4x4"), 10**400, 0)  # which no float holds


def test_as_many_as_the_memory_holds_are_made(monkeypatch):
    monkeypatch.setattr(parallel, "machine_memory", lambda: 3 * 16 * 8)  # two arrays int32[3, 16]
    assert len(parallel.generate_distinct(get_task("sudoku-4x4"), 3, 0)[0]) == 3
    with pytest.raises(InputError, match="memory"):
        parallel.generate_distinct(get_task("sudoku-4x4"), 4, 0)


# -- sets ----------------------------------------------------------------------------------------------


def test_take_draws_without_repetition_in_file_order(few):
    some = few.take(5, seed=1)
    rows = [few.questions.tolist().index(q) for q in some.questions.tolist()]
    assert len(some) == 5
    assert rows == sorted(set(rows))
    assert few.take(5, seed=1).content_hash() == some.content_hash() != few.take(5, seed=2).content_hash()
    assert few.take(100, seed=0) is few


def test_the_hash_covers_tokens_and_task_only(few):
    renamed = PuzzleSet(few.task, few.questions, few.answers, ["x"] * len(few), "y")
    assert renamed.content_hash() == few.content_hash()
    unanswered = PuzzleSet(few.task, few.questions, None, few.sources, few.name)
    assert unanswered.content_hash() != few.content_hash()


# -- formats -------------------------------------------------------------------------------------------


@functools.cache
def three(task):
    """Generated once: a 16x16 Sudoku takes a second."""
    return generate_puzzles(get_task(task), 3, 0, "ordinary", processes=1)


@pytest.mark.parametrize("name", ["p.csv", "p.csv.gz", "folder"])
@pytest.mark.parametrize("task", ["sudoku-4x4", "sudoku-16x16", "maze-9x9"])
def test_what_is_saved_is_loaded(tmp_path, name, task):
    puzzles = three(task)
    save_puzzles(puzzles, tmp_path / name)
    first = _bytes(tmp_path / name)
    loaded = load_puzzles(tmp_path / name, puzzles.task)
    assert loaded.content_hash() == puzzles.content_hash()
    assert loaded.questions.dtype == loaded.answers.dtype == np.int32
    assert loaded.sources == (["folder"] if name == "folder" else ["generated-ordinary"]) * 3
    save_puzzles(puzzles, tmp_path / name)  # over the old one
    assert _bytes(tmp_path / name) == first
    assert [path.name for path in tmp_path.iterdir()] == [name]


def _bytes(path):
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    return [file.read_bytes() for file in files]


@pytest.mark.parametrize(
    ("text", "sources"),
    [
        (f"question,answer,source\n{QUESTION},{ANSWER},news\n", ["news"]),
        (f"source,question,answer,rating\nnews,{QUESTION.replace('.', '0')},{ANSWER},0\n", ["news"]),
        (f"question\n{QUESTION}\n", ["p"]),
        (f"\ufeffPuzzle, Solution\r\n{QUESTION},\r\n\r\n", ["p"]),
        (f"quizzes,solutions\n{QUESTION},{ANSWER}\n", ["p"]),
        (QUESTION, ["p"]),
        ("\n".join(QUESTION[i : i + 9] for i in range(0, 81, 9)), ["p"]),
        ('question\n"' + "\n".join(QUESTION[i : i + 9] for i in range(0, 81, 9)) + '"\n', ["p"]),
    ],
)
@pytest.mark.parametrize("name", ["p.txt", "p.gz"])
def test_files_in_circulation_are_read(tmp_path, text, sources, name):
    content = gzip.compress(text.encode()) if name == "p.gz" else text
    puzzles = load_puzzles(written(tmp_path, content, name), get_task("sudoku"))
    assert puzzles.task.format_many(puzzles.questions) == [QUESTION]
    assert puzzles.task.format_many(puzzles.answers) == [ANSWER]
    assert (puzzles.sources, puzzles.name) == (sources, "p")


def test_only_missing_answers_are_computed(tmp_path):
    other = "." + QUESTION[1:]
    path = written(tmp_path, f"question,answer\n{QUESTION},{ANSWER}\n{other},\n")
    puzzles = load_puzzles(path, get_task("sudoku"))
    assert puzzles.task.format_many(puzzles.answers) == [ANSWER, ANSWER]


WRONG = ANSWER[:2] + ANSWER[3] + ANSWER[2] + ANSWER[4:]  # two cells of the first row exchanged
TWICE = "5" + QUESTION[1:4] + "5" + QUESTION[5:]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no column 'question'"),
        ("a,b\n1,2\n", "line 1: no column 'question' among 'a, b'"),
        ("question\n", "holds no puzzles"),
        (f"question,answer\n{QUESTION}\n", "line 2: 1 columns, the header has 2"),
        (f"question\n{QUESTION}\n{QUESTION[:80]}\n", "line 3: puzzle has 80 characters, expected 81"),
        (f"question\n\n{QUESTION[:80]}x\n", "line 3: 'x' at position 81 (row 9, column 9)"),
        (f"question,answer\n{QUESTION},{ANSWER[:80]}\n", "line 2: answer: puzzle has 80 characters"),
        (f"question,answer\n{QUESTION},{WRONG}\n", "line 2: the answer is not a solution: two 6s in column 3"),
        (
            f"question,answer\n{QUESTION},{QUESTION}\n",
            "line 2: the answer is not a solution: no digit at position 3",
        ),
        (
            f"question,answer\n.{QUESTION[1:]},{'5' * 81}\n",
            "line 2: the answer changes the given '3' at position 2",
        ),
        (f"question\n{QUESTION}\n{TWICE}\n", "line 3: two 5s in row 1 (columns 1 and 5)"),
        (f"question,answer\n{TWICE},{ANSWER}\n", "line 2: two 5s in row 1 (columns 1 and 5)"),
        (f"question\n12345678.{'.' * 8}9{'.' * 63}\n", "line 2: this puzzle has no solution"),
    ],
)
def test_wrong_tables_are_explained(tmp_path, text, message):
    path = written(tmp_path, text)
    said = refused(path)
    assert said.startswith(str(path))
    assert message in said


def test_wrong_files_are_explained(tmp_path):
    assert "there is no file" in refused(tmp_path / "none.csv")
    assert "not UTF-8" in refused(written(tmp_path, b"question\n\xff\xfe"))
    assert "damaged gzip" in refused(written(tmp_path, gzip.compress(b"question\n" * 50)[:-9], "p.csv.gz"))
    assert "holds no puzzles" in refused(written(tmp_path, "\n\n", "p.txt"))
    assert "puzzle 2: two 5s" in refused(written(tmp_path, f"{QUESTION}\n{TWICE}\n", "p.txt"))
    assert "line 2: puzzle has 3 characters" in refused(written(tmp_path, f"{QUESTION}\nabc\n", "p.txt"))


def test_wrong_folders_are_explained(tmp_path, few):
    folder = tmp_path / "train"
    save_puzzles(few, folder)
    assert "name one: " in refused(tmp_path)
    assert "no dataset.json" in refused(_empty(tmp_path / "other"))
    assert "seq_len is 16, but sudoku-9x9 has 81" in refused(folder)

    labels, inputs = folder / "all__labels.npy", folder / "all__inputs.npy"
    whole = np.load(inputs)
    np.save(inputs, whole[:-1])
    assert "11 inputs but 12 labels" in refused(folder, "sudoku-4x4")
    np.save(inputs, np.where(whole == 1, 6, whole))
    assert "token 6 is outside 0..5" in refused(folder, "sudoku-4x4")
    np.save(inputs, whole.astype(np.float32))
    assert "not whole numbers" in refused(folder, "sudoku-4x4")
    np.save(inputs, np.array([{}] * 12), allow_pickle=True)
    assert "no whole .npy file" in refused(folder, "sudoku-4x4")
    np.save(inputs, whole)
    np.save(labels, np.roll(few.answers, 1, axis=0))
    assert "train row 0: the answer changes the given" in refused(folder, "sudoku-4x4")
    labels.unlink()
    assert "cannot read" in refused(folder, "sudoku-4x4")
    save_puzzles(few, folder)
    (folder / "all__puzzle_identifiers.npy").unlink()  # as after a copy that was cut off
    assert "all__puzzle_identifiers.npy: No such file" in refused(folder, "sudoku-4x4")
    (folder / "dataset.json").write_text(json.dumps([1]))
    assert "dataset.json cannot be read" in refused(folder, "sudoku-4x4")


def _empty(folder):
    folder.mkdir()
    return folder


def test_public_labels_may_be_any_integers(tmp_path, few):
    save_puzzles(few, tmp_path / "set")
    for part in ("inputs", "labels"):
        file = tmp_path / "set" / f"all__{part}.npy"
        np.save(file, np.load(file).astype(np.int64))
    assert load_puzzles(tmp_path / "set", few.task).content_hash() == few.content_hash()


def test_saving_refuses_what_it_cannot_write(tmp_path, few):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.doc").write_text("keep me")
    (tmp_path / "dir.csv").mkdir()
    for target, message in (
        ("p.xlsx", "end it in .csv or"),
        ("mine", "no puzzle set"),
        ("dir.csv", "is a folder"),
    ):
        with pytest.raises(InputError, match=message):
            save_puzzles(few, tmp_path / target)
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="cannot write"):
        save_puzzles(few, tmp_path / "file" / "p.csv")
    assert (tmp_path / "mine" / "letter.doc").read_text() == "keep me"
    unanswered = PuzzleSet(few.task, few.questions, None, few.sources, "bare")
    with pytest.raises(InputError, match="no answers"):
        save_puzzles(unanswered, tmp_path / "p.csv")


# -- any bytes -----------------------------------------------------------------------------------------

PIECES = st.one_of(
    st.sampled_from(["question", "answer", ",", "\n", '"', "1.3.", "..4.", "1" * 16, "." * 16, "#", "|", "-", " "]),
    st.text(max_size=8),
)


@given(content=st.lists(PIECES, max_size=30).map("".join), name=st.sampled_from(["p.csv", "p.txt", "p.csv.gz"]))
@settings(max_examples=300)
def test_any_text_is_loaded_or_refused(tmp_path_factory, content, name):
    path = tmp_path_factory.getbasetemp() / name
    path.write_bytes(content.encode("utf-8", "replace"))
    try:
        puzzles = load_puzzles(path, get_task("sudoku-4x4"))
    except InputError as error:
        assert "\n" not in str(error)
    else:
        assert puzzles.task.verify(puzzles.questions, puzzles.answers).all()


@given(
    edits=st.lists(st.tuples(st.integers(0, 600), st.integers(0, 255)), max_size=4),
    cut=st.integers(0, 600),
    data=st.data(),
)
@settings(max_examples=150)
def test_damaged_folders_are_loaded_or_refused(tmp_path_factory, few, edits, cut, data):
    folder = tmp_path_factory.getbasetemp() / "damaged"
    save_puzzles(few, folder)
    file = data.draw(st.sampled_from(sorted(folder.iterdir())))
    content = bytearray(file.read_bytes())
    for place, value in edits:
        content[place % len(content)] = value
    file.write_bytes(content[: len(content) - cut] if cut < len(content) and data.draw(st.booleans()) else content)
    try:
        puzzles = load_puzzles(folder, few.task)
    except InputError as error:
        assert "\n" not in str(error)
    else:
        assert puzzles.task.verify(puzzles.questions, puzzles.answers).all()


def test_another_form_of_file_is_one_record(tmp_path, monkeypatch):
    """Read and written by its ending, and named where a file has none that there is."""
    four = get_task("sudoku-4x4")

    def read(file, task):
        questions = np.array([task.parse(line[::-1]) for line in file.text.split()])
        return [Rows(questions, np.zeros_like(questions), lambda row: f"{file.path} item {row}")]

    def write(puzzles, path, progress):
        path.write_text("\n".join(text[::-1] for text in puzzles.task.format_many(puzzles.questions)))

    backwards = Format(lambda file: file.path.suffix == ".bw", read, (".bw",), write)
    monkeypatch.setattr(formats, "FORMATS", (backwards, *formats.FORMATS))
    made = generate_puzzles(four, 5, 0)
    save_puzzles(made, tmp_path / "p.bw")
    assert load_puzzles(tmp_path / "p.bw", four).content_hash() == made.content_hash()
    (tmp_path / "p.bw").write_text("." * 15 + "11")
    with pytest.raises(InputError, match=r"puzzle has 17 characters"):
        load_puzzles(tmp_path / "p.bw", four)
    (tmp_path / "p.bw").write_text("." * 14 + "11")
    with pytest.raises(InputError, match=r"p.bw item 0: two 1s in row 1"):
        load_puzzles(tmp_path / "p.bw", four)
    with pytest.raises(InputError, match=r"end it in .bw or .csv or .csv.gz or .parquet, or name a folder"):
        save_puzzles(made, tmp_path / "p.xyz")
