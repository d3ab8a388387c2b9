"""Write uint8 frames to a video file, at once or as they come: mp4, webm, avi, gif, or lossless mkv."""

import os
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryFile
from typing import BinaryIO, Protocol, Self, cast

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from PIL import GifImagePlugin, Image

# Sampled frames that vote on a gif's palette; more only costs time.
_PALETTE_FRAMES = 32


def write_video(path: Path, frames: np.ndarray, fps: float, *, crf: int = 12, scale: int = 1) -> None:
    """Write all frames of a clip to `path`; see :class:`VideoFile`.

    Args:
        path: Target.
        frames: uint8 `(T, H, W, 3)`, RGB.
        fps: Frames per second.
        crf: Quality.
        scale: Pixels per pixel.
    """
    with VideoFile(path, fps, crf=crf, scale=scale) as file:
        file.write(frames)


class VideoFile:
    """A video file that frames are appended to; it appears under its name when it is left whole, or not at all.

        with VideoFile(Path("clip.mp4"), fps=10) as file:
            for frames in model.stream_frames(...):
                file.write(frames[0])

    Args:
        path: Target; its suffix chooses the format: .mp4 (h264), .webm (vp9), .avi (mpeg4), .gif, or .mkv (ffv1,
            lossless). Missing parent folders are made. mp4, webm and avi hold 4:2:0 colour, so an odd width or
            height is padded to even by repeating the last column or row; gif and mkv keep every size.
        fps: Frames per second, > 0; may be fractional (29.97). A gif counts in 1/100 s, so its frame times
            are rounded to that (without drift), and it cannot hold more than 50 frames per second.
        crf: Quality of mp4, webm and avi in x264's scale, 0 (best) to 51; six more about double the error.
            gif and mkv have no such setting.
        scale: Integer >= 1; each pixel becomes a block of `scale x scale` pixels.

    Raises:
        ValueError: Unknown suffix, or fps, crf or scale out of range; by :meth:`write` frames of another shape or
            dtype; at the end no frames at all.
        OSError: The file cannot be written.
    """

    def __init__(self, path: Path, fps: float, *, crf: int = 12, scale: int = 1) -> None:
        self.path = Path(path)
        if self.path.suffix.lower() not in _ENCODERS:
            known = ", ".join(_ENCODERS)
            raise ValueError(f"cannot write {self.path.name!r}: suffix {self.path.suffix!r}; use one of {known}")
        _check_settings(fps, crf, scale)
        self._scale = scale
        self._temporary = self.path.with_name(f"{self.path.name}.tmp-{os.getpid()}")
        self._encoder = _ENCODERS[self.path.suffix.lower()](self._temporary, fps, crf)
        self._size: tuple[int, ...] = ()

    def __enter__(self) -> Self:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        return self

    def write(self, frames: np.ndarray) -> None:
        """Append frames, uint8 `(T, H, W, 3)`, RGB, all of one size."""
        _check_frames(frames)
        if self._size not in ((), frames.shape[1:]):
            raise ValueError(f"frames are {frames.shape[1:]}, expected {self._size} as those before")
        if not self._size:
            self._encoder.begin(next(self._enlarged(frames)))
            self._size = frames.shape[1:]
        for image in self._enlarged(frames):
            self._encoder.add(image)

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        try:
            self._encoder.end()
            if kind is None:
                if not self._size:
                    raise ValueError(f"no frames were written to {self.path}; expected at least one")
                with self._temporary.open("rb+") as file:
                    os.fsync(file.fileno())
                os.replace(self._temporary, self.path)
        finally:
            self._temporary.unlink(missing_ok=True)

    def _enlarged(self, frames: np.ndarray) -> Iterator[np.ndarray]:
        """One frame at a time, so that a long upscaled clip never lies in memory twice."""
        for frame in frames:
            if self._scale > 1:
                frame = frame.repeat(self._scale, axis=0).repeat(self._scale, axis=1)
            if self._encoder.even and (frame.shape[0] % 2 or frame.shape[1] % 2):
                frame = np.pad(frame, ((0, frame.shape[0] % 2), (0, frame.shape[1] % 2), (0, 0)), mode="edge")
            yield np.ascontiguousarray(frame)


def _check_settings(fps: float, crf: int, scale: int) -> None:
    if not 0 < fps <= 1000:
        raise ValueError(f"fps is {fps}; expected more than 0 and at most 1000")
    if not 0 <= crf <= 51:
        raise ValueError(f"crf is {crf}; expected 0 (best) to 51 (worst)")
    if scale < 1 or scale != int(scale):
        raise ValueError(f"scale is {scale}; expected an integer of at least 1")


def _check_frames(frames: np.ndarray) -> None:
    if not isinstance(frames, np.ndarray) or frames.dtype != np.uint8:
        got = frames.dtype if isinstance(frames, np.ndarray) else type(frames).__name__
        raise ValueError(f"frames are {got}; expected uint8 (T, H, W, 3): scale to 0..255 and convert first")
    if frames.ndim != 4 or frames.shape[-1] != 3 or 0 in frames.shape:
        raise ValueError(f"frames have shape {frames.shape}; expected (T, H, W, 3), none of them 0")


class _Encoder(Protocol):
    """One way to write images, uint8 (H, W, 3) of one size, to a file."""

    even: bool
    """Whether height and width must be even."""

    def begin(self, image: np.ndarray) -> None:
        """Open the file for images of the size of this one."""

    def add(self, image: np.ndarray) -> None:
        """Write the next image."""

    def end(self) -> None:
        """Close the file, if it was opened."""


class _Container:
    """A codec in a container, by ffmpeg's names."""

    def __init__(
        self, path: Path, rate: Fraction, names: tuple[str, str, str], options: dict[str, str], even: bool
    ) -> None:
        self.even = even
        self._path, self._rate, self._options = path, rate, options
        self._format, self._codec, self._pixels = names
        self._container: av.container.OutputContainer | None = None
        self._reformatter = VideoReformatter()
        self._count = 0

    def begin(self, image: np.ndarray) -> None:
        """See :class:`_Encoder`."""
        # The container is named because the temporary suffix says nothing to ffmpeg.
        # Otherwise Matroska gives every file a random name inside, and the same frames make other bytes each time.
        plain = {"fflags": "bitexact"} if self._format in ("matroska", "webm") else {}
        self._container = av.open(str(self._path), "w", format=self._format, options=plain)
        stream = cast(av.VideoStream, self._container.add_stream(self._codec, rate=self._rate, options=self._options))
        stream.height, stream.width = image.shape[:2]
        stream.pix_fmt = self._pixels
        # Clips are small: threads cost more than they give, and hang in forked workers.
        stream.codec_context.thread_count = 1
        self._stream = stream

    def add(self, image: np.ndarray) -> None:
        """See :class:`_Encoder`."""
        assert self._container is not None
        given = av.VideoFrame.from_ndarray(image, format="rgb24")
        # Several threads of the library's (swscale 9) sometimes leave rows out, seen with 10 bits a colour.
        frame = self._reformatter.reformat(given, format=self._pixels, threads=1)
        frame.pts, frame.time_base = self._count, 1 / self._rate
        self._count += 1
        self._container.mux(self._stream.encode(frame))

    def end(self) -> None:
        """See :class:`_Encoder`."""
        if self._container is not None:
            if self._count:
                self._container.mux(self._stream.encode(None))
            self._container.close()


def _frame_rate(fps: float) -> Fraction:
    # 1001 finds the broadcast rates (30000/1001); mpeg4 refuses numerators above 65535.
    return Fraction(fps).limit_denominator(max(1, min(1001, int(65535 / (fps + 1)))))


def _mp4(path: Path, fps: float, crf: int) -> _Encoder:
    # mbtree reads uninitialised memory in small frames (x264 core 165): same frames, sometimes another file.
    options = {"crf": str(crf), "preset": "veryfast", "x264-params": "mbtree=0"}
    return _Container(path, _frame_rate(fps), ("mp4", "libx264", "yuv420p"), options, even=True)


def _webm(path: Path, fps: float, crf: int) -> _Encoder:
    options = {"crf": str(crf), "deadline": "good", "cpu-used": "5"}
    return _Container(path, _frame_rate(fps), ("webm", "libvpx-vp9", "yuv420p"), options, even=True)


def _avi(path: Path, fps: float, crf: int) -> _Encoder:
    # Left alone, mpeg4 aims at 200 kbit/s whatever the size, and PyAV does not pass on its qscale setting:
    # one fixed quantizer it is, doubling every 6 steps as x264's does.
    quantizer = str(min(31, max(2, round(2 ** ((crf - 6) / 6)))))
    options = {"qmin": quantizer, "qmax": quantizer}
    return _Container(path, _frame_rate(fps), ("avi", "mpeg4", "yuv420p"), options, even=True)


def _mkv(path: Path, fps: float, crf: int) -> _Encoder:
    return _Container(path, _frame_rate(fps), ("matroska", "ffv1", "bgr0"), {}, even=False)


class _Gif:
    """One palette for the whole clip: with one per frame, parts that stand still would flicker.

    So frames wait in a temporary file until the last one is there.
    """

    even = False

    def __init__(self, path: Path, fps: float, crf: int) -> None:
        self._path, self._fps = path, fps
        self._waiting: BinaryIO | None = None
        self._count = 0

    def begin(self, image: np.ndarray) -> None:
        """See :class:`_Encoder`."""
        self._waiting = cast(BinaryIO, TemporaryFile())  # noqa: SIM115  # closed at the end
        self._shape = image.shape

    def add(self, image: np.ndarray) -> None:
        """See :class:`_Encoder`."""
        assert self._waiting is not None
        self._waiting.write(image.tobytes())
        self._count += 1

    def end(self) -> None:
        """See :class:`_Encoder`."""
        if self._waiting is None:
            return
        with self._waiting, self._path.open("wb") as file:
            voters = [self._image(number) for number in range(0, self._count, -(-self._count // _PALETTE_FRAMES))]
            palette = Image.fromarray(np.concatenate(voters)).quantize(256, Image.Quantize.MEDIANCUT)
            before = None
            # Block by block: Image.save would merge equal frames, and a reader would count fewer.
            for number in range(self._count):
                indexed = Image.fromarray(self._image(number)).quantize(palette=palette, dither=Image.Dither.NONE)
                indices = np.asarray(indexed)
                if before is None:
                    file.writelines(GifImagePlugin.getheader(indexed, info={"loop": 0})[0])
                    box = (0, 0, *indexed.size)
                else:
                    box = _changed_box(before, indices)
                block = GifImagePlugin.getdata(indexed.crop(box), box[:2], duration=self._milliseconds(number))
                file.writelines(block)
                before = indices
            file.write(b";")

    def _image(self, number: int) -> np.ndarray:
        assert self._waiting is not None
        size = int(np.prod(self._shape))
        self._waiting.seek(number * size)
        return np.frombuffer(self._waiting.read(size), np.uint8).reshape(self._shape)

    def _milliseconds(self, number: int) -> int:
        # The difference of rounded end times, so that the error never adds up; players treat less than 20 ms as 100.
        begin, end = (round(count * 100 / self._fps) for count in (number, number + 1))
        return max(end - begin, 2) * 10


def _changed_box(before: np.ndarray, after: np.ndarray) -> tuple[int, int, int, int]:
    """The smallest box (left, top, right, bottom) that holds every change; one pixel if nothing changed."""
    rows, columns = np.nonzero(before != after)
    if len(rows) == 0:
        return 0, 0, 1, 1
    return int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1


_ENCODERS: dict[str, Callable[[Path, float, int], _Encoder]] = {
    ".mp4": _mp4,
    ".webm": _webm,
    ".avi": _avi,
    ".gif": _Gif,
    ".mkv": _mkv,
}
