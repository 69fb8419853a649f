"""Networks that know nothing of this project but its contract: start, segment, and names for their states."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Cast(nn.Module):
    """A projection as public code has it: a plain parameter, cast to what it meets."""

    def __init__(self, fan_in: int, fan_out: int, bias: bool = False):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(fan_out, fan_in) * fan_in**-0.5)
        self.bias = nn.Parameter(torch.zeros(fan_out)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.to(x.dtype), self.bias)


def rms_norm(x: Tensor, eps: float = 1e-5) -> Tensor:
    wide = x.to(torch.float32)
    return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)).to(x.dtype)


def rotary(length: int, width: int) -> tuple[Tensor, Tensor]:
    frequencies = 1 / (10_000 ** (torch.arange(0, width, 2).float() / width))
    angles = torch.outer(torch.arange(length).float(), frequencies).repeat(1, 2)
    return angles.cos(), angles.sin()


class SelfAttention(nn.Module):
    """Fused q, k, v; rotary positions; the scaled product that torch has."""

    def __init__(self, width: int, heads: int, length: int):
        super().__init__()
        self.heads = heads
        self.qkv_proj, self.o_proj = Cast(width, 3 * width), Cast(width, width)
        cos, sin = rotary(length, width // heads)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    def turn(self, x: Tensor) -> Tensor:
        first, second = x.chunk(2, dim=-1)
        return x * self.cos + torch.cat((-second, first), dim=-1) * self.sin

    def forward(self, x: Tensor) -> Tensor:
        rows, length, width = x.shape
        q, k, v = self.qkv_proj(x).view(rows, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(self.turn(q), self.turn(k), v)
        return self.o_proj(y.transpose(1, 2).reshape(rows, length, width))


class GatedUnit(nn.Module):
    """SwiGLU, with a short convolution along the sequence in it where there is a kernel."""

    def __init__(self, width: int, inner: int, kernel: int = 0):
        super().__init__()
        self.gate_up_proj, self.down_proj = Cast(width, 2 * inner), Cast(inner, width)
        self.conv = nn.Conv1d(inner, inner, kernel, padding=kernel // 2, groups=inner) if kernel else None

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.gate_up_proj(x).chunk(2, dim=-1)
        hidden = F.silu(gate) * up
        if self.conv is not None:
            hidden = F.silu(self.conv(hidden.transpose(1, 2))).transpose(1, 2)
        return self.down_proj(hidden)


class PostNormBlock(nn.Module):
    def __init__(self, width: int, heads: int, length: int, kernel: int = 0):
        super().__init__()
        self.self_attn = SelfAttention(width, heads, length)
        self.mlp = GatedUnit(width, 2 * width, kernel)

    def forward(self, x: Tensor) -> Tensor:
        x = rms_norm(x + self.self_attn(x))
        return rms_norm(x + self.mlp(x))


class SingleZ(nn.Module):
    """TRM with a single state: L steps with the input, then one without; q is one number from the first token."""

    state = ("z_L",)
    halt_max_steps = 8

    def __init__(
        self, task, width: int = 64, heads: int = 4, H_cycles: int = 2, L_cycles: int = 3, layers: int = 2
    ):
        super().__init__()
        self.width, self.H_cycles, self.L_cycles = width, H_cycles, L_cycles
        self.embed_tokens = nn.Embedding(task.vocab_size, width)
        self.layers = nn.ModuleList(PostNormBlock(width, heads, task.seq_len) for _ in range(layers))
        self.lm_head, self.q_head = Cast(width, task.vocab_size), Cast(width, 1, bias=True)
        self.register_buffer("L_init", torch.randn(width))

    def level(self, z: Tensor) -> Tensor:
        for layer in self.layers:
            z = layer(z)
        return z

    def start(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        e = self.width**0.5 * self.embed_tokens(tokens)
        return e, self.L_init.expand_as(e)

    def segment(self, z_L: Tensor, e: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        with torch.no_grad():
            for _ in range(self.H_cycles - 1):
                z_L = self.cycle(z_L, e)
        z_L = self.cycle(z_L, e)
        return z_L.detach(), self.lm_head(z_L), self.q_head(z_L[:, 0])

    def cycle(self, z_L: Tensor, e: Tensor) -> Tensor:
        for _ in range(self.L_cycles):
            z_L = self.level(z_L + e)
        return self.level(z_L)


class PreNormLayer(nn.Module):
    """LayerNorm, GELU and biases, as most encoders have them."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.q_proj, self.k_proj, self.v_proj, self.out = (nn.Linear(width, width) for _ in range(4))
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        rows, length, width = x.shape
        h = self.norm1(x)
        q, k, v = (
            project(h).view(rows, length, self.heads, -1).transpose(1, 2)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        scores = torch.softmax(q @ k.transpose(-1, -2) / (width // self.heads) ** 0.5, dim=-1)
        x = x + self.out((scores @ v).transpose(1, 2).flatten(2))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class LoopedEncoder(nn.Module):
    """A Universal Transformer: the input is the first state, and positions are all that every step is told.

    It has no halting head: it stops when its state stands still, or, with ``tolerance`` None, after all its steps.
    """

    halt_max_steps = 6

    def __init__(self, task, width: int = 48, heads: int = 3, tolerance: float | None = 1e-3):
        super().__init__()
        self.tolerance = tolerance
        self.tokens, self.positions = nn.Embedding(task.vocab_size, width), nn.Embedding(task.seq_len, width)
        self.layer = PreNormLayer(width, heads)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, task.vocab_size))

    def start(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        embedded = self.tokens(tokens)
        return self.positions.weight.expand_as(embedded), embedded

    def segment(self, z: Tensor, e: Tensor) -> tuple[Tensor, Tensor]:
        z = self.norm(self.layer(z + e))
        return z, self.head(z)


class ConvMixer(nn.Module):
    """Two states of different shapes, a short convolution in the gated unit, an MLP over the sequence, HRM's q."""

    state = ("board", "summary")
    halt_max_steps = 4

    def __init__(self, task, width: int = 64, kernel: int = 3):
        super().__init__()
        length = task.seq_len
        self.embed = nn.Embedding(task.vocab_size, width)
        self.mix_up, self.mix_down = nn.Linear(length, 2 * length), nn.Linear(2 * length, length)
        self.unit = GatedUnit(width, 2 * width, kernel)
        self.told, self.recall = nn.Linear(width, width), nn.Linear(width, width)
        self.out, self.q = nn.Linear(width, task.vocab_size), nn.Linear(width, 2)

    def start(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        e = self.embed(tokens)
        return e, torch.zeros_like(e), torch.zeros_like(e[:, 0])

    def segment(self, board: Tensor, summary: Tensor, e: Tensor) -> tuple[Tensor, ...]:
        h = board + e + self.told(summary)[:, None]
        h = rms_norm(h + self.mix_down(F.gelu(self.mix_up(h.transpose(1, 2)), approximate="tanh")).transpose(1, 2))
        h = rms_norm(h + self.unit(h))
        summary = torch.tanh(self.recall(h.mean(dim=1)) + summary)
        return h, summary, self.out(h), self.q(summary)


class Attending(nn.Module):
    """What torch has ready-made: attention with one parameter for three projections, whole and in parts, an encoder
    layer; and products with plain parameters."""

    halt_max_steps = 3

    def __init__(self, task, width: int = 32):
        super().__init__()
        self.embed = nn.Embedding(task.vocab_size, width)
        self.places = nn.Parameter(torch.randn(task.seq_len, width))
        self.itself = nn.MultiheadAttention(width, 2, batch_first=True)
        self.asking = nn.MultiheadAttention(width, 2, batch_first=True)
        self.layer = nn.TransformerEncoderLayer(width, 2, 2 * width, dropout=0.1, batch_first=True)
        self.both = nn.Parameter(torch.randn(2 * width, width) * width**-0.5)
        self.turned = nn.Parameter(torch.randn(width, width) * width**-0.5)
        self.out, self.q = nn.Linear(width, task.vocab_size), nn.Linear(width, 1)

    def start(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        e = self.embed(tokens) + self.places
        return e, torch.zeros_like(e)

    def segment(self, z: Tensor, e: Tensor) -> tuple[Tensor, ...]:
        h = z + e
        h = h + self.itself(h, h, h, need_weights=False)[0]
        h = self.layer(h + self.asking(h, e, e)[0])
        first, second = self.both.chunk(2)
        z = torch.tanh(F.linear(torch.relu(F.linear(h, first)), second) + h @ self.turned)
        return z, self.out(z), self.q(z[:, 0])


class Smallest(nn.Module):
    """One linear map; each test changes what it gives."""

    halt_max_steps = 3
    gives = staticmethod(lambda z, logits: (z, logits))

    def __init__(self):
        super().__init__()
        self.embed, self.step, self.out = nn.Embedding(6, 8), nn.Linear(8, 8), nn.Linear(8, 6)

    def start(self, tokens):
        return self.embed(tokens), torch.zeros(*tokens.shape, 8)

    def segment(self, z, e):
        z = torch.tanh(self.step(z + e))
        return self.gives(z, self.out(z))
