"""What decoders give: a frame, the facts about its file, or the reason why there is none."""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from tokenreel.datasets.frame_fit import NO_BARS, Bars
from tokenreel.datasets.frame_times import FrameClock


class UnreadableVideo(ValueError):
    """A file that gives no frame at all; the message is the reason in a few words."""


@dataclass(frozen=True)
class DecodedFrame:
    """One frame.

    Attributes:
        image: uint8 (height, width, 3), RGB.
        time: Seconds since the first frame of the file.
        source_index: Number of the frame in the file, counted from 0 in the order of showing.
    """

    image: np.ndarray
    time: float
    source_index: int


@dataclass
class VideoFacts:
    """What a file turned out to be; complete when its frames have been read to the end.

    Attributes:
        codec: Name of the codec, e.g. ``h264``.
        time_base: Seconds per tick of the time stamps.
        rotation: Degrees counter-clockwise by which frames were turned: 0, 90, 180 or 270.
        source_height: Coded height in pixels, before any turn.
        source_width: Coded width in pixels, before any turn.
        source_frames: Frames decoded, the corrupt ones included.
        source_fps: Measured frames per second; 0 when unknown.
        vfr: Whether the intervals between frames vary.
        corrupt_frames: Frames left out because the decoder marked them as corrupt.
        clock_jumps: Jumps of the time stamps that were closed up.
        damaged: Why reading ended early or frames are missing; None for a sound file.
        alpha: Whether pixels say how opaque they are; they are laid over white.
        bars: What was cut off at the sides, as shares of the upright picture.
    """

    codec: str = ""
    time_base: Fraction = Fraction(0)
    rotation: int = 0
    source_height: int = 0
    source_width: int = 0
    source_frames: int = 0
    source_fps: float = 0.0
    vfr: bool = False
    corrupt_frames: int = 0
    clock_jumps: int = 0
    damaged: str | None = None
    alpha: bool = False
    bars: Bars = NO_BARS

    def measured(self, clock: FrameClock) -> None:
        """Takes over what the clock has measured."""
        self.source_fps = float(clock.rate or 0)
        self.vfr = clock.variable
        self.clock_jumps = clock.jumps
