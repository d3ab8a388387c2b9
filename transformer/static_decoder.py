"""Fast decoding over the trained weights: fixed cache, fused projections, no copying of the past.

The cache holds turned keys, so nothing of the past is touched again: a step reads the weights and the
filled part of the cache once. What is left is the time that a CPU or GPU takes to start each operation,
so there are few. Equal to the full forward pass (tests/test_static_decoder.py).
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from tokenreel.transformer.backbone import LayerWeights, read_layers
from tokenreel.transformer.config import HEAD_DIM
from tokenreel.transformer.model import VideoGPT

EPS = 1e-12


class StaticDecoder:
    """Layers of a :class:`VideoGPT` with a cache for ``batch`` sequences of up to one window.

    Args:
        gpt: The trained model; its weights are copied in their present state.
        batch: Number of sequences B.
    """

    def __init__(self, gpt: VideoGPT, batch: int) -> None:
        self.layers, self.final_gain = read_layers(gpt.backbone)
        self.heads = gpt.config.size.heads
        # A pair (a, b) turns to (a cos - b sin, b cos + a sin): the vector times one table, plus the vector with its
        # halves exchanged times the other. Both (N, 2, 1, 64), of queries and of keys.
        angles = torch.stack([gpt.query_angles, gpt.key_angles], dim=1)[:, :, None]
        self.cos = angles.cos().repeat(1, 1, 1, 2)
        self.sin = torch.cat([-angles.sin(), angles.sin()], dim=-1)
        shape = (len(self.layers), batch, self.heads, len(angles), HEAD_DIM)
        self.keys = torch.zeros(shape, device=gpt.device)
        self.values = torch.zeros(shape, device=gpt.device)
        self.filled = 0

    def rewind(self, length: int) -> None:
        """Forget all but the first tokens of the sequence: others may follow them."""
        assert 0 <= length <= self.filled, f"{length} of {self.filled} tokens"
        self.filled = length

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """Append embeddings to the sequence and run them through all layers.

        Args:
            x: (B, n, D): the prompt's n embeddings at first (prefill), later one (decode step) or a few.

        Returns:
            (B, n, D), normalised, ready for the head.
        """
        B, n, D = x.shape
        start, stop = self.filled, self.filled + n
        assert stop <= self.keys.shape[3], f"{stop} tokens do not fit the cache of {self.keys.shape[3]}"
        cos, sin, x = self.cos[start:stop], self.sin[start:stop], x.reshape(B * n, D)
        mask = torch.ones(n, stop, dtype=torch.bool, device=x.device).tril(start) if start and n > 1 else None
        for layer, keys, values in zip(self.layers, self.keys, self.values, strict=True):
            queries, new_keys, new_values = self._project(x, layer, cos, sin, B)
            keys[:, :, start:stop], values[:, :, start:stop] = new_keys, new_values
            mixed = F.scaled_dot_product_attention(
                queries, keys[:, :, :stop], values[:, :, :stop], mask, is_causal=start == 0 and n > 1
            )
            x = torch.addmm(x, mixed.transpose(1, 2).reshape(B * n, D), layer.out.T)
            up, gate = F.linear(_norm(x), layer.up_gate, layer.up_gate_bias).chunk(2, dim=-1)
            x = torch.addmm(x, F.silu(gate).mul_(up), layer.down.T)
        self.filled = stop
        return (_norm(x) * self.final_gain).view(B, n, D)

    def _project(self, x: Tensor, layer: LayerWeights, cos: Tensor, sin: Tensor, batch: int) -> tuple[Tensor, ...]:
        """(B·n, D) -> turned queries, turned keys, values: (B, heads, n, 64) each."""
        qkv = F.linear(_norm(x), layer.qkv).view(batch, -1, 3, self.heads, HEAD_DIM)
        straight = _norm(qkv[:, :, :2]) * layer.gains
        turned = torch.addcmul(straight * cos, straight.roll(HEAD_DIM // 2, dims=-1), sin)
        return tuple(part.transpose(1, 2) for part in (turned[:, :, 0], turned[:, :, 1], qkv[:, :, 2]))


def _norm(x: Tensor) -> Tensor:
    """RMS norm over the last axis: what the library writes as normalize(x) * sqrt(D)."""
    return F.rms_norm(x, x.shape[-1:], eps=EPS)
