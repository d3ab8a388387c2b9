"""How clips move, against how real clips move: what metrics of single frames don't see.

Each is a number per clip, so that a set of clips is described by their mean and compared with real ones.
"""

import numpy as np

from tokenreel.evaluation.flow import block_speeds, luma

LEAST_FRAMES = 3
CHANGED = 8
"""Grey levels by which a pixel must change in some colour to count: above the noise of a codec."""


def flicker(clips: np.ndarray) -> np.ndarray:
    """High-frequency energy of frame differences: what jumps to and fro from frame to frame.

    The root mean square of the second difference in time, x[t - 1] - 2 x[t] + x[t + 1], which even motion of a smooth
    picture hardly has and noise has most of.

    Args:
        clips: uint8 (B, T, H, W, 3), T at least 3.

    Returns:
        float64 (B,), grey levels.
    """
    _check(clips, 3)
    grey = (luma(clip) for clip in clips)
    return np.array([np.sqrt(np.square(x[2:] - 2 * x[1:-1] + x[:-2]).mean(dtype=np.float64)) for x in grey])


def changed_share(clips: np.ndarray) -> np.ndarray:
    """Share of pixels that change by more than 8 of 255 levels from one frame to the next, float64 (B,).

    Args:
        clips: uint8 (B, T, H, W, 3), T at least 2.
    """
    _check(clips, 2)
    changes = (np.abs(np.diff(clip.astype(np.int16), axis=0)).max(axis=-1) for clip in clips)
    return np.array([(change > CHANGED).mean() for change in changes])


def speeds(clips: np.ndarray) -> np.ndarray:
    """How far each block of 8 x 8 pixels moves per frame.

    Args:
        clips: uint8 (B, T, H, W, 3), T at least 2.

    Returns:
        float32 (B, n), pixels, smallest first.
    """
    _check(clips, 2)
    return np.stack([np.sort(block_speeds(clip).ravel()) for clip in clips])


def speed_distance(one: np.ndarray, other: np.ndarray) -> float:
    """How differently fast two sets of clips move: the distance of their distributions of speed (Wasserstein-1).

    Args:
        one: float (N, n) of :func:`speeds`.
        other: float (M, n).

    Returns:
        Pixels per frame by which speeds would have to change on average to be distributed alike.
    """
    share = (np.arange(1024) + 0.5) / 1024
    quantiles = (np.quantile(each, share, method="inverted_cdf") for each in (one, other))
    return float(np.abs(np.subtract(*quantiles)).mean())


def _check(clips: np.ndarray, frames: int) -> None:
    if clips.ndim != 5 or clips.shape[-1] != 3 or clips.dtype != np.uint8 or clips.shape[1] < frames:
        raise ValueError(f"clips are {clips.dtype} {clips.shape}, expected uint8 (B, T, H, W, 3), T at least {frames}")
