"""Settings of one GPT training, its presets, and what a resumed run may not change."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tokenreel.training.settings import TrainingSettings
from tokenreel.transformer import (
    PRESETS,
    GPTSize,
)
from tokenreel.transformer.conditions import KINDS


@dataclass(frozen=True, kw_only=True)
class Config(TrainingSettings):
    """Settings of one GPT training."""

    shards: str = "runs/tokens"
    """Token shards made by tools/tokenize_dataset.py: folder, or URL (s3://…, gs://…, https://…)."""
    tokenizer: Path | None = None
    """Folder of the tokenizer that made the shards; default: the copy that lies beside them."""
    run: Path = Path("runs/gpt")
    """Folder of this run."""
    conditions: tuple[Literal["labels", "captions", "actions"], ...] = KINDS
    """What the model can be told about a clip, as far as the data has it."""
    condition_dropout: float = 0.1
    """Share of training clips from which all of it is hidden, and again each kind, so that sampling without it and
    guidance work."""
    context_noise: float = 0.0
    """Largest share of past indices that training replaces by others, against drift in long continuations; 0 is
    off, 0.2 is a start."""
    decoding: Literal["token", "frame"] = "token"
    """"token" makes a clip index by index; "frame" a latent frame at a time in a few passes: quicker where there is
    arithmetic to spare, less exact, and slower to train."""
    infilling: float = 0.0
    """Share of the steps that learn to make what lies before given frames, for tools/sample.py --last-frames; 0 is
    off, 0.5 is a start."""
    z_loss: float = 1e-4
    """Weight of the z-loss, which keeps the scores of long trainings in bounds; no figure of bits counts it."""
    checkpoint_activations: bool = False
    """Keep less for the backward pass and compute it again: the same training in less memory, a third slower."""
    shard_model: bool = False
    """Of several processes, let each keep a part of weights, gradients and optimizer instead of the whole (FSDP2), for
    models too large for one; the same training, with more to send. A run may go on without."""
    factors: Literal["auto", "1", "2"] = "auto"
    """2: an index is predicted as two factors, one after the other, which large codebooks need; 1: each has a row and
    a score of its own; auto: 1 up to 2^14 codes."""
    verify: bool = False
    """Check every shard before training, and not each before its first clip is used."""
    skip_bad: bool = False
    """Check every shard before training, and go on without those that are missing or damaged."""
    cache: Path = Path("runs/remote")
    """Folder in which copies of remote shards are kept."""
    cache_gib: float = 20.0
    """Most that the copies may take, in GiB; what was used longest ago goes first."""
    model: GPTSize = field(default_factory=GPTSize)
    """Width, depth, dropout."""


TOOL_PRESETS = {
    "tiny": Config(model=PRESETS["tiny"], steps=1200, batch_size=8, evaluate_every=400, checkpoint_every=200),
    "small": Config(
        model=PRESETS["small"], steps=20_000, batch_size=64, lr=2e-3, warmup=200,
        evaluate_every=1000, checkpoint_every=1000,
    ),
    "base": Config(
        model=PRESETS["base"], steps=100_000, batch_size=32, lr=1e-3, warmup=1000, weight_decay=0.1,
        evaluate_every=2000, checkpoint_every=2000, ema_decay=0.999,
    ),
}  # fmt: skip

FIXED = {
    *("model", "factors", "made_of", "seed", "batch_size", "precision", "conditions"),
    *("condition_dropout", "context_noise", "decoding", "infilling", "z_loss", "init_from", "clips_per_step"),
}
"""What a resumed run may not change: its batches, its model, and what the loss means."""


def cure(config: Config) -> tuple[str, str]:
    """The figure that shows when clips are learned by heart, and what helps against it."""
    return "val/bits_per_token", "a smaller --preset" if config.model.dropout else "--model.dropout 0.1"
