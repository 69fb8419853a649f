"""A quantization plan: everything that is decided once, and applied the same way to a float segment ever after."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import onnx

from ...bundle.quantization import Layer, Site
from ...data.puzzles import PuzzleSet
from ...errors import InputError
from ...identifiers import rows_of
from ...models import Checkpoint, Ranges, collect_ranges
from ...models.calibration import SAMPLINGS, Model
from ...models.ranges import ESTIMATORS, STEPS
from ...models.smoothing import STRENGTH, smoothing_factors
from ...models.trained_scales import TrainedScales
from ...precision import PRECISIONS, Precision
from ...progress import Progress
from ..graph.edit import copied
from ..graph.layers import products, weights_of
from ..targets import target_named
from . import algorithm_of, fp16, int8

# A scale may differ from what calibration asks for by this factor, and clip this part of what it saw.
_SCALE_TOLERANCE, _MOST_CLIPPED = 1.25, 0.02

# Part of the network → dtype, for the manifest.
INT8_PARTS = {
    "weights": "int8, a scale for each output channel",
    "matrix products": "int8",
    "inputs of products": "int8, a scale for each call",
}
FLOAT_PARTS = {"attention scores": "float32", **dict.fromkeys(fp16.PARTS, "float32")}


@dataclass(frozen=True)
class Recipe:
    """A way to calibrate: ``estimator`` of a range, ``segments`` sampled, SmoothQuant strength (0: none)."""

    estimator: str = "mse"
    segments: str = "stratified"
    smooth: float = STRENGTH

    def __post_init__(self) -> None:
        for flag, value, known in (
            ("--calibration-method", self.estimator, ESTIMATORS),
            ("--calibration-segments", self.segments, SAMPLINGS),
        ):
            if value not in known:
                raise InputError(f"{flag} {value}: unknown; choose {', '.join(known)}")
        if not 0 <= self.smooth < 1:
            raise InputError(f"--smooth {self.smooth:g}: the strength must be at least 0 and below 1")

    def __str__(self) -> str:
        return f"{self.estimator}, {self.segments} segments, smoothing {self.smooth:g}"


@dataclass(frozen=True)
class Plan:
    """How to quantize a segment. Weight-only precisions need nothing but ``precision`` and ``ranges.grams``."""

    precision: str
    scales: dict[str, float] = field(default_factory=dict)  # by site
    factors: dict[str, np.ndarray] = field(default_factory=dict)  # SmoothQuant's, by layer
    keep: dict[str, str] = field(default_factory=dict)  # layer that stays float32 → why
    wide: dict[str, str] = field(default_factory=dict)  # layer whose inputs get 16 bits → why
    recipe: Recipe | None = None
    ranges: Ranges | None = None  # what the scales were made from
    nearest: bool = False  # weights are rounded to nearest, whatever their errors add up to

    @property
    def record(self) -> Precision:
        """What is true of the plan's precision."""
        return PRECISIONS[self.precision]

    def apply(self, segment: onnx.ModelProto, target: str) -> tuple[onnx.ModelProto, list[str]]:
        """A quantized copy of a float segment as ``target`` runs it fast, and its low-precision products."""
        copy = copied(segment)
        return copy, algorithm_of(self.record.family).apply(copy, self, target_named(target))

    @property
    def grams(self) -> dict[str, np.ndarray]:
        """By layer, the sum of x xᵀ over its inputs, where they were collected."""
        return self.ranges.grams if self.ranges else {}

    def keeping(self, layers: dict[str, str]) -> Plan:
        """The same with these layers (→ why) left in float32."""
        return replace(self, keep={**self.keep, **layers})

    def widening(self, layers: dict[str, str]) -> Plan:
        """The same with 16 bits for the inputs of these layers (→ why)."""
        return replace(self, wide={**self.wide, **layers})

    def input_scales(self) -> dict[str, float]:
        """By site: the value of one step; of a wide site the coarse one, which then need not clip."""
        wide = {}
        if self.ranges is not None:
            sites = (site for site in self.scales if site.rpartition("/")[0] in self.wide)
            wide = {site: self.ranges.histograms[site].scale("minmax") for site in sites}
        return self.scales | wide

    def parts(self, target: str) -> dict[str, str]:
        """Part of the network → dtype, for the manifest."""
        if self.record.quantizes_inputs:
            return {**FLOAT_PARTS, **INT8_PARTS, **self.exceptions()}
        computed = "float32, inputs rounded to int8" if target_named(target).packs_weights else "float32"
        return {**FLOAT_PARTS, "weights": self.record.stored, "matrix products": computed}

    def exceptions(self) -> dict[str, str]:
        """The layers that got more bits than the others → what they got."""
        kept = {f"layer {name}": "float32" for name in self.keep}
        return kept | {f"inputs of layer {name}": "16 bits, as two int8 products" for name in self.wide}

    def layers(self, segment: onnx.ModelProto, target: str) -> tuple[Layer, ...]:
        """Every layer of the float segment, and what storing it in few bits does to it."""
        calls = {product.layer: product.call + 1 for product in products(segment)}
        return tuple(
            Layer(
                name=layer,
                dtype="float32" if layer in self.keep else self.record.stored,
                calls=calls[layer],
                absmax=max(float(np.abs(weight).max()) for weight in weights.values()),
                error=0.0 if layer in self.keep else self._error(layer, list(weights.values()), target),
                kept=self.keep.get(layer) or self.wide.get(layer),
            )
            for layer, weights in weights_of(segment).items()
        )

    def _error(self, layer: str, weights: list[np.ndarray], target: str) -> float:
        """‖x W − x stored‖ / ‖x W‖ of a layer's weights, each float32[K, N], side by side."""
        gram = self.grams.get(layer)
        # What a factor divides elsewhere in the block is the other layer's error, not this one's.
        s = self.factors.get(layer, np.ones(len(weights[0]), np.float32))
        algorithm, lost, total = algorithm_of(self.record.family), 0.0, 0.0
        for weight in (w * s[:, None] for w in weights):
            stored = algorithm.stored(weight, gram, self, target_named(target))
            metric = np.eye(len(weight)) if gram is None else gram
            lost += float(((metric @ (weight - stored)) * (weight - stored)).sum())
            total += float(((metric @ weight) * weight).sum())
        return float(np.sqrt(max(lost, 0.0) / max(total, 1e-30)))

    def sites(self) -> tuple[Site, ...]:
        """Every activation quantizer against what calibration saw there."""
        if self.ranges is None:
            return ()
        histograms = self.ranges.histograms
        return tuple(
            Site(name, histograms[name].absmax, scale, histograms[name].beyond(STEPS * scale))
            for name, scale in self.input_scales().items()
            if name in histograms and name.rpartition("/")[0] not in self.keep
        )


class Calibrator:
    """Makes plans for a checkpoint from puzzles that no accuracy is measured on; ranges are collected once."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        segment: onnx.ModelProto,
        puzzles: PuzzleSet,
        progress: Progress | None = None,
    ):
        self.checkpoint, self.segment, self.puzzles, self.progress = checkpoint, segment, puzzles, progress
        self._ranges: dict[tuple[str, float], Ranges] = {}
        self._factors: dict[tuple[str, float], dict[str, np.ndarray]] = {}

    @property
    def _asked(self) -> tuple[Model, np.ndarray, np.ndarray | None]:
        """The model, the questions, and their rows in its table of puzzle embeddings."""
        identifiers = self.puzzles.identifiers
        rows = None if identifiers is None else rows_of(identifiers, self.checkpoint.kept_identifiers)
        return self.checkpoint.model, self.puzzles.questions, rows

    def plan(self, recipe: Recipe, precision: str = "int8") -> Plan:
        """Every layer's products quantized, with scales as the recipe says."""
        ranges = self._collected(recipe.segments, recipe.smooth)
        scales = {site: histogram.scale(recipe.estimator) for site, histogram in ranges.histograms.items()}
        factors = self._factors.get((recipe.segments, recipe.smooth), {})
        return Plan(precision, scales, factors, recipe=recipe, ranges=ranges)

    def weight_plan(self, precision: str) -> Plan:
        """Weight-only: all that calibration tells is how a layer's inputs go together."""
        return Plan(precision, ranges=self._collected("stratified", 0.0))

    def trained_plan(self, trained: TrainedScales, precision: str = "int8") -> Plan:
        """The same with the scales of quantization-aware training, which every call of a layer shares."""
        ranges = self._collected("stratified", 0.0)
        scales = {site: trained.activations[site.rpartition("/")[0]] for site in ranges.histograms}
        # The weights were trained to be rounded to nearest; anything else would be another network.
        return Plan(precision, scales, ranges=ranges, nearest=True)

    def _collected(self, segments: str, strength: float) -> Ranges:
        if (segments, strength) not in self._ranges:
            smoothing = None
            if strength:
                plain = self._collected(segments, 0.0)
                smoothing = smoothing_factors(self.checkpoint.model, plain.channel_absmax, strength)
                self._factors[segments, strength] = smoothing
            self._ranges[segments, strength] = collect_ranges(
                *self._asked, segments=segments, smoothing=smoothing, grams=True, progress=self.progress
            )
        return self._ranges[segments, strength]


def wrong_scales(plan: Plan, segment: onnx.ModelProto) -> list[str]:
    """What is wrong with the scales that really stand in a quantized segment, against what calibration saw."""
    if plan.ranges is None or not plan.record.quantizes_inputs:
        return []
    found = []
    stored, decided = int8.input_scales(segment), plan.input_scales()
    for site, histogram in plan.ranges.histograms.items():
        if site.rpartition("/")[0] in plan.keep:
            continue
        if site not in stored:
            found.append(f"{site} has no input scale")
            continue
        wanted, clipped = decided[site], histogram.beyond(STEPS * stored[site])
        if not 1 / _SCALE_TOLERANCE <= stored[site] / wanted <= _SCALE_TOLERANCE:
            found.append(f"the input scale of {site} is {stored[site] / wanted:.2f} × the calibrated one")
        elif clipped > _MOST_CLIPPED:
            found.append(
                f"the input scale of {site} saturates: {clipped:.1%} of the calibration values lie beyond "
                f"127 steps of {stored[site]:.3g} (the largest is {histogram.absmax:.3g})"
            )
    return found
