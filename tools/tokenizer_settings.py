"""Settings of one tokenizer training, its presets, what a resumed run may not change, and what does not go together."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tokenreel.datasets.clip_shapes import check_lengths
from tokenreel.datasets.data_source import DataSettings
from tokenreel.tokenizer import PRESETS, LossConfig, TokenizerConfig
from tokenreel.tokenizer.perceptual import SMALLEST_IMAGE
from tokenreel.training.settings import TrainingSettings


@dataclass(frozen=True, kw_only=True)
class Config(DataSettings, TrainingSettings):
    """Settings of one tokenizer training."""

    run: Path = Path("runs/tokenizer")
    """Folder of this run."""
    clip_frames: int = 16
    """Frames per training clip; a multiple of the temporal stride."""
    shorter_clips: tuple[int, ...] = ()
    """Other lengths, for videos that have fewer frames than that: each gives the longest clips that it can."""
    augment: Literal["none", "flip"] = "none"
    """"flip" mirrors half of the clips left to right (torchvision); for videos that could as well be mirrored."""
    train: Literal["all", "decoder"] = "all"
    """"decoder" keeps encoder and codebook of --init-from as they are, so that token shards and GPTs stay valid."""
    model: TokenizerConfig = field(default_factory=TokenizerConfig)
    """Stride, width, depth, quantizer."""
    loss: LossConfig = field(default_factory=LossConfig)
    """Terms that the tokenizer trains on, and their weights."""

    @property
    def clip_lengths(self) -> list[int]:
        """Frames of clips, the longest first."""
        return check_lengths(self.clip_frames, self.shorter_clips)


TOOL_PRESETS = {
    "tiny": Config(model=PRESETS["tiny"], steps=500, batch_size=16, evaluate_every=250),
    "small": Config(model=PRESETS["small"], steps=20_000, batch_size=32, evaluate_every=1000, checkpoint_every=1000),
    "base": Config(
        model=PRESETS["base"], size=128, steps=100_000, batch_size=64, lr=2e-3, warmup=500,
        evaluate_every=2000, checkpoint_every=2000, ema_decay=0.999,
    ),
}  # fmt: skip

FIXED = {
    *("model", "loss", "videos", "size", "width", "more_sizes", "fps", "clip_frames", "shorter_clips", "augment"),
    *("seed", "batch_size", "precision", "train", "init_from", "clips_per_step"),
}
"""What a resumed run may not change: its batches, its model, and what the loss means."""


def check_losses(config: Config) -> None:
    """Refuse losses that this run cannot have: an adversarial term that no validation starts, VGG on tiny frames."""
    every, share = config.evaluate_every, config.loss.adversarial_start
    if config.loss.adversarial and every * max(1, math.ceil(share * config.steps / every)) >= config.steps:
        raise ValueError(
            f"evaluate_every {every}: expected a validation between {share:.0%} and the end of {config.steps} steps, "
            f"since it starts the adversarial term; use --evaluate-every {max(1, config.steps // 20)}"
        )
    if config.loss.perceptual and min(map(min, config.frame_sizes)) < SMALLEST_IMAGE:
        raise ValueError(
            f"frames of {min(config.frame_sizes, key=min)} are too small for the perceptual loss, expected at least "
            f"{SMALLEST_IMAGE} pixels a side; use a larger --size or --loss.perceptual 0"
        )


def check_parts(config: Config) -> None:
    """Refuse to cut batches where the parts' gradients do not add up to that of the whole."""
    uneven = {
        "the adversarial term": config.loss.adversarial > 0,
        "the entropy loss of bsq and lfq": config.model.quantizer in ("bsq", "lfq") and config.model.entropy_weight > 0,
    }
    for name, present in uneven.items():
        if present and config.accumulate > 1:
            raise ValueError(
                f"accumulate {config.accumulate}: {name} looks at a batch as a whole, expected 1; "
                "use --accumulate 1 and a smaller --batch-size"
            )


def cure(config: Config) -> tuple[str, str]:
    """The figure that shows when clips are learned by heart, and what helps against it."""
    return "val/psnr", "--augment flip where videos could as well be mirrored" if config.augment == "none" else (
        "a smaller --preset"
    )
