"""What a segment costs, in floating-point operations: counted by PyTorch while it runs, whatever the network is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode


@torch.no_grad()
def count_flops(segment: Callable[..., Any], inputs: Sequence[Tensor]) -> int:
    """Operations of the matrix products and convolutions in ``segment(*inputs)``; a multiply-add is two.

    Softmax, norms, activations and sums are left out, as they are in what papers state. ``inputs`` of one row give
    what one puzzle takes; on the device "meta" nothing is computed.
    """
    with _products_apart(), FlopCounterMode(display=False, custom_mapping=_ALSO) as counter:
        segment(*inputs)
    return int(counter.get_total_flops())


@contextmanager
def _products_apart() -> Iterator[None]:
    """Without the fused kernels of a CPU, of which the counter sees nothing: attention as the products it is."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def _lstm_layer(x: Sequence[int], of_input: Sequence[int], of_state: Sequence[int], *_: Any, **__: Any) -> int:
    """One layer in one direction: ``x[T, B, in]`` by the weights ``[4H, in]`` and ``[4H, H]``."""
    return 2 * x[0] * x[1] * of_input[0] * (of_input[1] + of_state[1])


def _by_vector(matrix: Sequence[int], *_: Any, **__: Any) -> int:
    return 2 * matrix[0] * matrix[1]


def _added_by_vector(added: Sequence[int], matrix: Sequence[int], *_: Any, **__: Any) -> int:
    return _by_vector(matrix)


def _added_products(added: Sequence[int], first: Sequence[int], second: Sequence[int], *_: Any, **__: Any) -> int:
    """The sum of ``first[b, n, m] @ second[b, m, p]`` over b, and ``added``."""
    return 2 * first[0] * first[1] * first[2] * second[2]


def _bilinear(x: Sequence[int], weight: Sequence[int], *_: Any, **__: Any) -> int:
    """``x[B, I]``, ``weight[O, I, J]`` and ``y[B, J]``: by the one, then by the other."""
    return 2 * x[0] * weight[0] * weight[2] * (weight[1] + 1)


def _scalar_product(x: Sequence[int], *_: Any, **__: Any) -> int:
    return 2 * x[0]


_ATEN = torch.ops.aten
# What else the counter does not know.
_ALSO: dict[Any, Any] = {
    _ATEN.mkldnn_rnn_layer: _lstm_layer,
    _ATEN.mv: _by_vector,
    _ATEN.addmv: _added_by_vector,
    _ATEN.addbmm: _added_products,
    _ATEN._trilinear: _bilinear,
    _ATEN.dot: _scalar_product,
    _ATEN.vdot: _scalar_product,
}
