"""TRM and the plain transformers train as HRM does: by the same command, loop and quantization-aware tuning."""

import json

import pytest

from hrm_edge.cli import main
from hrm_edge.errors import InputError
from hrm_edge.models import load_checkpoint, quantization_of, quantized_layers
from hrm_edge.models.config import FIXED
from hrm_edge.trainer import load_recipe

pytestmark = pytest.mark.usefixtures("short_runs")

FAMILY = {
    "trm": ["arch.kind=trm", "arch.L_cycles=3", "arch.puzzle_emb_len=4"],
    "mixer": ["arch.kind=trm", "arch.mlp_t=true", "arch.pos_encodings=none"],
    "grid": ["arch.kind=hrm", "arch.conv_kernel=3", "arch.unit_means=true"],
    "continues": ["arch.kind=trm", "arch.no_ACT_continue=false", "arch.pos_encodings=rope"],
    "recurrent": ["arch.kind=recurrent"],
    "direct": ["arch.kind=direct"],
}
QUICK = ["train.batch_size=32", "train.warmup_steps=5", "train.schedule=constant", "train.log_every=10"]
QUICK += ["train.final_puzzles=8", "train.eval_puzzles=8", "train.lr=3e-3"]


def command(folder, *more):
    settings = [word for setting in QUICK for word in ("--set", setting)]
    argv = ["train", "--task", "sudoku-4x4", "--preset", "tiny", "--data", "generated:200", "--device", "cpu"]
    with pytest.raises(SystemExit) as end:
        main([*argv, *settings, "-o", str(folder), *more])
    return end.value.code


def losses(folder):
    lines = (json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines())
    return [row["token_loss"] for row in lines if "token_loss" in row]


@pytest.mark.parametrize("name", list(FAMILY))
def test_each_learns_and_is_then_tuned_in_int8(tmp_path, name, capsys):
    arch = ["arch.hidden_size=32", "arch.puzzle_emb_ndim=32", *FAMILY[name]]
    settings = [word for setting in arch for word in ("--set", setting)]
    assert command(tmp_path / "run", "--steps", "30", *settings) == 0
    history = losses(tmp_path / "run")
    assert history[-1] < 0.93 * history[0]
    trained = load_checkpoint(tmp_path / "run")
    assert trained.config.kind == FAMILY[name][0].removeprefix("arch.kind=")
    assert trained.card.startswith(f"# {trained.config.title} for sudoku-4x4")

    start = str(tmp_path / "run")
    assert command(tmp_path / "tuned", "--steps", "3", "--from", start, "--qat", "--set", "train.lr=1e-4") == 0
    tuned = load_checkpoint(tmp_path / "tuned")
    assert tuned.config == trained.config
    assert set(quantization_of(tuned).activations) == set(quantized_layers(trained.model))


def test_what_a_kind_leaves_no_choice_about_need_not_be_said():
    for kind in ("trm", "direct"):
        arch, _ = load_recipe("sudoku-4x4", "tiny", None, [f"arch.kind={kind}", "train.steps=1"])
        assert {name: getattr(arch, name) for name in FIXED[kind]} == FIXED[kind]
    with pytest.raises(InputError, match="halt_max_steps is 4; it must be 1 where kind is direct"):
        load_recipe("sudoku-4x4", "tiny", None, ["arch.kind=direct", "arch.halt_max_steps=4", "train.steps=1"])


def test_a_run_from_before_the_fields_existed_goes_on(tmp_path):
    assert command(tmp_path, "--steps", "1") == 0
    file = tmp_path / "run.json"
    recipe = json.loads(file.read_text())
    for name in ("kind", "mlp_t", "puzzle_emb_len", "conv_kernel", "unit_means"):
        del recipe["arch"][name]
    file.write_text(json.dumps(recipe))
    assert command(tmp_path, "--steps", "2") == 0
    assert command(tmp_path, "--steps", "2", "--set", "arch.kind=recurrent") == 2
