"""A cheap judgement of continuations, for the log of a training: a few clips, no network but the model's own."""

import numpy as np

from tokenreel.evaluation.fidelity import psnr

PARTS = 4
"""The new frames are judged in so many parts, to see whether continuations begin well and drift."""
MOST_DECIBELS = 100.0


def continuation_figures(made: np.ndarray, truth: np.ndarray, prompt_frames: int) -> dict[str, float]:
    """Judge continuations by what really followed.

    Where several things may happen, none of which is known beforehand, a sharp and right continuation can be further
    from the truth than a still picture. So the motion and the sharpness of real clips stand beside the distance.

    Args:
        made: uint8 (B, T, H, W, 3), prompts and what a model made of them.
        truth: uint8, the same shape: what happened, best as the tokenizer shows it.
        prompt_frames: At least 1, less than T.

    Returns:
        ``ahead_of_copy_db``: PSNR of the new frames less that of the last prompt frame standing still; ``motion`` and
        ``sharpness``: change from frame to frame and from pixel to pixel, by that of the truth (not a number where the
        truth has none); ``parts/psnr_1`` ... and ``parts/psnr_of_copy_1`` ...: of each part of the new frames.

    Raises:
        ValueError: If shapes differ or no frame is new.
    """
    if made.shape != truth.shape or made.ndim != 5 or not 0 < prompt_frames < made.shape[1]:
        raise ValueError(
            f"continuations {made.shape}, truth {truth.shape}, prompt_frames {prompt_frames}: expected one shape "
            "(B, T, H, W, 3), and a prompt shorter than T"
        )
    copy = np.broadcast_to(truth[:, [prompt_frames - 1]], truth.shape)
    parts: dict[str, float] = {}
    ahead = []
    for number, part in enumerate(np.array_split(np.arange(prompt_frames, made.shape[1]), PARTS), start=1):
        if len(part):
            ours, still = (_decibels(clips[:, part], truth[:, part]) for clips in (made, copy))
            parts |= {f"parts/psnr_{number}": ours, f"parts/psnr_of_copy_{number}": still}
            ahead += [ours - still] * len(part)
    new = slice(prompt_frames - 1, None)
    figures = {"ahead_of_copy_db": float(np.mean(ahead))}
    for name, measure in (("motion", _motion), ("sharpness", _sharpness)):
        model, real = (float(np.mean([measure(clip) for clip in clips[:, new]])) for clips in (made, truth))
        figures[name] = model / real if real else float("nan")
    return figures | parts


def _decibels(frames: np.ndarray, truth: np.ndarray) -> float:
    return float(psnr(frames, truth).clip(max=MOST_DECIBELS).mean())


def _motion(clip: np.ndarray) -> float:
    """Mean size of the change from frame to frame, in grey levels."""
    return float(np.abs(np.diff(clip.astype(np.int16), axis=0)).mean())


def _sharpness(clip: np.ndarray) -> float:
    """Root mean square of the change from pixel to pixel: its mean size would not tell an edge from a slope."""
    values = clip.astype(np.float32)
    return float(np.sqrt(np.mean([np.square(np.diff(values, axis=axis)).mean() for axis in (1, 2)])))
