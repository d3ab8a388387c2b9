"""What every embedded world hands back, and the brush they paint with."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

Color = tuple[int, int, int]


@dataclass(frozen=True)
class Episode:
    """One simulated clip with everything that is known about it.

    Positions are in pixels from the frame's top left corner, x right and y down; the centre of the first
    pixel is (0.5, 0.5), so a frame of size S spans 0..S.

    Attributes:
        frames: uint8 `(T, H, W, 3)`, RGB.
        states: JSON-able values; those that change are lists with one entry per frame.
        caption: One sentence about the clip.
        label: Its class.
        actions: `actions[t]` is applied after frame t and leads to frame t + 1 (one entry per frame, the last
            leads out of the clip), or None for a world without actions.
        action_names: Name of each action number, or None.
    """

    frames: np.ndarray = field(repr=False)
    states: dict[str, Any] = field(repr=False)
    caption: str
    label: str
    actions: list[int] | None = None
    action_names: list[str] | None = None


class Canvas:
    """All frames of a clip at once, painted with anti-aliased shapes in floating point."""

    def __init__(self, frames: int, size: int, background: Color) -> None:
        self.size = size
        # A margin takes what is painted past the edge, so that no brush needs to know about edges.
        self.margin = size // 4 + 2
        side = size + 2 * self.margin
        self.pixels = np.empty((frames, side, side, 3), dtype=np.float32)
        self.pixels[:] = background

    def discs(self, centers: np.ndarray, radius: float, color: Color) -> None:
        """Paint one disc per frame; `centers` is float `(T, 2)`, x and y in pixels."""
        reach = int(np.ceil(radius)) + 1
        window = np.arange(-reach, reach + 1)
        corner = np.floor(centers).astype(int)
        xs = corner[:, 0, None] + window  # (T, window)
        ys = corner[:, 1, None] + window
        dx = xs + 0.5 - centers[:, 0, None]
        dy = ys + 0.5 - centers[:, 1, None]
        distance = np.sqrt(dx[:, None, :] ** 2 + dy[:, :, None] ** 2)
        # The share of a pixel inside the disc, exact for a straight edge, good to 1 % for these radii.
        coverage = np.clip(radius + 0.5 - distance, 0, 1)[..., None].astype(np.float32)
        limit = self.pixels.shape[1] - 1
        index = (
            np.arange(len(centers))[:, None, None],
            np.clip(ys + self.margin, 0, limit)[:, :, None],
            np.clip(xs + self.margin, 0, limit)[:, None, :],
        )
        under = self.pixels[index]
        self.pixels[index] = under + coverage * (np.asarray(color, dtype=np.float32) - under)

    def boxes(self, left: np.ndarray, right: np.ndarray, top: float, bottom: float, color: Color) -> None:
        """Paint one upright box per frame; `left` and `right` are float `(T,)`, all edges in pixels."""
        edges = np.arange(self.pixels.shape[1]) - self.margin
        across = _overlap(edges, left[:, None], right[:, None])  # (T, W)
        down = _overlap(edges, top, bottom)  # (H,)
        # Only the touched part: a wall is a hundredth of the picture.
        rows = slice(*(np.flatnonzero(down)[[0, -1]] + [0, 1]))
        columns = slice(*(np.flatnonzero(across.any(axis=0))[[0, -1]] + [0, 1]))
        coverage = (down[rows, None] * across[:, None, columns])[..., None].astype(np.float32)
        under = self.pixels[:, rows, columns]
        self.pixels[:, rows, columns] = under + coverage * (np.asarray(color, dtype=np.float32) - under)

    def finished(self) -> np.ndarray:
        """Return what was painted, uint8 `(T, size, size, 3)`."""
        inside = slice(self.margin, self.margin + self.size)
        return np.rint(self.pixels[:, inside, inside]).astype(np.uint8)


def _overlap(edges: np.ndarray, low: np.ndarray | float, high: np.ndarray | float) -> np.ndarray:
    """The share of each unit cell [edge, edge + 1] that lies in [low, high]."""
    return np.clip(np.minimum(edges + 1, high) - np.maximum(edges, low), 0, 1)
