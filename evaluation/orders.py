"""Are actions followed? Judged by where a thing that they move is seen, beside where the world's own game puts it."""

from typing import NamedTuple

import numpy as np

from tokenreel.evaluation.tally import Tally


class OrderedMotion(NamedTuple):
    """Where a thing was seen in the new frames of clips, and where it should be; pixels, (B, new)."""

    found: np.ndarray
    """Not a number where it is not seen."""
    due: np.ndarray
    begun: np.ndarray
    """In the last prompt frame, (B,)."""

    def figures(self, size: int, step: float) -> dict[str, Tally]:
        """How far it went, how far off it is, and how often it ends about where the game does.

        Args:
            size: Width of the frames, pixels.
            step: Pixels that one action moves it. It may end so far off, or half its way if that is more.

        Returns:
            ``displacement per frame`` (px), ``position error`` (px, by frame), ``moved as told`` (share).
        """
        # What is not there has not moved, and is off by the mean distance of two random places, as a guess is.
        moved, way = np.nan_to_num(self.found[:, -1] - self.begun), self.due[:, -1] - self.begun
        error = np.where(np.isnan(self.found), size / 3, np.abs(self.found - self.due))
        near = np.abs(moved - way) <= np.maximum(step, np.abs(way) / 2)
        return {
            "displacement per frame": Tally.of(moved / self.found.shape[1], "px"),
            "position error": Tally.of(error, "px"),
            "moved as told": Tally.of((near & ~np.isnan(self.found[:, -1])).astype(float), "share"),
        }
