"""Decoding: frames by time, upright, of the wanted size; damage is said and never invented."""

import json
import subprocess
import sys
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
import pytest

from tokenreel.datasets.decoded_frame import UnreadableVideo
from tokenreel.datasets.decoding import FrameStream, load_video
from tokenreel.datasets.frame_fit import FrameFit
from tokenreel.datasets.frame_times import FrameClock, exact_rate
from tokenreel.datasets.video_writer import write_video


def numbered(count: int, height: int = 8, width: int = 8) -> np.ndarray:
    """Frames of one colour each; the red channel is the number of the frame."""
    frames = np.empty((count, height, width, 3), np.uint8)
    frames[:] = np.arange(count)[:, None, None, None] * np.array([1, 3, 5])
    return frames


def encode(path: Path, frames: np.ndarray, pts: list[int], pix_fmt: str = "bgr0", codec: str = "ffv1") -> Path:
    """Writes frames with stamps in milliseconds."""
    with av.open(str(path), "w") as container:
        stream = cast(av.VideoStream, container.add_stream(codec, rate=10))
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pix_fmt
        stream.codec_context.time_base = stream.time_base = Fraction(1, 1000)
        for image, stamp in zip(frames, pts, strict=True):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format=pix_fmt, threads=1)
            frame.pts, frame.time_base = stamp, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def numbers(path: Path, fps: float | None) -> list[int]:
    return load_video(path, 8, 8, fps).frames[:, 0, 0, 0].tolist()


@pytest.mark.parametrize(
    ("source", "target"),
    [(10, 10), (25, 25), (30, 30), (50, 50), (30000 / 1001, 29.97), (24000 / 1001, 23.976), (60000 / 1001, 59.94)],
)
@pytest.mark.parametrize("suffix", [".mkv", ".avi", ".gif"])
def test_source_of_the_target_rate_passes_through_untouched(
    tmp_path: Path, source: float, target: float, suffix: str
) -> None:
    if suffix == ".gif" and source not in (10, 25, 50):
        pytest.skip("a gif counts in hundredths of a second")
    path = tmp_path / f"v{suffix}"
    write_video(path, numbered(70, 16, 16), source)
    stream = FrameStream(path, 8, 8, target)
    assert [frame.source_index for frame in stream] == list(range(70))
    assert not stream.facts.vfr and stream.facts.damaged is None
    assert stream.facts.source_frames == 70 and stream.facts.source_fps == pytest.approx(source, rel=1e-4)


def test_pixels_are_exact_at_the_source_size(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (5, 12, 10, 3), np.uint8)
    write_video(tmp_path / "v.mkv", frames, 10)
    video = load_video(tmp_path / "v.mkv", 12, 10)
    assert np.array_equal(video.frames, frames) and video.fps == 10


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [
        (30, 10, [0, 3, 6, 9, 12]),
        # Ties go to the earlier frame: 100 ms lies between frames 2 (80) and 3 (120).
        (25, 10, [0, 2, 5, 7, 10, 12]),
        (10, 30, [0, 0, 1, 1, 1, 2, 2, 2]),
        (10, 20, [0, 0, 1, 1, 2, 2]),
    ],
)
def test_rate_changes_by_time(tmp_path: Path, source: int, target: int, expected: list[int]) -> None:
    count = max(expected) + 1
    path = encode(tmp_path / "v.mkv", numbered(count), [round(1000 * k / source) for k in range(count)])
    assert numbers(path, target)[: len(expected)] == expected
    seconds = count / source
    assert abs(len(numbers(path, target)) - seconds * target) <= 1


def test_variable_rate_holds_frames_as_long_as_they_are_shown(tmp_path: Path) -> None:
    path = encode(tmp_path / "v.mkv", numbered(6), [500, 600, 700, 1500, 1600, 1640])
    assert numbers(path, 10) == [0, 1, *[2] * 8, 3, 4]
    stream = FrameStream(path, 8, 8)
    times = [frame.time for frame in stream]
    assert stream.facts.vfr and times == pytest.approx([0, 0.1, 0.2, 1.0, 1.1, 1.14])
    grid = [frame.time for frame in FrameStream(path, 8, 8, 10)]
    assert grid == pytest.approx(np.arange(12) / 10)


def stamped(stamps: list[int | None]) -> tuple[list[int], FrameClock]:
    clock = FrameClock(Fraction(1, 1000), Fraction(10))
    return [frame.ticks for frame in clock.stamp((stamp, None) for stamp in stamps)], clock


def test_stamps_are_made_whole() -> None:
    assert stamped([100, 200, 400, 300, 500, 700, 600])[0] == [0, 100, 200, 300, 400, 500, 600]
    assert stamped([None, None, 200, None])[0] == [0, 100, 200, 300]
    for jump in (-90_000_000, 3_600_000):
        ticks, clock = stamped([5_000, 5_100, 5_200 + jump, 5_300 + jump])
        assert ticks == [0, 100, 200, 300] and clock.jumps == 1
    assert not stamped([0, 33, 67, 100])[1].variable and stamped([0, 100, 300])[1].variable
    # A pause of seconds is no jump.
    ticks, clock = stamped([0, 100, 5_100, 5_200])
    assert ticks == [0, 100, 5_100, 5_200] and clock.jumps == 0 and clock.variable


def test_rounded_rates_mean_those_of_the_source() -> None:
    # Else a film at 29.97 would lose its first frame after four hours.
    assert exact_rate(29.97, Fraction(30000, 1001)) == Fraction(30000, 1001)
    assert exact_rate(30.0, Fraction(30000, 1001)) == 30
    assert exact_rate(12.5, None) == Fraction(25, 2)


def rotated(path: Path, turns: int) -> None:
    """Writes the display matrix for so many quarter turns counter-clockwise into an mp4 file."""
    one = 1 << 16
    a, b = [(one, 0), (0, -one), (-one, 0), (0, one)][turns]
    matrix = np.array([a, b, 0, -b, a, 0, 0, 0, 1 << 30], ">i4").tobytes()
    data = bytearray(path.read_bytes())
    start = data.index(b"tkhd") + 4 + 40
    data[start : start + 36] = matrix
    path.write_bytes(data)


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_rotation_is_applied_before_the_crop(tmp_path: Path, turns: int) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (2, 16, 24, 3), np.uint8)
    path = encode(tmp_path / "v.mp4", frames, [0, 100], "rgb24", "libx264rgb")
    rotated(path, turns)
    upright = np.rot90(load_video(path, 16, 24).frames if turns == 0 else frames, turns, axes=(1, 2))
    plain = encode(tmp_path / "plain.mp4", upright, [0, 100], "rgb24", "libx264rgb")
    stream = FrameStream(path, 10, 6)
    got = np.stack([frame.image for frame in stream])
    expected = load_video(plain, 10, 6).frames
    assert stream.facts.rotation == 90 * turns
    assert (stream.facts.source_height, stream.facts.source_width) == (16, 24)
    # Two encodings and two orders of scaling differ a little; a wrong turn differs by 85 on average.
    assert np.abs(got.astype(int) - expected).mean() < 20


def test_shorter_side_is_scaled_and_the_centre_cut(tmp_path: Path) -> None:
    frames = np.zeros((1, 20, 60, 3), np.uint8)
    frames[:, :, :20, 0] = frames[:, :, 20:40, 1] = frames[:, :, 40:, 2] = 200
    write_video(tmp_path / "v.mkv", frames, 10)
    image = load_video(tmp_path / "v.mkv", 10, 10).frames[0]
    assert (image[:, 1:-1] == [0, 200, 0]).all()
    assert load_video(tmp_path / "v.mkv", 40, 40).frames.shape == (1, 40, 40, 3)


def test_fit_covers_the_wanted_size() -> None:
    assert FrameFit.of((210, 160), [(64, 64)]) == FrameFit(64, 64, 0, 84, 64)
    assert FrameFit.of((210, 160), [(64, 64)], rotation=-90).quarter_turns == 3
    assert FrameFit.of((210, 160), [(64, 64)], rotation=-90).coded_size == (84, 64)
    # Kinetics clips squeezed to 340x256 say so in their pixel shape: they are 16:9.
    assert FrameFit.of((256, 340), [(64, 64)], pixel_aspect=Fraction(64, 51)).scaled_width == 107
    assert FrameFit.of((256, 340), [(64, 64)], pixel_aspect=Fraction(64, 1)).scaled_width == 85
    assert FrameFit.of((1, 1), [(64, 32)]).coded_size == (64, 64)


@pytest.mark.parametrize("pix_fmt", ["gray", "yuv420p10le", "yuva444p", "gbrp16le"])
def test_every_pixel_format_becomes_rgb(tmp_path: Path, pix_fmt: str) -> None:
    path = encode(tmp_path / "v.mkv", np.full((2, 8, 8, 3), 100, np.uint8), [0, 100], pix_fmt)
    frames = load_video(path, 8, 8).frames
    assert frames.shape == (2, 8, 8, 3) and np.abs(frames.astype(int) - 100).max() <= 3


def faststart(path: Path, frames: np.ndarray) -> None:
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        options = {"crf": "10", "g": "10", "bf": "0"}
        stream = cast(av.VideoStream, container.add_stream("libx264", rate=10, options=options))
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for image in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))


def test_truncated_file_gives_its_good_prefix(tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole.mp4", tmp_path / "cut.mp4"
    faststart(whole, np.random.default_rng(0).integers(0, 256, (40, 64, 64, 3), np.uint8))
    data = whole.read_bytes()
    cut.write_bytes(data[: len(data) * 6 // 10])
    stream = FrameStream(cut, 64, 64)
    got = np.stack([frame.image for frame in stream])
    assert 10 < len(got) < 40
    assert np.array_equal(got, load_video(whole, 64, 64).frames[: len(got)])
    assert stream.facts.damaged == f"Invalid data found when processing input after {len(got)} frames"


def test_change_of_size_ends_the_video(tmp_path: Path) -> None:
    for name, size in (("a.ts", 32), ("b.ts", 48)):
        encode(tmp_path / name, numbered(10, size, size), [100 * k for k in range(10)], "yuv420p", "libx264")
    path = tmp_path / "both.ts"
    path.write_bytes((tmp_path / "a.ts").read_bytes() + (tmp_path / "b.ts").read_bytes())
    stream = FrameStream(path, 8, 8)
    assert len(list(stream)) == 10
    assert stream.facts.damaged == "frame size changes from 32x32 to 48x48"


def test_files_without_frames_say_why(tmp_path: Path) -> None:
    for content in (b"", b"not a video\n" * 50):
        (tmp_path / "v.mp4").write_bytes(content)
        with pytest.raises(UnreadableVideo, match=r"^Invalid data found when processing input$"):
            list(FrameStream(tmp_path / "v.mp4", 8, 8))
        with pytest.raises(ValueError, match=r"cannot read .*v\.mp4 as a video: Invalid data.*; give"):
            load_video(tmp_path / "v.mp4", 8, 8)
    with av.open(str(tmp_path / "audio.mkv"), "w") as container:
        stream = cast(av.AudioStream, container.add_stream("pcm_s16le", rate=8000))
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
    with pytest.raises(UnreadableVideo, match=r"^no video stream$"):
        list(FrameStream(tmp_path / "audio.mkv", 8, 8))
    with pytest.raises(FileNotFoundError, match="no video file at"):
        load_video(tmp_path / "absent.mp4", 8, 8)


def test_arguments_are_checked(tmp_path: Path) -> None:
    wrong: list[dict[str, Any]] = [{"height": 0}, {"fps": 0.0}, {"fps": float("nan")}, {"decoder": "vlc"}]
    for arguments in wrong:
        with pytest.raises(ValueError, match="expected"):
            FrameStream(tmp_path / "v.mp4", **{"height": 8, "width": 8, **arguments})


def test_max_frames_stops_early(tmp_path: Path) -> None:
    write_video(tmp_path / "v.mkv", numbered(30), 10)
    video = load_video(tmp_path / "v.mkv", 8, 8, 5.0, max_frames=4)
    assert video.frames[:, 0, 0, 0].tolist() == [0, 2, 4, 6] and video.fps == 5.0


def test_import_needs_no_decoder() -> None:
    rooms = "tokenreel.datasets.clip_cache, tokenreel.datasets.clip_windows"
    code = f"import sys, {rooms}; sys.exit(bool({{'av', 'decord', 'torch'}} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_decord_agrees_with_pyav(tmp_path: Path) -> None:
    pytest.importorskip("decord")
    path = tmp_path / "v.mp4"
    rng = np.random.default_rng(0)
    frames = np.kron(rng.integers(0, 256, (45, 8, 12, 3), np.uint8), np.ones((1, 16, 16, 1), np.uint8))
    write_video(path, frames, 30)
    for fps in (None, 10.0, 30.0):
        ours, other = load_video(path, 64, 64, fps), load_video(path, 64, 64, fps, decoder="decord")
        assert ours.fps == other.fps and ours.frames.shape == other.frames.shape
        assert np.abs(ours.frames.astype(int) - other.frames).mean() < 5


def test_decord_refuses_what_it_gets_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_video(tmp_path / "v.gif", numbered(3), 10)
    with pytest.raises(UnreadableVideo, match="decord is not trusted with gif in gif; use the decoder pyav"):
        list(FrameStream(tmp_path / "v.gif", 8, 8, decoder="decord"))
    write_video(tmp_path / "v.mp4", numbered(3, 16, 16), 10)
    monkeypatch.setitem(sys.modules, "decord", None)
    with pytest.raises(UnreadableVideo, match="decord is not installed"):
        list(FrameStream(tmp_path / "v.mp4", 8, 8, decoder="decord"))


def test_decord_is_kept_from_narrow_frames(tmp_path: Path) -> None:
    pytest.importorskip("decord")
    write_video(tmp_path / "v.mp4", numbered(3, 16, 24), 10)
    with pytest.raises(UnreadableVideo, match="decord cannot scale to a width of 24 pixels"):
        list(FrameStream(tmp_path / "v.mp4", 16, 16, decoder="decord"))


@pytest.mark.data
def test_decord_is_kept_from_edit_lists(shared_data: Path) -> None:
    pytest.importorskip("decord")
    with pytest.raises(UnreadableVideo, match="decord finds 161 frames, the file lists 92"):
        list(FrameStream(shared_data / "odd" / "editlist_cut.mp4", 64, 64, decoder="decord"))


@pytest.mark.data
@pytest.mark.slow
def test_real_and_odd_files_agree_with_the_facts(shared_data: Path) -> None:
    facts = json.loads((shared_data / "facts.json").read_text())
    assert len(facts) > 80
    for name, known in facts.items():
        stream = FrameStream(shared_data / name, 64, 64)
        if "error" in known:
            with pytest.raises(UnreadableVideo):
                list(stream)
            continue
        frames = list(stream)
        got = stream.facts
        if name == "odd/reschange.ts":
            assert got.source_frames == 60 and got.damaged == "frame size changes from 480x270 to 640x272"
            continue
        assert got.source_frames == known["decoded_frames"] == len(frames) + got.corrupt_frames, name
        assert (got.rotation - known["rotation"]) % 360 == 0, name
        assert got.vfr == known["vfr"], name
        assert (got.source_height, got.source_width) == (known["height"], known["width"]), name
        assert bool(got.damaged) == ("decode_error" in known or got.corrupt_frames > 0), name
        assert all(before.time <= after.time for before, after in pairwise(frames)), name
        if not got.vfr and name != "real/moviepy__fire2.mp4":
            indices = [frame.source_index for frame in FrameStream(shared_data / name, 64, 64, got.source_fps)]
            assert indices == [frame.source_index for frame in frames], name
        brightness = [frames[k].image.mean() for k in (0, len(frames) // 2, -1)]
        # The facts are of whole pictures, ours of their centres: only gross errors of range show.
        assert np.abs(np.array(brightness) - known["mean_luma"]).max() < 60, name


def test_transparent_pixels_are_laid_over_white_and_said(tmp_path: Path) -> None:
    path = tmp_path / "sticker.mov"
    image = np.full((16, 16, 4), (0, 0, 0, 255), np.uint8)
    image[:, :8, 3] = 0  # the left half cannot be seen
    with av.open(str(path), "w") as container:
        stream = container.add_stream("png", rate=10)
        stream.width, stream.height, stream.pix_fmt = 16, 16, "rgba"
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgba")))
        container.mux(stream.encode())
    stream = FrameStream(path, height=16, width=16)
    frames = np.stack([frame.image for frame in stream])
    assert stream.facts.alpha
    assert frames[:, :, :8].min() == 255 and frames[:, :, 8:].max() == 0
