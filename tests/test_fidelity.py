"""How close frames are to other frames, and how much of their movement they have."""

import numpy as np
import pytest

from tokenreel.evaluation.fidelity import motion_kept, psnr


def test_psnr_by_hand() -> None:
    truth = np.zeros((3, 2, 4, 4, 3), np.uint8)
    frames = truth.copy()
    frames[1] = 255
    frames[2, 0] = 51  # half of the pixels are a fifth off: MSE 0.02
    assert psnr(frames, truth).tolist() == [np.inf, 0.0, pytest.approx(10 * np.log10(1 / 0.02), abs=1e-5)]
    assert np.array_equal(psnr(truth, frames), psnr(frames, truth)), "uint8 must not wrap around"


def test_shapes_that_differ_are_refused() -> None:
    clips = np.zeros((2, 4, 8, 8, 3), np.uint8)
    for other in (clips[:1], clips[:, :2]):
        with pytest.raises(ValueError, match=r"expected one shape \(B, T, H, W, 3\)"):
            psnr(clips, other)
        with pytest.raises(ValueError, match=r"expected one shape \(B, T, H, W, 3\)"):
            motion_kept(clips, other)
    with pytest.raises(ValueError, match="expected one shape"):
        psnr(clips[0], clips[0])


def test_movement_is_kept_or_not_however_right_the_ground_is() -> None:
    truth = np.full((2, 8, 16, 16, 3), 90, np.uint8)
    for t in range(8):
        truth[:, t, 4, t] = 250  # one pixel that moves
    still = np.repeat(np.full((2, 1, 16, 16, 3), 90, np.uint8), 8, axis=1)
    assert psnr(still, truth).min() > 28 and motion_kept(still, truth) == 0.0
    assert motion_kept(truth, truth) == 1.0
    assert motion_kept(truth - 40, truth) == 1.0, "the ground is another one, the changes are right"
    half = (truth - 90) // 2 + 90
    assert motion_kept(half, truth) == pytest.approx(0.75), "of half the changes a quarter of the square is missing"
    assert motion_kept(truth[:, :, ::-1], truth) < 0, "another one moves elsewhere"
    assert np.isnan(motion_kept(truth, still)), "nothing moves"
