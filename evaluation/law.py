"""Does what a model shows obey the world's own law? Judged from the model's own frames, bounce by bounce.

After a few bounces no model can be where the truth is: the smallest error grows with each. So the truth's positions
say little about a long continuation. The law can still be held against it: from where discs are and how they move in
the frames themselves, the world's simulator says where they must be a moment later.
"""

from itertools import pairwise
from typing import Protocol

import numpy as np

from tokenreel.evaluation.tally import Tally

AHEAD = 4
"""Frames that the law is asked for. A bounce lies between the first and the second of them, so that two frames and
more after it tell whether it was obeyed."""
_STEADY = 0.75
"""Pixels by which three frames may be off a steady flight to say where a disc is and how fast."""
_OVERLAP = 1.5
"""Pixels by which discs may overlap at the start: more, and the law says nothing."""
_MOVES = 0.3
"""Pixels per frame below which a disc stands still, and is no case of anything."""
_LEAST_TOLERANCE, _TOLERANCE = 1.5, 0.4
"""Pixels, and share of the radius, that a disc may be off at the end. A disc that flies on instead of bouncing is off
by twice its way since then."""
_TELLING = 1.5
"""A bounce is a case if it leads so many tolerances away from where straight flight would have: a graze tells nothing.
"""
KINDS = ("wall bounces obeyed", "collisions obeyed", "straight flight kept")


class Law(Protocol):
    """A world's own law of motion."""

    def __call__(
        self, frame: int, positions: np.ndarray, velocities: np.ndarray, frames: int
    ) -> tuple[np.ndarray, np.ndarray] | None:
        """What follows on a state.

        Args:
            frame: Of the clip, at which the state is.
            positions: float (n, 2), pixels.
            velocities: float (n, 2), pixels per frame.
            frames: How many follow.

        Returns:
            Positions and velocities, each float (frames + 1, n, 2), first those given; None where chance decides.
        """


def obeyed(positions: np.ndarray, radius: np.ndarray, law: Law, first: int = 0) -> dict[str, tuple[int, int]]:
    """Count what one clip obeys.

    A case is a disc, and a frame from which the law can be asked: all discs seen in it and in the two before, flying
    steadily. Each bounce that is no mere graze is one case; flight without a bounce is one for each frame. A disc that
    is lost is off, one that stands still is no case.

    Args:
        positions: float (T, n, 2), as tracked; NaN where a disc is not seen.
        radius: float (n,), pixels.
        law: The world's own.
        first: First frame whose state may be asked; two more are needed before it.

    Returns:
        For each of ``KINDS`` (cases obeyed, cases).
    """
    hits, cases = dict.fromkeys(KINDS, 0), dict.fromkeys(KINDS, 0)
    allowed = np.maximum(_LEAST_TOLERANCE, _TOLERANCE * radius)
    for t in range(max(first, 2), len(positions) - AHEAD):
        velocities = _steady_velocities(positions[t - 2 : t + 1])
        if velocities is None or _overlapping(positions[t], radius):
            continue
        due = law(t, positions[t], velocities, AHEAD)
        if due is None:
            continue
        places, speeds = due
        off = np.linalg.norm(positions[t + AHEAD] - places[-1], axis=1)
        right = np.where(np.isnan(off), False, off <= allowed)
        bent = np.linalg.norm(places[-1] - positions[t] - AHEAD * velocities, axis=1)
        for i, kind in enumerate(_kinds(speeds)):
            still = np.linalg.norm(velocities[i]) < _MOVES
            if kind is not None and not still and (kind == KINDS[2] or bent[i] > _TELLING * allowed[i]):
                cases[kind] += 1
                hits[kind] += bool(right[i])
    return {kind: (hits[kind], cases[kind]) for kind in KINDS}


def law_figures(
    positions: list[np.ndarray], radius: list[np.ndarray], laws: list[Law], first: int = 0
) -> dict[str, Tally]:
    """Shares of what clips obey, one of ``KINDS`` each; arguments as of :func:`obeyed`, one per clip."""
    found = [obeyed(*each, first) for each in zip(positions, radius, laws, strict=True)]
    return {kind: Tally([one[kind][0] for one in found], [one[kind][1] for one in found], "share") for kind in KINDS}


def _steady_velocities(three: np.ndarray) -> np.ndarray | None:
    """Pixels per frame (n, 2) of three frames (3, n, 2), or None if a disc is not seen or not steady."""
    bend = np.linalg.norm(three[2] - 2 * three[1] + three[0], axis=1)
    return (three[2] - three[0]) / 2 if (bend <= _STEADY).all() else None


def _overlapping(places: np.ndarray, radius: np.ndarray) -> bool:
    gaps = np.linalg.norm(places[:, None] - places[None], axis=-1) - radius[:, None] - radius[None]
    return bool((gaps[~np.eye(len(radius), dtype=bool)] < -_OVERLAP).any())


def _kinds(speeds: np.ndarray) -> list[str | None]:
    """What happens to each disc by its velocities (AHEAD + 1, n, 2); None where that is not told clearly enough."""
    kinds: list[str | None] = []
    for speed in speeds.transpose(1, 0, 2):
        changed = [bool(np.abs(after - before).max() > 1e-6) for before, after in pairwise(speed)]
        if not any(changed):
            kinds.append("straight flight kept")
        elif changed[1] and not changed[0]:
            # A wall turns one component round and leaves its size.
            mirrored = np.allclose(np.abs(speed[2]), np.abs(speed[1]), atol=1e-6)
            kinds.append(KINDS[0] if mirrored else KINDS[1])
        else:
            kinds.append(None)
    return kinds
