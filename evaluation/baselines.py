"""What a prediction must beat: forecasts that know nothing but the prompt.

* Copy of the last frame: nothing moves any more.
* The last motion repeated: what moved between the last two prompt frames goes on at the same speed in the same
  direction, and what it leaves behind is filled from around it. It knows no walls, no collisions, no gravity.
"""

import numpy as np

from tokenreel.evaluation.flow import pixel_shifts

# Side of the window whose motion a pixel has, as a share of the frame's shorter side: wide enough that the inside of
# an even thing sees its edge.
_WINDOW_SHARE = 0.2


def copy_last_frame(prompts: np.ndarray, num_frames: int) -> np.ndarray:
    """Prompts and their last frames again and again.

    Args:
        prompts: uint8 (B, P, H, W, 3), P at least 1.
        num_frames: New frames.

    Returns:
        uint8 (B, P + num_frames, H, W, 3).
    """
    return np.concatenate([prompts, np.repeat(prompts[:, -1:], num_frames, axis=1)], axis=1)


def repeat_last_motion(prompts: np.ndarray, num_frames: int) -> np.ndarray:
    """Prompts and what comes of their last motion.

    Args:
        prompts: uint8 (B, P, H, W, 3); with P = 1 nothing is known to move.
        num_frames: New frames.

    Returns:
        uint8 (B, P + num_frames, H, W, 3).
    """
    clips = copy_last_frame(prompts, num_frames)
    if prompts.shape[1] < 2:
        return clips
    window = round(min(prompts.shape[2:4]) * _WINDOW_SHARE) // 2 * 2 + 1
    for clip in clips:
        before, last = clip[prompts.shape[1] - 2 : prompts.shape[1]]
        shifts = pixel_shifts(before, last, window)
        if shifts.any():
            ground = _without(last, (shifts != 0).any(axis=0))
            for step in range(1, num_frames + 1):
                clip[prompts.shape[1] - 1 + step] = _moved_on(last, ground, shifts, step)
    return clips


def _moved_on(last: np.ndarray, ground: np.ndarray, shifts: np.ndarray, step: int) -> np.ndarray:
    """The frame in which every moving pixel is so many steps further, uint8 (H, W, 3)."""
    height, width = last.shape[:2]
    rows, columns = np.nonzero(shifts.any(axis=0))
    to_rows, to_columns = rows + step * shifts[0, rows, columns], columns + step * shifts[1, rows, columns]
    inside = (to_rows >= 0) & (to_rows < height) & (to_columns >= 0) & (to_columns < width)
    frame = ground.copy()
    frame[to_rows[inside], to_columns[inside]] = last[rows[inside], columns[inside]]
    return frame


def _without(frame: np.ndarray, moving: np.ndarray) -> np.ndarray:
    """The frame with moving pixels (H, W) filled from around them, ring by ring."""
    if moving.all():
        return frame
    known, filled = ~moving, np.where(moving[..., None], 0, frame).astype(np.float64)
    while not known.all():
        weight, colors = (_neighbours(part) for part in (known.astype(np.float64), filled * known[..., None]))
        rim = ~known & (weight > 0)
        filled[rim] = colors[rim] / weight[rim][:, None]
        known |= rim
    return filled.round().astype(np.uint8)


def _neighbours(values: np.ndarray) -> np.ndarray:
    """Sum over the 3 x 3 pixels around each, (H, W, ...) from (H, W, ...)."""
    height, width = values.shape[:2]
    padded = np.pad(values, ((1, 1), (1, 1), *((0, 0),) * (values.ndim - 2)))
    return sum(padded[dy : dy + height, dx : dx + width] for dy in range(3) for dx in range(3))  # type: ignore[return-value]
