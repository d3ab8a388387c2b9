"""Indices → next index: a GPT over latent grids, conditioned on what is said of a clip, and its fast sampler."""

from tokenreel.transformer.conditions import ClipConditions, ConditionConfig, Conditions
from tokenreel.transformer.config import PRESETS, GPTConfig, GPTSize
from tokenreel.transformer.filters import SamplingSettings
from tokenreel.transformer.model import GPTOutput, VideoGPT
from tokenreel.transformer.sampling import sample_indices, sample_latent_frames

__all__ = [
    "PRESETS",
    "ClipConditions",
    "ConditionConfig",
    "Conditions",
    "GPTConfig",
    "GPTOutput",
    "GPTSize",
    "SamplingSettings",
    "VideoGPT",
    "sample_indices",
    "sample_latent_frames",
]
