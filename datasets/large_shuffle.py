"""A shuffle of any number of items of which single places are worked out, without ever listing all of them.

Places are encrypted: a Feistel network is a one-to-one map of a power of two numbers, and what it maps beyond the
items is mapped again until it is one (cycle walking).

Source: Black and Rogaway, 2002, "Ciphers with Arbitrary Finite Domains".
"""

import numpy as np

ROUNDS = 8


class LargeShuffle:
    """One order of ``num_items`` items, chosen by a seed.

    Args:
        num_items: At least 2.
        seed: Numbers of at least 0, such as a run's seed and an epoch.
    """

    def __init__(self, num_items: int, seed: list[int]) -> None:
        self.num_items = num_items
        self._half = np.uint64(((num_items - 1).bit_length() + 1) // 2)
        self._mask = (np.uint64(1) << self._half) - np.uint64(1)
        self._keys = np.random.PCG64(seed).random_raw(ROUNDS)

    def items(self, begin: int, end: int) -> np.ndarray:
        """Items at the places ``begin`` to ``end - 1``: int64."""
        found = self._mapped(np.arange(begin, end, dtype=np.uint64))
        while len(outside := np.flatnonzero(found >= self.num_items)):
            found[outside] = self._mapped(found[outside])
        return found.astype(np.int64)

    def _mapped(self, numbers: np.ndarray) -> np.ndarray:
        left, right = numbers >> self._half, numbers & self._mask
        for key in self._keys:
            left, right = right, left ^ (_mixed(right ^ key) & self._mask)
        return left << self._half | right


def _mixed(words: np.ndarray) -> np.ndarray:
    """Other words of 64 bits, which look as if drawn (the last steps of SplitMix64)."""
    words = (words ^ words >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ words >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return words ^ words >> np.uint64(31)
