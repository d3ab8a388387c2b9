"""Context noise: training on pasts with mistakes in them, so that sampling does not drift on its own.

A sampler continues what it made itself, training what really happened. Here a share of the past indices is
replaced, what must be predicted stays true, and the share is told, so that the model knows how far to trust
what it sees; sampling says "none".

Source: Valevski et al., 2024, "Diffusion Models Are Real-Time Game Engines" (noise augmentation of the context).
"""

import torch
from torch import Tensor

NOISE_LEVELS = 10
"""Levels that are told apart, beside none."""


def noisy(past: Tensor, largest: float) -> tuple[Tensor, Tensor]:
    """Replace a share of each clip's past indices by others of the same clip.

    Those occur in such a clip, as a sampler's mistakes do; indices drawn from the whole codebook would be
    easy to tell.

    Args:
        past: int64 (B, n).
        largest: Share replaced at the highest level.

    Returns:
        The indices to see, int64 (B, n), and the level of each clip, int64 (B,) in 0 .. 10, each as likely.
    """
    B, n = past.shape
    level = torch.randint(NOISE_LEVELS + 1, (B,), device=past.device)
    replaced = torch.rand(B, n, device=past.device) < (largest / NOISE_LEVELS * level)[:, None]
    others = past.gather(1, torch.randint(max(n, 1), (B, n), device=past.device))
    return torch.where(replaced, others, past), level
