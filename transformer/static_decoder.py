"""Fast decoding over the trained weights: fixed cache, fused projections, no copying of the past.

The cache holds turned keys, so nothing of the past is touched again: a step reads the weights and the
filled part of the cache once. What is left is the time that a CPU or GPU takes to start each operation,
so there are few. Equal to the full forward pass (tests/test_static_decoder.py).
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from tokenreel.transformer import attention_step
from tokenreel.transformer.backbone import LayerWeights, read_layers
from tokenreel.transformer.config import HEAD_DIM
from tokenreel.transformer.model import VideoGPT
from tokenreel.transformer.products import Precision, Product, laid_out
from tokenreel.transformer.token_order import TokenOrder

EPS = 1e-12


class _Layer(NamedTuple):
    """A layer's weights, laid out for the rows of a step."""

    qkv: Product
    gains: Tensor
    out: Product
    up: Product
    gate: Product
    down: Product


class StaticDecoder:
    """Layers of a :class:`VideoGPT` with a cache for ``batch`` sequences of up to one window.

    Args:
        gpt: The trained model; its weights are copied in their present state.
        batch: Number of sequences B.
        step: Tokens of each sequence that a decode step usually has; the cache has room for so many beyond the window.
        precision: Of the matrices; all else is float32.
        order: Of the tokens; None is that of time, in the first size of latent frames.
    """

    def __init__(
        self,
        gpt: VideoGPT,
        batch: int,
        step: int = 1,
        precision: Precision = "fp32",
        order: TokenOrder | None = None,
    ) -> None:
        layers, self.final_gain = read_layers(gpt.backbone)
        self.layers = [_lay_out(layer, batch * step, precision) for layer in layers]
        self.heads = gpt.config.size.heads
        # Rotary pairs as complex numbers, (N, 2, 1, 32), of queries and of keys: turning is one product.
        order = order or gpt.layout().order
        angles = torch.stack(gpt.angles(order, len(order.places)), dim=1)[:, :, None]
        angles = torch.cat([angles, angles[-1:].expand(step, -1, -1, -1)])
        self.turn = torch.polar(torch.ones_like(angles), angles)
        shape = (len(self.layers), batch, self.heads, len(angles), HEAD_DIM)
        self.keys = torch.zeros(shape, device=gpt.device)
        self.values = torch.zeros(shape, device=gpt.device)
        large = gpt.device.type == "cpu" and 2 * self.keys.nbytes >= attention_step.LARGE
        self.rows = attention_step.rows_of_caches(batch * self.heads, len(angles)) if large else None
        self.filled = 0

    def keep(self, length: int) -> None:
        """The first tokens of each sequence stand, others follow them."""
        assert 0 <= length <= self.keys.shape[3], f"{length} tokens of {self.keys.shape[3]}"
        self.filled = length

    @torch.no_grad()
    def forward(self, x: Tensor, causal: bool = True) -> Tensor:
        """Append embeddings to all sequences and run them through all layers.

        Args:
            x: (B, n, D): the prompt's n embeddings at first (prefill), later one (decode step) or a few.
            causal: Each sees itself and those before it; else all n see one another too.

        Returns:
            (B, n, D), normalised, ready for the head.
        """
        n, start = x.shape[1], self.filled
        stop = start + n
        assert stop <= self.keys.shape[3], f"{stop} tokens do not fit the cache of {self.keys.shape[3]}"
        causal = causal and n > 1
        mask = torch.ones(n, stop, dtype=torch.bool, device=x.device).tril(start) if start and causal else None
        self.filled = stop
        return self._run(x, slice(start, stop), stop, mask, start == 0 and causal)

    @torch.no_grad()
    def forward_at(self, x: Tensor, starts: Tensor, stop: int) -> Tensor:
        """The same for sequences of different lengths; what stood where the embeddings go is forgotten.

        Args:
            x: (B, n, D).
            starts: int64 (B,): how many tokens of each sequence come before.
            stop: More than any of them by n at least; little more, as the cache up to there is read.
        """
        n, device = x.shape[1], x.device
        at = starts[:, None] + torch.arange(n, device=device)
        unseen = torch.arange(stop, device=device) > at[:, None, :, None]
        mask = torch.zeros(unseen.shape, device=device).masked_fill_(unseen, -torch.inf)
        return self._run(x, at, stop, mask, False)

    def _run(self, x: Tensor, at: slice | Tensor, stop: int, mask: Tensor | None, causal: bool) -> Tensor:
        """Through all layers: (B, n, D); ``at`` says where in the cache, for all alike or int64 (B, n)."""
        B, n, D = x.shape
        each = torch.arange(B, device=x.device)[:, None]
        turn, x = self.turn[at], x.reshape(B * n, D)
        rows = self.rows[:, :stop].contiguous() if self.rows is not None and n == 1 and mask is None else None
        for layer, keys, values in zip(self.layers, self.keys, self.values, strict=True):
            queries, new_keys, new_values = self._project(x, layer, turn, B)
            if isinstance(at, slice):
                keys[:, :, at], values[:, :, at] = new_keys.transpose(1, 2), new_values.transpose(1, 2)
            else:
                keys[each, :, at], values[each, :, at] = new_keys, new_values
            queries = queries.transpose(1, 2)
            if rows is not None:
                mixed = attention_step.attend_once(queries, keys, values, rows)
            else:
                seen = keys[:, :, :stop], values[:, :, :stop]
                mixed = F.scaled_dot_product_attention(queries, *seen, mask, is_causal=causal).transpose(1, 2)
            x = layer.out.added(mixed.reshape(B * n, D), to=x)
            unit = _unit(x)
            x = layer.down.added(layer.up.times(unit, layer.gate.gate(unit)), to=x)
        return (_unit(x) * self.final_gain).view(B, n, D)

    def _project(self, x: Tensor, layer: _Layer, turn: Tensor, batch: int) -> tuple[Tensor, ...]:
        """(B·n, D) -> turned queries, turned keys, values: (B, n, heads, 64) each."""
        qkv = layer.qkv(_unit(x)).view(batch, -1, 3, self.heads, HEAD_DIM)
        pairs = torch.view_as_complex((_unit(qkv[:, :, :2]) * layer.gains).unflatten(-1, (-1, 2)))
        turned = torch.view_as_real(pairs * turn).flatten(-2)
        return turned[:, :, 0], turned[:, :, 1], qkv[:, :, 2]


def _lay_out(layer: LayerWeights, rows: int, precision: Precision) -> _Layer:
    return _Layer(
        laid_out(layer.qkv, None, rows, precision),
        layer.gains,
        laid_out(layer.out, None, rows, precision),
        laid_out(layer.up, layer.up_bias, rows, precision),
        laid_out(layer.gate, layer.gate_bias, rows, precision),
        laid_out(layer.down, None, rows, precision),
    )


def _unit(x: Tensor) -> Tensor:
    """Vectors of the last axis made one long: in fewer operations than torch's RMS norm, which is six on CPUs."""
    return x / torch.linalg.vector_norm(x, dim=-1, keepdim=True).clamp_min_(EPS)
