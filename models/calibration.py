"""What every quantized layer reads while a model thinks freely: ranges to calibrate int8 scales from."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections import Counter
from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from ..bundle.quantization import LEVELS
from ..errors import InputError
from ..halting import halting_head
from ..progress import Progress
from .hrm import HRM
from .network import Wrapped, device_of
from .ranges import Histogram

Model = HRM | Wrapped

# Which segments of a row's own trajectory of T are counted (numbered from 1), by the name of the choice.
SAMPLINGS = {
    "all": lambda T: set(range(1, T + 1)),
    "first": lambda T: {1},
    "last": lambda T: {T},
    "middle": lambda T: {(T + 1) // 2},
    "stratified": lambda T: {1, min(2, T), (T + 1) // 2, T},
    # One segment on states from a unit normal. States of a rollout look otherwise: a known-bad choice, to compare.
    "random": lambda T: {1},
}
# Tokens of one call that go into a layer's x xᵀ: neighbours tell the same story, and all would be slow.
_GRAM_TOKENS = 1024
_NEEDS_NO_ROLLOUT = ("first", "random")


@dataclasses.dataclass
class Ranges:
    """Activations seen in calibration.

    A *site* is one call of a layer within a segment, ``"<layer>/<k>"``, k counting that layer's calls in the
    order of execution; ranges collected without telling calls apart have the layer's own name as their site.
    """

    histograms: dict[str, Histogram]  # by site
    channel_absmax: dict[str, np.ndarray]  # by layer: float32 [K], largest magnitude per input channel, all calls
    samples: int  # rows of segments seen
    grams: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)  # by layer: float64 [K, K], sum of x xᵀ


def quantized_layers(model: Model) -> list[str]:
    """Names of the linear layers that are quantized: those inside the blocks, never the two heads."""
    if isinstance(model, Wrapped):
        return list(model.quantized_layers)
    return [
        name for name, module in model.named_modules() if isinstance(module, nn.Linear) and name.startswith(LEVELS)
    ]


def collect_ranges(
    model: Model,
    questions: np.ndarray,
    identifiers: np.ndarray | None = None,
    *,
    segments: str = "stratified",
    smoothing: Mapping[str, np.ndarray] | None = None,
    seed: int = 0,
    batch: int = 32,
    per_call: bool = True,
    grams: bool = False,
    progress: Progress | None = None,
) -> Ranges:
    """Let the float model think about ``questions`` int32 ``[N, S]`` and histogram every layer's input.

    Each row rolls out with learned halting, for at most ``halt_max_steps`` segments; what a halted row would
    do next is never seen in deployment and not counted. The same arguments give the same ranges.

    Args:
        identifiers: int32 ``[N]``, rows of the table of puzzle embeddings; zeros by default.
        segments: which part of each row's trajectory is counted, a key of :data:`SAMPLINGS`.
        smoothing: by layer, float32 ``[K]``: what each input channel is divided by before it is counted
            (SmoothQuant, arXiv 2211.10438).
        seed: of the states, for ``segments="random"``.
        per_call: one site per call of a layer, rather than one per layer.
        grams: also sum x xᵀ over each layer's inputs, which rounding that makes up for itself needs.
    """
    if segments not in SAMPLINGS:
        raise InputError(f"calibration segments {segments!r}: choose from {', '.join(SAMPLINGS)}")
    if not len(questions):
        raise InputError("calibration needs at least one puzzle")
    rng, device = np.random.default_rng(seed), device_of(model)
    with torch.inference_mode(), _Recorder(model, smoothing or {}, per_call, grams) as recorder:
        for begin in range(0, len(questions), batch):
            some = torch.from_numpy(questions[begin : begin + batch]).to(device)
            rows = None
            if identifiers is not None:
                rows = torch.from_numpy(identifiers[begin : begin + batch]).to(device)
            e, *state = model.start(some, rows)
            if segments == "random":
                state = [torch.from_numpy(rng.standard_normal(z.shape, np.float32)).to(z) for z in state]
            lengths = np.ones(len(some), np.int64)
            if segments not in _NEEDS_NO_ROLLOUT:
                lengths = _trajectory_lengths(model, state, e)
            wanted = np.zeros((len(some), lengths.max() + 1), bool)
            for row, T in enumerate(lengths):
                wanted[row, list(SAMPLINGS[segments](int(T)))] = True
            _count(model, recorder, state, e, lengths, wanted)
            if progress is not None:
                progress("calibrating", begin + len(some), len(questions))
    return recorder.ranges


def _trajectory_lengths(model: Model, state: list[Tensor], e: Tensor) -> np.ndarray:
    """Segments that each row takes under learned halting, int64 ``[B]``."""
    config = model.config
    lengths = np.full(len(e), config.halt_max_steps)
    active = np.arange(len(e))
    for step in range(1, config.halt_max_steps):
        *state, _, q = model.segment(*[*state, e])
        stop = halting_head(config.no_ACT_continue).says_stop(q)
        lengths[active[stop.cpu().numpy()]] = step
        state, e, active = [z[~stop] for z in state], e[~stop], active[(~stop).cpu().numpy()]
        if not len(active):
            break
    return lengths


def _count(
    model: Model, recorder: _Recorder, state: list[Tensor], e: Tensor, lengths: np.ndarray, wanted: np.ndarray
) -> None:
    """The same rollout again, rows leaving as they did; ``wanted[B, segment]`` says what is counted."""
    active = np.arange(len(e))
    for step in range(1, int(lengths.max()) + 1):
        rows = wanted[active, step]
        if isinstance(model, Wrapped) and not rows.all():
            # Which dimension of a layer's input is the batch nobody knows: the rows to count run by themselves.
            some = torch.from_numpy(rows).to(e.device)
            if rows.any():
                with recorder.counting(rows[rows]):
                    model.segment(*(tensor[some] for tensor in (*state, e)))
            *state, _, _ = model.segment(*state, e)
        else:
            with recorder.counting(rows):
                *state, _, _ = model.segment(*[*state, e])
        stay = lengths[active] > step
        if not stay.all():
            keep = torch.from_numpy(stay).to(e.device)
            state, e, active = [z[keep] for z in state], e[keep], active[stay]


class _Recorder:
    """Watches the quantized layers, and counts the rows of a segment that it is told to count."""

    def __init__(self, model: Model, smoothing: Mapping[str, np.ndarray], per_call: bool, grams: bool):
        self.ranges = Ranges({}, {}, 0)
        self._model, self._per_call, self._grams = model, per_call, grams
        self._smoothing = {
            name: torch.from_numpy(factors).to(device_of(model)) for name, factors in smoothing.items()
        }
        self._calls: Counter[str] = Counter()  # of each layer in this segment
        self._rows: Tensor | None = None  # numbers of the rows to count; None: not counting

    def __enter__(self) -> _Recorder:
        self._watching = contextlib.ExitStack()
        layers = quantized_layers(self._model)
        if isinstance(self._model, Wrapped):
            stored = self._model.stored_layers()
            known = {layer: name for layer, name in stored.items() if name in layers}
            self._watching.enter_context(
                self._model.products(lambda layer, x, _: self._see(known[layer], x) if layer in known else None)
            )
            return self
        for name in layers:
            hook = functools.partial(self._hook, name)
            handle = self._model.get_submodule(name).register_forward_pre_hook(hook)
            self._watching.callback(handle.remove)
        return self

    def __exit__(self, *_: object) -> None:
        self._watching.close()

    @contextlib.contextmanager
    def counting(self, rows: np.ndarray) -> Iterator[None]:
        """Count ``rows`` (bool ``[B]``) of the segment that runs inside."""
        self._calls.clear()
        self._rows = torch.from_numpy(np.flatnonzero(rows)).to(device_of(self._model))
        self.ranges.samples += len(self._rows)
        yield
        self._rows = None

    def _hook(self, layer: str, _: nn.Module, inputs: tuple[Tensor]) -> None:
        self._see(layer, inputs[0])

    def _see(self, layer: str, input: Tensor) -> None:
        call = self._calls[layer]
        self._calls[layer] += 1
        if self._rows is None or not len(self._rows):
            return
        x = (input if isinstance(self._model, Wrapped) else input[self._rows]).float()
        if layer in self._smoothing:
            x = x / self._smoothing[layer]
        site = f"{layer}/{call}" if self._per_call else layer
        self.ranges.histograms.setdefault(site, Histogram()).add(x.cpu().numpy())
        absmax = x.abs().flatten(0, -2).amax(0).cpu().numpy()
        before = self.ranges.channel_absmax.get(layer, absmax)
        self.ranges.channel_absmax[layer] = np.maximum(before, absmax)
        if self._grams:
            tokens = x.flatten(0, -2)
            tokens = tokens[:: 1 + len(tokens) // _GRAM_TOKENS]
            self.ranges.grams[layer] = self.ranges.grams.get(layer, 0) + (tokens.T @ tokens).double().cpu().numpy()
