"""How clips move, and forecasts that only repeat a motion: on clips of which the motion is known."""

import numpy as np
import pytest

from tokenreel.evaluation.baselines import copy_last_frame, repeat_last_motion
from tokenreel.evaluation.flow import block_speeds, pixel_shifts
from tokenreel.evaluation.motion import changed_share, flicker, speed_distance
from tokenreel.evaluation.similarity import ssim
from tokenreel.evaluation.temporal_order import OrderJudge, shuffled


def moving_square(frames: int, row: int, column: int, step: tuple[int, int], size: int = 32) -> np.ndarray:
    """(T, size, size, 3): a square of 8 pixels on even ground."""
    clip = np.full((frames, size, size, 3), 40, np.uint8)
    for t in range(frames):
        top, left = row + t * step[0], column + t * step[1]
        clip[t, max(0, top) : top + 8, max(0, left) : left + 8] = (220, 90, 60)
    return clip


def test_speeds_are_those_of_what_moves() -> None:
    found = block_speeds(moving_square(4, 8, 2, (0, 3)))
    assert found.shape == (3, 4, 4)
    assert set(np.unique(found)) == {0.0, 3.0}, "even ground stands still"
    texture = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    pan = np.stack([texture[t : t + 32, 2 * t : 2 * t + 32] for t in range(4)])
    inside = block_speeds(pan)[:, 1:3, 1:3]
    assert np.allclose(inside, np.hypot(1, 2))
    noise = np.random.default_rng(0).normal(128, 20, (5, 32, 32, 3)).clip(0, 255).astype(np.uint8)
    assert block_speeds(noise).mean() < 0.2, "noise does not move"
    shifts = pixel_shifts(*moving_square(2, 8, 8, (2, -1)), window=13)
    assert shifts.shape == (2, 32, 32) and tuple(shifts[:, 14, 11]) == (2, -1) and not shifts[:, 28:].any()


def test_speed_distance_is_in_pixels() -> None:
    slow = np.array([[0.0, 0.0, 1.0, 1.0]])
    assert speed_distance(slow, slow + 2) == pytest.approx(2)
    assert speed_distance(slow, slow[:, [3, 1, 2, 0]]) == 0, "distributions, not pairs"
    assert speed_distance(slow, np.tile(slow, 3)) == pytest.approx(0, abs=1e-9)


def test_flicker_and_changes_by_hand() -> None:
    still = np.full((1, 6, 8, 8, 3), 100, np.uint8)
    ramp = still + np.arange(6, dtype=np.uint8)[:, None, None, None] * 10
    jump = still.copy()
    jump[:, 1::2] += 20
    clips = np.concatenate([still, ramp, jump])
    assert flicker(clips) == pytest.approx([0, 0, 40], abs=1e-4)
    assert changed_share(clips) == pytest.approx([0, 1, 1])
    half = still.copy()
    half[:, 3:, :4] += 9  # of 5 changes one, in half of the pixels
    assert changed_share(half) == pytest.approx([0.1])
    with pytest.raises(ValueError, match="T at least 3"):
        flicker(still[:, :2])


def test_a_motion_is_repeated_and_what_it_leaves_is_filled() -> None:
    truth = np.stack([moving_square(10, 20, 2, (0, 2), 48), moving_square(10, 2, 24, (2, 0), 48)])
    made = repeat_last_motion(truth[:, :4], 6)
    assert np.array_equal(made[:, :4], truth[:, :4])
    still = copy_last_frame(truth[:, :4], 6)
    assert np.abs(made.astype(int) - truth).mean() < 0.1 * np.abs(still.astype(int) - truth).mean()
    assert (still[:, 4:] == truth[:, 3:4]).all()
    assert np.array_equal(repeat_last_motion(still[:, 4:6], 3), still[:, 4:9]), "what stands still stays"
    assert np.array_equal(repeat_last_motion(truth[:, :1], 3), copy_last_frame(truth[:, :1], 3))


def test_the_judge_of_order_tells_shuffled_clips_from_real_ones() -> None:
    random = np.random.default_rng(0)
    steps = [(0, 1), (1, 0), (1, 1), (0, 2)]
    clips = np.stack([moving_square(10, *random.integers(0, 12, 2), steps[i % 4]) for i in range(24)])
    judge = OrderJudge(clips[:16])
    assert judge.shuffledness(clips[16:]).mean() < 0.1
    mixed = shuffled(clips[16:], random)
    assert judge.shuffledness(mixed).mean() > 0.8
    still = np.repeat(clips[:2, :1], 10, axis=1)
    assert np.isnan(judge.shuffledness(still)).all(), "what stands still has no order"
    with pytest.raises(ValueError, match="hardly any of 24 real clips moves"):
        OrderJudge(np.repeat(clips[:, :1], 10, axis=1))


def test_ssim_by_its_definition() -> None:
    random = np.random.default_rng(0)
    truth = random.integers(0, 256, (1, 2, 13, 12, 3), dtype=np.uint8)
    frames = np.clip(truth + random.normal(0, 30, truth.shape), 0, 255).astype(np.uint8)
    at = np.arange(11) - 5
    window = np.exp(-(at[:, None] ** 2 + at**2) / (2 * 1.5**2))
    window /= window.sum()
    found = []
    for channel in range(3):
        for top in range(3):
            for left in range(2):
                x, y = (v[0, 1, top : top + 11, left : left + 11, channel].astype(float) for v in (frames, truth))
                mx, my = (window * x).sum(), (window * y).sum()
                vx, vy = (window * (x - mx) ** 2).sum(), (window * (y - my) ** 2).sum()
                both = (window * (x - mx) * (y - my)).sum()
                c1, c2 = 2.55**2, 7.65**2
                found.append((2 * mx * my + c1) * (2 * both + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2)))
    assert ssim(frames, truth)[0, 1] == pytest.approx(np.mean(found), abs=1e-4)
    assert ssim(truth, truth) == pytest.approx(np.ones((1, 2)), abs=1e-5)
    with pytest.raises(ValueError, match="H and W at least 11"):
        ssim(truth[:, :, :10], truth[:, :, :10])
