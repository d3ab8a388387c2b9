"""How a long clip drifts: what its frames are like, moment by moment, against real ones; and when it has doubled.

Where things are (position error) needs a known world. Colours, sharpness and motion need nothing but real clips.
"""

from collections.abc import Sequence

import numpy as np

from tokenreel.evaluation.tally import Interval, Tally, drawn_clips, percentiles

_BINS = 4
"""Per colour channel."""
_LEAST_SHARPNESS = 1e-6


def frame_looks(clip: np.ndarray, every: int = 1) -> dict[str, np.ndarray]:
    """What single frames are like.

    Args:
        clip: uint8 (T, H, W, 3).
        every: Look at the last of so many frames.

    Returns:
        ``colours`` float64 (T, 64), shares of pixels by coarse colour; ``sharpness`` (T,), root mean square
        of the change from pixel to pixel in grey levels (its mean size would not tell an edge from a slope);
        ``motion`` (T,), mean size of the change from the frame before, not a number for a first frame.
    """
    looked = range(every - 1, len(clip), every)
    found: dict[str, list] = {"colours": [], "sharpness": [], "motion": []}
    for t in looked:
        frame = clip[t].astype(np.float32)
        coarse = (clip[t] // (256 // _BINS)).astype(np.int64) @ np.array([_BINS * _BINS, _BINS, 1])
        found["colours"].append(np.bincount(coarse.ravel(), minlength=_BINS**3) / coarse.size)
        changes = [np.square(np.diff(frame, axis=axis)).mean() for axis in (0, 1)]
        found["sharpness"].append(float(np.sqrt(np.mean(changes))))
        found["motion"].append(float(np.abs(frame - clip[t - 1]).mean()) if t else np.nan)
    return {name: np.array(values, dtype=np.float64) for name, values in found.items()}


def drift_figures(
    clips: Sequence[np.ndarray] | np.ndarray, real: Sequence[np.ndarray] | np.ndarray, every: int = 1
) -> dict[str, Tally]:
    """Curves over the frames of long clips.

    Args:
        clips: uint8 (T, H, W, 3) each, to be judged.
        real: Clip i is what clip i should look like: the same beginning, or any real clip that resembles it; of any
            length.
        every: Look at one frame in so many.

    Returns:
        ``colour error`` (share of the pixels that have another coarse colour than in the real clip at large, by frame),
        ``sharpness`` and ``motion`` (ratios to the real clip's own: 1 is right), all by frame looked at.

    Raises:
        ValueError: If the numbers of clips differ.
    """
    if len(clips) != len(real):
        raise ValueError(f"{len(clips)} clips and {len(real)} real ones, expected as many")
    rows: dict[str, list[np.ndarray]] = {"colour error": [], "sharpness": [], "motion": []}
    for clip, right in zip(clips, real, strict=True):
        made, due = frame_looks(clip, every), frame_looks(right, every)
        usual = due["colours"].mean(axis=0)
        rows["colour error"].append(np.abs(made["colours"] - usual).sum(axis=1) / 2)
        rows["sharpness"].append(made["sharpness"] / max(due["sharpness"].mean(), _LEAST_SHARPNESS))
        known = due["motion"][np.isfinite(due["motion"])]
        moves = known.mean() if len(known) else np.nan
        rows["motion"].append(made["motion"] / moves if moves > 0 else np.full(len(made["motion"]), np.nan))
    units = {"colour error": "share", "sharpness": "of the real", "motion": "of the real"}
    return {name: Tally.of(np.stack(values), units[name]) for name, values in rows.items()}


def deviation(ratio: Tally) -> Tally:
    """How far a ratio is from 1, the right one, clip by clip and frame by frame: an error for its horizon."""
    known = np.where(ratio.cases > 0, ratio.total / np.maximum(ratio.cases, 1e-300), np.nan)
    return Tally.of(np.abs(known - 1), ratio.unit)


def doubling_horizon(
    error: Tally, begin: int, window: int, every: int = 1, least: float = 0.0, draws: int = 200
) -> tuple[float, Interval]:
    """The frame by which an error has doubled.

    It has where its mean over a window is first more than twice what it was in the first window after the prompt.

    Args:
        error: By frame looked at, the larger the worse; from the first frame of the clip on.
        begin: Prompt frames.
        window: Frames of a window.
        every: Frames between those looked at.
        least: An error up to this has not doubled, however small it was.
        draws: Of the bootstrap over clips.

    Returns:
        Last frame of that window, infinite if the error never doubles, and the middle 95 % of it over clips drawn
        anew.

    Raises:
        ValueError: If the clips are shorter than the prompt and two windows.
    """
    size, first = max(1, window // every), begin // every
    if error.total.ndim != 2 or error.total.shape[1] < first + 2 * size:
        raise ValueError(
            f"{error.total.shape} frames looked at, expected a prompt of {first} and two windows of {size}"
        )
    found = _doubled(error.total, error.cases, first, size, least)
    drawn = [
        _doubled(error.total[part], error.cases[part], first, size, least)
        for part in drawn_clips(len(error.total), draws)
    ]
    # Draws in which it never doubles lie beyond the last frame.
    ends = np.array([min(value, float(error.total.shape[1] + 1)) for value in drawn])
    low, high = percentiles(ends)
    length = error.total.shape[1]
    low, high = (float("inf") if edge > length else edge * every for edge in (low, high))
    return found * every, Interval(low, high)


def _doubled(total: np.ndarray, cases: np.ndarray, first: int, size: int, least: float) -> float:
    """Frames looked at by which the mean over a window has doubled; infinite if never."""
    curve = np.divide(total.sum(axis=0), np.maximum(cases.sum(axis=0), 1e-300))[first:]
    known = cases.sum(axis=0)[first:] > 0
    sums, counts = (np.cumsum(np.concatenate([[0.0], part])) for part in (np.where(known, curve, 0.0), known))
    with np.errstate(invalid="ignore", divide="ignore"):
        means = (sums[size:] - sums[:-size]) / (counts[size:] - counts[:-size])
    beyond = np.flatnonzero(means > max(2 * means[0], least))
    return float(first + beyond[0] + size) if len(beyond) else float("inf")
