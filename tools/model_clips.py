"""Clips that a model makes, clips as its tokenizer shows them, and the bits they cost its GPT."""

from collections.abc import Sequence

import numpy as np
import torch

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


@torch.no_grad()
def through_tokenizer(model: VideoModel, clips: np.ndarray) -> np.ndarray:
    """True clips as the tokenizer shows them, uint8 (B, T, H, W, 3): no GPT can do better."""
    shown = []
    for begin in range(0, len(clips), CLIPS_AT_ONCE):
        video = to_video(clips[begin : begin + CLIPS_AT_ONCE]).to(model.gpt.device)
        shown.append(to_frames(model.tokenizer.decode(model.tokenizer.encode(video))))
    return np.concatenate(shown)


def bits(model: VideoModel, truth: np.ndarray) -> float:
    """Bits per token of true clips of which nothing is said."""
    with torch.no_grad():
        indices = torch.cat([model.tokenizer.encode(to_video(clip[None])) for clip in truth])
    return model.bits_per_token(indices, [ClipConditions()] * len(indices))
