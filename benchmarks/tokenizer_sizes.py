"""One tokenizer for frames of any size: trained on three sizes in turn, judged on these and on sizes it never saw.

    python benchmarks/tokenizer_sizes.py --out benchmarks/results/tokenizer_sizes.json  # two minutes each on one core

Beside it a tokenizer that saw squares only, for as many steps of as many pixels. Clips are cut out of the embedded
world of balls, every one new; both tokenizers have the shape of preset tiny and are trained in fp32.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from report import report, row
from tokenizer_protocol import take_step

from tokenreel.datasets.worlds import simulate
from tokenreel.evaluation.fidelity import psnr
from tokenreel.tokenizer import PRESETS, LossConfig, TokenizerObjective, VideoTokenizer
from tokenreel.tokenizer.frames import still_clip, to_frames, to_video
from tokenreel.training.hardware import keep_freed_memory
from tokenreel.training.optimizer import build_optimizer
from tokenreel.training.schedule import Schedule

Size = tuple[int, int, int]

CONFIG = PRESETS["tiny"]
SQUARE: Size = (16, 64, 64)
TRAINED_ON: tuple[Size, ...] = (SQUARE, (8, 48, 80), (16, 32, 96))
NEW: tuple[Size, ...] = ((24, 80, 48), (16, 128, 128), (4, 24, 40))
STILL = (72, 104)
PIXELS = 4 * 16 * 64 * 64
"""Pixels of one training step, whatever the size of its clips."""
JUDGED_CLIPS = 16
LR, WARMUP, DECAY_SHARE = 3e-3, 20, 0.5


def world_clip(size: Size, seed: int) -> np.ndarray:
    """A clip of the world of balls, uint8 (T, H, W, 3), cut out of a square where it is not one."""
    frames, height, width = size
    side = max(height, width, 32)
    square = simulate("balls", seed, side, frames).frames
    rng = np.random.default_rng([seed, height, width])
    top, left = (int(rng.integers(0, side - extent + 1)) for extent in (height, width))
    return square[:, top : top + height, left : left + width]


def world_clips(size: Size, count: int, first_seed: int) -> np.ndarray:
    """Clips uint8 (count, T, H, W, 3)."""
    return np.stack([world_clip(size, first_seed + number) for number in range(count)])


def trained(sizes: Sequence[Size], steps: int, seed: int) -> VideoTokenizer:
    """A tokenizer trained on clips of these sizes, one size a step, in turn."""
    torch.manual_seed(seed)
    objective = TokenizerObjective(VideoTokenizer(CONFIG), LossConfig(l2=0.0, log_l2=1.0)).train()
    optimizer = build_optimizer(objective, LR, weight_decay=0.0)
    for step in range(steps):
        size = sizes[step % len(sizes)]
        count = max(1, round(PIXELS / np.prod(size)))
        video = to_video(world_clips(size, count, first_seed=(1 + seed) * 10**9 + step * 100))
        rate = LR * Schedule(steps, WARMUP, DECAY_SHARE).factor(step)
        take_step(objective, optimizer, video, rate, bf16=False)
    return objective.tokenizer.eval()


def judged_clips() -> dict[str, np.ndarray]:
    """What both tokenizers are judged on, by name; seeds that no training draws."""
    clips = {}
    for size in TRAINED_ON:
        clips[f"{_name(size)}, trained on"] = world_clips(size, JUDGED_CLIPS, 0)
    for size in NEW:
        clips[f"{_name(size)}, new"] = world_clips(size, JUDGED_CLIPS, 0)
    images = world_clips((1, *STILL), JUDGED_CLIPS, 0)[:, 0]
    stills = np.stack([still_clip(image, CONFIG.stride[0]) for image in images])
    return {**clips, f"{STILL[0]}x{STILL[1]} image, new": stills}


def quality(tokenizer: VideoTokenizer, clips: np.ndarray) -> float:
    """Mean PSNR in dB of clips uint8 (N, T, H, W, 3)."""
    made = [to_frames(tokenizer.reconstruct(to_video(clip[None]))) for clip in clips]
    return float(psnr(np.concatenate(made), clips).mean())


def _name(size: Size) -> str:
    return "x".join(map(str, size))


def main() -> None:
    """Train both, judge both, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks/tokenizer_sizes.json"), help="JSON file")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    mixed = trained(TRAINED_ON, arguments.steps, arguments.seed)
    squares = trained([SQUARE], arguments.steps, arguments.seed)
    rows = [
        row(case, "val_psnr", "dB", quality(mixed, clips), quality(squares, clips))
        for case, clips in judged_clips().items()
    ]
    note = (
        f"PSNR after {arguments.steps} steps of {PIXELS} pixels on {' and '.join(map(_name, TRAINED_ON))} in turn; "
        f"alternative: as many steps on {_name(SQUARE)} only"
    )
    report(rows, arguments.out, note)


if __name__ == "__main__":
    main()
