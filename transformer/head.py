"""From a hidden state to the next index: how unlikely a given one is, and which one is drawn.

Either head is a distribution over exactly the K indices, so its losses are cross-entropies in nats per index
and comparable. The plain one scores all K at once. The factored one scores K1 and then K2 values, about
twice the square root of K: p(index) = p(first) p(second | first).
"""

from typing import NamedTuple, Protocol

from torch import Tensor, nn
from torch.nn import functional as F

from tokenreel.transformer.factors import Factors
from tokenreel.transformer.filters import SamplingSettings, pick
from tokenreel.transformer.index_table import IndexTable


class Losses(NamedTuple):
    """What given indices cost, float32 (...)."""

    cross_entropy: Tensor
    """Minus log of the probability of each index, in nats."""
    drift: Tensor
    """Square of the log of the softmax's denominator (of both, if factored): how far the scores are from
    log-probabilities, which no probability shows."""


class Head(Protocol):
    """What predicts the next index."""

    draws: int
    """Random numbers that one index takes."""

    def read(self) -> tuple[Tensor, ...]:
        """The vectors it scores by under the present weights, worked out once per pass (and once per sampling)."""

    def losses(self, hidden: Tensor, target: Tensor, vectors: tuple[Tensor, ...]) -> Losses:
        """Score given indices.

        Args:
            hidden: (..., D), as the backbone leaves it.
            target: int64 (...): the indices in [0, K) that came next.
            vectors: From :meth:`read`.
        """

    def pick(self, hidden: Tensor, vectors: tuple[Tensor, ...], settings: SamplingSettings, uniform: Tensor) -> Tensor:
        """Draw the next index.

        Args:
            hidden: (B, D); if guided (2·B, D), rows with conditions, then the same rows without.
            vectors: From :meth:`read`.
            settings: Temperature, filters, guidance.
            uniform: float64 (B, draws) in [0, 1): each row's own numbers, so that rows are independent.

        Returns:
            int64 (B,).
        """


class PlainHead(IndexTable):
    """One score per index.

    Args:
        codebook_size: K.
        dim: D.
        levels: Values of each digit of an index, or empty; see :class:`IndexTable`.
    """

    draws = 1

    def __init__(self, codebook_size: int, dim: int, levels: tuple[int, ...]) -> None:
        super().__init__(codebook_size, dim, levels, std=0.0)

    def read(self) -> tuple[Tensor, ...]:
        """See :class:`Head`."""
        return (self.rows()[:-1],)

    def losses(self, hidden: Tensor, target: Tensor, vectors: tuple[Tensor, ...]) -> Losses:
        """See :class:`Head`."""
        return _losses(F.linear(hidden, vectors[0]).float(), target)

    def pick(self, hidden: Tensor, vectors: tuple[Tensor, ...], settings: SamplingSettings, uniform: Tensor) -> Tensor:
        """See :class:`Head`."""
        return pick(settings.guide(F.linear(hidden, vectors[0]).float()), settings, uniform[:, 0])


class FactoredHead(nn.Module):
    """One score per value of the first factor, then, told which it is, one per value of the second.

    What is told passes a small perceptron together with the hidden state: which second factor goes with
    which first one differs from place to place, so that adding up two opinions would not do. (The next index
    being one of two that the context names, ln 2 = 0.69 nats at best: 0.73 were reached, 1.31 by adding up.)

    Args:
        factors: How an index is split.
        dim: D.
    """

    draws = 2

    def __init__(self, factors: Factors, dim: int) -> None:
        super().__init__()
        self.factors = factors
        self.first = IndexTable(factors.first_size, dim, factors.first_levels, std=0.0)
        # Rows as large as a hidden state, or the perceptron does not learn to heed them.
        self.told = IndexTable(factors.first_size, dim, factors.first_levels, std=1.0)
        self.up_gate = nn.Linear(dim, 2 * dim, bias=False)
        self.down = nn.Linear(dim, dim, bias=False)
        self.second = IndexTable(factors.second_size, dim, factors.second_levels, std=0.0)
        nn.init.zeros_(self.down.weight)

    def read(self) -> tuple[Tensor, ...]:
        """See :class:`Head`."""
        return self.first.rows()[:-1], self.told.rows()[:-1], self.second.rows()[:-1]

    def losses(self, hidden: Tensor, target: Tensor, vectors: tuple[Tensor, ...]) -> Losses:
        """See :class:`Head`."""
        first, second = self.factors.split(target)
        of_first = _losses(self._score_first(hidden, vectors), first)
        of_second = _losses(self._score_second(hidden, first, vectors), second)
        return Losses(of_first.cross_entropy + of_second.cross_entropy, of_first.drift + of_second.drift)

    def pick(self, hidden: Tensor, vectors: tuple[Tensor, ...], settings: SamplingSettings, uniform: Tensor) -> Tensor:
        """See :class:`Head`."""
        first = pick(settings.guide(self._score_first(hidden, vectors)), settings, uniform[:, 0])
        for_all = first.repeat(len(hidden) // len(first))
        second = pick(settings.guide(self._score_second(hidden, for_all, vectors)), settings, uniform[:, 1])
        return self.factors.join(first, second)

    def _score_first(self, hidden: Tensor, vectors: tuple[Tensor, ...]) -> Tensor:
        """(..., D) -> float32 (..., K1)."""
        return F.linear(hidden, vectors[0]).float()

    def _score_second(self, hidden: Tensor, first: Tensor, vectors: tuple[Tensor, ...]) -> Tensor:
        """(..., D) and the first factor (...) -> float32 (..., K2)."""
        _, told, rows = vectors
        x = hidden + F.embedding(first, told)
        up, gate = self.up_gate(_norm(x)).chunk(2, dim=-1)
        x = _norm(x + self.down(up * F.silu(gate)))
        return self.factors.mask(first, F.linear(x, rows).float())


def _losses(logits: Tensor, target: Tensor) -> Losses:
    """Of each row: (..., values) and int64 (...) -> (...)."""
    cross_entropy = F.cross_entropy(logits.flatten(0, -2), target.flatten(), reduction="none").view(target.shape)
    return Losses(cross_entropy, logits.logsumexp(-1).square())


def _norm(x: Tensor) -> Tensor:
    return F.rms_norm(x, x.shape[-1:])
