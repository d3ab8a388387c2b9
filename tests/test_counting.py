from collections import Counter

import numpy as np
import pytest
from PIL import Image, ImageFilter

from tokenreel.datasets.world_balls import BACKGROUND, COLORS
from tokenreel.datasets.world_episode import Canvas
from tokenreel.datasets.worlds import simulate
from tokenreel.evaluation.counting import clip_count, count_discs

PALETTE = list(COLORS.values())
RADIUS = (0.08 * 64, 0.11 * 64)


def counted(frames: np.ndarray) -> np.ndarray:
    return count_discs(frames, PALETTE, BACKGROUND, RADIUS)


def spoiled(frames: np.ndarray) -> np.ndarray:
    """Blurred, noisy, each ball's colour off by a few parts in a hundred, with stains in all colours."""
    rng = np.random.default_rng(0)
    blurred = np.stack([np.asarray(Image.fromarray(f).filter(ImageFilter.GaussianBlur(1))) for f in frames])
    noisy = blurred * rng.uniform(0.93, 1, 3) + rng.normal(0, 8, frames.shape)
    for frame in noisy:
        for color in PALETTE:
            y, x = rng.integers(0, 61, 2)
            frame[y : y + 3, x : x + 3] = color
    return np.clip(noisy, 0, 255).astype(np.uint8)


def discs(*balls: tuple[str, float, float, float]) -> np.ndarray:
    canvas = Canvas(1, 64, BACKGROUND)
    for name, x, y, radius in balls:
        canvas.discs(np.array([[x, y]]), radius, COLORS[name])
    return canvas.finished()


def test_true_and_spoiled_clips_are_counted_right() -> None:
    right = {"true": 0, "spoiled": 0}
    for seed in range(30):
        episode = simulate("balls", seed, 64, 5, twins=True)
        balls = Counter(episode.states["names"])
        for name, frames in (("true", episode.frames), ("spoiled", spoiled(episode.frames))):
            right[name] += clip_count(counted(frames)).tolist() == [balls[color] for color in COLORS]
    assert right["true"] == 30 and right["spoiled"] >= 29


@pytest.mark.parametrize("radii", [(5.12, 5.12), (5.12, 7.04), (7.04, 7.04)])
def test_touching_twins_are_two_and_a_large_ball_is_one(radii: tuple[float, float]) -> None:
    first, second = radii
    for angle in np.linspace(0, np.pi, 5):
        x, y = 32.3 + np.cos(angle) * (first + second), 32.3 + np.sin(angle) * (first + second)
        clip = discs(("red", 32.3, 32.3, first), ("red", x, y, second))
        assert counted(clip)[0].tolist() == counted(spoiled(clip))[0].tolist() == [2, 0, 0, 0, 0, 0]
    assert counted(discs(("red", 32.3, 32.3, second)))[0, 0] == 1


def test_other_colours_in_contact_are_no_third_colour() -> None:
    """Red touching green has a rim that is almost yellow."""
    for a in COLORS:
        for b in COLORS:
            expected = Counter((a, b))
            clip = discs((a, 30.2, 30.7, 6), (b, 38.8, 38.9, 6))
            assert counted(clip)[0].tolist() == [expected[name] for name in COLORS], (a, b)


def test_what_is_too_small_or_pale_is_no_ball() -> None:
    assert not counted(discs(("blue", 20, 20, 4.2))).any()
    assert not counted(
        (np.array(BACKGROUND) + 0.4 * (discs(("blue", 20, 20, 6)) - np.array(BACKGROUND))).astype(np.uint8)
    ).any()
    assert not counted(np.full((1, 64, 64, 3), BACKGROUND, np.uint8)).any()


def test_a_clip_counts_what_most_frames_show() -> None:
    assert clip_count(np.array([[1, 0], [2, 0], [2, 3], [2, 0], [0, 0]])).tolist() == [2, 0]


def test_bad_input() -> None:
    frames = np.zeros((1, 32, 32, 3), np.uint8)
    with pytest.raises(ValueError, match="expected uint8"):
        count_discs(frames / 255.0, PALETTE, BACKGROUND, RADIUS)
    with pytest.raises(ValueError, match=r"expected \(n, 3\)"):
        count_discs(frames, PALETTE[0], BACKGROUND, RADIUS)
    with pytest.raises(ValueError, match="smallest and the largest"):
        count_discs(frames, PALETTE, BACKGROUND, (3, 2))
