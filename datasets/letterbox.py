"""Black bars around a picture, found by looking at a few key frames from all over a file."""

from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np

from tokenreel.datasets.decoded_frame import UnreadableVideo
from tokenreel.datasets.decoding_pyav import open_video, video_stream
from tokenreel.datasets.frame_fit import NO_BARS, Bars
from tokenreel.datasets.frame_measures import BLACK_LEVEL

LOOKED_AT = 8
# A row is black when all but this share of its pixels are: subtitles and logos are seldom narrower.
LIT_SHARE = 0.02
# Bars are about as wide on both sides, and leave most of the picture; else it is a dark scene, or a game on black.
LOPSIDED = 0.02
NARROWEST = 0.01
LEAST_INSIDE = 0.4


def bars_of(path: Path) -> Bars:
    """The bars at the sides of a video: what is black in every one of a few frames.

    Args:
        path: The video file; one that cannot be read has none.

    Returns:
        Shares of the height and width of the upright picture; all 0 where there are no such bars.
    """
    lit_rows = lit_columns = np.zeros(0, bool)
    try:
        for picture in _key_frames(path):
            lit = picture > BLACK_LEVEL
            if lit.mean() < LIT_SHARE:
                continue
            if lit_rows.size == 0:
                lit_rows, lit_columns = np.zeros(lit.shape[0], bool), np.zeros(lit.shape[1], bool)
            if lit.shape != (lit_rows.size, lit_columns.size):
                return NO_BARS
            lit_rows |= lit.mean(axis=1) > LIT_SHARE
            lit_columns |= lit.mean(axis=0) > LIT_SHARE
    except UnreadableVideo:
        return NO_BARS
    return Bars(*_both_sides(lit_rows), *_both_sides(lit_columns))


def _both_sides(lit: np.ndarray) -> tuple[float, float]:
    """Shares of a side before the first and after the last lit place; 0 where they are no bars."""
    places = np.flatnonzero(lit)
    if not places.size:
        return 0.0, 0.0
    before, after = float(places[0] / lit.size), float((lit.size - 1 - places[-1]) / lit.size)
    if abs(before - after) > LOPSIDED or min(before, after) < NARROWEST or before + after > 1 - LEAST_INSIDE:
        return 0.0, 0.0
    return before, after


def _key_frames(path: Path) -> Iterator[np.ndarray]:
    """Grey upright pictures, uint8 (h, w), near the middles of equal parts of a file."""
    with open_video(path) as container:
        stream = video_stream(container)
        # A wrong place after a seek does no harm here: any frame of the file will do.
        for part in range(LOOKED_AT):
            try:
                if container.duration:
                    container.seek(container.duration * (2 * part + 1) // (2 * LOOKED_AT))
                frame = next(container.decode(stream), None)
            except (av.FFmpegError, ValueError):
                continue
            if frame is not None:
                yield np.rot90(frame.to_ndarray(format="gray", threads=1), round(frame.rotation / 90) % 4)
