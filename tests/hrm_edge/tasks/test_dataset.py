"""A folder of puzzles is a task: sizes from it, the rest from a `task.toml`, and every mistake there one line."""

import json
import pickle
from dataclasses import replace

import numpy as np
import pytest
from datasets import LATIN, write_latin, write_lookup, write_set

from hrm_edge import limits
from hrm_edge.errors import InputError
from hrm_edge.tasks import defined_task, get_task, task_for
from hrm_edge.tasks.boards import ASCII, board, legend, trace_boards, wrong_cells
from hrm_edge.tasks.dataset import SymmetryDefinition, TaskDefinition


def described(folder, seq_len=16, vocab_size=6):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "dataset.json").write_text(json.dumps({"seq_len": seq_len, "vocab_size": vocab_size}))
    return folder


def told(folder, text):
    (described(folder) / "task.toml").write_text(text)
    return get_task(str(folder))


@pytest.fixture
def latin(tmp_path):
    return told(tmp_path / "latin", LATIN)


def full(task):
    square = (np.arange(4)[:, None] + np.arange(4)) % 4
    return (square + 2).reshape(1, 16).astype(np.int32)


# -- what a folder says ----------------------------------------------------------------------------------


def test_sizes_are_enough(tmp_path):
    task = get_task(str(described(tmp_path / "my set", seq_len=50, vocab_size=37)))
    assert (task.name, task.seq_len, task.vocab_size, task.rows, task.cols) == ("my-set", 50, 37, 1, 50)
    assert task.vocabulary == ("<pad>", *"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ")
    assert not any([task.has_rules, task.has_solver, task.generates, task.has_symmetries])
    assert task.where(7) == "position 8"
    assert get_task(str(tmp_path / "my set")) is task is pickle.loads(pickle.dumps(task))


def test_a_root_and_its_splits_are_one_task(tmp_path, monkeypatch):
    root = write_lookup(tmp_path / "lookup", n=3)
    monkeypatch.chdir(tmp_path)
    found = {get_task(str(path)) for path in (root, root / "train", root / "test", "lookup", "lookup/")}
    assert [task.name for task in found] == ["lookup"]
    monkeypatch.chdir(root / "train")
    assert get_task(".") in found


def test_it_follows_its_files(tmp_path):
    first = told(tmp_path / "a", "rows = 4")
    second = told(tmp_path / "a", "rows = 2")
    assert (first.rows, second.rows) == (4, 2)
    assert told(tmp_path / "a", "rows = 4") is first


def test_a_folder_is_named_before_a_name_that_looks_like_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    described(tmp_path / "sudoku")
    assert get_task("sudoku").name == "sudoku-9x9"
    with pytest.raises(InputError, match=r"^sudoku: the name 'sudoku' is that of another task; .* in task.toml$"):
        get_task("./sudoku")
    assert told(tmp_path / "sudoku", 'name = "mine"').name == "mine"


def test_what_is_no_folder_is_told(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"empty is no puzzle set: it has no dataset.json"):
        get_task(str(tmp_path / "empty"))
    for name in ("nonsense", "a/b", "\0", "x" * 5000, ""):
        with pytest.raises(InputError, match="no folder of puzzles, and there are sudoku"):
            get_task(name)


@pytest.mark.parametrize("size", [0, 1, True, "6", None, 2**16 + 1, 1e3])
def test_sizes_that_no_model_has_are_refused(tmp_path, size):
    with pytest.raises(InputError, match=r"dataset.json: vocab_size is .*, not a number from 2 to"):
        get_task(str(described(tmp_path / "a", vocab_size=size)))


@pytest.mark.parametrize("text", ["", "[]", "{", '{"seq_len": 4}', "null", "[" * 100_000])
def test_a_damaged_description_is_one_line(tmp_path, text):
    (described(tmp_path / "a") / "dataset.json").write_text(text)
    with pytest.raises(InputError, match=r"dataset.json cannot be read") as error:
        get_task(str(tmp_path / "a"))
    assert "\n" not in str(error.value)


def test_data_tell_the_task_where_nobody_names_it(tmp_path):
    assert task_for(None, []).name == task_for(None, ["generated:20"]).name == "sudoku-9x9"
    assert task_for("maze-9x9", [described(tmp_path / "x")]).name == "maze-9x9"
    sizes = {"sudoku-9x9": (81, 11), "maze-30x30": (900, 6), "arc": (900, 12), "other": (81, 12)}
    for name, (seq_len, vocab_size) in sizes.items():
        folder = described(tmp_path / "other", seq_len, vocab_size)
        assert task_for(None, ["p.csv", folder]).name == name
    (described(tmp_path / "jigsaw", 81, 11) / "task.toml").write_text("rows = 9")
    assert task_for(None, [tmp_path / "jigsaw"]).name == "jigsaw"


# -- task.toml -------------------------------------------------------------------------------------------


WRONG = {
    "foo = 1": "unknown field 'foo'; there are name, rows,",
    "rows": "cannot be read as TOML (",
    "rows = 3": "rows 3: the set has 16 cells",
    "rows = true": "rows must be a whole number from 1 to 16, not True",
    "rows = 2\ncols = 4": "rows 2 and cols 4: the set has 16 cells",
    'symbols = "123"': "symbols has 3, and the tokens from 1 to 5 need one each",
    'symbols = "11234"': "symbols has '1' twice",
    'symbols = "?1234"': "symbols[0] must be 1 to 16 visible characters",
    'symbols = [".", "a b", "c", "d", "e"]': "symbols[1] must be 1 to 16 visible characters",
    'symbols = ["::error", "\\u202e", "c", "d", "e"]': "symbols[0] must be",
    'symbols = ["a", "\\u202e", "c", "d", "e"]': "symbols[1] must be",
    'symbols = ["", "b", "c", "d", "e"]': "symbols[0] must be",
    "symbols = 5": "symbols must be text or a list of texts, not 5",
    'name = "a/b"': "name must be a name of at most 64",
    'name = "::error x"': "name must be a name",
    "name = 5": "name must be text, not 5",
    'blank = "x"': "blank names 'x', which is none of the 5 symbols",
    "blank = 1": "blank names 1, which is none",
    'groups = ["rows"]': "field 'blank' is missing",
    'blank = "0"\ngroups = "rows"': "groups must be a list, not 'rows'",
    'blank = "0"\ngroups = [[1, 2]]': "groups[0] has 2 cells for 4 values",
    'blank = "0"\ngroups = [[1, 2, 3, 16]]': "groups[0] names a cell outside 0 to 15",
    'blank = "0"\ngroups = [[1, 2, 3, -1]]': "groups[0] names a cell outside 0 to 15",
    'blank = "0"\ngroups = [[1, 2, 3, 3]]': "groups[0] has cell 3 twice",
    'blank = "0"\ngroups = [[1, 2, 3, "4"]]': "groups[0] must be a list of cells, counted from 0",
    'blank = "0"\ngroups = ["boxes 3x3"]': "groups[0] is 'boxes 3x3', which do not fill 1 rows of 16",
    'blank = "0"\ngroups = ["boxes 0x2"]': "groups[0] is 'boxes 0x2', which do not fill",
    'blank = "0"\nrows = 4\nvalues = "0123"\ngroups = ["rows"]': "values must be tokens of the vocabulary, and not",
    'blank = "0"\nrows = 4\nvalues = "1233"\ngroups = ["rows"]': "values has 4 twice",
    'symmetries = ["spin"]': "symmetries[0] is 'spin'; there are 'rows'",
    "symmetries = [{cells = [1, 2]}]": "symmetries[0] must name every cell from 0 to 15 once",
    "symmetries = [{}]": "symmetries[0] must be a name, or a table",
    'symmetries = [{symbols = {"0" = "1"}}]': "symmetries[0] must name every token from 0 to 5 once",
    'symmetries = [{symbols = "10234"}]': "symmetries[0].symbols must be a table",
    'blank = "0"\nsymmetries = [{symbols = {"0" = "1", "1" = "0"}}]': "symmetries[0] renames the padding or the",
    'blank = "0"\nrows = 4\ngroups = ["rows"]\nsymmetries = ["turn"]': "symmetries[0] takes a group to cells that",
    'blank = "0"\nvalues = "123"\ngroups = [[0, 1, 2]]\nsymmetries = [{symbols = {"3" = "4", "4" = "3"}}]':
        "symmetries[0] makes something else of a value",
}  # fmt: skip


@pytest.mark.parametrize("text", WRONG)
def test_what_is_wrong_in_it_is_one_line_with_the_field(tmp_path, text):
    with pytest.raises(InputError) as error:
        told(tmp_path / "a", text)
    message = str(error.value)
    assert message.startswith(f"{tmp_path / 'a' / 'task.toml'}: {WRONG[text]}")
    assert message.isprintable()


def test_sizes_of_a_strangers_are_limited(tmp_path):
    with pytest.raises(InputError, match=r"task.toml: has \d+ bytes, and a task at most"):
        told(tmp_path / "a", "#" * (limits.TASK_BYTES + 1))
    with pytest.raises(InputError, match=r"task.toml: groups is too long|groups must be a list of at most"):
        told(tmp_path / "a", f'blank = "0"\nvalues = "1"\ngroups = {[[0]] * (limits.GROUPS + 1)}')
    with pytest.raises(InputError, match=r"symmetries must be a list of at most 256 entries"):
        told(tmp_path / "a", f"symmetries = {['mirror'] * 257}")
    large = TaskDefinition("x", 1, 2**16, ("a",), None, (), (), ())
    identity = SymmetryDefinition((), ())
    with pytest.raises(ValueError, match="symmetries has 64, and at most 31 are read of such a board"):
        replace(large, symmetries=(identity,) * 64)
    with pytest.raises(ValueError, match="groups are too large"):
        TaskDefinition(
            "x", 1, 4096, tuple(map(str, range(3000))), 1, tuple(range(2, 2900)), (tuple(range(2898)),), ()
        )
    with pytest.raises(ValueError, match="more than 65536 cells"):
        TaskDefinition("x", 2**40, 2**40, ("a",), None, (), (), ())


def test_it_stands_beside_the_set_or_above_its_splits(tmp_path):
    root = write_latin(tmp_path / "latin", n=2)
    assert get_task(str(root)) is get_task(str(root / "test"))
    assert get_task(str(root)).has_rules
    (root / "test" / "task.toml").write_text("")
    assert not get_task(str(root / "test")).has_rules


# -- text ------------------------------------------------------------------------------------------------


def test_symbols_of_one_character(latin):
    text = ".123 1... 2..1 3.1."
    tokens = latin.parse(text)
    assert latin.format(tokens) == ".1231...2..13.1."
    assert latin.render(tokens) == ".123\n1...\n2..1\n3.1."
    assert np.array_equal(latin.parse(latin.render(tokens)), tokens)
    assert np.array_equal(latin.parse(latin.format(tokens).replace(".", "_")), tokens)
    assert np.array_equal(latin.parse_lines([latin.format(tokens)]), tokens[None])
    assert np.array_equal(latin.read_back(latin.format(tokens)), tokens)
    with pytest.raises(InputError, match=r"'x' at position 3 \(row 1, column 3\) is no symbol of latin"):
        latin.parse("12x4" * 4)
    with pytest.raises(InputError, match=r"a latin puzzle has 16 symbols \(4 rows of 4\), not 15"):
        latin.parse("." * 15)


def test_many_puzzles_in_a_text(latin):
    board = "1234\n\t2 1 4 3\n....\n4321\n"
    many = latin.parse_many(f"# two\n{board}\n{board}{'.' * 16}\n")
    assert [latin.format(row)[:8] for row in many] == ["12342143", "12342143", "........"]
    with pytest.raises(InputError, match=r"line 2: a latin puzzle has 16 symbols .*, not 8"):
        latin.parse_many("\n1234\n1234\n\n" + "." * 16)
    with pytest.raises(InputError, match="line 3: 'z' at position 1"):
        latin.parse_many("." * 16 + "\n\n" + "z" * 16)


def test_symbols_of_several_characters_stand_apart(tmp_path):
    task = get_task(str(described(tmp_path / "words", seq_len=6, vocab_size=100)))
    assert task.vocabulary[1:] == tuple(map(str, range(1, 100)))
    tokens = task.parse("1 10  99\n7 7 7")
    assert tokens.tolist() == [1, 10, 99, 7, 7, 7]
    assert task.format(tokens) == "1 10 99 7 7 7"
    assert task.format_many(tokens[None]) == ["1 10 99 7 7 7"]
    padded = np.array([0, *tokens[1:]], np.int32)
    assert task.read_back(task.format(padded)).tolist() == padded.tolist()
    assert task.parse(task.format(padded)).tolist() == padded.tolist()
    assert task.parse_lines(["1 2 34"]) is None  # six characters, and not six symbols
    with pytest.raises(InputError, match="a words puzzle has 6 symbols, with spaces between them, not 1"):
        task.parse("123456")
    for text in ("1 2 3", "1 2 3 4 5 100", "1 2 3 4 5  6", "123456"):
        with pytest.raises(ValueError, match="no board of words"):
            task.read_back(text)
    drawn = board(task, tokens, glyphs=ASCII).plain
    assert drawn.splitlines()[1] == "|  1  10  99   7   7   7 |"


def test_a_sequence_is_drawn_in_lines(tmp_path):
    task = get_task(str(described(tmp_path / "line", seq_len=45, vocab_size=37)))
    question = np.arange(1, 46, dtype=np.int32) % 36 + 1
    lines = board(task, question, question[::-1].copy(), glyphs=ASCII).plain.splitlines()
    assert len(lines) == 5
    assert {len(line) for line in lines} == {62}
    assert "'" in lines[1]  # answered, as no blank says what is given
    assert not wrong_cells(task, question, question).any()
    assert legend(task, question, question.copy()).plain == "0· answered"
    trace_boards(task, question, question[None])


# -- rules -----------------------------------------------------------------------------------------------


def test_groups_verify(latin):
    answers = full(latin)
    questions = np.where(np.arange(16) % 3 == 0, 1, answers)
    assert latin.verify(questions, answers).all()
    swapped = answers[:, [1, 0, *range(2, 16)]]
    assert not latin.verify(questions, swapped).any()
    assert not latin.verify(np.ones_like(answers), swapped).any()
    assert not latin.verify(questions, questions).any()
    other = answers[:, ::-1].copy()
    assert latin.verify(np.ones_like(answers), other).all()
    assert not latin.verify(questions, other).any()  # right, and of another question
    assert latin.why_wrong(questions[0], questions[0]).startswith("no value at position 1")
    assert "'2' stands at position 1 (row 1, column 1) and at position 5" in latin.why_wrong(
        questions[0], swapped[0]
    )
    assert np.flatnonzero(wrong_cells(latin, questions[0], swapped[0])).tolist() == [0, 1]


def test_questions_are_checked(latin):
    latin.check_question(full(latin)[0])
    with pytest.raises(InputError, match=r"'1' stands at position 1 .* and at position 2 .*, in one group"):
        latin.check_question(latin.parse("11" + "." * 14))
    for tokens in (np.zeros(16, np.int32), np.full(16, 6), np.ones(15, np.int32)):
        with pytest.raises(InputError):
            latin.check_question(tokens)


def test_a_blank_that_no_group_holds_is_refused(tmp_path):
    task = told(tmp_path / "a", 'rows = 4\nblank = "0"\ngroups = [[0, 1, 2, 3]]')
    with pytest.raises(InputError, match=r"the blank at position 5 .* is in no group"):
        task.check_question(task.parse("1234" + "0" * 12))
    task.check_question(task.parse("0000" + "4" * 12))
    assert task.verify(task.parse("0000" + "4" * 12)[None], task.parse("1234" + "4" * 12)[None]).all()


def test_without_groups_labels_tell(tmp_path):
    task = get_task(str(described(tmp_path / "a")))
    nothing = np.zeros(16, np.int32)
    task.check_question(nothing)  # a smaller board stands in padding
    rng = np.random.default_rng(0)
    for ask in (
        lambda: task.verify(nothing[None], nothing[None]),
        lambda: task.solve(nothing),
        lambda: task.generate(1, rng),
        lambda: task.symmetries(rng, 1),
    ):
        with pytest.raises(InputError) as error:
            ask()
        assert "\n" not in str(error.value)
    questions, answers = task.augment(rng, nothing[None], nothing[None])
    assert not questions.any()
    assert not answers.any()


# -- symmetries ------------------------------------------------------------------------------------------


def test_symmetries_keep_the_rules_and_go_back(latin):
    rng = np.random.default_rng(3)
    answers = np.repeat(full(latin), 200, axis=0)
    questions = np.where(rng.random(answers.shape) < 0.5, 1, answers).astype(np.int32)
    new_questions, new_answers = latin.augment(rng, questions, answers)
    assert latin.verify(new_questions, new_answers).all()
    assert len(np.unique(new_answers, axis=0)) > 100
    assert ((new_questions == 1).sum(axis=1) == (questions == 1).sum(axis=1)).all()
    for symmetry in latin.symmetries(rng, 20):
        assert np.array_equal(symmetry.invert(symmetry.apply(questions)), questions)
    drawn, again = (latin.sample_symmetries(np.random.default_rng(5), 9) for _ in range(2))
    assert all(np.array_equal(*pair) for pair in zip(drawn, again, strict=True))


def test_generators_reach_all_of_their_group(tmp_path):
    task = told(tmp_path / "a", 'rows = 4\nsymmetries = ["rows", {symbols = {"1" = "2", "2" = "1"}, cells = '
                                "[3,2,1,0,7,6,5,4,11,10,9,8,15,14,13,12]}]")  # fmt: skip
    cells, values = task.sample_symmetries(np.random.default_rng(0), 3000)
    elements, counts = np.unique(np.concatenate([cells, values], axis=1), axis=0, return_counts=True)
    assert len(elements) == 48  # 24 orders of the rows, mirrored and renamed or not
    assert counts.min() > 3000 / 48 / 2
    mirrored = cells[:, 0] % 4 == 3
    assert (values[mirrored, 2:4] == [3, 2]).all()
    assert (values[~mirrored, 2:4] == [2, 3]).all()


@pytest.mark.parametrize("name", ["rows", "columns", "mirror", "turn", "values"])
def test_named_symmetries_are_what_they_say(tmp_path, name):
    task = told(tmp_path / "a", f'rows = 4\nblank = "0"\nsymmetries = ["{name}"]')
    grid = np.arange(16).reshape(4, 4)
    cells, values = task.sample_symmetries(np.random.default_rng(0), 200)
    distinct = len(np.unique(np.concatenate([cells, values], axis=1), axis=0))
    assert distinct == {"rows": 24, "columns": 24, "mirror": 2, "turn": 4, "values": 24}[name]
    if name == "rows":
        assert all(np.array_equal(np.sort(new.reshape(4, 4), axis=0), grid) for new in cells)
    if name == "values":
        assert (values[:, :2] == [0, 1]).all()


def test_definitions_that_say_the_same_are_one_task(latin):
    definition = replace(latin.definition)
    assert defined_task(definition) is latin
    assert definition.sha256 == latin.definition.sha256
    assert replace(definition, name="other").sha256 != definition.sha256


def test_large_vocabularies_are_written_whole(tmp_path):
    from hrm_edge.data.puzzles import load_puzzles, save_puzzles

    rng = np.random.default_rng(0)
    tokens = rng.integers(1, 400, (5, 6))
    folder = write_set(tmp_path / "many", tokens, tokens, 400)
    np.save(folder / "all__inputs.npy", tokens.astype(np.int32))
    np.save(folder / "all__labels.npy", tokens.astype(np.int32))
    puzzles = load_puzzles(folder, get_task(str(folder)))
    for name in ("again", "again.csv"):
        save_puzzles(puzzles, tmp_path / name)
        again = load_puzzles(tmp_path / name, puzzles.task)
        assert np.array_equal(again.questions, tokens)
        assert np.array_equal(again.answers, tokens)
