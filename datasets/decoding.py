"""One sequential pass over a video file: RGB frames of a wanted size, at a wanted frame rate by time.

    stream = FrameStream(Path("my.mp4"), height=64, width=64, fps=10.0)
    for frame in stream:
        frame.image, frame.time, frame.source_index
    stream.facts  # what the file turned out to be, known after the last frame

Frame counts and times come from decoding; what the header says is only a hint. PyAV is the reference decoder.
"""

from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np

from tokenreel.datasets.frame_times import FrameClock

Decoder = Literal["pyav", "decord"]


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

    def measured(self, clock: FrameClock) -> None:
        """Takes over what the clock has measured."""
        self.source_fps = float(clock.rate or 0)
        self.vfr = clock.variable
        self.clock_jumps = clock.jumps


class FrameStream:
    """The frames of one video file, scaled (swscale, bilinear) and put on a time grid while decoding.

    The shorter side is scaled to the wanted one and the centre is cut out; rotation and pixel shape are
    applied. Reading ends with the good prefix, and ``facts.damaged`` says why, at an error of the decoder and
    where the frame size changes.

    Args:
        path: The video file.
        height: Wanted height in pixels.
        width: Wanted width in pixels.
        fps: Wanted frames per second, see ``frame_times.on_grid``; None keeps every frame at its own time.
        decoder: ``pyav`` or ``decord``.

    Raises:
        ValueError: If a size or rate is not positive, or the decoder is unknown.
    """

    def __init__(
        self, path: Path, height: int, width: int, fps: float | None = None, decoder: Decoder = "pyav"
    ) -> None:
        if height < 1 or width < 1:
            raise ValueError(f"frame size {height}x{width}, expected at least 1x1; use e.g. 64x64")
        if fps is not None and not 0 < fps <= 1000:
            raise ValueError(f"fps {fps}, expected more than 0 and at most 1000; use e.g. 10")
        if decoder not in ("pyav", "decord"):
            raise ValueError(f"decoder {decoder!r}, expected 'pyav' or 'decord'")
        self.path, self.height, self.width, self.fps, self.decoder = path, height, width, fps, decoder
        self.facts = VideoFacts()

    def __iter__(self) -> Generator[DecodedFrame]:
        """Reads the file from its start.

        Raises:
            UnreadableVideo: If there is not a single frame.
        """
        self.facts = VideoFacts()
        # Imported here: the decoders are heavy, and decord exists on few platforms.
        if self.decoder == "decord":
            from tokenreel.datasets.decoding_decord import decord_frames as frames_of
        else:
            from tokenreel.datasets.decoding_pyav import pyav_frames as frames_of
        empty = True
        for frame in frames_of(self.path, (self.height, self.width), self.fps, self.facts):
            empty = False
            yield frame
        if empty:
            raise UnreadableVideo(self.facts.damaged or "no frame could be decoded")


@dataclass(frozen=True)
class Video:
    """A whole video in memory.

    Attributes:
        frames: uint8 (T, H, W, 3), RGB.
        fps: Frames per second.
    """

    frames: np.ndarray
    fps: float


def load_video(
    path: Path,
    height: int,
    width: int,
    fps: float | None = None,
    max_frames: int | None = None,
    decoder: Decoder = "pyav",
) -> Video:
    """Reads a video file into memory, as ingest would see it.

    Args:
        path: The video file.
        height: Wanted height in pixels.
        width: Wanted width in pixels.
        fps: Wanted frames per second; None keeps every frame.
        max_frames: Stop after so many frames; None reads to the end.
        decoder: ``pyav`` or ``decord``.

    Returns:
        The frames; of a damaged file those before the damage.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file gives no frame, or an argument is out of range.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no video file at {path}; give the path of an existing video")
    if max_frames is not None and max_frames < 1:
        raise ValueError(f"max_frames {max_frames}, expected at least 1")
    stream = FrameStream(path, height, width, fps, decoder)
    try:
        # Closed at once, so that the facts are complete and the file is free.
        with closing(iter(stream)) as decoded:
            frames = [frame.image for frame in islice(decoded, max_frames)]
    except UnreadableVideo as error:
        raise ValueError(f"cannot read {path} as a video: {error}; give a file that a player shows") from error
    return Video(np.stack(frames), fps if fps is not None else stream.facts.source_fps)
