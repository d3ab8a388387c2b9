"""New clips of the world of balls, and a judge of clips by its known state, for benchmarks of models of that world."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tokenreel.datasets.worlds import simulate
from tokenreel.evaluation.disc_scene import DiscScene
from tokenreel.evaluation.disc_tests import disc_figures
from tokenreel.tools.paddle_cases import FRESH_SEED
from tokenreel.tools.world_cases import scene_of


class Judged(NamedTuple):
    """Means over clips, frame by frame."""

    error: np.ndarray
    """Of the balls' positions, in pixels per coordinate."""
    whole: np.ndarray
    """Share of clips that show exactly the right balls."""


def fresh_clips(count: int, size: int, frames: int) -> tuple[np.ndarray, list[DiscScene]]:
    """Clips uint8 (count, frames, size, size, 3) and what is known of them."""
    episodes = [simulate("balls", FRESH_SEED + i, size, frames) for i in range(count)]
    return np.stack([each.frames for each in episodes]), [scene_of(each) for each in episodes]


def judge(clips: Sequence[np.ndarray] | np.ndarray, scenes: list[DiscScene]) -> Judged:
    """Look at clips, uint8 (T, H, W, 3) each."""
    found = disc_figures(clips, scenes, prompt_frames=0)
    return Judged(found["position error"].curve, found["right discs"].curve)
