"""How a codebook is used: perplexity and dead codes over a window of batches."""

from collections import deque
from typing import Any

import torch
from torch import Tensor


class CodebookUsage:
    """Counts of each index over the last ``window`` batches.

    Totals are kept, and the batches in them: K numbers once instead of once for each batch, on the device where the
    indices are, so that counting does not wait for it.
    """

    def __init__(self, codebook_size: int, window: int = 50) -> None:
        self.codebook_size = codebook_size
        self.window = window
        self.counts = torch.zeros(codebook_size, dtype=torch.int64)
        """int64 (K,): uses of each code in the window."""
        self._batches: deque[Tensor] = deque()

    def update(self, indices: Tensor) -> None:
        """Count a batch of indices, int64 of any shape in [0, K)."""
        # Clamped, since features that are no numbers give other indices, and the training loop tells of those.
        batch = indices.detach().flatten().clamp(0, self.codebook_size - 1)
        self.counts = self.counts.to(batch.device)
        self._count(batch, 1)
        self._batches.append(batch.to(torch.int32))
        if len(self._batches) > self.window:
            self._count(self._batches.popleft(), -1)

    @property
    def is_full(self) -> bool:
        """Whether as many batches as the window holds were counted."""
        return len(self._batches) == self.window

    @property
    def reachable(self) -> int:
        """Most codes that could have been used: K, or fewer where fewer indices were counted."""
        return min(self.codebook_size, sum(len(batch) for batch in self._batches))

    @property
    def perplexity(self) -> float:
        """exp(entropy of index use), 1 (one code only) to K (all alike)."""
        used = self.counts[self.counts > 0].cpu().double()
        share = used / used.sum()
        return float(torch.exp(-(share * share.log()).sum()))

    @property
    def dead_codes(self) -> int:
        """Codes unused in the window."""
        return int((self.counts == 0).sum())

    def state_dict(self) -> dict[str, Any]:
        """The batches in the window."""
        return {"batches": [batch.cpu() for batch in self._batches]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Count what :meth:`state_dict` told, and nothing else."""
        self.counts.zero_()
        self._batches.clear()
        for batch in state["batches"]:
            self.update(batch)

    def _count(self, batch: Tensor, times: int) -> None:
        self.counts.index_add_(0, batch.long(), torch.full_like(batch, times, dtype=torch.int64))
