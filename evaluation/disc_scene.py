"""What is known of a clip of discs, and what a judge sees of them in frames that a model made."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np

from tokenreel.evaluation.counting import count_discs
from tokenreel.evaluation.tracking import track_discs

_WHOLE = 0.99
"""Share of a disc that must be in front of a bar, or its centre is not where the tracker sees it."""


@dataclass(frozen=True)
class DiscScene:
    """The known state of one clip, in pixels of its frames."""

    colors: np.ndarray
    """uint8 (n, 3), RGB of each disc."""
    background: np.ndarray
    """uint8 (3,), RGB."""
    radius: np.ndarray
    """float (n,)."""
    positions: np.ndarray
    """float (T, n, 2), x and y; not a number while a disc is hidden, if only in part."""
    palette: np.ndarray
    """uint8 (c, 3), all colours that discs of this world may have."""
    radius_range: tuple[float, float]
    """Smallest and largest disc of this world."""
    bar: tuple[float, float] | None = None
    """Left and right edge of a bar that hides what is behind it."""

    @classmethod
    def of_states(
        cls, states: Mapping[str, Any], palette: Sequence[Sequence[int]], radius_range: tuple[float, float]
    ) -> Self:
        """From the states that tools/make_world.py keeps beside a video of balls, in the pixels of its frames.

        Args:
            states: ``colors``, ``background``, ``radius``, ``positions``, and ``visible_fraction``, ``occluder`` if
                anything is hidden.
            palette: All colours of the world, RGB.
            radius_range: Smallest and largest disc of the world, pixels.
        """
        positions = np.array(states["positions"], dtype=np.float64)
        if states.get("occluder"):
            positions[np.array(states["visible_fraction"]) < _WHOLE] = np.nan
        bar = states.get("occluder")
        return cls(
            np.array(states["colors"], dtype=np.uint8),
            np.array(states["background"], dtype=np.uint8),
            np.array(states["radius"], dtype=np.float64),
            positions,
            np.array(palette, dtype=np.uint8),
            radius_range,
            None if bar is None else (float(bar[0]), float(bar[1])),
        )

    @property
    def wanted(self) -> np.ndarray:
        """How many discs have each colour of the palette, int64 (c,)."""
        return (self.colors[None] == self.palette[:, None]).all(axis=-1).sum(axis=1)

    @property
    def tells_apart(self) -> bool:
        """Whether a colour says which disc it is."""
        return len(np.unique(self.colors, axis=0)) == len(self.colors)


class SeenDiscs(NamedTuple):
    """What is to be seen in the frames of one clip."""

    positions: np.ndarray
    """float64 (T, n, 2), as of :func:`~tokenreel.evaluation.tracking.track_discs`; not numbers where colours do not
    tell discs apart."""
    counts: np.ndarray
    """int64 (T, c), discs of each colour of the palette."""


def see(clip: np.ndarray, scene: DiscScene, every: int = 1) -> SeenDiscs:
    """Look for the discs of a scene in a clip.

    Args:
        clip: uint8 (T, H, W, 3).
        scene: What should be there.
        every: Look at the last of so many frames; T is then that of the frames looked at.
    """
    shown = clip[every - 1 :: every]
    if scene.tells_apart:
        positions = track_discs(shown, scene.colors, scene.background, scene.radius)
    else:
        positions = np.full((len(shown), len(scene.colors), 2), np.nan)
    return SeenDiscs(positions, count_discs(shown, scene.palette, scene.background, scene.radius_range))


def right_discs(seen: SeenDiscs, scene: DiscScene) -> np.ndarray:
    """Whether exactly the discs of the scene are there, frame by frame.

    Behind a bar a disc may be missing if that is where it was last seen, and none may be too many.

    Returns:
        bool (T,).
    """
    if scene.bar is None:
        return (seen.counts == scene.wanted).all(axis=1)
    enough = ~np.isnan(seen.positions[..., 0]) | behind_bar(seen, scene)
    return (seen.counts <= scene.wanted).all(axis=1) & enough.all(axis=1)


def behind_bar(seen: SeenDiscs, scene: DiscScene) -> np.ndarray:
    """Whether a disc is out of sight and was last seen at the bar, bool (T, n)."""
    assert scene.bar is not None
    left, right = scene.bar
    away = np.zeros(seen.positions.shape[:2], dtype=bool)
    # Before the first frame it was where the scene has it; hidden there, it may be behind the bar.
    last = np.where(np.isnan(scene.positions[0, :, 0]), (left + right) / 2, scene.positions[0, :, 0])
    for t, x in enumerate(seen.positions[..., 0]):
        lost = np.isnan(x)
        # The tracker sees the centre of the part that still shows, which is further out than the disc's own.
        near = (last > left - 2 * scene.radius) & (last < right + 2 * scene.radius)
        away[t] = lost & near
        last = np.where(lost, last, x)
    return away
