"""How a candidate-state reasoner learns: on the states that it comes to itself (see :mod:`models.deduce`).

The recipe of arXiv 2605.08605: a pool of partly solved puzzles, moved on by the very call that was learned from; a
loss at every cycle of a call. The slots of :mod:`trainer.slots` are the pool.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..models.deduce import Deduce, possible
from .losses import Losses

# (state of the candidates, input) → the next state, and the logits of the three heads
Turn = Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor, Tensor]]

MOST_CALLS = 64  # on a puzzle, which then makes room for another
_KEPT, _STRUCK = 4.0, 0.5  # weights of a candidate that is right and of one that is not: a wrong strike is worst
_CONFLICT = 0.1  # weight of the conflict head's loss
_TEMPERATURE = 1.5  # of the symbols that are tried
_GUIDED = 0.5  # part of the puzzles whose pins are right, so that the pool holds states near a solution too
_ADVANCED = 0.5  # part of the new puzzles of which some wrong candidates are struck already


class Deduction:
    """A call on some slots: what it costs, and where it leaves them."""

    def __init__(self, network: Deduce, compiled: bool):
        def turn(h: Tensor, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
            h = network.cycle(h, x)
            return h, *network.read(h)

        self.network = network
        self._turn: Turn = torch.compile(turn, dynamic=False) if compiled else turn

    def call(
        self, state: Sequence[Tensor], e: Tensor, labels: Tensor, fresh: Tensor, rng: torch.Generator
    ) -> tuple[tuple[Tensor, ...], Tensor, Tensor, Losses]:
        """``((struck, pinned, attempts), logits[B, S, V], q[B, 2], losses)`` after a call.

        q is above 0 where a puzzle is done with: solved, or led into a contradiction that was seen. A false alarm
        stays, to be learned from.
        """
        network = self.network
        right = network.of_tokens(labels)  # [B, S, K]
        alive, given = possible(state[0], e)
        alive = self._advanced(alive, right, fresh, rng)
        sound = ((alive * right).sum(-1) + (right.sum(-1) == 0) > 0.5).all(1)
        x = network.embedded(alive, given)
        if torch.is_autocast_enabled(x.device.type):
            x = x.to(torch.get_autocast_dtype(x.device.type))
        h, cycles = torch.zeros_like(x), []
        for _ in range(network.arch.trained_cycles):
            h, *heads = self._turn(h, x)
            cycles.append([logits.float() for logits in heads])
        losses = self._losses(cycles, alive * right, right, given, sound)
        with torch.no_grad():
            keep, symbol, conflict = (logits.detach() for logits in cycles[-1])
            left, solved, contradiction = self._moved(alive, given, right, keep, symbol, conflict, rng)
            still = ((left * right).sum(-1) + (right.sum(-1) == 0) > 0.5).all(1)
            done = solved | (contradiction & ~still)
            struck = 1 - left
            q = torch.stack((done.float() - 0.5, torch.zeros_like(done, dtype=torch.float)), 1)
            logits = network.tokens(symbol - 40 * (1 - alive))
        return (struck, torch.zeros_like(struck), torch.zeros_like(state[2])), logits, q, losses

    def _advanced(self, alive: Tensor, right: Tensor, fresh: Tensor, rng: torch.Generator) -> Tensor:
        rows = (*alive.shape[:1], 1, 1)
        part = _uniform(rows, alive, rng) * (_uniform(rows, alive, rng) < _ADVANCED) * fresh.view(-1, 1, 1)
        kept = (_uniform(alive.shape, alive, rng) >= part) | (right > 0) | (right.sum(-1, keepdim=True) == 0)
        return alive * kept

    def _losses(
        self, cycles: list[list[Tensor]], kept: Tensor, right: Tensor, given: Tensor, sound: Tensor
    ) -> Losses:
        """Means over the cycles; where the right answer is no longer possible nothing is learned of symbols."""
        labelled = right.sum(-1)
        weight = torch.where(kept > 0, _KEPT, _STRUCK) * labelled[..., None]
        asked = (labelled * (given.sum(-1) < 0.5) * sound[:, None]).flatten()
        wrong, place = (~sound).float()[:, None], right.argmax(-1).flatten()
        parts = []
        for keep, symbol, conflict in cycles:
            token = F.cross_entropy(symbol.flatten(0, 1), place, reduction="none")
            parts.append(
                torch.stack(
                    (
                        F.binary_cross_entropy_with_logits(keep, kept, weight=weight),
                        (token * asked).sum() / asked.sum().clamp(min=1),
                        F.binary_cross_entropy_with_logits(conflict, wrong),
                    )
                )
            )
        strike, token, conflict = torch.stack(parts).mean(0)
        return Losses(strike + token + _CONFLICT * conflict, token, conflict)

    def _moved(
        self,
        alive: Tensor,
        given: Tensor,
        right: Tensor,
        keep: Tensor,
        symbol: Tensor,
        conflict: Tensor,
        rng: torch.Generator,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Candidates left after the call and a pin by chance; rows that are solved; rows that contradict."""
        guided = (_uniform((len(alive), 1, 1), alive, rng) < _GUIDED) * right
        strike = (keep < self.network.strike_logit).float() * (1 - given) * (1 - guided)
        left = alive * (1 - strike)
        count = left.sum(-1)
        contradiction = (count < 0.5).any(1) | (conflict[:, 0] > 0)
        solved = (count == 1).all(1) & ~contradiction
        open = (count > 1.5).float()
        going = (open.sum(1) > 0) & ~contradiction
        cell = torch.multinomial(open + (~going)[:, None], 1, generator=rng)
        chosen = F.one_hot(cell[:, 0], open.shape[1])[..., None] * going[:, None, None]
        likely = torch.softmax(symbol / _TEMPERATURE + 1e4 * guided - 1e9 * (1 - left), -1)
        tried = torch.multinomial(likely.flatten(0, 1), 1, generator=rng).view(count.shape)
        pin = F.one_hot(tried, left.shape[-1])
        return torch.where(chosen > 0, left * pin, left), solved, contradiction


def _uniform(shape: Sequence[int], like: Tensor, rng: torch.Generator) -> Tensor:
    return torch.rand(tuple(shape), generator=rng, device=rng.device).to(like.device)
