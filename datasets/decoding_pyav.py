"""Decoding with PyAV, the reference decoder."""

from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter

from tokenreel.datasets.decoded_frame import DecodedFrame, UnreadableVideo, VideoFacts
from tokenreel.datasets.frame_fit import NO_BARS, Bars, FrameFit, over_white
from tokenreel.datasets.frame_times import FrameClock, at_rate


def pyav_frames(
    path: Path, wanted: tuple[int, int], fps: float | None, facts: VideoFacts, bars: Bars = NO_BARS
) -> Iterator[DecodedFrame]:
    """Decodes with PyAV; see ``FrameStream``. ``facts`` are filled in on the way."""
    # Left open or with decoder threads, a container can hang processes that are forked later.
    with open_video(path) as container:
        stream = video_stream(container)
        clock = FrameClock(stream.time_base or Fraction(1, 1000), stream.guessed_rate)
        facts.codec, facts.time_base = stream.codec_context.name, clock.time_base
        try:
            yield from _scaled(_timed(clock, _decoded(container, stream, facts), fps), stream, wanted, facts, bars)
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


def _timed(
    clock: FrameClock, frames: Iterable[tuple[int | None, tuple[int, Any]]], fps: float | None
) -> Iterator[tuple[float, int, Any]]:
    """Yields (seconds, source index, frame) of the frames to keep, a repeated one several times."""
    sound = (frame for frame in clock.stamp(frames) if not frame.item[1].is_corrupt)
    for time, (index, frame) in at_rate(sound, clock, fps):
        yield time, index, frame


def _scaled(
    frames: Iterable[tuple[float, int, Any]], stream: Any, wanted: tuple[int, int], facts: VideoFacts, bars: Bars
) -> Iterator[DecodedFrame]:
    scaler = VideoReformatter()
    fit: FrameFit | None = None
    image, image_index = np.empty(0, np.uint8), -1
    for time, index, frame in frames:
        if fit is None:
            fit = FrameFit.of((frame.height, frame.width), wanted, frame.rotation, stream.sample_aspect_ratio, bars)
            facts.rotation = 90 * fit.quarter_turns
        if index != image_index:
            height, width = fit.coded_size
            try:
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
