"""Decoding with PyAV, the reference decoder."""

import math
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter

from tokenreel.datasets.decoded_frame import DecodedFrame, UnreadableVideo, VideoFacts
from tokenreel.datasets.frame_fit import NO_BARS, Bars, FrameFit, Size, over_white
from tokenreel.datasets.frame_times import FrameClock, at_rate

Span = tuple[float, float | None]
"""Seconds at which a part of a file begins, and ends (None: with the file)."""
WHOLE: Span = (0.0, None)


def pyav_frames(
    path: Path,
    sizes: Sequence[Size],
    fps: float | None,
    facts: VideoFacts,
    bars: Bars = NO_BARS,
    span: Span = WHOLE,
) -> Iterator[DecodedFrame]:
    """Decodes with PyAV; see ``FrameStream``. ``facts`` are filled in on the way."""
    # Left open or with decoder threads, a container can hang processes that are forked later.
    with open_video(path) as container:
        stream = video_stream(container)
        clock = FrameClock(stream.time_base or Fraction(1, 1000), stream.guessed_rate)
        facts.codec, facts.time_base = stream.codec_context.name, clock.time_base
        try:
            frames = _decoded(container, stream, facts)
            if span != WHOLE:
                frames = _within(span, container, stream, facts)
            yield from scaled(timed(clock, frames, fps), stream.sample_aspect_ratio, sizes, facts, bars)
        finally:
            facts.measured(clock)


def open_video(path: Path) -> Any:
    """Opens a file as a container, to be used in a ``with`` statement.

    Raises:
        UnreadableVideo: If it is no container that FFmpeg knows.
    """
    try:
        return av.open(
            str(path.absolute()),
            metadata_errors="replace",
            # A playlist that calls itself a video must not reach the network.
            options={"protocol_whitelist": "file"},
        )
    except (av.FFmpegError, OSError, ValueError) as error:
        raise UnreadableVideo(reason(error)) from error


def video_stream(container: Any) -> Any:
    """The container's best video stream, set to decode in the calling thread.

    Raises:
        UnreadableVideo: If there is no video stream.
    """
    stream = container.streams.best("video")
    if stream is None:
        raise UnreadableVideo("no video stream")
    if stream.codec_context is None:
        raise UnreadableVideo("no decoder for this codec")
    stream.codec_context.thread_type = "NONE"
    stream.codec_context.thread_count = 1
    return stream


def reason(error: BaseException) -> str:
    """The short text of a library's error, without paths and numbers."""
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).strip().splitlines()[0]


def _decoded(container: Any, stream: Any, facts: VideoFacts) -> Iterator[tuple[int | None, tuple[int, Any]]]:
    """Yields (stamp, (index, frame)) until the end, the first error or the first change of size."""
    size: tuple[int, int] | None = None
    try:
        for frame in container.decode(stream):
            now = (frame.height, frame.width)
            if size is None:
                size = facts.source_height, facts.source_width = now
            elif now != size:
                facts.damaged = f"frame size changes from {size[1]}x{size[0]} to {now[1]}x{now[0]}"
                return
            facts.source_frames += 1
            if frame.is_corrupt:
                facts.corrupt_frames += 1
                facts.damaged = "the decoder marked frames as corrupt; they are left out"
            yield frame.pts, (facts.source_frames - 1, frame)
    except (av.FFmpegError, ValueError) as error:
        facts.damaged = f"{reason(error)} after {facts.source_frames} frames"


def _within(span: Span, container: Any, stream: Any, facts: VideoFacts) -> Iterator[tuple[int | None, tuple[int, Any]]]:
    """What ``_decoded`` yields of a part of the file, counted from its own first frame."""
    # Frames stand half an interval from the edge, wherever rounding put their stamps.
    half = 0.5 / float(stream.guessed_rate or 25)
    begin, end = span[0] - half, math.inf if span[1] is None else span[1] - half
    try:
        if span[0] > 0:
            container.seek(int(span[0] / stream.time_base), stream=stream)
    except av.FFmpegError as error:
        facts.damaged = f"{reason(error)} when seeking second {span[0]:g}"
        return
    inside = 0
    for pts, (_, frame) in _decoded(container, stream, facts):
        if pts is None or pts * stream.time_base < begin:
            continue
        if pts * stream.time_base >= end:
            break
        inside += 1
        yield pts, (inside - 1, frame)
    facts.source_frames = inside


def timed(
    clock: FrameClock, frames: Iterable[tuple[int | None, tuple[int, Any]]], fps: float | None
) -> Iterator[tuple[float, int, Any]]:
    """Puts pictures on the wanted times.

    Args:
        clock: What their stamps count in; measures them.
        frames: (stamp in ticks or None, (source index, picture)).
        fps: Wanted frames per second; None keeps every frame.

    Yields:
        (seconds, source index, picture) of those to keep, a repeated one several times.
    """
    sound = (frame for frame in clock.stamp(frames) if not frame.item[1].is_corrupt)
    for time, (index, frame) in at_rate(sound, clock, fps):
        yield time, index, frame


def scaled(
    frames: Iterable[tuple[float, int, Any]],
    pixel_aspect: Fraction | None,
    sizes: Sequence[Size],
    facts: VideoFacts,
    bars: Bars = NO_BARS,
) -> Iterator[DecodedFrame]:
    """Brings pictures to the wanted size, upright and opaque; ``facts`` say what was done.

    Args:
        frames: From ``timed``.
        pixel_aspect: Width of a pixel divided by its height; None or 0 when unknown.
        sizes: Wanted (height, width) in pixels, of which the one nearest its shape is taken.
        facts: Of the video.
        bars: What is cut off at the sides.
    """
    scaler = VideoReformatter()
    fit: FrameFit | None = None
    known_format = ""
    image, image_index = np.empty(0, np.uint8), -1
    for time, index, frame in frames:
        if fit is None:
            fit = FrameFit.of((frame.height, frame.width), sizes, frame.rotation, pixel_aspect, bars)
            facts.rotation = 90 * fit.quarter_turns
        if index != image_index:
            height, width = fit.coded_size
            try:
                if frame.format.name != known_format:
                    known_format = frame.format.name
                    facts.alpha = any(component.is_alpha for component in frame.format.components)
                picture = scaler.reformat(
                    frame,
                    width,
                    height,
                    "rgba" if facts.alpha else "rgb24",
                    interpolation=Interpolation.BILINEAR,
                    threads=1,
                ).to_ndarray()
                image, image_index = fit.finish(over_white(picture) if facts.alpha else picture), index
            except (av.FFmpegError, ValueError) as error:
                facts.damaged = f"{reason(error)} when scaling frame {index}"
                return
        yield DecodedFrame(image, time, index)
