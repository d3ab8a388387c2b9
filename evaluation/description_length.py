"""How many bits describe a clip exactly: its tokens, and what the picture made of them leaves out.

Somebody who has the tokenizer and its GPT is told a clip bit by bit, in two parts:

1. the tokens, in as many bits as the GPT's cross-entropy says, and from them the reconstruction;
2. the residual, true value minus reconstructed value, of every channel of every pixel, each on its own, in
   -log2(share) bits: an ideal code fitted to how often each residual in -255..255 came up on training clips.

The sum per pixel is the total description length of the data; the weights are not counted. It says whether finer
tokens are worth their bits: they are while the residual loses more than they cost. The residual is by far the
larger part, as it pays for every grain of noise. No family is assumed for it: most residuals of video are near
zero and a few are large, which neither a Gaussian nor a Laplace distribution fits.
"""

import numpy as np

RESIDUALS = 511
"""-255 .. 255."""


def residual_counts(frames: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """How often each residual came up; the counts of several batches may be added.

    Args:
        frames: Reconstruction, uint8 of any shape.
        truth: uint8, the same shape.

    Returns:
        int64 (511,): counts of truth minus frames = -255 .. 255.

    Raises:
        ValueError: If type or shape differ.
    """
    if frames.dtype != np.uint8 or truth.dtype != np.uint8 or frames.shape != truth.shape:
        raise ValueError(
            f"frames are {frames.dtype} {frames.shape} and {truth.dtype} {truth.shape}, expected uint8 of one shape"
        )
    return np.bincount((truth.astype(np.int16) - frames + 255).ravel(), minlength=RESIDUALS)


def residual_bits(counts: np.ndarray, fitted: np.ndarray) -> float:
    """Mean bits per value of residuals under the ideal code for other residuals.

    Args:
        counts: From :func:`residual_counts`, of what is described; at least one residual.
        fitted: Of training clips. One is added to every count, so that nothing is impossible.

    Returns:
        Bits per value, one channel of one pixel; above 0.

    Raises:
        ValueError: If these are no such counts.
    """
    if counts.shape != (RESIDUALS,) or fitted.shape != (RESIDUALS,) or counts.sum() < 1:
        raise ValueError(
            f"counts have shapes {counts.shape}, {fitted.shape} and sum {counts.sum()}, "
            f"expected ({RESIDUALS},) twice and at least 1"
        )
    lengths = np.log2(fitted.sum() + RESIDUALS) - np.log2(fitted + 1.0)
    return float(counts @ lengths / counts.sum())
