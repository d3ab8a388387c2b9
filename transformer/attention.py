"""Causal self-attention for training: the library's weights, with fewer passes over memory than its own way.

The library projects three times, and works out sines anew for the queries and for the keys of every layer. Here one
product makes queries, keys and values, pairs are turned as halves of a head, which needs no shuffling, and a CPU
that multiplies in bf16 does so in attention as well. The result is the library's (tests/test_backbone.py).
"""

from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from tokenreel.transformer.attention_rows import attend_by_rows
from tokenreel.transformer.config import HEAD_DIM

EPS = 1e-12


class Turn(NamedTuple):
    """Of the rotary angles at N places."""

    cos: Tensor
    """float32 (N, 32)"""
    sin: Tensor
    """float32 (N, 32)"""

    def __call__(self, x: Tensor) -> Tensor:
        """Rotate pairs (j, j + 32) of (B, heads, N, 64) by the angles of their places."""
        first, second = x.chunk(2, dim=-1)
        return torch.cat([first * self.cos - second * self.sin, second * self.cos + first * self.sin], dim=-1)


class Turns(NamedTuple):
    """How queries and keys are turned."""

    queries: Turn
    keys: Turn


class Attend(Protocol):
    """Softmax attention of who may see whom."""

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, dropout: float) -> Tensor:
        """(B, heads, N, 64), three times -> (B, heads, N, 64)."""


def self_attention(layer: Any, x: Tensor, turns: Turns, attend: Attend | None = None) -> Tensor:
    """What the library's ``Attention`` makes of its normalised input.

    Args:
        layer: One of the library's, with normalised queries and keys.
        x: (B, N, D).
        turns: By the rotary angles of the N places.
        attend: Who sees whom; by default each token itself and those before it.

    Returns:
        (B, N, D), not yet added to the residual stream.
    """
    B, N, _ = x.shape
    q, k, v = F.linear(x, fused_weight(layer)).view(B, N, 3, -1, HEAD_DIM).permute(2, 0, 3, 1, 4).unbind(0)
    q = turns.queries(_norm(q) * (as_halves(layer.q_rmsnorm.gamma, -1) + 1.0)).to(v.dtype)
    k = turns.keys(_norm(k) * (as_halves(layer.k_rmsnorm.gamma, -1) + 1.0)).to(v.dtype)
    mixed = (attend or causal)(q, k, v, layer.attend.dropout if layer.training else 0.0)
    out: Tensor = layer.to_out(mixed.transpose(1, 2).flatten(2))
    return out


def fused_weight(layer: Any) -> Tensor:
    """Rows for queries, keys and values, rotary pairs as halves of a head: (3·D, D), a copy."""
    return torch.cat([as_halves(layer.to_q.weight, 0), as_halves(layer.to_k.weight, 0), layer.to_v.weight])


def as_halves(x: Tensor, axis: int) -> Tensor:
    """Along an axis of heads x 64: pair j of a head, the neighbours (2j, 2j + 1), comes to lie at (j, j + 32)."""
    pairs = x.movedim(axis, -1).unflatten(-1, (-1, HEAD_DIM // 2, 2))
    return pairs.mT.flatten(-3).movedim(-1, axis)


def causal(q: Tensor, k: Tensor, v: Tensor, dropout: float) -> Tensor:
    """Each token sees itself and those before it: see :class:`Attend`."""
    if q.device.type == "cpu" and q.dtype == torch.bfloat16 and not dropout:
        return attend_by_rows(q.flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1)).view(q.shape)
    return F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=True)


def _norm(x: Tensor) -> Tensor:
    return F.rms_norm(x.float(), (HEAD_DIM,), eps=EPS)
