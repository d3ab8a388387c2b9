"""What a model makes of held-out clips, ready to be judged: continuations, reconstructions, bits, and real clips."""

import math
import time
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from tokenreel.datasets.clip_windows import ClipWindows
from tokenreel.datasets.data_source import DataSettings, held_out_windows
from tokenreel.datasets.frame_fit import Size
from tokenreel.generation import VideoModel
from tokenreel.tools.model_clips import decoded, encoded
from tokenreel.transformer import ClipConditions, SamplingSettings, sample_indices

REFERENCE_FACTOR = 4
"""Real clips to compare sets with, for each clip that is judged."""


class JudgedModel(NamedTuple):
    """Arrays are uint8 (B, T, H, W, 3) with T the window, one clip per row, prompts included."""

    windows: ClipWindows
    chosen: np.ndarray
    """Numbers of the clips in ``windows``, int (B,)."""
    truth: np.ndarray
    reconstruction: np.ndarray
    samples: list[np.ndarray]
    """One or more continuations of every prompt."""
    truth_indices: Tensor
    """int64 (B, T', H', W') of the true clips."""
    sample_indices: Tensor
    """The same of the first sample."""
    reference: np.ndarray | None
    """Other real clips, from other videos; None if there are none."""
    reference_split: str
    bits: np.ndarray
    """float (B,): mean bits per token of each true clip."""
    sampling_tokens_per_s: float


def held_out_clips(source: DataSettings, clip_frames: int, count: int, size: Size) -> tuple[ClipWindows, np.ndarray]:
    """Held-out clips of one size and the numbers of those to judge, spread evenly: one per video if that is enough."""
    windows = held_out_windows(source, clip_frames, one_per_video=True, size=size)
    if len(windows) < count:
        windows = ClipWindows(windows.store, windows.records[0].split, clip_frames, clip_frames, size)
    return windows, np.linspace(0, len(windows) - 1, min(count, len(windows))).round().astype(int)


def judged_model(
    model: VideoModel,
    clips: tuple[ClipWindows, np.ndarray],
    prompt_frames: int,
    settings: SamplingSettings,
    seed: int,
    samples: int,
) -> JudgedModel:
    """Continue the prompts of clips, and do all that is to be judged.

    Args:
        model: Tokenizer and GPT.
        clips: Of :func:`held_out_clips`.
        prompt_frames: Frames given.
        settings: Of the sampler.
        seed: Clip i of sample s is drawn from seed + s · number of clips + i.
        samples: Continuations of every prompt.
    """
    windows, chosen = clips
    truth = windows.batch(chosen)
    told = [model.gpt.config.conditions.of_record(windows.record(clip)) for clip in chosen]
    indices = encoded(model, truth)
    prompt = indices[:, : prompt_frames // model.tokenizer.config.stride[0]]  # by causality the first of the clip's
    made, begin = [], time.perf_counter()
    for sample in range(samples):
        seeds = [seed + sample * len(chosen) + i for i in range(len(chosen))]
        made.append(_continued(model, prompt, indices.shape[1], told, settings, seeds))
    tokens_per_s = samples * (indices.numel() - prompt.numel()) / (time.perf_counter() - begin)
    reference, split = reference_clips(windows, chosen, REFERENCE_FACTOR * len(chosen))
    return JudgedModel(
        *(windows, chosen, truth),
        reconstruction=decoded(model, indices),
        samples=[decoded(model, each) for each in made],
        truth_indices=indices,
        sample_indices=made[0],
        reference=reference,
        reference_split=split,
        bits=model.bits_of_clips(indices, told),
        sampling_tokens_per_s=tokens_per_s,
    )


def reference_clips(windows: ClipWindows, chosen: np.ndarray, count: int) -> tuple[np.ndarray | None, str]:
    """Real clips from other videos than the chosen ones: of their split if it has as many as were chosen.

    Returns:
        uint8 (N, T, H, W, 3), at most ``count``, and the split they are from; None if there are not even two.
    """
    used = {windows.location(clip)[0].file for clip in chosen}
    own = windows.records[0].split
    for split in dict.fromkeys((own, "train")):
        try:
            others = ClipWindows(windows.store, split, windows.clip_frames, windows.clip_frames, windows.size)
        except ValueError:  # no training video of this shape
            continue
        free = [number for number in range(len(others)) if others.location(number)[0].file not in used]
        if len(free) >= (len(chosen) if split != "train" else 2):
            picked = np.linspace(0, len(free) - 1, min(count, len(free))).round().astype(int)
            return others.batch([free[i] for i in picked]), split
    return None, own


def told_settings(settings: SamplingSettings) -> dict[str, Any]:
    """What clips were sampled with."""
    return {name: getattr(settings, name) for name in ("temperature", "top_k", "top_p", "sharpen", "guidance")}


def tokens_per_pixel(model: VideoModel) -> float:
    """Indices per pixel of one frame."""
    return 1 / math.prod(model.tokenizer.config.stride)


def _continued(
    model: VideoModel,
    prompt: Tensor,
    length: int,
    told: list[ClipConditions],
    settings: SamplingSettings,
    seeds: list[int],
) -> Tensor:
    """Prompts and continuations, each under what the data says of its clip."""
    conditions = model.conditions.tensors(told, length)
    return sample_indices(model.gpt, prompt, length - prompt.shape[1], settings, seeds, conditions)
