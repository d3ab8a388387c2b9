"""How close frames are to other frames."""

import numpy as np


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
