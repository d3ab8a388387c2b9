"""How close frames are to other frames."""

import numpy as np
import pytest

from tokenreel.evaluation.fidelity import psnr


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
    with pytest.raises(ValueError, match="expected one shape"):
        psnr(clips[0], clips[0])
