"""An index as two small numbers, for vocabularies too large for a row and a score per index."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

LARGEST_PLAIN = 2**14
"""Codes up to which a row and a score per index are affordable; beyond, factors are the default."""


class Factors(NamedTuple):
    """The factors of an index: ``index = first + second * first_size``."""

    codebook_size: int
    """K; first_size * second_size is at least that."""
    first_size: int
    """K1, values of the first factor."""
    second_size: int
    """K2, values of the second factor: the fewest that reach K."""
    first_levels: tuple[int, ...] = ()
    """Values of each digit of the first factor, if it has digits."""
    second_levels: tuple[int, ...] = ()
    """The same for the second factor."""

    def split(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Both factors of int64 indices in [0, K]; K, which is no index, becomes (K1, K2), which is no pair."""
        nothing = indices == self.codebook_size
        first = torch.where(nothing, self.first_size, indices % self.first_size)
        return first, torch.where(nothing, self.second_size, indices // self.first_size)

    def join(self, first: Tensor, second: Tensor) -> Tensor:
        """The index of a pair."""
        return first + second * self.first_size

    def mask(self, first: Tensor, logits: Tensor) -> Tensor:
        """Minus infinity for the second factors (..., K2) that would lead beyond K, given the first (...).

        Where K1 * K2 exceeds K, by less than K1, it is the last second factor alone that some first ones lack.
        """
        if self.first_size * self.second_size == self.codebook_size:
            return logits
        last = torch.arange(self.second_size, device=logits.device) == self.second_size - 1
        beyond = self.join(first, torch.full_like(first, self.second_size - 1)) >= self.codebook_size
        return logits.masked_fill(beyond[..., None] & last, -torch.inf)


def factorize(codebook_size: int, levels: tuple[int, ...]) -> Factors:
    """Split indices into two factors of about the same size.

    Between two digits if they have digits, so that each factor keeps whole ones; else at the square root.
    Saved models rely on this rule.

    Args:
        codebook_size: K.
        levels: Values of each digit of an index, first digit fastest, product K; empty: indices have no digits.

    Raises:
        ValueError: If the product of the levels is not K.
    """
    if levels and math.prod(levels) != codebook_size:
        raise ValueError(f"levels {levels} make {math.prod(levels)} indices, expected codebook_size {codebook_size}")
    cuts = [(math.prod(levels[:cut]), math.prod(levels[cut:]), cut) for cut in range(1, len(levels))]
    if cuts:
        first, second, cut = min(cuts, key=lambda sizes: max(sizes[:2]))
        return Factors(codebook_size, first, second, levels[:cut], levels[cut:])
    first = math.isqrt(codebook_size - 1) + 1  # the root, rounded up
    return Factors(codebook_size, first, -(-codebook_size // first))
