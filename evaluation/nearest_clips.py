"""The nearest of many clips, exactly: every clip is looked at, in blocks, so memory does not grow with their number.

Two kinds of nearness: of small normalised pictures, and of tokens (the share of equal indices).
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

SIDE = 12
"""Pixels that a frame is shrunk to in height and width."""
MOMENTS = 6
"""Frames that are taken from a clip, evenly spread."""
_PAIRS_AT_ONCE = 2**24
"""Token comparisons held in memory at once."""


class Nearest(NamedTuple):
    """For each of Q clips the nearest of all that were looked at."""

    distance: np.ndarray
    """float64 (Q,): infinite before anything was looked at."""
    place: np.ndarray
    """int64 (Q,): its place in the order in which they came; -1 before that."""


def small_pictures(clips: np.ndarray) -> np.ndarray:
    """Clips as small pictures: frames evenly spread in time, each the mean colours of 12 x 12 fields.

    Args:
        clips: uint8 (B, T, H, W, 3).

    Returns:
        float32 (B, D), in grey levels; clips of the same T, whatever their size, have the same D.

    Raises:
        ValueError: If there is no frame.
    """
    if clips.ndim != 5 or not clips.shape[1]:
        raise ValueError(f"clips are {clips.shape}, expected (B, T, H, W, 3) with at least one frame")
    chosen = np.unique(np.linspace(0, clips.shape[1] - 1, min(MOMENTS, clips.shape[1])).round().astype(int))
    small = clips[:, chosen].astype(np.float32)
    for axis in (2, 3):
        small = _shrunk(small, axis)
    return small.reshape(len(small), -1)


def mean_picture(blocks: Iterable[np.ndarray]) -> np.ndarray:
    """Mean of features that come in blocks (b, D), float32 (D,)."""
    total: np.ndarray | float = 0.0
    count = 0
    for block in blocks:
        total, count = total + block.sum(axis=0, dtype=np.float64), count + len(block)
    if not count:
        raise ValueError("no clip to take the mean of, expected at least one")
    return (np.asarray(total) / count).astype(np.float32)


def normalised(pictures: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """What is special about each clip: less what all have in common, and of length 1, so that contrast is no matter.

    Args:
        pictures: float32 (B, D) of :func:`small_pictures`.
        mean: float32 (D,), of the training clips.
    """
    special = pictures - mean
    return special / np.maximum(np.linalg.norm(special, axis=1, keepdims=True), 1e-6)


def nearest_pictures(clips: np.ndarray, blocks: Iterable[np.ndarray]) -> Nearest:
    """The nearest by distance of normalised pictures: 0 for the same, √2 for what has nothing in common.

    Args:
        clips: float32 (Q, D), normalised.
        blocks: float32 (b, D) each, normalised; together all clips to look at.
    """

    def distances(block: np.ndarray) -> np.ndarray:
        """Of all clips to a block of training clips, float (B, b)."""
        return np.sqrt(np.maximum(2 - 2 * (clips @ block.T), 0))

    return _nearest(len(clips), blocks, distances)


def nearest_tokens(indices: np.ndarray, blocks: Iterable[np.ndarray]) -> Nearest:
    """The nearest by share of indices that differ.

    Args:
        indices: int (Q, ...).
        blocks: int (b, ...) each, of the same grid.
    """
    own = indices.reshape(len(indices), -1)

    def distances(block: np.ndarray) -> np.ndarray:
        """Of all clips to a block of training clips, float (B, b)."""
        other = block.reshape(len(block), -1).astype(own.dtype)
        if other.shape[1] != own.shape[1]:
            raise ValueError(f"{other.shape[1]} indices per clip, expected {own.shape[1]}; compare clips of one length")
        step = max(1, _PAIRS_AT_ONCE // max(1, other.size))
        parts = [own[begin : begin + step, None] != other[None] for begin in range(0, len(own), step)]
        return np.concatenate([part.mean(axis=-1) for part in parts])

    return _nearest(len(own), blocks, distances)


def _nearest(count: int, blocks: Iterable[np.ndarray], distances) -> Nearest:  # type: ignore[no-untyped-def]
    best, place, seen = np.full(count, np.inf), np.full(count, -1, dtype=np.int64), 0
    for block in blocks:
        if not len(block):
            continue
        found = distances(block)
        nearest = found.argmin(axis=1)
        distance = found[np.arange(count), nearest]
        closer = distance < best
        best, place = np.where(closer, distance, best), np.where(closer, seen + nearest, place)
        seen += len(block)
    return Nearest(best, place)


def _shrunk(frames: np.ndarray, axis: int) -> np.ndarray:
    """Means of SIDE fields along an axis; of fewer pixels than that each is its own field."""
    length = frames.shape[axis]
    edges = np.unique(np.linspace(0, length, SIDE + 1).round().astype(int))
    sizes = np.diff(edges).reshape([-1 if i == axis else 1 for i in range(frames.ndim)])
    return np.add.reduceat(frames, edges[:-1], axis=axis) / sizes.astype(np.float32)
