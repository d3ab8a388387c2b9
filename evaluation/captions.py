"""Are captions and labels obeyed? Judged by the discs of each colour that clips show."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from tokenreel.evaluation.counting import clip_count, count_discs
from tokenreel.evaluation.tally import Tally


def shown_discs(
    clips: Sequence[np.ndarray] | np.ndarray, colors: ArrayLike, background: ArrayLike, radius: tuple[float, float]
) -> np.ndarray:
    """Discs of each colour that most frames of a clip show.

    Args:
        clips: uint8 (T, H, W, 3) each.
        colors: (n, 3), all colours that discs may have.
        background: (3,).
        radius: Smallest and largest disc, pixels.

    Returns:
        int64 (B, n).
    """
    return np.array([clip_count(count_discs(clip, colors, background, radius)) for clip in clips])


def caption_figures(shown: np.ndarray, wanted: np.ndarray) -> dict[str, Tally]:
    """Shares of clips that are right in all and in part.

    Args:
        shown: int (B, n), as of :func:`shown_discs`.
        wanted: int (B, n), as the captions have it.

    Returns:
        ``colours and counts right``, ``colours right``, ``number of balls right``; the first also of clips with so
        many balls, and of those with a colour twice or more.
    """
    balls = wanted.sum(axis=1)
    right = (shown == wanted).all(axis=1).astype(float)
    figures = {
        "colours and counts right": right,
        "colours right": ((shown > 0) == (wanted > 0)).all(axis=1).astype(float),
        "number of balls right": (shown.sum(axis=1) == balls).astype(float),
    }
    parts = {f"of clips with {n}": balls == n for n in np.unique(balls)}
    parts["of clips with a colour twice or more"] = wanted.max(axis=1) > 1
    figures |= {f"colours and counts right, {name}": np.where(part, right, np.nan) for name, part in parts.items()}
    tallies = {name: Tally.of(values, "share") for name, values in figures.items()}
    return {name: tally for name, tally in tallies.items() if tally.cases.any()}
