"""How far things move between frames: block matching, exact over all whole-pixel shifts up to a reach.

No network and no smoothness: each window is looked for in the earlier frame, and the shift of the smallest difference
is its motion. Where standing still explains a window nearly as well, it stood still, so that even ground and noise do
not move.
"""

import numpy as np

REACH = 6
"""Pixels per frame; what moves faster is taken for something else."""
BLOCK = 8
# A shift must explain a window better than standing still: the mean difference must fall to this share of it, which
# of independent noise the best of all shifts does not, and by this many grey levels.
_SHARE, _GAIN = 0.6, 1.0
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


def luma(frames: np.ndarray) -> np.ndarray:
    """Brightness in 0..255: uint8 (..., 3) -> float32 (...)."""
    return frames.astype(np.float32) @ _LUMA


def block_speeds(clip: np.ndarray, reach: int = REACH) -> np.ndarray:
    """How far each block of 8 x 8 pixels moved since the frame before.

    Args:
        clip: uint8 (T, H, W, 3), T at least 2.
        reach: Largest shift that is tried, pixels in each direction.

    Returns:
        float32 (T - 1, H // 8, W // 8), pixels.

    Raises:
        ValueError: If there is one frame, or a frame is smaller than a block.
    """
    if len(clip) < 2 or min(clip.shape[1:3]) < BLOCK:
        raise ValueError(f"clip of shape {clip.shape}, expected at least 2 frames of {BLOCK} x {BLOCK} pixels")
    grey = luma(clip)
    height, width = (side // BLOCK * BLOCK for side in grey.shape[1:])
    tiles = (len(clip) - 1, height // BLOCK, BLOCK, width // BLOCK, BLOCK)

    def cost(difference: np.ndarray) -> np.ndarray:
        """Mean difference of each block, float (T - 1, rows, columns)."""
        return difference[:, :height, :width].reshape(tiles).mean(axis=(2, 4))

    return np.hypot(*_best_shift(grey, cost, reach))


def pixel_shifts(before: np.ndarray, after: np.ndarray, window: int, reach: int = REACH) -> np.ndarray:
    """Where each pixel came from.

    Args:
        before: uint8 (H, W, 3).
        after: uint8 (H, W, 3), a frame later.
        window: Side of the square around each pixel that is looked for, an odd number of pixels.
        reach: As in :func:`block_speeds`.

    Returns:
        int (2, H, W): rows and columns that the pixel has moved.
    """

    def cost(difference: np.ndarray) -> np.ndarray:
        """Mean difference around each pixel, float (1, H, W)."""
        return _box_mean(difference[0], window)[None]

    return np.stack([part[0] for part in _best_shift(luma(np.stack([before, after])), cost, reach)])


def _best_shift(grey: np.ndarray, cost, reach: int) -> tuple[np.ndarray, np.ndarray]:  # type: ignore[no-untyped-def]
    """Rows and columns moved, (T - 1, ...) each, by what ``cost`` makes of differences (T - 1, H, W)."""
    before, after = grey[:-1], grey[1:]
    least = _SHARE * cost(np.abs(after - before)) - _GAIN
    rows, columns = np.zeros(least.shape, np.int64), np.zeros(least.shape, np.int64)
    shifts = [(dy, dx) for dy in range(-reach, reach + 1) for dx in range(-reach, reach + 1) if dy or dx]
    padded = np.pad(before, ((0, 0), (reach, reach), (reach, reach)), mode="edge")
    H, W = grey.shape[1:]
    for dy, dx in sorted(shifts, key=lambda shift: np.hypot(*shift)):  # of equals the shortest
        moved = padded[:, reach - dy : reach - dy + H, reach - dx : reach - dx + W]
        found = cost(np.abs(after - moved))
        better = found < least
        least = np.where(better, found, least)
        rows[better], columns[better] = dy, dx
    return rows, columns


def _box_mean(values: np.ndarray, window: int) -> np.ndarray:
    """Mean in a square around each pixel, (H, W) from (H, W)."""
    margin = window // 2
    padded = np.pad(values, margin, mode="edge")
    for axis in (0, 1):
        sums = np.cumsum(padded, axis=axis, dtype=np.float64)
        sums = np.concatenate([np.zeros_like(np.take(sums, [0], axis)), sums], axis=axis)
        ahead, behind = (np.take(sums, range(i, i + values.shape[axis]), axis) for i in (window, 0))
        padded = ahead - behind
    return padded / window**2
