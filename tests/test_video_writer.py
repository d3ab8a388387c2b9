import os
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from tokenreel.datasets.decoding import load_video
from tokenreel.datasets.video_writer import VideoFile, write_video

LOSSY = [".mp4", ".webm", ".avi"]
EVERY = [*LOSSY, ".gif", ".mkv"]


def moving(frames: int, height: int, width: int) -> np.ndarray:
    """A smooth picture with a bright box walking over it."""
    ramp = np.linspace(20, 120, height)[:, None] + np.linspace(0, 60, width)[None]
    video = np.repeat(np.stack([ramp] * 3, axis=-1)[None], frames, axis=0)
    for t in range(frames):
        video[t, 2:10, 2 + 2 * t : 10 + 2 * t] = (230, 200, 60)
    return video.astype(np.uint8)


def read(path: Path) -> tuple[np.ndarray, Fraction, list[float]]:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        decoded = list(container.decode(stream))
        images = np.stack([frame.to_ndarray(format="rgb24") for frame in decoded])
        assert stream.average_rate is not None
        return images, stream.average_rate, [float(frame.time or 0) for frame in decoded]


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(-10 * np.log10(np.mean((a / 255.0 - b / 255.0) ** 2) + 1e-12))


@pytest.mark.parametrize("suffix", EVERY)
def test_every_format_decodes_to_what_was_written(tmp_path: Path, suffix: str) -> None:
    frames = moving(13, 64, 48)
    write_video(tmp_path / f"new/clip{suffix}", frames, 10)
    got, rate, times = read(tmp_path / f"new/clip{suffix}")
    assert got.shape == frames.shape and rate == 10
    np.testing.assert_allclose(times, np.arange(13) / 10, atol=1e-3)
    assert psnr(got, frames) > 34
    if suffix == ".mkv":
        assert np.array_equal(got, frames)
    assert os.listdir(tmp_path / "new") == [f"clip{suffix}"]


@pytest.mark.parametrize("suffix", EVERY)
@pytest.mark.parametrize("shape", [(1, 63, 65), (3, 1, 1), (2, 33, 16)])
def test_odd_sizes(tmp_path: Path, suffix: str, shape: tuple[int, int, int]) -> None:
    frames = moving(shape[0], 70, 70)[:, : shape[1], : shape[2]]
    write_video(tmp_path / f"clip{suffix}", frames, 12)
    got, _, _ = read(tmp_path / f"clip{suffix}")
    t, h, w = shape
    expected = (t, h + h % 2, w + w % 2, 3) if suffix in LOSSY else (t, h, w, 3)
    assert got.shape == expected
    # Also the column that was added is like its neighbour, not black.
    assert np.abs(got[:, -1].astype(int) - frames[:, -1:, -1:].mean(axis=2)).mean() < 70


@pytest.mark.parametrize("suffix", EVERY)
def test_still_clip_keeps_its_frame_count(tmp_path: Path, suffix: str) -> None:
    write_video(tmp_path / f"clip{suffix}", moving(1, 32, 32).repeat(7, axis=0), 8)
    assert len(read(tmp_path / f"clip{suffix}")[0]) == 7


@pytest.mark.parametrize("suffix", EVERY)
def test_scale_repeats_pixels(tmp_path: Path, suffix: str) -> None:
    frames = moving(3, 17, 21)
    write_video(tmp_path / f"clip{suffix}", frames, 10, scale=4)
    got, _, _ = read(tmp_path / f"clip{suffix}")
    big = frames.repeat(4, axis=1).repeat(4, axis=2)
    assert got.shape == big.shape and psnr(got, big) > 34


@pytest.mark.parametrize("suffix", [".mp4", ".webm", ".avi", ".mkv"])
def test_fractional_rates(tmp_path: Path, suffix: str) -> None:
    for fps in (30000 / 1001, 29.97, 7.5, 120000 / 1001):
        write_video(tmp_path / f"clip{suffix}", moving(9, 32, 32), fps)
        times = read(tmp_path / f"clip{suffix}")[2]
        assert times[-1] == pytest.approx(8 / fps, abs=2e-3)


def test_gif_times_do_not_drift(tmp_path: Path) -> None:
    write_video(tmp_path / "clip.gif", moving(25, 32, 80), 12)
    with Image.open(tmp_path / "clip.gif") as image:
        assert getattr(image, "n_frames", 1) == 25 and image.info["loop"] == 0
        total = 0
        for index in range(25):
            image.seek(index)
            total += image.info["duration"]
    assert total == pytest.approx(25 / 12 * 1000, abs=10)


@pytest.mark.parametrize("suffix", LOSSY)
def test_crf_sets_quality(tmp_path: Path, suffix: str) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (6, 64, 64, 3), dtype=np.uint8)
    sizes = []
    for crf in (6, 24, 40):
        write_video(tmp_path / f"clip{suffix}", noise, 10, crf=crf)
        sizes.append((tmp_path / f"clip{suffix}").stat().st_size)
    assert sizes[0] > 1.3 * sizes[1] > 1.3**2 * sizes[2]


def test_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_video(tmp_path / "clip.mp4", moving(2, 32, 32), 10)
    before = (tmp_path / "clip.mp4").read_bytes()

    def refuse(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OSError, match="disk full"):
        write_video(tmp_path / "clip.mp4", moving(4, 32, 32), 10)
    assert (tmp_path / "clip.mp4").read_bytes() == before and os.listdir(tmp_path) == ["clip.mp4"]


@pytest.mark.parametrize(
    ("name", "frames", "options", "message"),
    [
        ("a.mov", moving(2, 32, 32), {}, "'.mov'; use one of .mp4, .webm, .avi, .gif, .mkv"),
        ("a", moving(2, 32, 32), {}, "suffix ''"),
        ("a.mp4", moving(2, 32, 32) / 255.0, {}, "float64; expected uint8"),
        ("a.mp4", moving(2, 32, 32)[0], {}, r"shape \(32, 32, 3\); expected \(T, H, W, 3\)"),
        ("a.mp4", moving(2, 32, 32)[..., :1], {}, "shape"),
        ("a.mp4", moving(2, 32, 32)[:0], {}, "shape"),
        ("a.mp4", moving(2, 32, 32), {"fps": 0}, "fps is 0"),
        ("a.mp4", moving(2, 32, 32), {"fps": float("nan")}, "fps is nan"),
        ("a.mp4", moving(2, 32, 32), {"crf": 52}, "crf is 52"),
        ("a.mp4", moving(2, 32, 32), {"scale": 0}, "scale is 0"),
    ],
)
def test_bad_input(tmp_path: Path, name: str, frames: np.ndarray, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        write_video(tmp_path / name, frames, **({"fps": 10} | options))
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("suffix", ["mp4", "webm", "avi", "gif", "mkv"])
def test_frames_written_as_they_come_make_the_same_file(tmp_path: Path, suffix: str) -> None:
    grey = np.full((8, 24, 36, 3), 40, np.uint8)
    late = grey.copy()
    late[:, 4:12, 4:12], late[:, 14:20, 20:30] = (255, 0, 0), (0, 0, 255)  # colours that the first frames lack
    frames = np.concatenate([grey, late])
    write_video(tmp_path / f"whole.{suffix}", frames, 10)
    with VideoFile(tmp_path / f"parts.{suffix}", 10) as file:
        for begin in range(0, 16, 4):
            file.write(frames[begin : begin + 4])
            assert not (tmp_path / f"parts.{suffix}").exists()
    whole, parts = (load_video(tmp_path / f"{name}.{suffix}", 24, 36, None).frames for name in ("whole", "parts"))
    assert len(parts) == 16 and np.array_equal(parts, whole)
    assert np.abs(parts[-1].astype(int) - frames[-1]).mean() < 8


def test_a_file_that_is_not_finished_or_does_not_fit_leaves_nothing(tmp_path: Path) -> None:
    frames = np.zeros((2, 16, 16, 3), np.uint8)
    for suffix in ("mp4", "gif"):
        with pytest.raises(KeyboardInterrupt), VideoFile(tmp_path / f"a.{suffix}", 10) as file:
            file.write(frames)
            raise KeyboardInterrupt
        with (
            pytest.raises(ValueError, match=r"frames are \(16, 18, 3\), expected \(16, 16, 3\) as those before"),
            VideoFile(tmp_path / f"a.{suffix}", 10) as file,
        ):
            file.write(frames)
            file.write(np.zeros((2, 16, 18, 3), np.uint8))
        with pytest.raises(ValueError, match="no frames were written"), VideoFile(tmp_path / f"a.{suffix}", 10):
            pass
    assert list(tmp_path.iterdir()) == []
