"""Indices → next index: a GPT over latent grids with 3D rotary positions, and its fast sampler."""

from tokenreel.transformer.config import PRESETS, GPTConfig, GPTSize
from tokenreel.transformer.filters import SamplingSettings
from tokenreel.transformer.model import GPTOutput, VideoGPT
from tokenreel.transformer.sampling import sample_indices, sample_latent_frames

__all__ = [
    "PRESETS",
    "GPTConfig",
    "GPTOutput",
    "GPTSize",
    "SamplingSettings",
    "VideoGPT",
    "sample_indices",
    "sample_latent_frames",
]
