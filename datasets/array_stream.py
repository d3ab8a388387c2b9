"""Frames that are in an array already: brought to the wanted size and rate as those of a video file are."""

import zipfile
import zlib
from collections.abc import Generator, Iterator, Sequence
from fractions import Fraction
from itertools import count

import av
import numpy as np

from tokenreel.datasets.array_file import open_array
from tokenreel.datasets.decoded_frame import DecodedFrame, UnreadableVideo, VideoFacts
from tokenreel.datasets.decoding_pyav import scaled, timed
from tokenreel.datasets.found_video import VideoPlace
from tokenreel.datasets.frame_fit import Size
from tokenreel.datasets.frame_times import FrameClock

FRAMES_AT_ONCE = 64
USUAL_RATE = 10.0
"""Frames per second where nothing is said and nothing is wanted."""
UNREADABLE = (OSError, ValueError, LookupError, EOFError, MemoryError, zipfile.BadZipFile, zlib.error)


class ArrayStream:
    """The frames of one video in an array file; see ``decoding.FrameStream``, which it stands in for.

    Args:
        place: Where it is. Without a rate it has the wanted one.
        height: Wanted height in pixels.
        width: Wanted width in pixels.
        fps: Wanted frames per second; None keeps every frame.
        others: Other (height, width) that will do; see there.
    """

    def __init__(
        self, place: VideoPlace, height: int, width: int, fps: float | None, others: Sequence[Size] = ()
    ) -> None:
        self.place, self.sizes, self.fps = place, [(height, width), *others], fps
        self.facts = VideoFacts()

    def __iter__(self) -> Generator[DecodedFrame]:
        """Reads the video from its start.

        Raises:
            UnreadableVideo: If there is not a single frame.
        """
        rate = Fraction(self.place.rate or self.fps or USUAL_RATE).limit_denominator(100_000)
        clock = FrameClock(1 / rate, rate)
        self.facts = VideoFacts(codec="array", time_base=clock.time_base)
        frames = scaled(timed(clock, self._pictures(), self.fps), Fraction(1), self.sizes, self.facts)
        try:
            empty = True
            for frame in frames:
                empty = False
                yield frame
        finally:
            self.facts.measured(clock)
        if empty:
            raise UnreadableVideo(self.facts.damaged or "no frames")

    def _pictures(self) -> Iterator[tuple[int, tuple[int, av.VideoFrame]]]:
        """Yields (stamp, (index, picture))."""
        place, number = self.place, count()
        try:
            array = open_array(place.path, place.member)
            stop = array.shape[0 if place.index is None else 1] if place.stop is None else place.stop
            for start in range(place.start, stop, FRAMES_AT_ONCE):
                piece = slice(start, min(start + FRAMES_AT_ONCE, stop))
                frames = array[piece] if place.index is None else array[place.index, piece]
                if len(frames) < piece.stop - piece.start:
                    raise ValueError(f"{piece.stop - piece.start - len(frames)} frames are missing")
                for image in frames:
                    index = next(number)
                    self.facts.source_frames += 1
                    self.facts.source_height, self.facts.source_width = image.shape[:2]
                    yield index, (index, _picture(image))
        except UNREADABLE as error:
            self.facts.damaged = f"{error or type(error).__name__} after {self.facts.source_frames} frames"


def _picture(image: np.ndarray) -> av.VideoFrame:
    """A frame (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) as a decoder would give it."""
    if image.ndim == 2 or image.shape[2] == 1:
        # As three channels, since a scaler may take grey for a narrower range.
        image = np.repeat(image.reshape(*image.shape[:2], 1), 3, axis=2)
    return av.VideoFrame.from_ndarray(np.ascontiguousarray(image), "rgba" if image.shape[2] == 4 else "rgb24")
