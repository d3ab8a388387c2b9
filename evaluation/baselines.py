"""What a prediction must beat: forecasts that know nothing but the prompt.

* Copy of the last frame: nothing moves any more.
* The last motion repeated: what moved in the last prompt frames, up to four, goes on at the same speed in the same
  direction, and what it leaves behind is filled from around it. It knows no walls, no collisions, no gravity.
"""

import numpy as np

from tokenreel.evaluation.flow import pixel_shifts

# Side of the window whose motion a pixel has, as a share of the frame's shorter side: the inside of an even thing that
# is no larger sees its edge.
_WINDOW_SHARE = 0.2
# Frames over which motion is measured: shifts are whole pixels, over three frames thirds of pixels per frame.
_BACK = 3
REACH_PER_FRAME = 4
"""Pixels that a thing may move per frame."""


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
    clips, P = copy_last_frame(prompts, num_frames), prompts.shape[1]
    if P < 2:
        return clips
    window = round(min(prompts.shape[2:4]) * _WINDOW_SHARE) // 2 * 2 + 1
    back = min(_BACK, P - 1)
    for clip in clips:
        last = clip[P - 1]
        shifts = _as_whole_things(pixel_shifts(clip[P - 1 - back], last, window, REACH_PER_FRAME * back))
        if shifts.any():
            ground = _without(last, (shifts != 0).any(axis=0))
            for step in range(1, num_frames + 1):
                clip[P - 1 + step] = _moved_on(last, ground, shifts, step / back)
    return clips


def _as_whole_things(shifts: np.ndarray) -> np.ndarray:
    """Shifts int (2, H, W) in which all pixels of a moving thing move alike: as most of them do.

    A thing is what moves and hangs together. So it is not torn where single pixels err.
    """
    moving = (shifts != 0).any(axis=0)
    # Each moving pixel takes the largest number around it until nothing changes: then each thing has its own.
    things = np.where(moving, np.arange(1, moving.size + 1).reshape(moving.shape), 0)
    while True:
        padded = np.pad(things, 1)
        around = [padded[dy : dy + moving.shape[0], dx : dx + moving.shape[1]] for dy in range(3) for dx in range(3)]
        grown = np.where(moving, np.max(around, axis=0), 0)
        if np.array_equal(grown, things):
            break
        things = grown
    whole = np.zeros_like(shifts)
    for thing in np.unique(things[moving]):
        inside = things == thing
        found, counts = np.unique(shifts[:, inside], axis=1, return_counts=True)
        whole[:, inside] = found[:, [counts.argmax()]]
    return whole


def _moved_on(last: np.ndarray, ground: np.ndarray, shifts: np.ndarray, times: float) -> np.ndarray:
    """The frame in which every moving pixel has gone so many times its shift, uint8 (H, W, 3)."""
    height, width = last.shape[:2]
    rows, columns = np.nonzero((shifts != 0).any(axis=0))
    ways = np.rint(times * shifts[:, rows, columns]).astype(int)
    to_rows, to_columns = rows + ways[0], columns + ways[1]
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
