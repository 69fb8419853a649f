"""Operations of a segment against arithmetic by hand, and against PyTorch's counter where that sees them all."""

import pytest
import torch
import torch.nn.functional as F
from foreign_networks import ConvMixer, LoopedEncoder, SingleZ
from small_networks import network
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from hrm_edge.models import HRM, HRMConfig
from hrm_edge.models.flops import count_flops
from hrm_edge.models.layers import swiglu_width
from hrm_edge.models.network import Wrapped
from hrm_edge.tasks import get_task

TASK = get_task("sudoku-4x4")
S = TASK.seq_len


def swiglu(rows: int, width: int, expansion: float = 4.0) -> int:
    return rows * 3 * width * swiglu_width(width, expansion)


def by_hand(config: HRMConfig, mixing: int, blocks: int) -> int:
    """``mixing``: multiply-adds with which a block mixes tokens. One more of all cells' logits, one of q."""
    length, D = config.prefix_len + config.seq_len, config.hidden_size
    return 2 * (blocks * (mixing + swiglu(length, D)) + length * D * config.vocab_size + 2 * D)


def attention(length: int, D: int) -> int:
    return 4 * length * D * D + 2 * length * length * D


def test_the_paper_size_without_memory_for_it():
    config = HRMConfig.paper()
    with torch.device("meta"):
        found = HRM(config).segment_flops
    assert found == by_hand(config, attention(82, 512), blocks=2 * (2 * 4 + 4))
    assert found == pytest.approx(13.7e9, rel=0.02)  # hrm.md says about 13


# Two layers at each level, N = T = 2.
@pytest.mark.parametrize(("kind", "blocks"), [("hrm", 12), ("trm", 12), ("recurrent", 16), ("direct", 4)])
@pytest.mark.parametrize(
    ("mixing", "multiply_adds"),
    [
        ({}, attention(3 + S, 32)),
        ({"mlp_t": True}, swiglu(32, 3 + S)),
        ({"conv_kernel": 5}, S * 25 * 32),
        # The means over 4 rows, 4 columns and 4 boxes, and each cell's share of them.
        ({"conv_kernel": 3, "unit_means": True}, S * 9 * 32 + 2 * 12 * S * 32),
    ],
)
def test_every_kind_and_mixer(kind, blocks, mixing, multiply_adds):
    changes = {"H_layers": 0 if kind == "trm" else 2, "L_layers": 2, "puzzle_emb_ndim": 32, "puzzle_emb_len": 3}
    model = network(kind=kind, **mixing, **changes)
    assert model.segment_flops == by_hand(model.config, multiply_adds, blocks)


@pytest.mark.parametrize("kind", [SingleZ, LoopedEncoder, ConvMixer])
def test_networks_of_others(kind):
    torch.manual_seed(0)
    theirs = kind(TASK).eval()
    e, *state = theirs.start(torch.ones(1, S, dtype=torch.int64))
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counted:
        theirs.segment(*state, e)
    model = Wrapped(theirs, TASK)
    assert model.segment_flops == model.config.segment_flops == counted.get_total_flops() > 0


class Fused(nn.Module):
    """What a CPU runs as one kernel: torch's own encoder layer, an LSTM, a scaled product, a vector."""

    def __init__(self, width: int = 16):
        super().__init__()
        self.embed = nn.Embedding(TASK.vocab_size, width)
        self.encoder = nn.TransformerEncoderLayer(width, 2, 3 * width, batch_first=True)
        self.lstm = nn.LSTM(width, 8, batch_first=True, bidirectional=True)
        self.head, self.halt = nn.Linear(width, TASK.vocab_size), nn.Parameter(torch.randn(width))

    def start(self, tokens):
        e = self.embed(tokens)
        return e, torch.zeros_like(e)

    def segment(self, z, e):
        z, _ = self.lstm(self.encoder(z + e))
        z = F.scaled_dot_product_attention(z, z, z)
        return z, self.head(z), z[:, 0] @ self.halt


def test_fused_kernels_are_counted_and_left_as_they_were():
    D = 16
    encoder = attention(S, D) + 2 * S * D * 3 * D
    lstm = 2 * S * 4 * 8 * (D + 8)
    others = 2 * S * S * D + S * D * TASK.vocab_size + D
    assert Wrapped(Fused(), TASK).segment_flops == 2 * (encoder + lstm + others)
    assert torch.backends.mha.get_fastpath_enabled()
    assert torch.backends.cuda.flash_sdp_enabled()


def test_only_products_count():
    x = torch.ones(1, 3, 4)
    assert count_flops(lambda x: (x.softmax(-1) * x).sum(), [x]) == 0
    assert count_flops(lambda x: x @ x.mT, [x]) == 2 * 3 * 3 * 4


@pytest.mark.parametrize(
    ("compute", "shapes", "expected"),
    [
        # By one input, then by the other: B·O·I·J and B·O·J multiply-adds.
        (F.bilinear, [(2, 3), (2, 4), (5, 3, 4)], 2 * (2 * 5 * 3 * 4 + 2 * 5 * 4)),
        (torch.addmv, [(3,), (3, 4), (4,)], 2 * 3 * 4),
        (torch.addbmm, [(3, 5), (2, 3, 4), (2, 4, 5)], 2 * 2 * 3 * 4 * 5),
        (torch.dot, [(7,), (7,)], 2 * 7),
    ],
)
def test_products_that_the_counter_does_not_know(compute, shapes, expected):
    assert count_flops(compute, [torch.ones(shape) for shape in shapes]) == expected
