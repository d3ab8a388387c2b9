"""Figures that know the truth: how well the tokenizer shows clips, how well the model continues them."""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from tokenreel.evaluation import fidelity, similarity
from tokenreel.evaluation.card import Better, Figure
from tokenreel.evaluation.code_hash import code_hash
from tokenreel.evaluation.fidelity import frame_psnr, movement_errors, share_kept
from tokenreel.evaluation.intervals import halves_interval, mean_interval
from tokenreel.evaluation.similarity import ssim

FrameMetric = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Frames and truth, uint8 (B, T, H, W, 3) twice -> float (B, T)."""


class Measure:
    """A metric of frames against true frames."""

    def __init__(self, name: str, unit: str, better: Better, of_frames: FrameMetric, protocol: str, code: str) -> None:
        self.name, self.unit, self.better, self.of_frames = name, unit, better, of_frames
        self.protocol, self.code = protocol, code


def standard_measures(shortest_side: int) -> list[Measure]:
    """PSNR, and SSIM where its window fits into the frames."""
    measures = [Measure("PSNR", "dB", "higher", frame_psnr, "psnr-1: per frame, mean", code_hash(fidelity))]
    if shortest_side >= similarity.WINDOW:
        told = "ssim-1: gaussian 11 px, RGB, per frame, mean"
        measures.append(Measure("SSIM", "", "higher", ssim, told, code_hash(similarity)))
    return measures


def fidelity_figures(reconstruction: np.ndarray, truth: np.ndarray, measures: Sequence[Measure]) -> list[Figure]:
    """The tokenizer alone: no continuation can be better than this.

    Args:
        reconstruction: uint8 (B, T, H, W, 3).
        truth: uint8, the same shape.
        measures: What to measure frames by.

    Returns:
        A figure for each measure, and the share of the movement that is kept. The yardstick is the mean of all
        frames of each clip: the best still picture.
    """
    still = np.repeat(truth.mean(axis=1, keepdims=True).round().astype(np.uint8), truth.shape[1], axis=1)
    figures = []
    for measure in measures:
        value = measure.of_frames(reconstruction, truth).mean(axis=1)
        floors = {"best still picture": float(measure.of_frames(still, truth).mean())}
        figures.append(_figure("fidelity", measure, value, floors))
    sums = movement_errors(reconstruction, truth)
    kept = share_kept(sums)
    interval = halves_interval(share_kept, (sums,), kept)
    figures.append(
        Figure(
            *("fidelity", "movement kept", "", "higher", kept, interval, len(truth), {"still picture": 0.0}),
            *("motion-kept-1", code_hash(fidelity)),
        )
    )
    return figures


def prediction_figures(
    samples: Sequence[np.ndarray],
    truth: np.ndarray,
    yardsticks: Mapping[str, np.ndarray],
    measures: Sequence[Measure],
) -> list[Figure]:
    """Continuations against what really happened, in the new frames.

    Args:
        samples: One or more continuations of every prompt, the new frames alone, uint8 (B, T, H, W, 3) each.
        truth: uint8 (B, T, H, W, 3).
        yardsticks: The same of other forecasts, by name.
        measures: What to measure frames by.

    Returns:
        For each measure the first sample's figure, over all new frames and frame by frame, and with several samples
        that of the best of them, chosen clip by clip by this measure.
    """
    figures = []
    for measure in measures:
        found = [measure.of_frames(clips, truth) for clips in samples]
        others = {name: measure.of_frames(clips, truth) for name, clips in yardsticks.items()}
        floors = {name: float(values.mean()) for name, values in others.items()}
        by_frame = {name: values.mean(axis=0).tolist() for name, values in {"model": found[0], **others}.items()}
        figures.append(_figure("prediction", measure, found[0].mean(axis=1), floors, by_frame))
        if len(samples) > 1:
            of_clips = np.stack([values.mean(axis=1) for values in found])
            best = of_clips.max(axis=0) if measure.better == "higher" else of_clips.min(axis=0)
            of_best = Measure(f"{measure.name}, best of {len(samples)}", *_rest(measure))
            figures.append(_figure("prediction", of_best, best, floors))
    return figures


def bits_figures(bits: np.ndarray, codebook_size: int, tokens_per_pixel: float) -> list[Figure]:
    """What clips cost the GPT.

    Args:
        bits: float (B,), mean bits per token of each clip.
        codebook_size: Number of codes.
        tokens_per_pixel: How many indices a pixel of video (of one frame, all colours) has.
    """
    nominal, code = math.log2(codebook_size), code_hash(fidelity)
    return [
        Figure(
            *("prediction", f"bits per {name}", "bits", "lower", float(bits.mean() * share)),
            tuple(end * share for end in mean_interval(bits)),  # type: ignore[arg-type]
            *(len(bits), {"every index equally likely": nominal * share}),
            *(f"bits-per-{name}-1: cross-entropy, whole clips", code),
        )
        for name, share in (("token", 1.0), ("pixel", tokens_per_pixel))
    ]


def _rest(measure: Measure) -> tuple[str, Better, FrameMetric, str, str]:
    return measure.unit, measure.better, measure.of_frames, measure.protocol, measure.code


def _figure(
    group: str,
    measure: Measure,
    values: np.ndarray,
    floors: Mapping[str, float],
    by_frame: Mapping[str, Sequence[float]] | None = None,
) -> Figure:
    return Figure(
        *(group, measure.name, measure.unit, measure.better, float(np.mean(values)), mean_interval(values)),
        *(len(values), floors, measure.protocol, measure.code, by_frame or {}),
    )
