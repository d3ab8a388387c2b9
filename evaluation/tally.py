"""A figure over clips as plain data: its value, and how far it would move with other clips.

Every judge here counts per clip: a sum and how many cases it is of (frames, bounces, samples). A figure is the
ratio of all sums to all cases, so a clip with many cases weighs more, and one without any says nothing. Clips are
drawn at random, cases within a clip are not: so the bootstrap draws whole clips.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike

DRAWS = 1000


class Interval(NamedTuple):
    """What 95 % of bootstrap draws lie in."""

    low: float
    high: float


class Tally:
    """Sums and cases of one figure.

    Args:
        total: Sum over the cases of each clip, (B,), or (B, T) for a curve.
        cases: How many each sum is of, the same shape; 0 where a clip says nothing.
        unit: Such as ``px`` or ``share``.

    Raises:
        ValueError: If the shapes differ or a number of cases is negative.
    """

    def __init__(self, total: ArrayLike, cases: ArrayLike, unit: str) -> None:
        self.total, self.cases = np.asarray(total, dtype=np.float64), np.asarray(cases, dtype=np.float64)
        self.unit = unit
        if self.total.shape != self.cases.shape or self.total.ndim not in (1, 2):
            raise ValueError(f"sums {self.total.shape} and cases {self.cases.shape}: expected (B,) or (B, T) twice")
        if (self.cases < 0).any():
            raise ValueError(f"a number of cases is {self.cases.min():g}, expected 0 or more")
        self.total = np.where(self.cases > 0, self.total, 0.0)

    @classmethod
    def of(cls, values: ArrayLike, unit: str) -> Self:
        """Values that stand for one case each, (B,) or (B, T); where one is not a number there was none."""
        values = np.asarray(values, dtype=np.float64)
        known = ~np.isnan(values)
        return cls(np.where(known, values, 0.0), known, unit)

    @property
    def per_clip(self) -> np.ndarray:
        """The figure of each clip alone, float64 (B,); not a number for one without cases."""
        total, cases = (part.reshape(len(part), -1).sum(axis=1) for part in (self.total, self.cases))
        return _ratio(total, cases)

    @property
    def value(self) -> float:
        """The figure; not a number without a single case."""
        return float(_ratio(self.total.sum(), self.cases.sum()))

    @property
    def curve(self) -> np.ndarray:
        """The figure frame by frame, float64 (T,).

        Raises:
            ValueError: If it is not known by frames.
        """
        if self.total.ndim != 2:
            raise ValueError("this figure is known per clip alone, expected one per frame; take its value")
        return _ratio(self.total.sum(axis=0), self.cases.sum(axis=0))

    def interval(self, draws: int = DRAWS, seed: int = 0) -> Interval:
        """The middle 95 % of the figure over clips drawn anew, with replacement; not numbers without a case."""
        return bootstrap_interval(self.total, self.cases, draws, seed)

    def plain(self) -> dict[str, Any]:
        """As JSON takes it: value, interval, unit, clips that say something, cases, and the curve if there is one."""
        interval = self.interval()
        told: dict[str, Any] = {
            "value": _finite(self.value),
            "interval": [_finite(edge) for edge in interval],
            "unit": self.unit,
            "clips": int(np.isfinite(self.per_clip).sum()),
            "cases": int(self.cases.sum()),
        }
        if self.total.ndim == 2:
            told["curve"] = [_finite(value) for value in self.curve]
        return told


def bootstrap_interval(total: ArrayLike, cases: ArrayLike, draws: int = DRAWS, seed: int = 0) -> Interval:
    """Percentile interval of a ratio of sums over clips.

    Args:
        total: (B,) or (B, T), sums of each clip.
        cases: The same shape, what they are of.
        draws: How often as many clips are drawn with replacement.
        seed: Same seed, same interval.
    """
    sums = [
        np.asarray(part, dtype=np.float64).reshape(len(np.asarray(part)), -1).sum(axis=1) for part in (total, cases)
    ]
    drawn = drawn_clips(len(sums[0]), draws, seed)
    ratios = _ratio(*(part[drawn].sum(axis=1) for part in sums))
    return percentiles(ratios)


def drawn_clips(clips: int, draws: int = DRAWS, seed: int = 0) -> np.ndarray:
    """Which clips each bootstrap draw is made of, int64 (draws, clips)."""
    return np.random.default_rng([seed, clips]).integers(0, max(clips, 1), (draws, clips))


def percentiles(drawn: np.ndarray) -> Interval:
    """The middle 95 % of what bootstrap draws gave; draws that gave no number are left out."""
    known = drawn[np.isfinite(drawn)]
    if not len(known):
        return Interval(float("nan"), float("nan"))
    low, high = np.quantile(known, (0.025, 0.975))
    return Interval(float(low), float(high))


def plain_figures(figures: dict[str, Tally]) -> dict[str, dict[str, Any]]:
    """Several figures as JSON takes them; those without a single case are left out."""
    return {name: tally.plain() for name, tally in figures.items() if tally.cases.any()}


def joined(parts: Sequence[dict[str, Tally]]) -> dict[str, Tally]:
    """Figures of several batches of clips as one; each batch must have all of them."""
    return {
        name: Tally(
            np.concatenate([part[name].total for part in parts]),
            np.concatenate([part[name].cases for part in parts]),
            tally.unit,
        )
        for name, tally in parts[0].items()
    }


def _ratio(total: Any, cases: Any) -> Any:
    return np.where(np.asarray(cases) > 0, total / np.maximum(cases, 1e-300), np.nan)


def _finite(value: float) -> float | None:
    return round(float(value), 6) if np.isfinite(value) else None
