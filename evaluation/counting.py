"""Count coloured discs in frames: what is to be seen in a clip, whoever made it.

For frames a model made, in which discs have any radius within a range, touch each other and are blurred or stained.
"""

import numpy as np
from numpy.typing import ArrayLike

from tokenreel.evaluation.tracking import color_shares, gathered_in_circles

# What an empty pixel within a disc costs against a full one. At less than 2, one circle around two discs that
# touch is worth as much as one of them; at more, a stain in a disc makes two of it.
_EMPTY_COST = 2.0
# A colour may be off by more than where its place is sought: the question is only which of the colours it is.
_COLOR_SCALE = 30.0
# Share of its colour at which a pixel counts as full: blurred and with a tinge of another colour, it has no more.
_FULL = 0.5
# Share of the smallest disc's area that a disc must be worth: filled to four fifths. Less is a stain, or a disc that
# fades.
_LEAST_WORTH = 0.4
# Pixels by which radii that are tried differ; and by which a disc found is taken away too large, for its blurred rim.
_RADIUS_STEP = 0.5
_RIM = 1.5
_MOST = 6


def count_discs(
    frames: np.ndarray, colors: ArrayLike, background: ArrayLike, radius: tuple[float, float]
) -> np.ndarray:
    """Count the discs of each colour, in each frame on its own.

    The circle that is best filled with a colour is taken away, and so on until none is filled well enough.

    Args:
        frames: uint8 `(T, H, W, 3)`, RGB.
        colors: `(n, 3)`, RGB in 0..255, each colour once.
        background: `(3,)`, RGB in 0..255.
        radius: Smallest and largest that a disc may have, in pixels.

    Returns:
        int64 `(T, n)`.

    Raises:
        ValueError: Shapes that don't fit, or radii that are no range.
    """
    palette, ground = np.asarray(colors, dtype=np.float32), np.asarray(background, dtype=np.float32)
    low, high = radius
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8:
        raise ValueError(f"frames are {frames.dtype} {frames.shape}; expected uint8 (T, H, W, 3)")
    if palette.ndim != 2 or palette.shape[1] != 3 or ground.shape != (3,):
        raise ValueError(f"colors and background have shapes {palette.shape}, {ground.shape}; expected (n, 3), (3,)")
    if not 0 < low <= high:
        raise ValueError(f"radius is {radius}; expected the smallest and the largest in pixels, more than 0")
    counts = np.zeros((len(frames), len(palette)), dtype=np.int64)
    for t, frame in enumerate(frames):
        for i, share in enumerate(color_shares(frame, palette, ground, _COLOR_SCALE)):
            counts[t, i] = _count(np.clip(share / _FULL, 0, 1), low, high)
    return counts


def clip_count(counts: np.ndarray) -> np.ndarray:
    """The count of each colour that most frames of a clip agree on; the smaller one of two equally frequent.

    Args:
        counts: int `(T, n)` of :func:`count_discs`, T at least 1.

    Returns:
        int64 `(n,)`.
    """
    return np.array([np.bincount(of_color).argmax() for of_color in counts.T], dtype=np.int64)


def _count(share: np.ndarray, low: float, high: float) -> int:
    """Discs in one share map (H, W) in [0, 1]."""
    radii = tuple(np.linspace(low, high, max(2, 1 + round((high - low) / _RADIUS_STEP))).tolist())
    left, found = share.copy(), 0
    while found < _MOST and left.sum() > _LEAST_WORTH * np.pi * low**2:
        worth = _worth(left, radii)
        best, row, column = np.unravel_index(int(worth.argmax()), worth.shape)
        if worth[best, row, column] < _LEAST_WORTH * np.pi * low**2:
            break
        _take_away(left, radii[int(best)] + _RIM, int(row), int(column))
        found += 1
    return found


def _worth(share: np.ndarray, radii: tuple[float, ...]) -> np.ndarray:
    """What a disc of each radius around each pixel (n, H, W) would be worth: what it holds, less what it lacks."""
    held = gathered_in_circles(share, radii)
    area = np.pi * np.square(radii)[:, None, None]
    return held - _EMPTY_COST * (area - held)


def _take_away(share: np.ndarray, radius: float, row: int, column: int) -> None:
    height, width = share.shape
    distance = np.hypot(np.arange(height)[:, None] - row, np.arange(width) - column)
    share *= np.clip(distance - radius + 0.5, 0, 1)
