"""Decoding with decord, the second decoder: for those who must compare, behind guards.

decord is silently wrong on edit lists, MPEG program streams and changes of frame size, and fails on many
codecs. So it sees only containers and codecs on which it was found right, and only files in which it finds
exactly the frames that the container lists; everything else is refused with the reason. Times, rotation and
pixel shape come from PyAV.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import av

from tokenreel.datasets.decoded_frame import DecodedFrame, UnreadableVideo, VideoFacts
from tokenreel.datasets.decoding_pyav import open_video, reason, video_stream
from tokenreel.datasets.frame_fit import NO_BARS, Bars, FrameFit, Size
from tokenreel.datasets.frame_times import FrameClock, at_rate

CONTAINERS = {"mp4", "mov", "matroska", "avi"}
CODECS = {"h264", "hevc", "mpeg4", "vp8", "vp9"}
FRAMES_AT_ONCE = 16
# Rows of a picture start at multiples of so many bytes in FFmpeg, by processor.
ALIGNMENTS = (32, 64)


@dataclass(frozen=True)
class _Header:
    """What PyAV says about a file before decord opens it; ``stamps`` are those of all packets, sorted."""

    fit: FrameFit
    clock: FrameClock
    stamps: list[int]


def decord_frames(
    path: Path, sizes: Sequence[Size], fps: float | None, facts: VideoFacts, bars: Bars = NO_BARS
) -> Iterator[DecodedFrame]:
    """Decodes with decord; see ``decoding.FrameStream``. ``facts`` are filled in on the way."""
    header = _inspect(path, sizes, facts, bars)
    reader = _open(path, header)
    facts.source_frames = len(reader)
    times = list(header.clock.stamp((pts, index) for index, pts in enumerate(header.stamps)))
    facts.measured(header.clock)
    kept = at_rate(times, header.clock, fps)
    while batch := list(islice(kept, FRAMES_AT_ONCE)):
        indices = sorted({index for _, index in batch})
        try:
            # Sorted batches only: single reads at random gave wrong frames.
            pictures = dict(zip(indices, reader.get_batch(indices).asnumpy(), strict=True))
        except Exception as error:
            facts.damaged = f"{_brief(error)} near frame {indices[0]}"
            facts.source_frames = indices[0]
            return
        for time, index in batch:
            yield DecodedFrame(header.fit.cut(pictures[index]), time, index)


def _inspect(path: Path, sizes: Sequence[Size], facts: VideoFacts, bars: Bars) -> _Header:
    with open_video(path) as container:
        stream = video_stream(container)
        facts.codec = stream.codec_context.name
        if not CONTAINERS & set(container.format.name.split(",")) or facts.codec not in CODECS:
            raise UnreadableVideo(
                f"decord is not trusted with {facts.codec} in {container.format.name}; use the decoder pyav"
            )
        clock = FrameClock(stream.time_base or Fraction(1, 1000), stream.guessed_rate)
        facts.time_base = clock.time_base
        stamps: list[int] = []
        frame: Any = None
        try:
            for packet in container.demux(stream):
                # Frames that an edit list hides are listed, to be thrown away.
                if packet.pts is not None and not packet.is_discard:
                    stamps.append(packet.pts)
                if frame is None:
                    frame = next(iter(packet.decode()), None)
        except (av.FFmpegError, ValueError) as error:
            raise UnreadableVideo(reason(error)) from error
        if frame is None:
            raise UnreadableVideo("no frame could be decoded")
        facts.source_height, facts.source_width = frame.height, frame.width
        fit = FrameFit.of((frame.height, frame.width), sizes, frame.rotation, stream.sample_aspect_ratio, bars)
        facts.rotation = 90 * fit.quarter_turns
    return _Header(fit, clock, sorted(stamps))


def _open(path: Path, header: _Header) -> Any:
    try:
        import decord
    except ImportError as error:
        raise UnreadableVideo(
            "decord is not installed (there are wheels for Linux x86_64 and Windows); use the decoder pyav"
        ) from error
    width = header.fit.scaled_width
    rows = {-(-3 * width // alignment) * alignment for alignment in ALIGNMENTS}
    if any(row != 3 * width and row % width == 0 for row in rows):
        # It takes the padding at the end of each row for a fourth channel.
        raise UnreadableVideo(f"decord cannot scale to a width of {width} pixels; use the decoder pyav")
    try:
        # decord turns frames itself and scales them to the upright size.
        reader = decord.VideoReader(str(path), width=width, height=header.fit.scaled_height, num_threads=1)
    except Exception as error:
        raise UnreadableVideo(f"decord cannot open it: {_brief(error)}") from error
    if len(reader) != len(header.stamps):
        raise UnreadableVideo(
            f"decord finds {len(reader)} frames, the file lists {len(header.stamps)}; use the decoder pyav"
        )
    return reader


def _brief(error: Exception) -> str:
    """The message without the time and the paths that decord writes in front."""
    return re.sub(r"^\[[\d:]+\] \S+ (\[.*\] ?)?", "", reason(error))
