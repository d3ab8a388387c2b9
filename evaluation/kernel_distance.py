"""The kernel distance between two sets of clips (KVD, KID; an MMD²) in the features of some network.

Unlike the Fréchet distance it takes no shape of the distributions for granted, and its estimate is unbiased: with any
number of clips it is right on average, and around 0, also below, for two sets of the same kind.

Source: Bińkowski et al., 2018, "Demystifying MMD GANs"; its kernel is (x·y / D + 1)³.
"""

import numpy as np

BLOCK = 1024


def kernel_distance(one: np.ndarray, other: np.ndarray) -> float:
    """Unbiased MMD² under the cubic polynomial kernel.

    Args:
        one: float (N, D), N at least 2.
        other: float (M, D), M at least 2.

    Raises:
        ValueError: If the shapes are others.
    """
    first, second = np.asarray(one, np.float64), np.asarray(other, np.float64)
    if first.ndim != 2 or second.ndim != 2 or first.shape[1] != second.shape[1] or min(len(first), len(second)) < 2:
        raise ValueError(
            f"features have shapes {first.shape}, {second.shape}; expected (N, D), (M, D), at least 2 each"
        )
    return _within(first) + _within(second) - 2 * _kernel_sum(first, second) / (len(first) * len(second))


def _within(features: np.ndarray) -> float:
    """Mean kernel of two different clips of one set."""
    own = ((np.square(features).sum(axis=1) / features.shape[1] + 1) ** 3).sum()
    return float((_kernel_sum(features, features) - own) / (len(features) * (len(features) - 1)))


def _kernel_sum(one: np.ndarray, other: np.ndarray) -> float:
    """Over all pairs, block by block: memory does not grow with their number."""
    total = 0.0
    for begin in range(0, len(one), BLOCK):
        for start in range(0, len(other), BLOCK):
            product = one[begin : begin + BLOCK] @ other[start : start + BLOCK].T
            total += float(((product / one.shape[1] + 1) ** 3).sum())
    return total
