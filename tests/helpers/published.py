"""Checkpoints as the public TRM trainer writes them."""

import torch
import yaml

from hrm_edge.models import HRMConfig, build_model
from hrm_edge.tasks import get_task


def published(folder, model, arch: dict, name="recursive_reasoning.trm@TinyRecursiveReasoningModel_ACTV1", **top):
    """A model written down the way the public TRM trainer does."""
    renamed = {"embed_tokens.weight": "embed_tokens.embedding_weight", "puzzle_emb.weight": "puzzle_emb.weights"}
    renamed["embed_pos.weight"] = "embed_pos.embedding_weight"
    state = {f"_orig_mod.model.inner.{renamed.get(k, k)}": v for k, v in model.state_dict().items()}
    folder.mkdir()
    torch.save(state, folder / "step_7")
    loss = {"name": "losses@ACTLossHead", "loss_type": "stablemax_cross_entropy"}
    table = {"name": name, "loss": loss, "forward_dtype": "bfloat16", **arch}
    config = {"arch": table, "data_paths": ["data/sudoku-extreme-1k-aug-1000"], **top}
    (folder / "all_config.yaml").write_text(yaml.safe_dump(config))
    return folder


NAMED = ("H_cycles", "L_cycles", "H_layers", "L_layers", "expansion", "hidden_size", "num_heads", "pos_encodings")
NAMED += ("puzzle_emb_ndim", "halt_max_steps", "halt_exploration_prob")
LATER = ("mlp_t", "puzzle_emb_len", "no_ACT_continue")


def sudoku_trm(**changes):
    values = {"hidden_size": 16, "num_heads": 2, "puzzle_emb_ndim": 16, "H_layers": 0, "L_layers": 1, **changes}
    torch.manual_seed(0)
    return build_model(HRMConfig(vocab_size=11, seq_len=81, kind="trm", **values), get_task("sudoku-9x9"))
