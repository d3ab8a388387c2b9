"""How a codebook is used: perplexity and dead codes over a window of batches."""

from collections import deque

import torch
from torch import Tensor


class CodebookUsage:
    """Counts of each index over the last ``window`` batches."""

    def __init__(self, codebook_size: int, window: int = 50) -> None:
        self.codebook_size = codebook_size
        self._batches: deque[Tensor] = deque(maxlen=window)

    def update(self, indices: Tensor) -> None:
        """Count a batch of indices, int64 of any shape in [0, K)."""
        # Clamped, since features that are no numbers give other indices, and the training loop tells of those.
        inside = indices.flatten().clamp(0, self.codebook_size - 1)
        self._batches.append(torch.bincount(inside, minlength=self.codebook_size).cpu())

    @property
    def counts(self) -> Tensor:
        """int64 (K,): uses of each code in the window."""
        if not self._batches:
            return torch.zeros(self.codebook_size, dtype=torch.int64)
        return torch.stack(tuple(self._batches)).sum(0)

    @property
    def perplexity(self) -> float:
        """exp(entropy of index use), 1 (one code only) to K (all alike)."""
        counts = self.counts.double()
        share = counts[counts > 0] / counts.sum()
        return float(torch.exp(-(share * share.log()).sum()))

    @property
    def dead_codes(self) -> int:
        """Codes unused in the window."""
        return int((self.counts == 0).sum())
