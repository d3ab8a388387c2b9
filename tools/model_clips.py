"""Clips that a model makes, clips as its tokenizer shows them, and the bits they cost its GPT."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from tokenreel.generation import VideoModel
from tokenreel.tokenizer.frames import to_frames, to_video
from tokenreel.transformer import ClipConditions, SamplingSettings

CLIPS_AT_ONCE = 16


def continued(
    model: VideoModel, prompts: np.ndarray, conditions: Sequence[ClipConditions], settings: SamplingSettings
) -> np.ndarray:
    """Continue each prompt to the end of the window, clip i from seed i.

    Args:
        model: To be judged.
        prompts: uint8 (B, P, H, W, 3), P = 0 for clips from nothing.
        conditions: One per prompt.
        settings: Of the sampler.

    Returns:
        uint8 (B, T, H, W, 3).
    """
    new = model.window - prompts.shape[1]
    clips = []
    for begin in range(0, len(prompts), CLIPS_AT_ONCE):
        part = prompts[begin : begin + CLIPS_AT_ONCE]
        seeds = range(begin, begin + len(part))
        told = conditions[begin : begin + len(part)]
        clips.append(model.continue_frames(part, new, settings, seeds, told).frames)
    return np.concatenate(clips)


def encoded(model: VideoModel, clips: np.ndarray) -> Tensor:
    """Indices of clips uint8 (B, T, H, W, 3): int64 (B, T', H', W') where the model is."""
    parts = (clips[begin : begin + CLIPS_AT_ONCE] for begin in range(0, len(clips), CLIPS_AT_ONCE))
    return torch.cat([model.tokenizer.encode(to_video(part).to(model.gpt.device)) for part in parts])


def decoded(model: VideoModel, indices: Tensor) -> np.ndarray:
    """Clips of indices int64 (B, T', H', W'): uint8 (B, T, H, W, 3)."""
    return np.concatenate([to_frames(model.tokenizer.decode(part)) for part in indices.split(CLIPS_AT_ONCE)])


def through_tokenizer(model: VideoModel, clips: np.ndarray) -> np.ndarray:
    """True clips as the tokenizer shows them, uint8 (B, T, H, W, 3): no GPT can do better."""
    return decoded(model, encoded(model, clips))


def bits(model: VideoModel, truth: np.ndarray) -> float:
    """Bits per token of true clips of which nothing is said."""
    return model.bits_per_token(encoded(model, truth), [ClipConditions()] * len(truth))
