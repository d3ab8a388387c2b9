"""The Fréchet distance between two sets of clips, in the features of some network: FVD if that network is I3D.

Each set is described by mean and covariance of its features, as if they were normal. With few clips the distance is
too large, by an amount that shrinks with their number: compare only equal numbers, and look at the floor.

Source: Heusel et al., 2017, "GANs Trained by a Two Time-Scale Update Rule"; Unterthiner et al., 2018, "Towards Accurate
Generative Models of Video".
"""

from typing import Self

import numpy as np


class FeatureStatistics:
    """Count, mean and covariance of features that come in batches, in float64 and in constant memory."""

    def __init__(self, dim: int) -> None:
        self.count, self.mean, self._scatter = 0, np.zeros(dim), np.zeros((dim, dim))

    @classmethod
    def of(cls, features: np.ndarray) -> Self:
        """Of one batch, (N, D)."""
        return cls(features.shape[1]).add(features)

    def add(self, features: np.ndarray) -> Self:
        """Take in a batch.

        Args:
            features: float (N, D), N at least 1.

        Raises:
            ValueError: If the shape is another, or a value is not finite.
        """
        batch = np.asarray(features, np.float64)
        if batch.ndim != 2 or batch.shape[1] != len(self.mean) or not len(batch):
            raise ValueError(f"features have shape {batch.shape}, expected (N, {len(self.mean)}), N at least 1")
        if not np.isfinite(batch).all():
            raise ValueError("features hold values that are not finite; look at the clips or the network they are from")
        # Around each batch's own mean first (Chan, Golub, LeVeque, 1979): a plain sum of squares loses digits.
        mean = batch.mean(axis=0)
        centred, step = batch - mean, mean - self.mean
        total = self.count + len(batch)
        self._scatter += centred.T @ centred + np.outer(step, step) * (self.count * len(batch) / total)
        self.mean = self.mean + step * (len(batch) / total)
        self.count = total
        return self

    @property
    def covariance(self) -> np.ndarray:
        """float64 (D, D), divided by count - 1."""
        if self.count < 2:
            raise ValueError(f"covariance of {self.count} clips, expected at least 2")
        return self._scatter / (self.count - 1)


def frechet_distance(one: FeatureStatistics, other: FeatureStatistics) -> float:
    """|m1 - m2|² + tr(C1 + C2 - 2 (C1 C2)^½); 0 for equal statistics.

    Raises:
        ValueError: If the features differ in length, or one set has fewer than 2 clips.
    """
    if one.mean.shape != other.mean.shape:
        raise ValueError(f"features of {len(one.mean)} and {len(other.mean)} values, expected those of one network")
    first, second = one.covariance, other.covariance
    # tr (C1 C2)^½ from symmetric matrices alone: S C2 S with S = C1^½ has the same eigenvalues, none below 0.
    root = _square_root(first)
    values = np.linalg.eigvalsh(root @ second @ root)
    overlap = np.sqrt(np.clip(values, 0, None)).sum()
    distance = np.square(one.mean - other.mean).sum() + np.trace(first) + np.trace(second) - 2 * overlap
    return max(0.0, float(distance))


def frechet_of_features(one: np.ndarray, other: np.ndarray) -> float:
    """The same of features, float (N, D) and (M, D)."""
    return frechet_distance(FeatureStatistics.of(one), FeatureStatistics.of(other))


def _square_root(matrix: np.ndarray) -> np.ndarray:
    """Of a symmetric matrix without eigenvalues below 0 but for rounding."""
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
