"""Write uint8 frames to a video file: mp4, webm, avi, gif, or lossless mkv."""

import os
from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import cast

import av
import numpy as np
from PIL import GifImagePlugin, Image

# Sampled frames that vote on a gif's palette; more only costs time.
_PALETTE_FRAMES = 32


def write_video(path: Path, frames: np.ndarray, fps: float, *, crf: int = 12, scale: int = 1) -> None:
    """Write frames to `path`; the suffix chooses the format. The file appears whole or not at all.

    Args:
        path: Target with suffix .mp4 (h264), .webm (vp9), .avi (mpeg4), .gif, or .mkv (ffv1, lossless).
            Missing parent folders are made. mp4, webm and avi hold 4:2:0 colour, so an odd width or height is
            padded to even by repeating the last column or row; gif and mkv keep every size.
        frames: uint8 `(T, H, W, 3)`, RGB.
        fps: Frames per second, > 0; may be fractional (29.97). A gif counts in 1/100 s, so its frame times
            are rounded to that (without drift), and it cannot hold more than 50 frames per second.
        crf: Quality of mp4, webm and avi in x264's scale, 0 (best) to 51; six more about double the error.
            gif and mkv have no such setting.
        scale: Integer >= 1; each pixel becomes a block of `scale x scale` pixels.

    Raises:
        ValueError: Unknown suffix, frames of another shape or dtype or none at all, fps, crf or scale
            out of range.
        OSError: The file cannot be written.
    """
    path = Path(path)
    write = _WRITERS.get(path.suffix.lower())
    if write is None:
        raise ValueError(f"cannot write {path.name!r}: suffix {path.suffix!r}; use one of {', '.join(_WRITERS)}")
    _check(frames, fps, crf, scale)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.tmp-{os.getpid()}")
    try:
        write(temporary, frames, fps, crf, scale)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _check(frames: np.ndarray, fps: float, crf: int, scale: int) -> None:
    if not isinstance(frames, np.ndarray) or frames.dtype != np.uint8:
        got = frames.dtype if isinstance(frames, np.ndarray) else type(frames).__name__
        raise ValueError(f"frames are {got}; expected uint8 (T, H, W, 3): scale to 0..255 and convert first")
    if frames.ndim != 4 or frames.shape[-1] != 3 or 0 in frames.shape:
        raise ValueError(f"frames have shape {frames.shape}; expected (T, H, W, 3), none of them 0")
    if not 0 < fps <= 1000:
        raise ValueError(f"fps is {fps}; expected more than 0 and at most 1000")
    if not 0 <= crf <= 51:
        raise ValueError(f"crf is {crf}; expected 0 (best) to 51 (worst)")
    if scale < 1 or scale != int(scale):
        raise ValueError(f"scale is {scale}; expected an integer of at least 1")


def _enlarged(frames: np.ndarray, scale: int, pad_to_even: bool) -> Iterator[np.ndarray]:
    """One frame at a time, so that a long upscaled clip never lies in memory twice."""
    for frame in frames:
        if scale > 1:
            frame = frame.repeat(scale, axis=0).repeat(scale, axis=1)
        if pad_to_even and (frame.shape[0] % 2 or frame.shape[1] % 2):
            frame = np.pad(frame, ((0, frame.shape[0] % 2), (0, frame.shape[1] % 2), (0, 0)), mode="edge")
        yield np.ascontiguousarray(frame)


def _frame_rate(fps: float) -> Fraction:
    # 1001 finds the broadcast rates (30000/1001); mpeg4 refuses numerators above 65535.
    return Fraction(fps).limit_denominator(max(1, min(1001, int(65535 / (fps + 1)))))


def _encode(
    temporary: Path,
    container_format: str,
    codec: str,
    pixel_format: str,
    options: dict[str, str],
    images: Iterator[np.ndarray],
    rate: Fraction,
) -> None:
    first = next(images)
    # The container is named because the temporary suffix says nothing to ffmpeg.
    with av.open(str(temporary), "w", format=container_format) as container:
        stream = cast(av.VideoStream, container.add_stream(codec, rate=rate, options=options))
        stream.height, stream.width = first.shape[:2]
        stream.pix_fmt = pixel_format
        # Clips are small: threads cost more than they give, and hang in forked workers.
        stream.codec_context.thread_count = 1
        for index, image in enumerate(chain([first], images)):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = index, 1 / rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _write_mp4(temporary: Path, frames: np.ndarray, fps: float, crf: int, scale: int) -> None:
    # mbtree reads uninitialised memory in small frames (x264 core 165): same frames, sometimes another file.
    options = {"crf": str(crf), "preset": "veryfast", "x264-params": "mbtree=0"}
    images = _enlarged(frames, scale, pad_to_even=True)
    _encode(temporary, "mp4", "libx264", "yuv420p", options, images, _frame_rate(fps))


def _write_webm(temporary: Path, frames: np.ndarray, fps: float, crf: int, scale: int) -> None:
    options = {"crf": str(crf), "deadline": "good", "cpu-used": "5"}
    images = _enlarged(frames, scale, pad_to_even=True)
    _encode(temporary, "webm", "libvpx-vp9", "yuv420p", options, images, _frame_rate(fps))


def _write_avi(temporary: Path, frames: np.ndarray, fps: float, crf: int, scale: int) -> None:
    # Left alone, mpeg4 aims at 200 kbit/s whatever the size, and PyAV does not pass on its qscale setting:
    # one fixed quantizer it is, doubling every 6 steps as x264's does.
    quantizer = str(min(31, max(2, round(2 ** ((crf - 6) / 6)))))
    options = {"qmin": quantizer, "qmax": quantizer}
    images = _enlarged(frames, scale, pad_to_even=True)
    _encode(temporary, "avi", "mpeg4", "yuv420p", options, images, _frame_rate(fps))


def _write_mkv(temporary: Path, frames: np.ndarray, fps: float, crf: int, scale: int) -> None:
    images = _enlarged(frames, scale, pad_to_even=False)
    _encode(temporary, "matroska", "ffv1", "bgr0", {}, images, _frame_rate(fps))


def _write_gif(temporary: Path, frames: np.ndarray, fps: float, crf: int, scale: int) -> None:
    # One palette for the whole clip: with one per frame, parts that stand still would flicker.
    voters = frames[:: -(-len(frames) // _PALETTE_FRAMES)]
    palette = Image.fromarray(voters.reshape(-1, frames.shape[2], 3)).quantize(256, Image.Quantize.MEDIANCUT)
    # Rounded end times, not durations, so that the error never adds up.
    ends = np.rint(np.arange(len(frames) + 1) * 100 / fps).astype(int)
    durations = np.maximum(np.diff(ends), 2) * 10  # players treat less than 20 ms as 100
    # Written block by block: Image.save would merge equal frames, and a reader would count fewer.
    with temporary.open("wb") as file:
        before = None
        for image, duration in zip(_enlarged(frames, scale, pad_to_even=False), durations, strict=True):
            indexed = Image.fromarray(image).quantize(palette=palette, dither=Image.Dither.NONE)
            indices = np.asarray(indexed)
            if before is None:
                file.writelines(GifImagePlugin.getheader(indexed, info={"loop": 0})[0])
                box = (0, 0, *indexed.size)
            else:
                box = _changed_box(before, indices)
            block = GifImagePlugin.getdata(indexed.crop(box), box[:2], duration=int(duration))
            file.writelines(block)
            before = indices
        file.write(b";")


def _changed_box(before: np.ndarray, after: np.ndarray) -> tuple[int, int, int, int]:
    """The smallest box (left, top, right, bottom) that holds every change; one pixel if nothing changed."""
    rows, columns = np.nonzero(before != after)
    if len(rows) == 0:
        return 0, 0, 1, 1
    return int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1


_WRITERS: dict[str, Callable[[Path, np.ndarray, float, int, int], None]] = {
    ".mp4": _write_mp4,
    ".webm": _write_webm,
    ".avi": _write_avi,
    ".gif": _write_gif,
    ".mkv": _write_mkv,
}
