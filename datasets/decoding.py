"""One sequential pass over a video file: RGB frames of a wanted size, at a wanted frame rate by time.

    stream = FrameStream(Path("my.mp4"), height=64, width=64, fps=10.0)
    for frame in stream:
        frame.image, frame.time, frame.source_index
    stream.facts  # what the file turned out to be, known after the last frame

Frame counts and times come from decoding; what the header says is only a hint. PyAV is the reference decoder.
"""

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np

from tokenreel.datasets.decoded_frame import DecodedFrame, UnreadableVideo, VideoFacts
from tokenreel.datasets.frame_fit import Size

Decoder = Literal["pyav", "decord"]


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
        crop_bars: Whether to cut black bars off, see ``letterbox``.
        span: Seconds at which the video begins and ends (None: with the file) where it is a part of a file; only
            ``pyav`` reads those.
        others: Other (height, width) that will do: each video is brought to the one nearest its shape.

    Raises:
        ValueError: If a size or rate is not positive, or the decoder is unknown.
    """

    def __init__(
        self,
        path: Path,
        height: int,
        width: int,
        fps: float | None = None,
        decoder: Decoder = "pyav",
        crop_bars: bool = False,
        span: tuple[float, float | None] = (0.0, None),
        others: Sequence[Size] = (),
    ) -> None:
        self.sizes = [(height, width), *others]
        for tall, wide in self.sizes:
            if tall < 1 or wide < 1:
                raise ValueError(f"frame size {tall}x{wide}, expected at least 1x1; use e.g. 64x64")
        if fps is not None and not 0 < fps <= 1000:
            raise ValueError(f"fps {fps}, expected more than 0 and at most 1000; use e.g. 10")
        if decoder not in ("pyav", "decord"):
            raise ValueError(f"decoder {decoder!r}, expected 'pyav' or 'decord'")
        self.path, self.fps, self.decoder = path, fps, decoder
        self.crop_bars, self.span = crop_bars, span
        self.facts = VideoFacts()

    def __iter__(self) -> Generator[DecodedFrame]:
        """Reads the file from its start.

        Raises:
            UnreadableVideo: If there is not a single frame.
        """
        self.facts = VideoFacts()
        if self.crop_bars:
            from tokenreel.datasets.letterbox import bars_of

            self.facts.bars = bars_of(self.path)
        empty = True
        for frame in self._frames():
            empty = False
            yield frame
        if empty:
            raise UnreadableVideo(self.facts.damaged or "no frame could be decoded")

    def _frames(self) -> Iterator[DecodedFrame]:
        # Imported here: the decoders are heavy, and decord exists on few platforms.
        if self.decoder == "decord":
            if self.span != (0.0, None):
                raise UnreadableVideo("a part of a file, which decord does not read; use --decoder pyav")
            from tokenreel.datasets.decoding_decord import decord_frames

            return decord_frames(self.path, self.sizes, self.fps, self.facts, self.facts.bars)
        from tokenreel.datasets.decoding_pyav import pyav_frames

        return pyav_frames(self.path, self.sizes, self.fps, self.facts, self.facts.bars, self.span)


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
    path: Path | str,
    height: int,
    width: int,
    fps: float | None = None,
    max_frames: int | None = None,
    decoder: Decoder = "pyav",
    others: Sequence[Size] = (),
) -> Video:
    """Reads a video file into memory, as ingest would see it.

    Args:
        path: The video file.
        height: Wanted height in pixels.
        width: Wanted width in pixels.
        fps: Wanted frames per second; None keeps every frame.
        max_frames: Stop after so many frames; None reads to the end.
        decoder: ``pyav`` or ``decord``.
        others: Other (height, width) that will do: it is brought to the one nearest its shape.

    Returns:
        The frames; of a damaged file those before the damage.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file gives no frame, or an argument is out of range.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no video file at {path}; give the path of an existing video")
    if max_frames is not None and max_frames < 1:
        raise ValueError(f"max_frames {max_frames}, expected at least 1")
    stream = FrameStream(path, height, width, fps, decoder, others=others)
    try:
        # Closed at once, so that the facts are complete and the file is free.
        with closing(iter(stream)) as decoded:
            frames = [frame.image for frame in islice(decoded, max_frames)]
    except UnreadableVideo as error:
        raise ValueError(f"cannot read {path} as a video: {error}; give a file that a player shows") from error
    return Video(np.stack(frames), fps if fps is not None else stream.facts.source_fps)
