"""The card names what mixes a network's tokens."""

import dataclasses

import pytest
from small_networks import network

from hrm_edge.trainer.card import describe
from hrm_edge.trainer.config import TrainConfig

CONVOLUTION = "depthwise 3x3 convolution"
MEANS = "means over rows, columns and boxes"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"num_heads": 4}, "4 heads"),
        ({"mlp_t": True, "kind": "trm"}, "SwiGLU over the sequence"),
        ({"puzzle_emb_ndim": 32, "conv_kernel": 3}, CONVOLUTION),
        ({"puzzle_emb_ndim": 32, "conv_kernel": 3, "unit_means": True}, f"{CONVOLUTION} and {MEANS}"),
        ({"puzzle_emb_ndim": 32, "conv_kernel": 1, "unit_means": True}, MEANS),
    ],
)
def test_what_mixes_the_tokens(changes, said):
    model = network(**changes)
    train = dataclasses.asdict(TrainConfig(steps=1))
    recipe = {"task": "sudoku-4x4", "arch": model.config.to_dict(), "train": train}
    card = describe({"recipe": recipe, "steps": 1, "train_seconds": 1.0, "sources": ["a (1)"]}, model)
    assert f" segments; {1e-6 * model.segment_flops:.3g} MFLOP a segment." in card
    assert f"D {model.config.hidden_size}, {said}, {model.config.H_layers} + " in card


@pytest.mark.parametrize(
    "earlier",
    [
        {"recipe": "mine"},
        {"recipe": {"train": {"gradient": "odd"}}, "steps": 1, "train_seconds": 1.0, "sources": []},
        {"recipe": {"train": {}}, "steps": "many", "train_seconds": None},
        {"recipe": {}, "earlier": 5},
        "a text",
    ],
)
def test_a_record_of_somebody_elses_stops_no_run(earlier):
    """What a run started from may say anything of how it was made; the card is written at every save."""
    model = network()
    train = dataclasses.asdict(TrainConfig(steps=1))
    recipe = {"task": "sudoku-4x4", "arch": model.config.to_dict(), "train": train}
    own = {"recipe": recipe, "steps": 1, "train_seconds": 1.0, "sources": ["a (1)"]}
    card = describe({**own, "earlier": earlier}, model)
    assert "1 steps of 768 slots" in card
    assert ("Stage 1: a run whose record cannot be read." in card) == isinstance(earlier, dict)


@pytest.mark.parametrize(
    ("symmetric", "augment", "said"), [(True, True, True), (True, False, False), (False, True, False)]
)
def test_only_what_was_augmented_is_said_to_be(symmetric, augment, said):
    model = network()
    train = dataclasses.asdict(TrainConfig(steps=1, augment=augment))
    recipe = {"task": "sudoku-4x4", "arch": model.config.to_dict(), "train": train}
    own = {"recipe": recipe, "steps": 1, "train_seconds": 1.0, "sources": ["a (1)"]}
    assert ("augmented on the fly" in describe(own, model, symmetric)) == said
