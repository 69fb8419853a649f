"""The scales of quantization-aware training, as a checkpoint's metadata holds them."""

from __future__ import annotations

import dataclasses
import math

from ..errors import InputError
from ..files import sha256
from ..workspace import standing
from .calibration import quantized_layers
from .checkpoint import CONFIG, QUANTIZATION, WEIGHTS, Checkpoint

WEIGHT_SCALES = "per-channel minmax"  # how weights were quantized in it, the only way there is


@dataclasses.dataclass(frozen=True)
class TrainedScales:
    """How quantization-aware training quantized the weights it tuned; an export has to do the very same.

    Every call of a layer shares its activation scale (symmetric, per tensor, clipped to −128 … 127 steps). A
    weight's scale is max|w| / 127 of its output channel, in float32; values are rounded half to even.
    """

    bits: int
    activations: dict[str, float]  # by layer: value of one int8 step, a float32
    learned: bool  # trained with the weights, or frozen as calibrated
    started_from: str  # content hash of the checkpoint that was tuned


def quantization_of(checkpoint: Checkpoint) -> TrainedScales | None:
    """The scales that the checkpoint's weights were tuned with, or None for a plain float checkpoint."""
    values = checkpoint.metadata.get(QUANTIZATION)
    if values is None:
        return None
    where = f"{checkpoint.path / CONFIG}: metadata.{QUANTIZATION}"
    try:
        scales = TrainedScales(values["bits"], dict(values["activations"]), values["learned"], values["from"])
        kinds = (scales.bits, scales.learned, scales.started_from, values["weights"])
        if [type(kind) for kind in kinds] != [int, bool, str, str] or kinds[-1] != WEIGHT_SCALES:
            raise ValueError(f"weights must be {WEIGHT_SCALES!r}")
        if scales.bits != 8:
            raise ValueError(f"bits is {scales.bits}, and this version knows 8")
        for layer, scale in scales.activations.items():
            if not (isinstance(scale, float) and math.isfinite(scale) and scale > 0):
                raise ValueError(f"the scale of {layer} is {scale!r}")
        tuned_with = values["weights_sha256"]
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{where} cannot be used ({error}); train with --qat again") from None
    odd = set(scales.activations) ^ set(quantized_layers(checkpoint.model))
    if odd:
        raise InputError(f"{where} does not fit the network (layer {min(odd)}); train with --qat again")
    if sha256(standing(checkpoint.path) / WEIGHTS) != tuned_with:
        raise InputError(
            f"{checkpoint.path / WEIGHTS}: weights were changed after quantization-aware training; "
            "train with --qat again, or remove metadata.quantization to treat them as a float checkpoint"
        )
    return scales
