"""Quantization-aware fine-tuning: a checkpoint trained on through the rounding that its int8 bundle will do."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ..errors import InputError
from ..models import HRM, Checkpoint, collect_ranges, quantized_layers
from ..models.checkpoint import QUANTIZATION
from ..models.fake_quant import plain_model, quantize_model, scales_of
from ..models.network import Wrapped, device_of
from ..models.products import both_ways
from ..models.smoothing import STRENGTH, smoothed, smoothing_factors
from ..models.trained_scales import WEIGHT_SCALES
from .config import TrainConfig
from .data import Sampler
from .distributed import World

CALIBRATION_PUZZLES = 128  # drawn from the training puzzles
ESTIMATOR = "percentile"  # the start with the least error of those tried; mse is near, minmax far behind
# The metadata's fields for what a tuned checkpoint is measured as, and what they are called in its card. As for
# every checkpoint, `accuracy` is that of its weights in float.
QUANTIZED = "accuracy_quantized"
MEASURED = {QUANTIZED: "in int8, as tuned", "accuracy": "in float", "accuracy_start": "in float, before tuning"}


def require_start(config: TrainConfig, initial: Checkpoint | None) -> None:
    """InputError when there is nothing to fine-tune."""
    if config.qat != "off" and initial is None:
        raise InputError("--qat tunes a trained model: give its checkpoint with --from (see `hrm-edge models`)")


def require_its_puzzles(config: TrainConfig, data: str) -> None:
    """InputError when the checkpoint to tune has embeddings of other puzzles than those of ``data``.

    What it comes to before tuning could not be measured, and embeddings take longer to learn than scales.
    """
    if config.qat != "off":
        raise InputError(
            f"--qat: --from's checkpoint learned other puzzles than those of {data}; train it on these first, "
            "without --qat"
        )


def fake_quantized(
    model: HRM | Wrapped, config: TrainConfig, sampler: Sampler, world: World, resumes: bool
) -> HRM | Wrapped:
    """The model to fine-tune: smoothed (the same in float), its scales calibrated on training puzzles.

    A run that ``resumes`` is given both with the rest of its state; the other ranks get rank 0's.
    """
    if isinstance(model, Wrapped) and (config.bf16 or config.compile):
        raise InputError("--qat: another's network is tuned in float32, eagerly; drop train.bf16 and train.compile")
    if isinstance(model, Wrapped):
        if tied := both_ways(model.layers):
            raise InputError(
                f"--qat: weight {tied[0]} is multiplied by both as it is and transposed, and int8 has scales for "
                "the channels of one of them; give the network two weights, or train without --qat"
            )
        model.eval()  # it may drop activations out
    scales = dict.fromkeys(quantized_layers(model), 1.0)
    if world.rank == 0 and not resumes:
        questions, _, identifiers = sampler.draw(
            np.random.default_rng([config.seed, CALIBRATION_PUZZLES]), CALIBRATION_PUZZLES
        )
        plain = collect_ranges(model, questions, identifiers, per_call=False)
        model = smoothed(model, smoothing_factors(model, plain.channel_absmax, STRENGTH))
        ranges = collect_ranges(model, questions, identifiers, per_call=False)
        scales = {layer: ranges.histograms[layer].scale(ESTIMATOR) for layer in scales}
    return quantize_model(model, scales, learned=config.qat == "learned").train()


def as_stored(model: HRM | Wrapped, dtype: torch.dtype) -> HRM | Wrapped:
    """The model as its checkpoint will be read: weights rounded to ``dtype``, scales as they are and frozen."""
    scales = scales_of(model)
    stored = plain_model(model)
    weights = stored.state_dict().items()
    stored.load_state_dict({k: w.to(dtype).float() if w.is_floating_point() else w for k, w in weights})
    return quantize_model(stored, scales, learned=False) if scales else stored


def metadata(model: HRM | Wrapped, config: TrainConfig, started_from: str) -> dict[str, Any]:
    """What the checkpoint tells an export; its writer adds the hash of the weights."""
    tuned = {"bits": 8, "activations": scales_of(model), "weights": WEIGHT_SCALES, "from": started_from}
    return {QUANTIZATION: tuned | {"learned": config.qat == "learned"}}


def variants(model: HRM | Wrapped, initial: Checkpoint | None) -> dict[str, HRM | Wrapped]:
    """The models to measure for the card, by the metadata's field: an ordinary run has its weights alone."""
    if not scales_of(model):
        return {"accuracy": model}
    assert initial is not None
    models = (model, plain_model(model), initial.model.to(device_of(model)))
    return dict(zip(MEASURED, models, strict=True))
