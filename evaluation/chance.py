"""Do random events come out in the right proportion? Judged by counts of outcomes over many continuations.

A model that always makes the likelier outcome is as wrong as one that makes both alike: the first has learnt no
chance, the second no odds.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from tokenreel.evaluation.counting import count_discs
from tokenreel.evaluation.tally import Interval
from tokenreel.evaluation.tracking import track_discs

_AWAY = 1.5
"""Radii from the spot at which it is clear to which side a disc went."""
_SPREAD = 1.96
LEAST_EXPECTED = 5.0
"""Expected count of an outcome below which the chi-square statistic says nothing."""
UNLIKELY = 0.01


@dataclass(frozen=True)
class ChanceResult:
    """Outcomes of one kind of random event."""

    counts: dict[str, int]
    """Clips by outcome."""
    expected: dict[str, float]
    """Probability of each outcome in the world."""
    undecided: int
    """Clips that show no outcome: the thing was lost, stayed, or is in two places."""
    intervals: dict[str, Interval]
    """Wilson's 95 % interval of each outcome's share."""
    p_value: float
    """Probability of counts at least so uneven if the odds were right (chi-square); not a number with few clips."""

    @property
    def in_proportion(self) -> bool:
        """Whether the counts agree with the odds; few clips agree with anything (in JSON nothing is said of them)."""
        return not self.p_value < UNLIKELY

    def plain(self) -> dict[str, Any]:
        """As JSON takes it."""
        decided = sum(self.counts.values())
        return {
            "shares": {name: count / max(decided, 1) for name, count in self.counts.items()},
            "expected": self.expected,
            "intervals": {name: list(interval) for name, interval in self.intervals.items()},
            "p_value": None if np.isnan(self.p_value) else self.p_value,
            "in_proportion": None if np.isnan(self.p_value) else self.in_proportion,
            "decided": decided,
            "undecided": self.undecided,
        }


def judge_chance(outcomes: list[str | None], odds: Mapping[str, float]) -> ChanceResult:
    """Hold outcomes against their odds.

    Args:
        outcomes: One per clip; None where none is to be seen.
        odds: Probability of each outcome, more than 0, together 1.

    Raises:
        ValueError: If the odds are none, or an outcome has none.
    """
    unknown = {outcome for outcome in outcomes if outcome is not None} - set(odds)
    if unknown or not odds or min(odds.values()) <= 0 or abs(sum(odds.values()) - 1) > 1e-6:
        raise ValueError(f"outcomes {sorted(unknown)} and odds {dict(odds)}: expected odds of each outcome, together 1")
    counts = {name: outcomes.count(name) for name in odds}
    decided = sum(counts.values())
    expected = np.array([decided * share for share in odds.values()])
    statistic = float((np.square(np.array(list(counts.values())) - expected) / np.maximum(expected, 1e-9)).sum())
    tells = len(odds) > 1 and expected.min() >= LEAST_EXPECTED
    return ChanceResult(
        counts,
        dict(odds),
        len(outcomes) - decided,
        {name: wilson_interval(count, decided) for name, count in counts.items()},
        chi_square_tail(statistic, len(odds) - 1) if tells else float("nan"),
    )


def side_taken(
    clip: np.ndarray, color: np.ndarray, background: np.ndarray, radius: float, spot: tuple[float, float]
) -> str | None:
    """To which side of a spot a disc went in the first frame that makes it clear.

    Args:
        clip: uint8 (T, H, W, 3): the frames in which it should happen.
        color: uint8 (3,), of the disc.
        background: uint8 (3,).
        radius: Of the disc, pixels.
        spot: x and y, pixels; above it nothing is decided.

    Returns:
        ``left``, ``right``, or None if the disc is lost, stays, or goes both ways.
    """
    places = track_discs(clip, color[None], background, [radius])[:, 0]
    aside = places[:, 0] - spot[0]
    # What is lost is not clear: comparisons with not-a-number are false.
    clear = np.flatnonzero((np.abs(aside) > _AWAY * radius) & (places[:, 1] > spot[1] - 2.5 * radius))
    if not len(clear):
        return None
    first = int(clear[0])
    seen = count_discs(clip[first : first + 1], color[None], background, (0.8 * radius, 1.2 * radius))
    if seen[0, 0] > 1:
        return None
    return "right" if aside[first] > 0 else "left"


def wilson_interval(count: int, of: int) -> Interval:
    """95 % interval of a probability that showed itself ``count`` times ``of`` so many."""
    if of == 0:
        return Interval(0.0, 1.0)
    share, slack = count / of, _SPREAD**2 / of
    middle = (share + slack / 2) / (1 + slack)
    half = _SPREAD / (1 + slack) * float(np.sqrt(share * (1 - share) / of + slack / (4 * of)))
    return Interval(max(0.0, middle - half), min(1.0, middle + half))


def chi_square_tail(statistic: float, degrees: int) -> float:
    """Probability of a larger chi-square value with so many degrees of freedom."""
    half = torch.tensor([degrees / 2, statistic / 2], dtype=torch.float64)
    return float(torch.special.gammaincc(half[0], half[1]))
