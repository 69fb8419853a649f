"""A public checkpoint into ours and back: what it says of itself, what is measured, and what is never half done."""

import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from published import NAMED, published, sudoku_trm
from small_networks import network

from hrm_edge import importing
from hrm_edge.data.puzzles import generate_puzzles, save_puzzles
from hrm_edge.errors import GateFailed, InputError
from hrm_edge.importing import convert_checkpoint, import_checkpoint
from hrm_edge.measure import accuracy
from hrm_edge.models import HRMConfig, build_model, load_checkpoint, save_checkpoint
from hrm_edge.models.checkpoint import KEPT_IDENTIFIERS
from hrm_edge.runtimes import Answers
from hrm_edge.tasks import get_task

SUDOKU = get_task("sudoku-9x9")
MODEL = sudoku_trm(puzzle_emb_len=16, no_ACT_continue=True)
ARCH = {name: MODEL.config.to_dict()[name] for name in NAMED}


@pytest.fixture
def folder(tmp_path):
    return published(tmp_path / "public", MODEL, ARCH)


@pytest.fixture
def puzzles(tmp_path):
    save_puzzles(generate_puzzles(SUDOKU, 8, 1, processes=1), tmp_path / "eight.csv")
    return tmp_path / "eight.csv"


@pytest.fixture
def right(monkeypatch):
    """Three of four puzzles are answered right, however many."""

    def answer(engine, puzzles, **_):
        tokens = puzzles.answers.copy()
        tokens[::4] = 1
        n = len(tokens)
        return Answers(tokens, np.ones(n, np.int32), np.ones(n, bool), np.zeros((n, 2), np.float32))

    monkeypatch.setattr(accuracy, "answer_all", answer)


# -- import ----------------------------------------------------------------------------------------------


def test_it_says_what_it_found(folder, tmp_path):
    said: list[str] = []
    made = import_checkpoint(folder, tmp_path / "m", say=said.append)
    count = sum(tensor.numel() for tensor in MODEL.parameters())
    about = f"TRM for sudoku-9x9: {count:,} parameters (16 of them puzzle embeddings), positions rope, 1 puzzle "
    about += "identifier, N 2, T 2, at most 16 segments"
    assert said == [f"read {folder / 'step_7'}", about]
    assert (made.path, made.about, made.score) == (tmp_path / "m", about, None)
    read = load_checkpoint(made.path)
    assert about in read.card
    assert "was not measured" in read.card
    assert read.metadata == {"imported_from": "step_7"}


def test_what_mixes_tokens_is_said_where_it_is_not_attention(tmp_path):
    model = sudoku_trm(puzzle_emb_len=16, no_ACT_continue=True, mlp_t=True, pos_encodings="none")
    folder = published(tmp_path / "p", model, {**ARCH, "mlp_t": True, "pos_encodings": "none"})
    assert "positions none, tokens mixed by mlp_t, 1" in import_checkpoint(folder, tmp_path / "m").about


@pytest.mark.parametrize("expected", [0.0, 0.75, None])
def test_it_is_measured(folder, tmp_path, puzzles, right, expected):
    said: list[str] = []
    made = import_checkpoint(folder, tmp_path / "m", data=puzzles, expect_exact=expected, say=said.append)
    assert made.score is not None
    assert (made.score.exact, made.score.n) == (0.75, 8)
    assert said[-1] == "  exact_accuracy 75.00 % of 8 puzzles from eight (95 %: 40.93 % to 92.85 %)"
    assert (
        "Measured at its import: exact_accuracy 75.00 % of 8 puzzles from `eight`"
        in load_checkpoint(made.path).card
    )
    assert import_checkpoint(folder, tmp_path / "n", data=puzzles, n=4).score.n == 4


@pytest.mark.parametrize(("expected", "open_"), [(0.76, True), (0.93, False), (1.0, False)])
def test_it_fails_where_it_answers_worse_than_expected(folder, tmp_path, puzzles, right, expected, open_):
    with pytest.raises(
        GateFailed, match=rf"step_7: exact_accuracy 75\.00 % .* less than the {expected:.2%}".replace("%", " ?%")
    ):
        import_checkpoint(folder, tmp_path / "m", data=puzzles, expect_exact=expected)
    assert not (tmp_path / "m").exists()
    with pytest.raises(GateFailed) as caught:
        import_checkpoint(folder, tmp_path / "m", data=puzzles, expect_exact=expected)
    assert ("n is too small to settle it" in str(caught.value)) == open_
    assert caught.value.exit_code == 1


def test_the_authors_figure_is_that_of_the_given_answers(folder, tmp_path, puzzles, monkeypatch):
    """As in mazes, where another shortest path is right here and wrong in what they publish."""
    score = accuracy.Score(exact=1.0, token=0.9, n=10, steps_mean=2.0, exact_accuracy=0.5, labelled=8)
    monkeypatch.setattr(importing, "evaluate", lambda *_, **__: SimpleNamespace(total=score))
    with pytest.raises(
        GateFailed, match=r"exact_accuracy 50\.00 % of 8 puzzles .* less than the 75\.00 % expected"
    ):
        import_checkpoint(folder, tmp_path / "m", data=puzzles, expect_exact=0.75)
    assert import_checkpoint(folder, tmp_path / "m", data=puzzles, expect_exact=0.5).score == score


def test_an_expectation_that_fails_keeps_what_stood_there(folder, tmp_path, puzzles, right):
    import_checkpoint(folder, tmp_path / "m")
    before = (tmp_path / "m" / "model.safetensors").stat()
    with pytest.raises(GateFailed):
        import_checkpoint(folder, tmp_path / "m", data=puzzles, expect_exact=1, force=True)
    assert (tmp_path / "m" / "model.safetensors").stat() == before


def test_a_checkpoint_is_replaced_only_when_told_to(folder, tmp_path):
    import_checkpoint(folder, tmp_path / "m")
    with pytest.raises(InputError, match="m exists; choose another name, or replace it with --force"):
        import_checkpoint(folder, tmp_path / "m")
    import_checkpoint(folder, tmp_path / "m", force=True)
    (tmp_path / "m" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"notes\.txt"):
        import_checkpoint(folder, tmp_path / "m", force=True)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"expect_exact": 0.5}, "--expect-exact: needs the puzzles to measure on"),
        ({"n": 5}, "--n: needs the puzzles to measure on"),
        ({"data": "x", "expect_exact": 87}, "--expect-exact 87: is a part of all puzzles, from 0 to 1, as in 0.87"),
        ({"data": "x", "expect_exact": float("nan")}, "--expect-exact nan: is a part"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_read(tmp_path, how, said):
    with pytest.raises(InputError, match=said):
        import_checkpoint(tmp_path / "nowhere", tmp_path / "m", **how)


# -- identifiers -----------------------------------------------------------------------------------------


def arc(tmp_path, rows: int):
    """A published ARC checkpoint with so many puzzle embeddings."""
    torch.manual_seed(0)
    values = {"hidden_size": 16, "num_heads": 2, "puzzle_emb_ndim": 16, "H_layers": 0, "L_layers": 1, "kind": "trm"}
    config = HRMConfig(vocab_size=12, seq_len=16, puzzle_emb_len=16, num_puzzle_identifiers=rows, **values)
    model = build_model(config, get_task("arc-4x4"))
    return published(tmp_path / "arc", model, ARCH, data_paths=["data/arc-4x4"])


@pytest.fixture
def arc_set(tmp_path):
    from arc_sets import toy_collection

    from hrm_edge.arc.build import build

    build(toy_collection(), get_task("arc-4x4"), tmp_path / "set", augmentations=2)
    return tmp_path / "set"


def test_data_with_other_identifiers_are_one_line_with_both_counts(tmp_path, arc_set):
    with pytest.raises(
        InputError, match="test: has 19 puzzle identifiers, and the model was trained with 20: "
    ) as e:
        import_checkpoint(arc(tmp_path, 20), tmp_path / "m", data=arc_set / "test", expect_exact=0.4)
    assert "\n" not in str(e.value)
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize("beside", [True, False])
def test_permuted_identifiers_are_refused_and_not_scored(tmp_path, arc_set, beside):
    """Their names are known from the data of the import, or from a file beside the weights."""
    from hrm_edge.measure.accuracy import check_match
    from hrm_edge.measure.artifact import open_artifact

    folder = arc(tmp_path, 19)
    names = json.loads((arc_set / "identifiers.json").read_text())
    if beside:
        (folder / "identifiers.json").write_text(json.dumps(names))
    made = import_checkpoint(folder, tmp_path / "m", data=None if beside else arc_set / "test")
    engine = open_artifact(made.path).engine

    def check() -> None:
        from hrm_edge.data.puzzles import load_puzzles

        check_match(engine, load_puzzles(arc_set / "test", get_task("arc-4x4")))

    check()
    (arc_set / "identifiers.json").write_text(json.dumps([names[0], *names[:0:-1]]))
    with pytest.raises(InputError, match=r"test: its identifiers\.json names the 19 puzzles otherwise"):
        check()
    (arc_set / "identifiers.json").write_text(json.dumps(names[:9]))
    with pytest.raises(InputError, match=r"has 19 puzzle identifiers, but its identifiers\.json names 9"):
        check()
    (arc_set / "identifiers.json").unlink()
    check()  # nobody says, and the counts are the same


# -- convert ---------------------------------------------------------------------------------------------

CONFIGS = {
    "hrm": {},
    "hrm, learned positions": {"pos_encodings": "learned", "L_layers": 2},
    "hrm, two prefix tokens": {"puzzle_emb_ndim": 20, "num_puzzle_identifiers": 5, "rope_theta": 5000.0},
    "hrm that halts on one": {"no_ACT_continue": True, "expansion": 2.5, "rms_norm_eps": 1e-6},
    "hrm, prefix as it must be": {"puzzle_emb_len": 1},
    "trm": {"kind": "trm", "puzzle_emb_len": 16, "no_ACT_continue": True},
    "trm, its own defaults not taken": {"kind": "trm", "puzzle_emb_len": 0, "no_ACT_continue": False},
    "trm, mlp_t": {"kind": "trm", "mlp_t": True, "pos_encodings": "none", "H_cycles": 3, "halt_max_steps": 5},
    "trm, no prefix": {"kind": "trm", "puzzle_emb_ndim": 0, "halt_exploration_prob": 0.25},
}


def saved(path, task="sudoku-9x9", metadata=None, **changes):
    values = {"hidden_size": 16, "num_heads": 2, "puzzle_emb_ndim": 16, "H_layers": 1, "L_layers": 1, **changes}
    values |= {"H_layers": 0} if changes.get("kind") == "trm" else {}
    torch.manual_seed(0)
    of = get_task(task)
    model = build_model(HRMConfig(vocab_size=of.vocab_size, seq_len=of.seq_len, **values), of)
    if model.config.puzzle_emb_ndim:
        torch.nn.init.normal_(model.puzzle_emb.weight)
    return save_checkpoint(path, model, of.name, "", metadata)


@pytest.mark.parametrize("task", ["sudoku-9x9", "sudoku-4x4", "maze-6x6", "arc-4x4"])
@pytest.mark.parametrize("case", CONFIGS)
def test_there_and_back_is_exact(tmp_path, case, task):
    first = load_checkpoint(saved(tmp_path / "first", task, {"steps": 12}, **CONFIGS[case]))
    said: list[str] = []
    file = convert_checkpoint(tmp_path / "first", tmp_path / "public", say=said.append)
    assert file == tmp_path / "public" / "step_12"
    assert len(said) == 1
    assert "read back from it exactly" in said[0]
    assert sorted(path.name for path in (tmp_path / "public").iterdir()) == ["all_config.yaml", "step_12"]
    back = load_checkpoint(import_checkpoint(tmp_path / "public", tmp_path / "back").path)
    assert back.config == first.config
    assert back.task is first.task
    assert back.content_hash == first.content_hash
    assert (tmp_path / "back/model.safetensors").read_bytes() == (tmp_path / "first/model.safetensors").read_bytes()


def test_it_is_what_the_public_trainers_write(tmp_path):
    """Names and types as their compiled network has them, so that their strict loader takes it."""
    saved(tmp_path / "first", puzzle_emb_ndim=16, pos_encodings="learned")
    file = convert_checkpoint(tmp_path / "first", tmp_path / "public")
    assert file.name == "step_0"
    tensors = torch.load(file, weights_only=True)
    assert all(name.startswith("_orig_mod.model.inner.") for name in tensors)
    names = {name.removeprefix("_orig_mod.model.inner.") for name in tensors}
    block = ("self_attn.qkv_proj", "self_attn.o_proj", "mlp.gate_up_proj", "mlp.down_proj")
    expected = {f"{level}_level.layers.0.{name}.weight" for level in "HL" for name in block}
    expected |= {"embed_tokens.embedding_weight", "embed_pos.embedding_weight", "puzzle_emb.weights"}
    assert names == expected | {"lm_head.weight", "q_head.weight", "q_head.bias", "H_init", "L_init"}
    config = yaml.safe_load((tmp_path / "public" / "all_config.yaml").read_text())
    assert config["arch"]["name"] == "hrm.hrm_act_v1@HierarchicalReasoningModel_ACTV1"
    assert config["arch"]["loss"]["name"] == "losses@ACTLossHead"
    assert config["arch"]["forward_dtype"] == "float32"  # as the first states are no bfloat16 numbers here
    needed = {"data_path", "data_paths", "global_batch_size", "epochs", "lr", "lr_min_ratio", "lr_warmup_steps"}
    needed |= {"weight_decay", "beta1", "beta2", "puzzle_emb_lr", "puzzle_emb_weight_decay"}
    assert needed <= set(config)


def test_first_states_that_are_bfloat16_stay_so(folder, tmp_path):
    model = sudoku_trm(puzzle_emb_len=16, no_ACT_continue=True)
    for name in ("H_init", "L_init"):
        getattr(model, name).copy_(getattr(model, name).bfloat16().float())
    import_checkpoint(published(tmp_path / "bf", model, ARCH), tmp_path / "m")
    file = convert_checkpoint(tmp_path / "m", tmp_path / "back")
    assert file.name == "step_7"  # as it was imported from
    tensors = torch.load(file, weights_only=True)
    assert tensors["_orig_mod.model.inner.H_init"].dtype == torch.bfloat16
    assert "forward_dtype: bfloat16\n" in (tmp_path / "back" / "all_config.yaml").read_text()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"pos_encodings": "grid"}, "the public HRM code has no pos_encodings 'grid'"),
        ({"conv_kernel": 3, "pos_encodings": "none"}, "no pos_encodings 'none', conv_kernel 3"),
        ({"mlp_t": True}, "the public HRM code has no mlp_t True"),
        ({"puzzle_emb_len": 4}, "the public HRM code has no puzzle_emb_len 4"),
        ({"kind": "recurrent"}, "is a Recurrent transformer; the public code has HRM and TRM alone"),
        ({"num_puzzle_identifiers": 2, "metadata": {KEPT_IDENTIFIERS: "0,7"}}, "has been cut down to some"),
    ],
)
def test_a_network_that_the_public_code_lacks(tmp_path, changes, said):
    saved(tmp_path / "first", **changes)
    with pytest.raises(InputError, match=said) as caught:
        convert_checkpoint(tmp_path / "first", tmp_path / "public")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "public").exists()


def test_only_what_it_wrote_is_replaced(folder, tmp_path):
    saved(tmp_path / "first")
    convert_checkpoint(tmp_path / "first", tmp_path / "public2")
    with pytest.raises(InputError, match="public2 exists; choose another name, or replace it with --force"):
        convert_checkpoint(tmp_path / "first", tmp_path / "public2")
    convert_checkpoint(tmp_path / "first", tmp_path / "public2", force=True)
    (tmp_path / "public2" / "notes.txt").write_text("mine")
    for place, why in ((folder, "all_config.yaml is another's"), (tmp_path / "public2", "notes.txt")):
        before = {file.name: file.read_bytes() for file in place.iterdir()}
        with pytest.raises(InputError, match=why):
            convert_checkpoint(tmp_path / "first", place, force=True)
        assert {file.name: file.read_bytes() for file in place.iterdir()} == before


def test_nothing_is_written_that_reads_back_otherwise(tmp_path, monkeypatch):
    from hrm_edge import importing

    saved(tmp_path / "first")
    read = importing.import_public

    def altered(*args, **how):
        model, task = read(*args, **how)
        model.config = dataclasses.replace(model.config, rms_norm_eps=1e-4)
        return model, task

    monkeypatch.setattr(importing, "import_public", altered)
    with pytest.raises(InputError, match="does not read back from the public layout as it was"):
        convert_checkpoint(tmp_path / "first", tmp_path / "public")
    assert not (tmp_path / "public").exists()


def test_a_task_is_told_by_its_whole_name_first(tmp_path):
    save_checkpoint(tmp_path / "m", network(pos_encodings="rope", puzzle_emb_ndim=32), "sudoku-4x4", "")
    convert_checkpoint(tmp_path / "m", tmp_path / "public")
    assert import_checkpoint(tmp_path / "public", tmp_path / "back").about.startswith("HRM for sudoku-4x4: ")
