"""New clips of the world of balls, and a judge of clips by its known state, for benchmarks of models of that world."""

from typing import Any, NamedTuple

import numpy as np

from tokenreel.datasets.world_balls import BACKGROUND, COLORS, RADIUS
from tokenreel.datasets.worlds import simulate
from tokenreel.evaluation.counting import count_discs
from tokenreel.evaluation.tracking import position_error, track_discs

FRESH_SEED = 2**62
"""Of the clips: no world on disk has them."""


class Judged(NamedTuple):
    """Means over clips, frame by frame."""

    error: np.ndarray
    """Of the balls' positions, in pixels per coordinate."""
    whole: np.ndarray
    """Share of clips that show exactly the right balls."""


def fresh_clips(count: int, size: int, frames: int) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """Clips uint8 (count, frames, size, size, 3) and their states."""
    episodes = [simulate("balls", FRESH_SEED + i, size, frames) for i in range(count)]
    return np.stack([each.frames for each in episodes]), [each.states for each in episodes]


def judge(clips: list[np.ndarray], states: list[dict[str, Any]], every: int = 1) -> Judged:
    """Look at one frame in ``every`` of clips, uint8 (T, H, W, 3) each."""
    size = clips[0].shape[1]
    palette, radius = list(COLORS.values()), (RADIUS[0] * size, RADIUS[1] * size)
    errors, whole = [], []
    for clip, state in zip(clips, states, strict=True):
        seen = clip[every - 1 :: every]
        right = np.array(state["positions"])[every - 1 : len(clip) : every]
        errors.append(position_error(track_discs(seen, state["colors"], BACKGROUND, state["radius"]), right, size))
        wanted = np.array([state["names"].count(name) for name in COLORS])
        whole.append((count_discs(seen, palette, BACKGROUND, radius) == wanted).all(axis=1))
    return Judged(np.mean(errors, axis=0), np.mean(whole, axis=0))
