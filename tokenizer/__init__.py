"""Video ⇄ indices: a causal 3D VQ-VAE whose latent frame *i* sees frames before ``(i+1)·stride_t`` and no others."""

from tokenreel.tokenizer.config import PRESETS, TokenizerConfig
from tokenreel.tokenizer.losses import LossConfig
from tokenreel.tokenizer.model import TokenizerOutput, VideoTokenizer
from tokenreel.tokenizer.objective import ObjectiveOutput, TokenizerObjective
from tokenreel.tokenizer.pretrained import fingerprint
from tokenreel.tokenizer.usage import CodebookUsage

__all__ = [
    "PRESETS",
    "CodebookUsage",
    "LossConfig",
    "ObjectiveOutput",
    "TokenizerConfig",
    "TokenizerObjective",
    "TokenizerOutput",
    "VideoTokenizer",
    "fingerprint",
]
