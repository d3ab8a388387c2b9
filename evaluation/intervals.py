"""How sure a figure is: intervals by drawing clips anew.

The clip is the unit: frames of one clip resemble each other, so they are never drawn apart.
"""

from collections.abc import Callable

import numpy as np

from tokenreel.evaluation.tally import DRAWS, drawn_clips, percentiles

HALVES = 40


def mean_interval(values: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """Interval of a mean over clips: the clips drawn anew, with replacement, a thousand times.

    Args:
        values: float (n,), one per clip; those that are not finite are left out.
        seed: Of the draws.

    Returns:
        Lower and upper end at 95 % confidence; not a number twice without two finite values.
    """
    finite = np.asarray(values, np.float64)
    finite = finite[np.isfinite(finite)]
    if len(finite) < 2:
        return float("nan"), float("nan")
    return percentiles(finite[drawn_clips(len(finite), DRAWS, seed)].mean(axis=1))


def ratio_interval(above: np.ndarray, below: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """Interval of the ratio of two means over clips that are drawn anew on their own.

    Args:
        above: float (n,), one per clip.
        below: float (m,), one per clip.
        seed: Of the draws.

    Returns:
        As :func:`mean_interval`.
    """
    over, under = (part[np.isfinite(part)] for part in (np.asarray(above, float), np.asarray(below, float)))
    if min(len(over), len(under)) < 2:
        return float("nan"), float("nan")
    means = [each[drawn_clips(len(each), DRAWS, seed + i)].mean(axis=1) for i, each in enumerate((over, under))]
    known = means[1] > 0
    return percentiles(means[0][known] / means[1][known])


def halves_interval(
    statistic: Callable[..., float], sets: tuple[np.ndarray, ...], estimate: float, seed: int = 0, paired: bool = False
) -> tuple[float, float]:
    """Interval of a distance between sets of clips, from random halves of each.

    Clips drawn with replacement come up twice, which distances between sets mistake for a narrow distribution; halves
    drawn without replacement hold every clip once. By the delete-half jackknife the spread of their distances is that
    of the whole sets; their mean is not (a Fréchet distance shrinks with the number of clips), so that the spread
    alone is taken from them and laid around the estimate.

    Args:
        statistic: Of the sets, each (n, D).
        sets: float (n, D) each.
        estimate: Of the whole sets.
        seed: Of the draws.
        paired: Row i of every set belongs to the same clip, so they are drawn together.

    Returns:
        As :func:`mean_interval`.

    Source: Shao and Wu, 1989, "A general theory for jackknife variance estimation".
    """
    if min(map(len, sets)) < 4:
        return float("nan"), float("nan")
    random = np.random.default_rng(seed)
    found = []
    for _ in range(HALVES):
        orders = [random.permutation(len(each)) for each in sets]
        orders = [orders[0]] * len(sets) if paired else orders
        chosen = (each[order[: len(each) // 2]] for each, order in zip(sets, orders, strict=True))
        found.append(statistic(*chosen))
    low, high = percentiles(np.array(found) - np.mean(found))
    return estimate + low, estimate + high
