"""The transformer's layers: the only file, with attention.py, that knows x-transformers and its internals.

The library's decoder makes and holds the layers (pre-norm RMSNorm, SwiGLU, normalised queries and keys). Training
runs them with our 3D rotary angles, and with attention in fewer passes (:mod:`tokenreel.transformer.attention`);
sampling runs :mod:`tokenreel.transformer.static_decoder` over the same weights, read out here. The library's minor
version is pinned, and tests compare both with what the library itself computes.
"""

import warnings
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

with warnings.catch_warnings():
    warnings.simplefilter("ignore", FutureWarning)  # the library scripts a function when it is imported
    from x_transformers import Decoder

from tokenreel.transformer.attention import Attend, Turn, Turns, self_attention
from tokenreel.transformer.config import HEAD_DIM, GPTSize

MLP_RATIO = 4


def build_decoder(size: GPTSize, **changes: Any) -> Decoder:
    """The library's decoder as we use it; ``changes`` of its options are for ablations."""
    options: dict[str, Any] = {
        "dim": size.dim,
        "depth": size.depth,
        "heads": size.heads,
        "attn_dim_head": HEAD_DIM,
        "attn_flash": True,
        "attn_qk_rmsnorm": True,
        "attn_project_out": True,  # the library leaves it out where there is one head
        "attn_dropout": size.dropout,
        "use_rmsnorm": True,
        "ff_mult": MLP_RATIO,
        "ff_glu": True,
        "ff_swish": True,
        "ff_no_bias": True,
        "ff_dropout": size.dropout,
        "zero_init_branch_output": True,
    }
    return Decoder(**{**options, **changes})


class Backbone(nn.Module):
    """Causal transformer on embeddings."""

    checkpoint_activations = False
    """In training, keep only each layer's input for the backward pass and compute the rest again: the same gradients,
    less memory, a third more time."""

    def __init__(self, size: GPTSize) -> None:
        super().__init__()
        self.decoder = build_decoder(size)
        for place, parts in enumerate(self.decoder.layers):
            self.decoder.layers[place] = (Perceiving if place % 2 == 0 else Thinking)(parts)

    @property
    def blocks(self) -> list[nn.Module]:
        """What runs one after the other, each called on what the one before made."""
        return list(self.decoder.layers)

    def forward(self, x: Tensor, query_angles: Tensor, key_angles: Tensor, attend: Attend | None = None) -> Tensor:
        """Run all layers and the final norm.

        Args:
            x: Embeddings (B, N, D).
            query_angles: Rotary angles of the queries, float32 (N, 32).
            key_angles: Of the keys.
            attend: Who sees whom; by default row n depends on rows <= n alone.

        Returns:
            (B, N, D).
        """
        turns = Turns(Turn(query_angles.cos(), query_angles.sin()), Turn(key_angles.cos(), key_angles.sin()))
        for perceiving, thinking in zip(self.blocks[::2], self.blocks[1::2], strict=True):
            if self.checkpoint_activations and self.training:
                x = checkpoint(_layer, perceiving, thinking, x, turns, attend, use_reentrant=False)
            else:
                x = _layer(perceiving, thinking, x, turns, attend)
        normalised: Tensor = self.decoder.final_norm(x)
        return normalised


class Perceiving(nn.ModuleList):
    """The library's (norms, attention, residual): what tokens take from one another. Its weights keep their names."""

    def forward(self, x: Tensor, turns: Turns, attend: Attend | None) -> Tensor:
        """(B, N, D) -> the same shape."""
        return x + self_attention(self[1], self[0][0](x), turns, attend)  # type: ignore[index, operator]


class Thinking(nn.ModuleList):
    """The library's (norms, perceptron, residual): what each token makes of it."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, D) -> the same shape."""
        out: Tensor = x + self[1](self[0][0](x))  # type: ignore[index, operator]
        return out


def _layer(perceiving: nn.Module, thinking: nn.Module, x: Tensor, turns: Turns, attend: Attend | None) -> Tensor:
    out: Tensor = thinking(perceiving(x, turns, attend))
    return out


class LayerWeights(NamedTuple):
    """One layer as plain tensors. What a norm does after making its vectors one long is in the matrix behind it."""

    qkv: Tensor
    """(3·D, D)"""
    gains: Tensor
    """(2, heads, 64), of queries and keys; rotary pairs are neighbours (2j, 2j + 1)."""
    out: Tensor
    """(D, D)"""
    up: Tensor
    """(4·D, D)"""
    up_bias: Tensor
    """(4·D,)"""
    gate: Tensor
    """(4·D, D)"""
    gate_bias: Tensor
    """(4·D,)"""
    down: Tensor
    """(D, 4·D)"""


@torch.no_grad()
def read_layers(backbone: Backbone) -> tuple[list[LayerWeights], Tensor]:
    """The weights of every layer, and the gain (D,) of the final norm for vectors one long; copies."""
    layers = []
    blocks = list(backbone.decoder.layers)
    for (attention_norms, attention, _), (mlp_norms, mlp, _) in zip(blocks[::2], blocks[1::2], strict=True):
        qkv = torch.cat([attention.to_q.weight, attention.to_k.weight, attention.to_v.weight])
        up, gate = (mlp.ff[0].proj.weight * _gain(mlp_norms[0])).chunk(2)
        up_bias, gate_bias = mlp.ff[0].proj.bias.clone().chunk(2)
        layers.append(
            LayerWeights(
                qkv=qkv * _gain(attention_norms[0]),
                gains=torch.cat([_gains_of_heads(attention.q_rmsnorm), _gains_of_heads(attention.k_rmsnorm)]),
                out=attention.to_out.weight.clone(),
                up=up,
                up_bias=up_bias,
                gate=gate,
                gate_bias=gate_bias,
                down=_last_linear(mlp).weight.clone(),
            )
        )
    return layers, _gain(backbone.decoder.final_norm)


def _gains_of_heads(norm: Any) -> Tensor:
    gains: Tensor = (norm.gamma + 1.0).transpose(0, 1) * HEAD_DIM**0.5
    return gains


def _gain(norm: nn.Module) -> Tensor:
    gain: Tensor = norm.g.detach()  # type: ignore[union-attr, assignment, operator]
    return (gain + float(norm.unit_offset)) * len(gain) ** 0.5  # type: ignore[arg-type]


def _last_linear(mlp: nn.Module) -> nn.Linear:
    return [module for module in mlp.modules() if isinstance(module, nn.Linear)][-1]
