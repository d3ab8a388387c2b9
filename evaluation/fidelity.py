"""How close frames are to other frames, and how much of their movement they have."""

import numpy as np

MOST_DECIBELS = 100.0
"""What equal frames count as where a mean is taken."""


def psnr(frames: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Peak signal-to-noise ratio per clip.

    Args:
        frames: uint8 (B, T, H, W, 3).
        truth: uint8, the same shape.

    Returns:
        float64 (B,), decibels: 10·log10(1 / MSE) with values in [0, 1]; infinite for equal clips.

    Raises:
        ValueError: If the shapes differ.
    """
    if frames.shape != truth.shape or frames.ndim != 5:
        raise ValueError(f"frames have shapes {frames.shape} and {truth.shape}, expected one shape (B, T, H, W, 3)")
    difference = (frames.astype(np.float32) - truth.astype(np.float32)) / 255.0
    error = np.square(difference).reshape(len(frames), -1).mean(axis=1, dtype=np.float64)
    with np.errstate(divide="ignore"):
        return 10.0 * np.log10(1.0 / error)


def motion_kept(frames: np.ndarray, truth: np.ndarray) -> float:
    """Share of the movement in clips that reconstructions of them show.

    Where little moves, frames can be close to the truth (a high PSNR) and still miss all that moves. So the changes
    from frame to frame are compared instead of the frames: 1 - squared error of the changes / squared changes.

    Args:
        frames: uint8 (B, T, H, W, 3).
        truth: uint8, the same shape.

    Returns:
        1 for equal changes, 0 for frames that stand still, below 0 for frames that move otherwise; not a number where
        nothing moves.

    Raises:
        ValueError: If the shapes differ.
    """
    return share_kept(movement_errors(frames, truth))


def share_kept(errors: np.ndarray) -> float:
    """What :func:`motion_kept` says of clips of which :func:`movement_errors` are known, float64 (B, 2)."""
    error, total = errors.sum(axis=0)
    return float(1.0 - error / total) if total else float("nan")


def movement_errors(frames: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Squared error of the changes from frame to frame, and squared true changes, of each clip: float64 (B, 2)."""
    if frames.shape != truth.shape or frames.ndim != 5:
        raise ValueError(f"frames have shapes {frames.shape} and {truth.shape}, expected one shape (B, T, H, W, 3)")
    sums = np.zeros((len(frames), 2))
    for row, clip, right in zip(sums, frames, truth, strict=True):  # one at a time: the changes are floats
        moved, should = (np.diff(part.astype(np.float32), axis=0) for part in (clip, right))
        row[:] = [np.square(part).sum(dtype=np.float64) for part in (moved - should, should)]
    return sums


def frame_psnr(frames: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """PSNR of each frame, float64 (B, T); equal frames count as 100 dB, so that a mean can be taken."""
    each = [psnr(frames[:, [t]], truth[:, [t]]) for t in range(truth.shape[1])]
    return np.minimum(np.stack(each, axis=1), MOST_DECIBELS)
