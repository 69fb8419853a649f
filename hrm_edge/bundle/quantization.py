"""The quantization record of a bundle, `quantization.json`: read on a device, without torch or onnx."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, field
from typing import TYPE_CHECKING

from pydantic.dataclasses import dataclass

from ..records import STRICT, from_json

if TYPE_CHECKING:
    from . import Bundle

QUANTIZATION = "quantization.json"

# What the names of layers inside blocks begin with: those of the networks here, and those of another's network.
LEVELS = ("H_level.", "L_level.")
BLOCKS = (*LEVELS, "network.")
# A fused layer of the levels → its products in the graph, in the order of the fused weight's rows. Another's layers
# are exported as they are, whatever they are called.
PARTS = {"qkv_proj": ("q_proj", "k_proj", "v_proj"), "gate_up_proj": ("gate_proj", "up_proj")}


@dataclass(frozen=True, config=STRICT)
class Calibration:
    """Where the activation scales come from."""

    puzzles: str  # what they are called: a file, or the seed they were generated with
    n: int
    segments: str  # which segments of the float rollouts were sampled
    estimator: str  # how a range became a scale
    smooth: float  # SmoothQuant's strength; 0: none
    samples: int  # rows of segments whose activations were seen
    fingerprints: tuple[str, ...]  # of the puzzles, so that no accuracy is ever measured on them


@dataclass(frozen=True, config=STRICT)
class Site:
    """One activation quantizer: the input that one call of a layer reads. symmetric int8, one scale a tensor."""

    name: str  # layer and call: "L_level.layers.0.mlp.down_proj/3"
    absmax: float  # largest magnitude seen in calibration
    scale: float  # value of one step
    clipped: float  # part of the calibration values beyond 127 steps, 0 to 1


@dataclass(frozen=True, config=STRICT)
class Layer:
    """One weight matrix of the checkpoint (a fused one is several products in the graph)."""

    name: str  # "L_level.layers.0.mlp.gate_up_proj"
    dtype: str  # of the stored weight: int8, int4, float16 or float32
    calls: int  # uses in one segment
    absmax: float  # largest weight
    error: float  # ‖x W − x stored‖ / ‖x W‖ over calibration's inputs x; without any, ‖W − stored‖ / ‖W‖
    kept: str | None = None  # why it gets more bits: stays in float, or (stored in int8) has inputs of 16 bits

    @property
    def products(self) -> list[str]:
        """The names that its products have in the graph."""
        parent, _, last = self.name.rpartition(".")
        parts = PARTS.get(last, (last,)) if self.name.startswith(LEVELS) else (last,)
        return [f"{parent}.{part}/{call}" for part in parts for call in range(self.calls)]


@dataclass(frozen=True, config=STRICT)
class Trial:
    """One candidate, answered after re-rolling on the selection puzzles, against the float model on the same."""

    what: str  # "mse, stratified, smooth 0", or the layer that alone was quantized
    n: int
    exact: float
    token: float
    lost: int
    won: int
    steps_mean: float
    halt_agree: float  # part of the puzzles that stop after the same segment
    float_exact: float
    float_steps_mean: float

    @property
    def drop_points(self) -> float:
        return 100 * (self.lost - self.won) / self.n

    @property
    def drop_error(self) -> float:
        """Standard error of the drop, in points: how far another set of as many puzzles may well be from it."""
        p, q = self.lost / self.n, self.won / self.n
        return 100 * math.sqrt((p + q - (p - q) ** 2) / self.n)


@dataclass(frozen=True, config=STRICT)
class Products:
    """Matrix products with a stored weight, as the backend compiled them; the proof of quantization."""

    expected: int  # low-precision products the graph asks for
    found: int  # of those, the ones that are compiled as such
    kinds: dict[str, int]  # "int8 × int8": 42, "float32 × float32": 2, …
    missing: tuple[str, ...]  # names of the products that were asked for and are not


@dataclass(frozen=True, config=STRICT)
class Quantization:
    """How a bundle was quantized, layer by layer, and what the choice was based on."""

    precision: str  # int8, int8-weights or int4-weights
    checkpoint: str  # content hash of the weights that were calibrated
    weights_bytes: int  # stored tensors of all graphs
    float_weights_bytes: int  # the same tensors in float32
    layers: tuple[Layer, ...]
    sites: tuple[Site, ...] = ()
    calibration: Calibration | None = None
    comparison: tuple[Trial, ...] = ()  # calibration choices, when they competed
    sensitivity: tuple[Trial, ...] = ()  # each layer quantized alone
    budget: tuple[Trial, ...] = ()  # mixed precision: what was tried to meet --max-drop
    products: Products | None = None
    trained: bool = False  # scales learned by quantization-aware training
    notes: tuple[str, ...] = field(default=())

    def to_json(self) -> str:
        """The content of `quantization.json`."""
        return json.dumps(asdict(self), indent=1, sort_keys=True) + "\n"


def read_quantization(bundle: Bundle) -> Quantization | None:
    """The record of an opened bundle (its hash was checked then), or None where nothing was quantized."""
    if QUANTIZATION not in bundle.manifest.files:
        return None
    path = bundle.path / QUANTIZATION
    return from_json(Quantization, path.read_bytes(), path)
