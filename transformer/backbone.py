"""The transformer's layers: the only file that knows x-transformers and its internals.

Training runs the library's decoder (pre-norm RMSNorm, SwiGLU, flash attention, normalised queries and keys)
with our 3D rotary angles from outside. Sampling runs :mod:`tokenreel.transformer.static_decoder` over the
same weights, read out here. The library's minor version is pinned and a parity test guards the reading.
"""

import warnings
from typing import NamedTuple

import torch
from torch import Tensor, nn

with warnings.catch_warnings():
    warnings.simplefilter("ignore", FutureWarning)  # the library scripts a function when it is imported
    from x_transformers import Decoder

from tokenreel.transformer.config import HEAD_DIM, GPTSize

MLP_RATIO = 4


class Backbone(nn.Module):
    """Causal transformer on embeddings."""

    def __init__(self, size: GPTSize) -> None:
        super().__init__()
        self.decoder = Decoder(
            dim=size.dim,
            depth=size.depth,
            heads=size.heads,
            attn_dim_head=HEAD_DIM,
            attn_flash=True,
            attn_qk_rmsnorm=True,
            attn_project_out=True,  # the library leaves it out where there is one head
            attn_dropout=size.dropout,
            use_rmsnorm=True,
            ff_mult=MLP_RATIO,
            ff_glu=True,
            ff_swish=True,
            ff_no_bias=True,
            ff_dropout=size.dropout,
            zero_init_branch_output=True,
        )

    def forward(self, x: Tensor, angles: Tensor) -> Tensor:
        """Run all layers and the final norm.

        Args:
            x: Embeddings (B, N, D).
            angles: Rotary angles, float32 (N, 32).

        Returns:
            (B, N, D); row n depends on rows <= n alone.
        """
        paired = angles.repeat_interleave(2, dim=-1)[None]  # the library turns neighbours (2j, 2j + 1) as a pair
        return self.decoder(x, rotary_pos_emb=(paired, 1.0))


class LayerWeights(NamedTuple):
    """One layer as plain tensors, its norms' gains folded in where they multiply a matrix.

    Rotary pairs lie as halves (j, j + 32) of a head instead of neighbours, which turns without shuffling.
    """

    attention_norm: Tensor
    """(D,)"""
    qkv: Tensor
    """(3·D, D)"""
    query_gain: Tensor
    """(heads, 1, 64)"""
    key_gain: Tensor
    """(heads, 1, 64)"""
    out: Tensor
    """(D, D)"""
    mlp_norm: Tensor
    """(D,)"""
    up_gate: Tensor
    """(2·4·D, D): up rows, then gate rows."""
    up_gate_bias: Tensor
    """(2·4·D,)"""
    down: Tensor
    """(D, 4·D)"""


@torch.no_grad()
def read_layers(backbone: Backbone) -> tuple[list[LayerWeights], Tensor]:
    """The weights of every layer, and the gain (D,) of the final norm; copies."""
    layers = []
    blocks = list(backbone.decoder.layers)
    for (attention_norms, attention, _), (mlp_norms, mlp, _) in zip(blocks[::2], blocks[1::2], strict=True):
        halves = _halves_order(attention.heads)
        within_head = _halves_order(1)
        layers.append(
            LayerWeights(
                attention_norm=_gain(attention_norms[0]),
                qkv=torch.cat(
                    [attention.to_q.weight[halves], attention.to_k.weight[halves], attention.to_v.weight]
                ).clone(),
                query_gain=(attention.q_rmsnorm.gamma + 1.0)[..., within_head].clone(),
                key_gain=(attention.k_rmsnorm.gamma + 1.0)[..., within_head].clone(),
                out=attention.to_out.weight.clone(),
                mlp_norm=_gain(mlp_norms[0]),
                up_gate=mlp.ff[0].proj.weight.clone(),
                up_gate_bias=mlp.ff[0].proj.bias.clone(),
                down=_last_linear(mlp).weight.clone(),
            )
        )
    return layers, _gain(backbone.decoder.final_norm)


def _gain(norm: nn.Module) -> Tensor:
    return (norm.g + float(norm.unit_offset)).detach().clone()  # type: ignore[operator, union-attr, arg-type]


def _last_linear(mlp: nn.Module) -> nn.Linear:
    return [module for module in mlp.modules() if isinstance(module, nn.Linear)][-1]


def _halves_order(heads: int) -> Tensor:
    """Rows of a projection so that pair j of a head is (j, j + 32) instead of (2j, 2j + 1)."""
    one_head = torch.arange(HEAD_DIM).view(-1, 2).T.flatten()
    return torch.cat([one_head + head * HEAD_DIM for head in range(heads)])
