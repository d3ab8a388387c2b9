"""Whole latent frames at a time: indices that are hidden in a frame are predicted together, in a few passes.

Each latent frame sees all frames before it, and within it all indices that are not hidden. Training hides a random
number of each frame's indices, all numbers alike often, at random places; the mean loss of the hidden ones is then,
per index, what it costs to tell a frame one index after another in random order, so its bits compare with those of a
model that goes index by index. A pass runs two streams through the layers side by side: the true frames, which the
later ones look back on, and the frames with something hidden.

Source: Chang et al., 2022, "MaskGIT"; the two streams as in Arriola et al., 2025, "Block Diffusion".
"""

import math
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from tokenreel.transformer.clip_chance import FRAMES, uniform
from tokenreel.transformer.conditions import Conditions
from tokenreel.transformer.token_order import TokenOrder

if TYPE_CHECKING:
    from tokenreel.transformer.model import Tables, VideoGPT


class Hidden(NamedTuple):
    """Which indices of clips are hidden, in the order of the sequence."""

    where: Tensor
    """bool (B, T'·H'·W')."""
    weight: Tensor
    """float32, the same shape: of each index in the loss, on average one; zero where it is not hidden."""


class FrameAttention:
    """Who sees whom: prefix itself; true frames themselves and what is before; hidden ones likewise, but for the true.

    Args:
        prefix: Tokens before the frames.
        frames: T'; the last true frame is left out, as nothing looks back on it.
        per_frame: H'·W'.
    """

    def __init__(self, prefix: int, frames: int, per_frame: int) -> None:
        self.prefix, self.frames, self.per_frame = prefix, frames, per_frame

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, dropout: float) -> Tensor:
        """Queries, keys, values (B, heads, prefix + (2·T' - 1)·H'·W', 64) -> the same shape."""
        n, true = self.per_frame, self.prefix + (self.frames - 1) * self.per_frame
        parts = [_all_seen(q[:, :, : self.prefix], k[:, :, : self.prefix], v[:, :, : self.prefix], dropout)]
        for begin in range(self.prefix, true, n):
            end = begin + n
            parts.append(_all_seen(q[:, :, begin:end], k[:, :, :end], v[:, :, :end], dropout))
        for frame in range(self.frames):
            own, before = slice(true + frame * n, true + (frame + 1) * n), self.prefix + frame * n
            keys = torch.cat([k[:, :, :before], k[:, :, own]], dim=2)
            values = torch.cat([v[:, :, :before], v[:, :, own]], dim=2)
            parts.append(_all_seen(q[:, :, own], keys, values, dropout))
        return torch.cat(parts, dim=2)


def hide_indices(indices: Tensor, numbers: Tensor | None = None) -> Hidden:
    """Choose what is hidden of clips int64 (B, T', H', W'), in training by a random number of each, int64 (B,).

    Without them, outside of training, always the same for the same clips, and spread evenly over the frames: bits are
    then steady from one validation to the next, and do not hang on how many clips are judged at once.
    """
    (clips, frames), per_frame = indices.shape[:2], indices[0, 0].numel()
    shape = clips, frames, per_frame + 1
    if numbers is not None:
        drawn = uniform(numbers, math.prod(shape[1:]), FRAMES).view(shape)
        share = drawn[..., -1:]
    else:
        drawn = torch.rand(shape, generator=torch.Generator().manual_seed(int(indices.sum()))).to(indices.device)
        rank = drawn[..., -1].flatten().argsort().argsort().view(clips, frames, 1)
        share = (rank + 0.5) / (clips * frames)
    number = 1 + (share * per_frame).long().clamp(max=per_frame - 1)
    where = drawn[..., :-1].argsort().argsort() < number
    return Hidden(where.flatten(1), (where * (per_frame / number)).flatten(1))


def frame_states(
    gpt: "VideoGPT",
    indices: Tensor,
    conditions: Conditions,
    tables: "Tables",
    order: TokenOrder,
    hidden: Hidden,
    chance: Tensor | None = None,
) -> Tensor:
    """What the head predicts each index from, where it is hidden: (B, T'·H'·W', D), in the order of the sequence.

    Args:
        gpt: With ``decoding`` "frame".
        indices: int64 (B, T', H', W').
        conditions: Of the clips.
        tables: From ``gpt.tables()``.
        order: Of the sequence.
        hidden: From :func:`hide_indices`.
        chance: See ``gpt.forward``.
    """
    B, t_lat = indices.shape[:2]
    n, told = indices[0].numel(), gpt.conditions(conditions, B, t_lat, chance)
    per_frame, flat = n // t_lat, indices.flatten(1)[:, order.places[:n]]
    sequence, at = gpt.sequence(flat), torch.arange(n, device=flat.device)
    true = slice(0, n - per_frame)
    shown = flat.masked_fill(hidden.where, gpt.config.codebook_size)
    tokens = [
        told.prefix,
        gpt.embed(sequence, at[true], order, tables, told, current=flat[:, true]),
        gpt.embed(sequence, at, order, tables, told, current=shown),
    ]
    angles, prefix = gpt.angles(order, n)[1], told.prefix.shape[1]
    angles = torch.cat([angles[: prefix + n - per_frame], angles[prefix:]])
    attention = FrameAttention(prefix, t_lat, per_frame)
    return gpt.backbone(torch.cat(tokens, dim=1), angles, angles, attention)[:, -n:]


def _all_seen(q: Tensor, k: Tensor, v: Tensor, dropout: float) -> Tensor:
    """Attention of every query to every key."""
    if q.device.type == "cpu" and q.dtype == torch.bfloat16 and not dropout:
        # torch's flash kernel for CPUs reaches a quarter of the speed of a product in bf16.
        return (q * q.shape[-1] ** -0.5 @ k.mT).softmax(-1) @ v
    return F.scaled_dot_product_attention(q, k, v, dropout_p=dropout)
