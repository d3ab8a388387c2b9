"""Tokenizer quality at a fixed budget: 500 steps of 8 clips, about 1 M parameters, 10 bits per 4x4x4 patch.

    python benchmarks/tokenizer_protocol.py --data clips.npz --seeds 0,1,2 --out runs/protocol.json

The protocol is that of a published measurement of VideoGPT's small VQ-VAE, so that learning curves can be laid
over each other: the clips of an npz (``train`` and ``val``, uint8 (N, 16, 64, 64, 3)), the order of
``RandomState(1234)``, batch 8, one thread, PSNR per validation clip in [0, 1] and then the mean. Model, loss,
optimizer and schedule are those of tools/train_tokenizer.py, at the yardstick's shape, with the loss on PSNR's scale
and a higher learning rate (--loss.l2 0 --loss.log-l2 1 --model.stride 4 4 4 --model.width 128 --model.decoder-depth 5
--model.levels 8 5 5 5 --lr 8e-3 --warmup 20 --decay-share 0.4 --batch-size 8).
"""

import argparse
import hashlib
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from report import report, row
from torch import Tensor, nn

from tokenreel.evaluation.plots import line_plot
from tokenreel.tokenizer import CodebookUsage, LossConfig, TokenizerConfig, TokenizerObjective, VideoTokenizer
from tokenreel.tokenizer.frames import to_video
from tokenreel.tokenizer.losses import clip_errors, mean_psnr
from tokenreel.training.hardware import keep_freed_memory, pick_precision
from tokenreel.training.optimizer import build_optimizer
from tokenreel.training.schedule import Schedule

BATCH = 8
STEPS = 500
EVALUATE_EVERY = 50
YARDSTICK = "ba21a685acbd37470bb6aa7ec176e715426bf441d7a3014e0abb4159cb42dd0b"
"""sha256 of the training clips on which VideoGPT was measured."""
VIDEOGPT = dict(
    zip(range(50, 501, 50), (15.16, 16.93, 18.45, 19.66, 21.05, 22.04, 22.37, 23.18, 23.75, 23.67), strict=True)
)
"""Its validation PSNR in dB by step: one seed, on the same kind of core."""
VIDEOGPT_CPU_SECONDS = 1.28
VIDEOGPT_PARAMETERS = 1_100_000
VIDEOGPT_PERPLEXITY, VIDEOGPT_CODES = 473, 737


def protocol_config() -> TokenizerConfig:
    """The yardstick's shape: stride (4, 4, 4), 1,000 codes, at most 1.1 M parameters."""
    return TokenizerConfig(stride=(4, 4, 4), width=128, encoder_depth=2, decoder_depth=5, levels=(8, 5, 5, 5))


@dataclass(frozen=True)
class Recipe:
    """How one tokenizer is trained."""

    config: TokenizerConfig = field(default_factory=protocol_config)
    loss: LossConfig = field(default_factory=lambda: LossConfig(l2=0.0, log_l2=1.0))
    lr: float = 8e-3
    warmup: int = 20
    decay_share: float = 0.4
    steps: int = STEPS
    precision: str = "auto"


@dataclass
class Curve:
    """What one training showed."""

    psnr: dict[int, float]
    """dB on the validation clips, by step."""
    cpu_seconds: float
    """Per step, training only."""
    parameters: int
    perplexity: float
    """Of the validation indices, at the end."""
    codes_used: int


@dataclass(frozen=True)
class Clips:
    """Training and validation clips, uint8 (N, T, H, W, 3)."""

    train: np.ndarray
    val: np.ndarray

    @classmethod
    def load(cls, path: Path) -> "Clips":
        """Read an npz with ``train`` and ``val``."""
        with np.load(path, allow_pickle=False) as file:
            return cls(file["train"], file["val"])

    @property
    def is_yardstick(self) -> bool:
        """Whether VideoGPT was measured on these very clips."""
        return hashlib.sha256(self.train.tobytes()).hexdigest() == YARDSTICK


def order(clips: int, steps: int) -> np.ndarray:
    """Which clips each step trains on: int (steps, BATCH), permutations of all clips one after the other."""
    random, rounds = np.random.RandomState(1234), -(-steps * BATCH // clips)
    return np.concatenate([random.permutation(clips) for _ in range(rounds)])[: steps * BATCH].reshape(steps, BATCH)


def train(
    clips: Clips,
    recipe: Recipe,
    seed: int,
    prepare: Callable[[nn.Module], None] = lambda model: None,
    optimizer: Callable[[nn.Module, Recipe], torch.optim.Optimizer] | None = None,
) -> Curve:
    """Train one tokenizer by the protocol and judge it every few steps.

    Args:
        clips: What it trains on and is judged by.
        recipe: Shape, loss, optimizer settings.
        seed: Of the weights; the order of the clips is always the same.
        prepare: Change of the model before it trains (for ablations).
        optimizer: Builds another optimizer than the training tool's (for ablations).
    """
    torch.manual_seed(seed)
    objective = TokenizerObjective(VideoTokenizer(recipe.config), recipe.loss)
    prepare(objective)
    bf16 = pick_precision(recipe.precision, torch.device("cpu")) == "bf16"  # type: ignore[arg-type]
    steps_by = (
        optimizer(objective, recipe)
        if optimizer
        else build_optimizer(objective, recipe.lr, 0.0, torch.bfloat16 if bf16 else torch.float32)
    )
    psnr, spent, usage = {}, 0.0, CodebookUsage(recipe.config.codebook_size)
    schedule = Schedule(recipe.steps, recipe.warmup, recipe.decay_share)
    for step, chosen in enumerate(order(len(clips.train), recipe.steps)):
        begin = time.process_time()
        rate = recipe.lr * schedule.factor(step)
        take_step(objective, steps_by, to_video(clips.train[chosen]), rate, bf16)
        spent += time.process_time() - begin
        if (step + 1) % EVALUATE_EVERY == 0 or step + 1 == recipe.steps:
            psnr[step + 1], usage = evaluate(objective.tokenizer, clips.val)
            print(f"  step {step + 1}: {psnr[step + 1]:.2f} dB, {spent / (step + 1):.2f} CPU-s a step", flush=True)
    parameters = sum(p.numel() for p in objective.tokenizer.parameters())
    used = recipe.config.codebook_size - usage.dead_codes
    return Curve(psnr, spent / recipe.steps, parameters, usage.perplexity, used)


def take_step(objective: nn.Module, optimizer: torch.optim.Optimizer, video: Tensor, lr: float, bf16: bool) -> Tensor:
    """One training step as tools/train_tokenizer.py takes it; returns the loss."""
    for group in optimizer.param_groups:
        group["lr"] = lr
    with torch.autocast(video.device.type, torch.bfloat16, enabled=bf16):
        loss: Tensor = objective(video).loss
    loss.backward()
    nn.utils.clip_grad_norm_(objective.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return loss


@torch.no_grad()
def evaluate(tokenizer: VideoTokenizer, val: np.ndarray) -> tuple[float, CodebookUsage]:
    """Mean over clips of the PSNR in dB in [0, 1], not rounded to uint8; and the use of the codebook."""
    tokenizer.eval()
    usage, errors = CodebookUsage(tokenizer.config.codebook_size, window=len(val)), []
    for begin in range(0, len(val), BATCH):
        video = to_video(val[begin : begin + BATCH])
        indices = tokenizer.encode(video)
        usage.update(indices)
        errors.append(clip_errors(tokenizer.decode(indices), video))
    tokenizer.train()
    return float(mean_psnr(torch.cat(errors))), usage


def rows(curves: list[Curve], yardstick: bool) -> list[dict[str, Any]]:
    """The figures as rows of the report: mean over seeds, and the lowest and highest of the last step."""
    peer = VIDEOGPT if yardstick else {}

    def mean(name: str) -> float:
        return statistics.mean(getattr(curve, name) for curve in curves)

    result = [
        row(f"step {step}", "val_psnr", "dB", statistics.mean(c.psnr[step] for c in curves), peer.get(step))
        for step in curves[0].psnr
    ]
    last = max(curves[0].psnr)
    result += [row(f"step {last}, seed {n}", "val_psnr", "dB", curve.psnr[last]) for n, curve in enumerate(curves)]
    told = (VIDEOGPT_CPU_SECONDS, VIDEOGPT_PARAMETERS, VIDEOGPT_PERPLEXITY, VIDEOGPT_CODES)
    seconds, parameters, perplexity, codes = (
        told if yardstick else (VIDEOGPT_CPU_SECONDS, VIDEOGPT_PARAMETERS, None, None)
    )
    return [
        *result,
        row("training", "cpu_seconds_per_step", "s", mean("cpu_seconds"), seconds),
        row("model", "parameters", "", mean("parameters"), parameters),
        row("validation", "perplexity", "codes", mean("perplexity"), perplexity),
        row("validation", "codes_used", "codes", mean("codes_used"), codes),
    ]


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="npz with train and val, uint8 (N, 16, 64, 64, 3)")
    parser.add_argument("--seeds", default="0,1,2", help="seeds of the weights, with commas")
    parser.add_argument("--steps", type=int, default=STEPS, help="length of each training")
    parser.add_argument("--precision", default="auto", choices=("auto", "fp32", "bf16"), help="of the products")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks/tokenizer_protocol.json"), help="JSON file")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    clips, recipe, curves = Clips.load(arguments.data), Recipe(), []
    recipe = replace(recipe, steps=arguments.steps, precision=arguments.precision)
    for seed in map(int, arguments.seeds.split(",")):
        print(f"seed {seed}")
        curves.append(train(clips, recipe, seed))
    note = (
        f"Validation PSNR of {len(clips.val)} clips of {arguments.data.name}, mean over seeds {arguments.seeds}. "
        f"Ours: {told(recipe)}. "
        "Alternative: VideoGPT's small VQ-VAE, one seed, measured elsewhere on the same kind of core"
        + ("." if clips.is_yardstick else "; its PSNR is known for the yardstick's clips only.")
    )
    report(rows(curves, clips.is_yardstick), arguments.out, note)
    plot(curves, arguments, clips.is_yardstick)


def told(recipe: Recipe) -> str:
    """What was trained, in one line."""
    config = recipe.config
    codes = f"FSQ {config.levels}" if config.quantizer == "fsq" else f"{config.quantizer} {config.codebook_size}"
    blocks = f"{config.encoder_depth} + {config.decoder_depth} blocks of width {config.width}"
    return f"stride {config.stride}, {codes}, {blocks}, lr {recipe.lr}, {recipe.steps} steps, {recipe.precision}"


def plot(curves: list[Curve], arguments: argparse.Namespace, yardstick: bool) -> None:
    """Learning curves as a PNG beside the JSON."""
    lines: dict[str, tuple[list[float], list[float]]] = {
        f"tokenreel, seed {seed}": (list(curve.psnr), list(curve.psnr.values()))
        for seed, curve in zip(arguments.seeds.split(","), curves, strict=True)
    }
    if yardstick:
        lines["VideoGPT, small VQ-VAE"] = (list(VIDEOGPT), list(VIDEOGPT.values()))
    path = arguments.out.with_suffix(".png")
    line_plot(path, lines, "step (8 clips each)", "validation PSNR, dB", f"Tokenizers on {arguments.data.stem}")
    print(f"curves in {path}")


if __name__ == "__main__":
    main()
