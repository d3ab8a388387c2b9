"""Does a model repeat its training clips? Judged by how near its samples come to them, beside unseen real clips.

Near alone says nothing: in a simple world every clip resembles some other one. So the distance of samples to their
nearest training clips is divided by that of held-out real clips, which nobody can have copied. A model that makes new
clips of the same kind is at 1; one that repeats is near 0; one whose samples look like nothing real is above 1.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from tokenreel.evaluation.nearest_clips import (
    Nearest,
    mean_picture,
    nearest_pictures,
    nearest_tokens,
    normalised,
    small_pictures,
)
from tokenreel.evaluation.tally import DRAWS, Interval, drawn_clips, percentiles

COPY_SHARE, COPY_DISTANCE = 0.05, 0.5
"""A near-copy is nearer to training than all but this share of the held-out clips, and than this share of their median
distance: where they are all about equally far, being a little nearer is no copy."""
MEMORIZED = 0.5
"""Ratio below which samples are taken for repetitions, the whole interval."""
MANY_COPIES = 0.25
"""Share of near-copies above which they are too, the whole interval."""
_LEAST = 1e-6


@dataclass(frozen=True)
class Memorization:
    """How near samples come to training clips."""

    nearness: str
    """Of what: ``pixels`` or ``tokens``."""
    samples: Nearest
    """Nearest training clip of each sample."""
    held_out: Nearest
    """Of each held-out real clip."""

    @property
    def ratio(self) -> float:
        """Mean distance of samples by that of held-out clips."""
        return float(self.samples.distance.mean() / max(self.held_out.distance.mean(), _LEAST))

    @property
    def ratio_interval(self) -> Interval:
        """Its middle 95 % over samples and held-out clips drawn anew, each on their own."""
        made, real = self._drawn()
        return percentiles(made.mean(axis=1) / np.maximum(real.mean(axis=1), _LEAST))

    @property
    def copy_distance(self) -> float:
        """Nearer than this, a sample is a near-copy."""
        return float(_copy_distance(self.held_out.distance))

    @property
    def copies(self) -> np.ndarray:
        """Whether each sample is a near-copy, bool (Q,). At most about 5 % are by chance."""
        return self.samples.distance < self.copy_distance

    @property
    def copies_interval(self) -> Interval:
        """Of their share."""
        made, real = self._drawn()
        return percentiles((made < _copy_distance(real)[:, None]).mean(axis=1))

    @property
    def memorized(self) -> bool:
        """Whether the samples repeat training clips, beyond doubt."""
        return self.ratio_interval.high < MEMORIZED or self.copies_interval.low > MANY_COPIES

    @property
    def sentence(self) -> str:
        """In words."""
        low, high = self.ratio_interval
        told = (
            f"samples are {self.ratio:.2f} ({low:.2f} to {high:.2f}) times as far from their nearest training clip as "
            f"held-out real clips are (by {self.nearness}), and {self.copies.mean():.0%} are near-copies where "
            f"at most {COPY_SHARE:.0%} would be by chance"
        )
        if self.memorized:
            return f"{told}: the model repeats training clips; add videos, train shorter, or raise dropout"
        return f"{told}: no sign that the model repeats training clips"

    def nearest_pairs(self, most: int) -> list[tuple[int, int, float]]:
        """(sample, training clip, distance by that of a near-copy) of the samples that come nearest, nearest first."""
        order = np.argsort(self.samples.distance, kind="stable")[:most]
        scale = max(self.copy_distance, _LEAST)
        return [(int(i), int(self.samples.place[i]), float(self.samples.distance[i] / scale)) for i in order]

    def plain(self) -> dict[str, Any]:
        """As JSON takes it."""
        return {
            "ratio": self.ratio,
            "interval": list(self.ratio_interval),
            "near_copies": float(self.copies.mean()),
            "near_copies_interval": list(self.copies_interval),
            "distance": float(self.samples.distance.mean()),
            "distance_held_out": float(self.held_out.distance.mean()),
            "samples": len(self.samples.distance),
            "held_out": len(self.held_out.distance),
            "memorized": self.memorized,
        }

    def _drawn(self) -> tuple[np.ndarray, np.ndarray]:
        """Distances of clips drawn anew, (draws, n) each."""
        made, real = self.samples.distance, self.held_out.distance
        return made[drawn_clips(len(made), DRAWS, 0)], real[drawn_clips(len(real), DRAWS, 1)]


Blocks = Callable[[], Iterable[np.ndarray]]
"""Gives all training clips, some at a time and in the same order, each time it is called."""


def memorization_of_pixels(samples: np.ndarray, held_out: np.ndarray, training: Blocks) -> Memorization:
    """Compare clips by small normalised pictures.

    Args:
        samples: uint8 (Q, T, H, W, 3): what the model made, without prompts.
        held_out: uint8 (R, T, H, W, 3): unseen real clips, as many frames; best those whose beginnings were the
            prompts, and through the tokenizer as the samples are.
        training: Blocks uint8 (b, T, H, W, 3) of as many frames: the parts of training clips that samples could
            repeat. Called twice.

    Raises:
        ValueError: If there are no samples, no held-out clips or no training clips.
    """
    _check(samples, held_out)
    mean = mean_picture(small_pictures(block) for block in training())

    def seen() -> Iterator[np.ndarray]:
        """The training clips as directions from the mean picture."""
        for block in training():
            yield normalised(small_pictures(block), mean)

    both = normalised(small_pictures(np.concatenate([samples, held_out])), mean)
    return _split("pixels", nearest_pictures(both, seen()), len(samples))


def memorization_of_tokens(samples: np.ndarray, held_out: np.ndarray, training: Blocks) -> Memorization:
    """Compare clips by the share of indices that differ.

    Args:
        samples: int (Q, T', H', W'): what the model made, without prompts.
        held_out: int (R, T', H', W'), of unseen real clips.
        training: Blocks int (b, T', H', W').

    Raises:
        ValueError: As :func:`memorization_of_pixels`.
    """
    _check(samples, held_out)
    found = nearest_tokens(np.concatenate([samples, held_out]).astype(np.int64), training())
    if not np.isfinite(found.distance).all():
        raise ValueError("no training clip to compare with, expected at least one")
    return _split("tokens", found, len(samples))


def _copy_distance(held_out: np.ndarray) -> np.ndarray:
    """Below which a sample is a near-copy, from distances of held-out clips (..., R)."""
    share, median = np.quantile(held_out, (COPY_SHARE, 0.5), axis=-1)
    return np.minimum(share, COPY_DISTANCE * median)


def _split(nearness: str, found: Nearest, samples: int) -> Memorization:
    made, real = (Nearest(found.distance[part], found.place[part]) for part in (slice(samples), slice(samples, None)))
    return Memorization(nearness, made, real)


def _check(samples: np.ndarray, held_out: np.ndarray) -> None:
    if not len(samples) or not len(held_out) or samples.shape[1:] != held_out.shape[1:]:
        raise ValueError(
            f"samples {samples.shape} and held-out clips {held_out.shape}: expected at least one of each, of one shape"
        )
