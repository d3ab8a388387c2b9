"""Context noise: training on pasts with mistakes in them, so that sampling does not drift on its own.

A sampler continues what it made itself, training what really happened. Here a share of the past indices is
replaced, what must be predicted stays true, and the share is told, so that the model knows how far to trust
what it sees; sampling says "none".

Source: Valevski et al., 2024, "Diffusion Models Are Real-Time Game Engines" (noise augmentation of the context).
"""

import torch
from torch import Tensor

from tokenreel.transformer.clip_chance import NOISE, uniform

NOISE_LEVELS = 10
"""Levels that are told apart, beside none."""


def noisy(past: Tensor, largest: float, numbers: Tensor) -> tuple[Tensor, Tensor]:
    """Replace a share of each clip's past indices by others of the same clip.

    Those occur in such a clip, as a sampler's mistakes do; indices drawn from the whole codebook would be
    easy to tell.

    Args:
        past: int64 (B, n).
        largest: Share replaced at the highest level.
        numbers: int64 (B,), a random one of each clip.

    Returns:
        The indices to see, int64 (B, n), and the level of each clip, int64 (B,) in 0 .. 10, each as likely.
    """
    n = past.shape[1]
    level, replaced, others = uniform(numbers, 1 + 2 * n, NOISE).split([1, n, n], dim=1)
    level = (level[:, 0] * (NOISE_LEVELS + 1)).long()
    replaced = replaced < (largest / NOISE_LEVELS * level)[:, None]
    others = past.gather(1, (others * n).long().clamp(max=max(n - 1, 0)))
    return torch.where(replaced, others, past), level
