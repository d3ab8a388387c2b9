"""The world `fork`: a ball falls onto a peg and goes left or right by chance, with known odds, again and again."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from tokenreel.datasets.world_balls import BACKGROUND, COLORS
from tokenreel.datasets.world_episode import Canvas, Color, Episode

__all__ = ["BACKGROUND", "COLORS", "LABELS", "RIGHT", "fall_on", "simulate_fork"]

LABELS = ["fork"]
RIGHT = 0.7
"""Probability of the right side, where none is chosen."""
PEG: Color = (150, 150, 158)

# All lengths as a share of the frame's size, speeds per frame.
_RADIUS = 0.075
_PEG_RADIUS = 0.04
_FALL = 0.05
_ASIDE, _DOWN = 0.045, 0.035
_PAUSE = 3  # frames between a ball that has left and the next


def simulate_fork(seed: int, size: int, frames: int, *, right: float = RIGHT) -> Episode:
    """Simulate one clip of the world `fork`.

    The ball falls straight down, at the peg goes aside, and leaves the picture; after a pause the next one falls. The
    side is drawn anew each time, so nothing before the peg tells it. All else is fixed by colour and place of the
    peg, which differ from clip to clip.

    Args:
        seed: Same seed, same clip.
        size: Height and width in pixels.
        frames: Length T.
        right: Probability that a ball goes right, above 0 and below 1.

    Returns:
        An episode whose states are `ball` and `velocity` (T, 2; pixels, pixels per frame; outside the picture during
        a pause), `drops` (T; balls that met the peg so far), `sides` (of each of those, "left" or "right"), `wait`
        (T; frames of the pause left), `peg` (x and y), `radius`, `color`, `background` and `right`.

    Raises:
        ValueError: If `right` is no probability of both sides.
    """
    if not 0 < right < 1:
        raise ValueError(f"right is {right}; expected a probability above 0 and below 1, such as {RIGHT}")
    place_rng, side_rng = (np.random.default_rng([seed, stream]) for stream in (0, 1))
    color = list(COLORS.values())[place_rng.integers(len(COLORS))]
    peg = np.array([place_rng.uniform(0.36, 0.64), place_rng.uniform(0.4, 0.55)])
    # High enough that even the first ball is seen to fall.
    begin = np.array([peg[0], place_rng.uniform(-_RADIUS, peg[1] - 0.4)])
    fall = _Fall(peg, begin, np.array([0.0, _FALL]), 0, right, side_rng)
    history = [fall.step() for _ in range(frames)]
    drops = [len(told[3]) for told in history]
    states = {
        "ball": [(told[0] * size).round(4).tolist() for told in history],
        "velocity": [(told[1] * size).round(4).tolist() for told in history],
        "wait": [told[2] for told in history],
        "drops": drops,
        "sides": list(history[-1][3]),
        "peg": (peg * size).round(4).tolist(),
        "radius": round(_RADIUS * size, 4),
        "color": list(color),
        "background": list(BACKGROUND),
        "right": right,
    }
    painted = _painted(np.array(states["ball"]), peg * size, color, size)
    name = next(name for name, value in COLORS.items() if value == color)
    return Episode(painted, states, f"a {name} ball falls onto a peg", LABELS[0])


def fall_on(states: Mapping[str, Any], frame: int, frames: int, size: int, seed: int) -> np.ndarray:
    """Let a ball fall on from a state of a clip, by other dice.

    Args:
        states: Of the clip, see :func:`simulate_fork`.
        frame: Frame from whose state on.
        frames: How many follow.
        size: Height and width of the clip in pixels.
        seed: Of the dice.

    Returns:
        The frames after that one, uint8 `(frames, size, size, 3)`.
    """
    peg, ball, speed = (np.array(states[key]) / size for key in ("peg", "ball", "velocity"))
    dice = np.random.default_rng([seed, 2])
    fall = _Fall(peg, ball[frame], speed[frame], states["wait"][frame], states["right"], dice)
    places = [fall.step()[0] for _ in range(frames + 1)]
    return _painted(np.array(places[1:]) * size, np.array(states["peg"]), tuple(states["color"]), size)


class _Fall:
    """The ball, in units of the frame's size."""

    def __init__(
        self, peg: np.ndarray, place: np.ndarray, speed: np.ndarray, wait: int, right: float, rng: np.random.Generator
    ) -> None:
        self.peg, self.place, self.speed, self.wait = peg, place.copy(), speed.copy(), wait
        self.right, self.rng = right, rng
        self.sides: list[str] = []

    def step(self) -> tuple[np.ndarray, np.ndarray, int, list[str]]:
        """Place, speed, pause and sides so far; then move by one frame."""
        told = self.place.copy(), self.speed.copy(), self.wait, list(self.sides)
        if self.wait:
            self.wait -= 1
            if not self.wait:
                self.place, self.speed = np.array([self.peg[0], -_RADIUS]), np.array([0.0, _FALL])
            return told
        self.place = self.place + self.speed
        surface = self.peg[1] - _RADIUS - _PEG_RADIUS
        if self.speed[0] == 0 and self.place[1] >= surface:
            side = "right" if self.rng.random() < self.right else "left"
            self.sides.append(side)
            self.place[1] = surface
            self.speed = np.array([_ASIDE if side == "right" else -_ASIDE, _DOWN])
        x, y = self.place
        if not (-_RADIUS <= x <= 1 + _RADIUS and y <= 1 + _RADIUS):
            self.wait = _PAUSE
        return told


def _painted(ball: np.ndarray, peg: np.ndarray, color: Color, size: int) -> np.ndarray:
    canvas = Canvas(len(ball), size, BACKGROUND)
    canvas.discs(np.repeat(peg[None], len(ball), axis=0), _PEG_RADIUS * size, PEG)
    canvas.discs(ball, _RADIUS * size, color)
    return canvas.finished()
