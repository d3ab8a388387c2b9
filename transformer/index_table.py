"""Vectors for indices: one row per index, and rows shared between indices that share a digit or a factor."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tokenreel.transformer.factors import Factors


class IndexTable(nn.Module):
    """A (K + 1, D) table; row K stands for "no index".

    Finite scalar quantization makes an index out of a few digits, each with an order of its own. Rows per
    digit are learned from every index that has the digit, so that rare indices are not strangers.

    Args:
        codebook_size: K.
        dim: D.
        levels: Values of each digit, first digit fastest, product K; empty: indices have no digits.
        std: Of the normal distribution that rows start from; 0 starts at zero.
    """

    digits: Tensor

    def __init__(self, codebook_size: int, dim: int, levels: tuple[int, ...], std: float) -> None:
        super().__init__()
        self.own = nn.Embedding(codebook_size + 1, dim)
        self.shared = nn.Embedding(sum(levels), dim) if levels else None
        for table in (self.own, self.shared):
            if table is not None:
                nn.init.normal_(table.weight, std=std)
        self.register_buffer("digits", _digits(codebook_size, levels), persistent=False)

    def rows(self) -> Tensor:
        """The whole table, (K + 1, D), under the present weights."""
        if self.shared is None:
            return self.own.weight
        shared = self.shared(self.digits).sum(dim=1)
        return self.own.weight + F.pad(shared, (0, 0, 0, 1))

    def look_up(self, indices: Tensor, rows: Tensor) -> Tensor:
        """Vectors (..., D) of int64 indices (...) in [0, K], from :meth:`rows`."""
        return F.embedding(indices, rows)


class FactoredTable(nn.Module):
    """Vectors for more indices than there can be rows: an index has the sum of its two factors' rows.

    Args:
        factors: How an index is split.
        dim: D.
        std: Of the normal distribution that rows start from.
    """

    def __init__(self, factors: Factors, dim: int, std: float) -> None:
        super().__init__()
        self.factors = factors
        self.first = IndexTable(factors.first_size, dim, factors.first_levels, std)
        self.second = IndexTable(factors.second_size, dim, factors.second_levels, std)

    def rows(self) -> Tensor:
        """The rows of the first factor, then those of the second: (K1 + 1 + K2 + 1, D)."""
        return torch.cat([self.first.rows(), self.second.rows()])

    def look_up(self, indices: Tensor, rows: Tensor) -> Tensor:
        """Vectors (..., D) of int64 indices (...) in [0, K], from :meth:`rows`."""
        first, second = self.factors.split(indices)
        return F.embedding(first, rows) + F.embedding(second + self.factors.first_size + 1, rows)


def _digits(codebook_size: int, levels: tuple[int, ...]) -> Tensor:
    """Row of each index's digits in the shared table: int64 (K, number of levels)."""
    if levels and math.prod(levels) != codebook_size:
        raise ValueError(f"levels {levels} make {math.prod(levels)} indices, expected codebook_size {codebook_size}")
    rest, offset, columns = torch.arange(codebook_size), 0, []
    for level in levels:
        columns.append(rest % level + offset)
        rest, offset = rest // level, offset + level
    return torch.stack(columns, dim=1) if columns else torch.zeros(codebook_size, 0, dtype=torch.int64)
