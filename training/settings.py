"""The settings that both trainings share; each tool adds its own."""

from dataclasses import dataclass
from pathlib import Path

from tokenreel.training.hardware import Compile, DeviceName, Precision
from tokenreel.training.run_log import WandbMode

KEEP = 3


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """Settings that both trainings share."""

    run: Path
    """Folder of this run."""
    steps: int = 1000
    """Length of the run in optimizer steps."""
    batch_size: int = 16
    """Clips per step, of all processes together."""
    accumulate: int = 1
    """Parts in which a process's clips of a step go through the model one after the other: less memory, the same
    gradient (but for dropout)."""
    lr: float = 3e-3
    """Peak learning rate, of Muon and AdamW alike."""
    warmup: int = 50
    """Steps over which the learning rate rises."""
    decay_share: float = 0.5
    """Share of the run, at its end, over which the learning rate falls."""
    weight_decay: float = 0.0
    """Decoupled weight decay of the matrices."""
    clip_norm: float = 1.0
    """Largest norm of the gradient; longer ones are shortened to it."""
    ema_decay: float = 0.0
    """Moving average of the weights, used for evaluation and release; 0 is off, 0.999 is common."""
    seed: int = 0
    """Seed of weights, order and everything random."""
    device: DeviceName = "auto"
    """Where to train."""
    precision: Precision = "auto"
    """Multiply in bf16 where the hardware has it ("auto"), or as named."""
    compile: Compile = "auto"
    """Fuse the model's kernels with torch.compile; costs about a minute, so "auto" does it for the GPT in runs of
    300 steps or more, where a C++ compiler is at hand."""
    log_every: int = 10
    """Steps between lines of metrics.jsonl."""
    evaluate_every: int = 250
    """Steps between validations with sample pictures; the last step is always validated."""
    samples: int = 4
    """Validation clips shown in samples/ at every validation, always the same ones, sampled from the same seeds; 0
    shows none, and a GPT then samples none to judge them."""
    checkpoint_every: int = 250
    """Steps between checkpoints; the last step always gets one, and so does the best validation."""
    keep: int = KEEP
    """Newest checkpoints that stay, beside that of the best validation and the last one from before the learning rate
    falls."""
    patience: int = 0
    """Validations in a row without a better one than the best after which the run ends early; 0 never."""
    workers: int = 0
    """Processes that make batches ahead of time, the same ones; 0 makes each when it is needed. Worth it where the
    doctor finds the training idle on data."""
    init_from: Path | None = None
    """Run or model folder whose weights the run starts from, with a new optimizer and schedule."""
    resume: bool = False
    """Go on from the run's last checkpoint (or start, if there is none)."""
    wandb: WandbMode = "auto"
    """"auto": online if you are logged in to wandb, else offline; "disabled" leaves no trace."""

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "accumulate", "log_every", "evaluate_every", "checkpoint_every", "keep"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)}: expected at least 1")
        if self.batch_size % self.accumulate:
            divisors = [n for n in range(1, self.batch_size + 1) if self.batch_size % n == 0]
            near = min(divisors, key=lambda n: abs(n - self.accumulate))
            raise ValueError(
                f"accumulate {self.accumulate} does not divide batch_size {self.batch_size}, expected equal parts; "
                f"use --accumulate {near}"
            )
        for name in ("patience", "workers"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} {getattr(self, name)}: expected 0 for none, or a number of them")
        if self.samples < 0:
            raise ValueError(f"samples {self.samples}: expected 0 for none, or the number of clips to show")
        if self.warmup < 0 or not 0 <= self.decay_share <= 1 or not self.clip_norm > 0:
            raise ValueError(
                f"warmup {self.warmup}, decay_share {self.decay_share}, clip_norm {self.clip_norm}: "
                "expected at least 0, a share in [0, 1], and more than 0"
            )
        if not 0 < self.lr < 1:
            raise ValueError(f"lr {self.lr}: expected a learning rate between 0 and 1, such as 3e-3")
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"ema_decay {self.ema_decay}: expected 0 (off) or a value below 1, such as 0.999")
