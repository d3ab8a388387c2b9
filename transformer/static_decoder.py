"""Fast decoding over the trained weights: fixed cache, fused projections, no copying of the past.

The cache holds turned keys, so nothing of the past is touched again: a step reads the weights and the
filled part of the cache once. Equal to the full forward pass (tests/test_static_decoder.py).
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from tokenreel.transformer.attention import Turn, Turns
from tokenreel.transformer.backbone import read_layers
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
        length, device = len(gpt.key_angles), gpt.device
        self.turns = Turns(*(Turn(angles.cos(), angles.sin()) for angles in (gpt.query_angles, gpt.key_angles)))
        shape = (len(self.layers), batch, self.heads, length, HEAD_DIM)
        self.keys = torch.zeros(shape, device=device)
        self.values = torch.zeros(shape, device=device)
        self.filled = 0

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """Append embeddings to the sequence and run them through all layers.

        Args:
            x: (B, n, D): the prompt's n embeddings at first (prefill), later one (decode step).

        Returns:
            (B, n, D), normalised, ready for the head.
        """
        start, stop = self.filled, self.filled + x.shape[1]
        assert stop <= self.keys.shape[3], f"{stop} tokens do not fit the cache of {self.keys.shape[3]}"
        assert start == 0 or x.shape[1] == 1, "prefill comes first, then single steps"
        turn_queries, turn_keys = (Turn(t.cos[start:stop], t.sin[start:stop]) for t in self.turns)
        for number, layer in enumerate(self.layers):
            q, k, v = self._project(_norm(x, layer.attention_norm), layer.qkv)
            q = turn_queries(_norm(q, layer.query_gain))
            self.keys[number, :, :, start:stop] = turn_keys(_norm(k, layer.key_gain))
            self.values[number, :, :, start:stop] = v
            keys, values = self.keys[number, :, :, :stop], self.values[number, :, :, :stop]
            mixed = F.scaled_dot_product_attention(q, keys, values, is_causal=start == 0 and stop > 1)
            x = x + F.linear(mixed.transpose(1, 2).flatten(2), layer.out)
            up, gate = F.linear(_norm(x, layer.mlp_norm), layer.up_gate, layer.up_gate_bias).chunk(2, dim=-1)
            x = x + F.linear(up * F.silu(gate), layer.down)
        self.filled = stop
        return _norm(x, self.final_gain)

    def _project(self, x: Tensor, qkv: Tensor) -> tuple[Tensor, ...]:
        """(B, n, D) -> queries, keys, values (B, heads, n, 64)."""
        B, n, _ = x.shape
        return F.linear(x, qkv).view(B, n, 3, self.heads, HEAD_DIM).permute(2, 0, 3, 1, 4).unbind(0)


def _norm(x: Tensor, gain: Tensor) -> Tensor:
    """RMS norm over the last axis: what the library writes as normalize(x) * sqrt(D) * gain, in one kernel."""
    return F.rms_norm(x, x.shape[-1:], eps=EPS) * gain
