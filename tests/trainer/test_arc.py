"""Training on puzzles with identifiers: how they are drawn, learned and ignored, and whole short runs."""

import dataclasses
import json
import shutil
from collections import Counter

import numpy as np
import pytest
import torch
from arc_sets import toy_collection
from hypothesis import given
from hypothesis import strategies as st

from hrm_edge.arc.build import build
from hrm_edge.data.public_layout import Grouping
from hrm_edge.data.puzzles import load_puzzles
from hrm_edge.errors import InputError
from hrm_edge.models import HRM, HRMConfig, build_model, load_checkpoint
from hrm_edge.tasks import get_task
from hrm_edge.trainer import load_recipe, train
from hrm_edge.trainer.data import Groups, Sampler, identifiers_needed, read_source
from hrm_edge.trainer.losses import IGNORE, labels_of
from hrm_edge.trainer.measure import exact_by_segments
from hrm_edge.trainer.optim import SignSGD

pytestmark = pytest.mark.usefixtures("short_runs")

TASK = get_task("arc-4x4")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("train_arc") / "set"
    build(toy_collection(), TASK, path, augmentations=2)
    return path


def run(folder, output, *settings, data=None, test=None, initial=None):
    base = ["arch.hidden_size=32", "arch.puzzle_emb_ndim=32", "arch.halt_max_steps=2", "train.batch_size=16"]
    base += ["train.log_every=1", "train.final_puzzles=4", "train.eval_every=1000", "train.puzzle_emb_lr=1e-2"]
    arch, config = load_recipe(TASK.name, "tiny", None, [*base, *settings], start=initial and initial.config)
    return train(TASK, arch, config, data or [str(folder)], output, device="cpu", test=test, initial=initial)


def losses(output):
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    return [row["token_loss"] for row in lines if "token_loss" in row]


@given(sizes=st.lists(st.lists(st.integers(1, 4), min_size=1, max_size=4), min_size=1, max_size=5))
def test_groups_are_read_from_the_rows(sizes):
    puzzles = np.repeat(np.arange(sum(map(len, sizes))), [n for group in sizes for n in group])
    groups = np.repeat(np.arange(len(sizes)), [sum(group) for group in sizes])
    found = Groups.of(Grouping(puzzles.astype(np.int32), groups.astype(np.int32)))
    assert np.diff(found.puzzles).tolist() == [n for group in sizes for n in group]
    assert np.diff(found.groups).tolist() == [len(group) for group in sizes]


def test_a_group_then_a_puzzle_then_an_example_is_drawn():
    # group 0: one puzzle of 3 rows; group 1: puzzles of 1 and 2 rows
    groups = Groups(np.array([0, 3, 4, 6]), np.array([0, 1, 3]))
    counts = Counter(groups.draw(np.random.default_rng(0), 24_000).tolist())
    expected = [1 / 6, 1 / 6, 1 / 6, 1 / 4, 1 / 8, 1 / 8]
    assert [counts[row] / 24_000 for row in range(6)] == pytest.approx(expected, abs=0.012)  # four sigma


def test_drawn_identifiers_are_their_rows(folder):
    puzzles = load_puzzles(folder / "train", TASK)
    known = {(k, q.tobytes()) for k, q in zip(puzzles.identifiers.tolist(), puzzles.questions, strict=True)}
    sampler = Sampler(TASK, [read_source(str(folder), TASK)], augment=False)
    questions, answers, identifiers = sampler.draw(np.random.default_rng(0), 500)
    drawn = {(k, q.tobytes()) for k, q in zip(identifiers.tolist(), questions, strict=True)}
    assert drawn <= known
    assert len(set(identifiers.tolist())) == puzzles.num_identifiers - 1
    assert questions.dtype == answers.dtype == np.int32


def test_padding_is_not_learned():
    labels = labels_of(torch.tensor([[0, 1, 2], [5, 0, 0]]))
    assert labels.tolist() == [[IGNORE, 1, 2], [5, IGNORE, IGNORE]]


def test_sparse_sign_descent_is_the_dense_one():
    """Some puzzles stand in the batch twice, some not at all, one has no gradient."""
    torch.manual_seed(0)
    start = torch.randn(7, 3)
    rows, values = torch.tensor([4, 1, 4, 6, 1]), torch.randn(5, 3)
    values[3] = 0
    values[4] = -values[1]  # cancels: not touched
    dense = torch.zeros(7, 3).index_add(0, rows, values)
    results = []
    for gradient in (dense, torch.sparse_coo_tensor(rows[None], values, (7, 3), check_invariants=False)):
        table = torch.nn.Parameter(start.clone())
        table.grad = gradient
        SignSGD([table], lr=0.1, weight_decay=0.5).step()
        results.append(table.detach())
    assert torch.equal(*results)
    moved = (results[0] != start).any(-1)
    assert moved.tolist() == [False, False, False, False, True, False, False]


def test_given_rows_are_the_identifiers_rows():
    config = HRMConfig(vocab_size=12, seq_len=16, hidden_size=32, num_heads=2, puzzle_emb_ndim=40)
    model = HRM(HRMConfig(**{**config.to_dict(), "num_puzzle_identifiers": 5}))
    torch.nn.init.normal_(model.puzzle_emb.weight)
    tokens, identifiers = torch.randint(12, (3, 16)), torch.tensor([4, 0, 2])
    given_rows = model.embed(tokens, puzzle_rows=model.puzzle_emb.weight[identifiers])
    assert torch.equal(given_rows, model.embed(tokens, identifiers))


def test_a_few_steps_learn_and_resume_exactly(tmp_path, folder):
    settings = ["train.schedule=constant", "train.save_every=20", "train.warmup_steps=5"]
    run(folder, tmp_path / "whole", *settings, "train.steps=40")
    whole = losses(tmp_path / "whole")
    assert np.mean(whole[-5:]) < 0.6 * np.mean(whole[:3])
    run(folder, tmp_path / "parts", *settings, "train.steps=20")
    run(folder, tmp_path / "parts", *settings, "train.steps=40")
    assert losses(tmp_path / "parts") == whole
    checkpoint = load_checkpoint(tmp_path / "whole")
    puzzles = load_puzzles(folder / "train", TASK)
    assert checkpoint.config.num_puzzle_identifiers == puzzles.num_identifiers
    table = checkpoint.model.puzzle_emb.weight
    assert (table[1:].abs().sum(-1) > 0).all()
    assert not table[0].any()  # no puzzle of the set is nobody's
    assert "held_out" not in checkpoint.metadata
    assert "| test | 4 |" in checkpoint.card


@pytest.mark.parametrize(("tasks", "views"), [(3, 2), (5, 2)])
def test_embeddings_of_other_puzzles_start_anew(tmp_path, folder, capsys, tasks, views):
    """Told by the names where there are as many, and by their number; everything else goes on."""
    first = load_checkpoint(run(folder, tmp_path / "first", "train.steps=3"))
    other = tmp_path / "other"
    build(toy_collection(tasks, seed=1), TASK, other, augmentations=views, seed=1)
    frozen = ("train.steps=1", "train.lr=1e-12", "train.puzzle_emb_lr=1e-12", "train.ema_decay=0.0")
    tables = {}
    for name, data in (("same", folder), ("others", other)):
        capsys.readouterr()
        made = load_checkpoint(run(data, tmp_path / name, *frozen, initial=first))
        tables[name] = made.model.puzzle_emb.weight
        assert torch.allclose(made.model.lm_head.weight, first.model.lm_head.weight, atol=1e-6)
        said = capsys.readouterr().err
        assert ("their embeddings start anew" in said) == (name == "others")
    assert torch.allclose(tables["same"], first.model.puzzle_emb.weight, atol=1e-6)
    assert tables["others"].abs().max() < 1e-6 < first.model.puzzle_emb.weight.abs().max()
    assert len(tables["others"]) == load_puzzles(other / "train", TASK).num_identifiers


def test_a_larger_table_of_the_same_puzzles_goes_on(tmp_path, folder, capsys):
    """The names decide, not the count: somebody may have left room."""
    frozen = ("train.steps=1", "train.lr=1e-12", "train.puzzle_emb_lr=1e-12", "train.ema_decay=0.0")
    first = load_checkpoint(run(folder, tmp_path / "first", "train.steps=3", "arch.num_puzzle_identifiers=30"))
    made = load_checkpoint(run(folder, tmp_path / "more", *frozen, initial=first))
    assert "start anew" not in capsys.readouterr().err
    assert first.model.puzzle_emb.weight.abs().max() > 1e-5
    assert torch.allclose(made.model.puzzle_emb.weight, first.model.puzzle_emb.weight, atol=1e-6)


@pytest.mark.parametrize("tasks", [3, 5])
def test_a_checkpoint_is_not_tuned_on_other_puzzles(tmp_path, folder, tasks):
    first = load_checkpoint(run(folder, tmp_path / "first", "train.steps=1"))
    build(toy_collection(tasks, seed=1), TASK, tmp_path / "other", augmentations=2, seed=1)
    with pytest.raises(InputError, match=r"--qat: .* learned other puzzles than those of .*/other"):
        run(tmp_path / "other", tmp_path / "r", "train.steps=1", "train.qat=learned", initial=first)
    assert not (tmp_path / "r").exists()
    run(folder, tmp_path / "r", "train.steps=1", "train.qat=learned", initial=first)


def test_what_does_not_fit_is_refused_in_a_line(tmp_path, folder):
    with pytest.raises(InputError, match="num_puzzle_identifiers is 3"):
        run(folder, tmp_path / "a", "train.steps=1", "arch.num_puzzle_identifiers=3")
    with pytest.raises(InputError, match="puzzle_emb_ndim"):
        run(folder, tmp_path / "b", "train.steps=1", "arch.puzzle_emb_ndim=0")
    with pytest.raises(InputError, match="no rules"):
        run(folder, tmp_path / "c", "train.steps=1", data=["generated:10"], test=folder)
    (tmp_path / "alone").mkdir()
    (folder / "train").rename(tmp_path / "alone" / "set")
    try:
        with pytest.raises(InputError, match="name the set's test folder"):
            run(folder, tmp_path / "d", "train.steps=1", data=[str(tmp_path / "alone" / "set")])
    finally:
        (tmp_path / "alone" / "set").rename(folder / "train")
    with pytest.raises(InputError, match="elsewhere"):
        run(folder, tmp_path / "e", "train.steps=1", test=tmp_path / "elsewhere")
    assert not any((tmp_path / name / "run.json").exists() for name in "abcde")


def test_puzzles_without_a_label_are_not_measured(tmp_path, folder):
    """As in a set whose outputs are secret; where there is no label at all, the run does not begin."""
    secret = tmp_path / "secret"
    shutil.copytree(folder, secret)
    labels = np.load(secret / "test" / "all__labels.npy")
    labels[2:] = 0
    np.save(secret / "test" / "all__labels.npy", labels)
    made = load_checkpoint(run(secret, tmp_path / "half", "train.steps=1"))
    assert "| test | 2 |" in made.card
    np.save(secret / "test" / "all__labels.npy", np.zeros_like(labels))
    with pytest.raises(InputError, match="no puzzle of test has a label"):
        run(secret, tmp_path / "none", "train.steps=1")
    assert not (tmp_path / "none").exists()


def test_folders_that_number_their_puzzles_differently_are_not_mixed(tmp_path, folder):
    """Identifier k of the one is another puzzle, or view, in the other."""
    build(toy_collection(seed=1), TASK, tmp_path / "other", augmentations=2, seed=1)
    shutil.copytree(folder, tmp_path / "copy")
    assert (tmp_path / "other" / "identifiers.json").read_bytes() != (folder / "identifiers.json").read_bytes()
    with pytest.raises(InputError, match="other/train: an identifier may be another puzzle in each"):
        identifiers_needed([str(folder), f"{tmp_path / 'other'}@2"], TASK)
    needed = identifiers_needed([str(folder)], TASK)
    assert identifiers_needed([str(folder), f"{tmp_path / 'copy' / 'train'}@3", str(folder)], TASK) == needed
    (tmp_path / "copy" / "identifiers.json").unlink()
    with pytest.raises(InputError, match="another puzzle in each"):
        identifiers_needed([str(folder), str(tmp_path / "copy")], TASK)
    assert identifiers_needed([str(tmp_path / "copy")], TASK) == needed
    with pytest.raises(InputError, match="another puzzle in each"):
        run(folder, tmp_path / "r", "train.steps=1", data=[str(folder), str(tmp_path / "other")])
    assert not (tmp_path / "r").exists()


def test_a_test_set_of_other_puzzles_is_refused_before_training(tmp_path, folder):
    build(toy_collection(tasks=5), TASK, tmp_path / "larger", augmentations=3)
    with pytest.raises(InputError, match=r"--test .*larger/test: names puzzle \d+, but the model has 0 to 18"):
        run(folder, tmp_path / "r", "train.steps=1", test=tmp_path / "larger")
    build(toy_collection(seed=1), TASK, tmp_path / "other", augmentations=2, seed=1)
    with pytest.raises(InputError, match="other/test: an identifier may be another puzzle"):
        run(folder, tmp_path / "r", "train.steps=1", test=tmp_path / "other")
    assert not (tmp_path / "r" / "run.json").exists()
    run(folder, tmp_path / "r", "train.steps=1", test=folder)
    assert (tmp_path / "r" / "checkpoint").is_dir()


def test_puzzles_without_an_answer_are_not_measured(folder):
    test = load_puzzles(folder / "test", TASK)
    model = build_model(
        HRMConfig(vocab_size=TASK.vocab_size, seq_len=TASK.seq_len, hidden_size=32, num_heads=2), TASK
    )
    secret = dataclasses.replace(test, answers=np.where(np.arange(len(test))[:, None] < 2, test.answers, 0))
    assert exact_by_segments(model, secret, (1,)) == exact_by_segments(model, test.select(np.arange(2)), (1,))
    with pytest.raises(InputError, match="none of the puzzles to measure on has an answer"):
        exact_by_segments(model, dataclasses.replace(test, answers=np.zeros_like(test.answers)), (1,))
