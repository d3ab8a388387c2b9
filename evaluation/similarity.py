"""Structural similarity (SSIM) of frames.

Per channel, a Gaussian window of 11 x 11 pixels with standard deviation 1.5, only where it lies inside the frame, and
the usual constants: what scikit-image calls `gaussian_weights` and torchmetrics its default.

Source: Wang et al., 2004, "Image Quality Assessment: From Error Visibility to Structural Similarity".
"""

import numpy as np

WINDOW = 11
_SPREAD = 1.5
_C1, _C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2


def ssim(frames: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Similarity of each frame to the true one.

    Args:
        frames: uint8 (B, T, H, W, 3), H and W at least 11.
        truth: uint8, the same shape.

    Returns:
        float64 (B, T), at most 1; 1 for equal frames.

    Raises:
        ValueError: If the shapes differ or the frames are smaller.
    """
    if frames.shape != truth.shape or frames.ndim != 5 or min(frames.shape[2:4]) < WINDOW:
        raise ValueError(
            f"frames have shapes {frames.shape} and {truth.shape}, expected one shape (B, T, H, W, 3), H and W at "
            f"least {WINDOW}"
        )
    rows, columns = _blur(frames.shape[2]), _blur(frames.shape[3])
    return np.stack([_of_clip(*pair, rows, columns) for pair in zip(frames, truth, strict=True)])


def _of_clip(frames: np.ndarray, truth: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """(T, H, W, 3) twice -> (T,)."""
    x, y = (clip.transpose(0, 3, 1, 2).astype(np.float32) for clip in (frames, truth))
    mean_x, mean_y, xx, yy, xy = (rows @ image @ columns.T for image in (x, y, x * x, y * y, x * y))
    both = mean_x * mean_y
    squares = mean_x**2 + mean_y**2
    spread = xx + yy - squares
    similar = (2 * both + _C1) * (2 * (xy - both) + _C2) / ((squares + _C1) * (spread + _C2))
    return similar.mean(axis=(1, 2, 3), dtype=np.float64)


def _blur(side: int) -> np.ndarray:
    """float32 (side - 10, side): each row the window around one pixel."""
    at = np.arange(WINDOW) - WINDOW // 2
    window = np.exp(-(at**2) / (2 * _SPREAD**2))
    matrix = np.zeros((side - WINDOW + 1, side), np.float32)
    for row in range(len(matrix)):
        matrix[row, row : row + WINDOW] = window / window.sum()
    return matrix
