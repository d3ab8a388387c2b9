"""The random numbers of clips in training: each clip has its own, wherever in a batch and on whichever machine it is.

They are worked out from a number per clip instead of being drawn one after the other. So a batch that is cut into
parts, or over several processes, sees the same ones as the whole batch, on every kind of device.
"""

import torch
from torch import Tensor

HIDE, NOISE, ORDER, FRAMES = range(4)
"""What random numbers are for: those for one purpose tell nothing of those for another."""
WORD = 2**32 - 1


def drawn_chance(clips: int, device: torch.device) -> Tensor:
    """Numbers int64 (B, 2) to work out all others from: one for the batch, in every row, and one for each clip."""
    drawn = torch.randint(2**62, (1 + clips,), device=device)
    return torch.stack([drawn[:1].expand(clips), drawn[1:]], dim=1)


def uniform(numbers: Tensor, count: int, purpose: int) -> Tensor:
    """Random numbers float32 (B, count), evenly in [0, 1), from numbers int64 (B,), 0 or more."""
    own = _mixed(_mixed(numbers & WORD) ^ (numbers >> 32) ^ (purpose * 0x3C6EF372 & WORD))
    places = torch.arange(count, device=numbers.device) * 0x61C88647 & WORD
    return (_mixed(_mixed(own)[:, None] ^ _mixed(places)) >> 8).float() * 2.0**-24


def _mixed(words: Tensor) -> Tensor:
    """Another word of 32 bits for each: one bit changed in a word changes half of the other's.

    Words are kept in int64, and factors are below 2^31, so that no product overflows.
    Source: Wellons, 2018, "Prospecting for Hash Functions" (its triple is better than needed, its double is this).
    """
    words = (words & WORD) + 0x2545F491 & WORD  # 0 would stay 0
    words = (words ^ words >> 16) * 0x21F0AAAD & WORD
    words = (words ^ words >> 15) * 0x735A2D97 & WORD
    return words ^ words >> 15
