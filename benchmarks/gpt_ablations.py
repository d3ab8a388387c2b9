"""What matters in training the GPT: one thing changed at a time, bits per token at equal tokens.

    python benchmarks/gpt_ablations.py --shards runs/mine/tokens --out benchmarks/results/gpt_ablations.json

Every variant sees the same clips in the same order under the same schedule, from the same seed, and is judged on all
validation clips. Read differences under about 0.01 bits as noise, or give several --seeds.

Rates are what an optimizer is most easily wronged by. The recipe's rate is the tool's default, found for Muon with
AdamW on other data; here both get two: 3e-3 and 6e-3 with Muon, 1e-3 and 3e-3 for AdamW alone. Take the better of
each, and differences smaller than those between two rates as undecided. Everything else keeps the recipe's rate,
which was not tuned for it.

Variants that --out already holds are kept, so a stopped run goes on.
"""

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from report import report, row, save
from tokenizer_protocol import take_step
from torch import Tensor, nn
from torch.nn import functional as F

from tokenreel.datasets.order import Order
from tokenreel.datasets.token_shards import TokenShards
from tokenreel.training import optimizer as muon
from tokenreel.training.hardware import keep_freed_memory, pick_precision
from tokenreel.training.optimizer import MuonAdamW, build_optimizer, orthogonalize
from tokenreel.training.schedule import Schedule
from tokenreel.transformer import GPTConfig, GPTSize, VideoGPT, attention
from tokenreel.transformer.positions import BANDS, token_positions

AS_IT_IS = "as it is"
SIZE = GPTSize(dim=256, depth=4)
WARMUP, DECAY_SHARE = 50, 0.5
ONE_AXIS_PERIOD = 10_000.0
"""Of rotary positions that count tokens: the usual one."""
SLOWEST = 0.01
"""Radians per step of the slowest pair of bands that slow down geometrically from 1."""


@dataclass(frozen=True)
class Variant:
    """One change of the recipe."""

    lr: float = 3e-3
    z_loss: float = 1e-4
    prepare: Callable[[VideoGPT], None] = lambda gpt: None
    """What is done to the model before it trains."""
    optimizer: Callable[[nn.Module, float, float, torch.dtype], torch.optim.Optimizer] = build_optimizer
    during: Callable[[], AbstractContextManager[Any]] = nullcontext
    """Entered around the training."""


def variants() -> dict[str, Variant]:
    """All changes by name; the recipe as it is comes first."""
    base = Variant()
    quick = partial(orthogonalize, iterations=4)
    return {
        AS_IT_IS: base,
        "optimizer: twice the rate, 6e-3": replace(base, lr=6e-3),
        "optimizer: AdamW alone, 1e-3": replace(base, lr=1e-3, optimizer=_adamw),
        "optimizer: AdamW alone, 3e-3": replace(base, lr=3e-3, optimizer=_adamw),
        "optimizer: 4 iterations in Muon": replace(base, during=lambda: patch.object(muon, "orthogonalize", quick)),
        "positions: rotary along one axis": replace(base, prepare=_one_axis),
        "positions: queries turned by their own places": replace(base, prepare=_own_places),
        "positions: the same, in geometric bands": replace(base, prepare=_usual_bands),
        "queries and keys not normalised": replace(base, during=lambda: patch.object(attention, "_norm", Tensor.float)),
        "z-loss: off": replace(base, z_loss=0.0),
        "not told what stood there a latent frame earlier": replace(base, prepare=_without_earlier),
        "attention: torch's kernel": replace(base, during=lambda: patch.object(attention, "attend_by_rows", _torchs)),
    }


def _adamw(model: nn.Module, lr: float, weight_decay: float, dtype: torch.dtype) -> torch.optim.Optimizer:
    return MuonAdamW([], [p for p in model.parameters() if p.requires_grad], lr)


def _one_axis(gpt: VideoGPT) -> None:
    """Rotary angles that count tokens in raster order."""
    layout = gpt.layout()
    length, pairs = layout.key_angles.shape
    frequency = ONE_AXIS_PERIOD ** (-torch.arange(pairs) / pairs)
    for angles in (layout.query_angles, layout.key_angles):
        angles.copy_(torch.arange(length)[:, None] * frequency)


def _own_places(gpt: VideoGPT) -> None:
    """Queries turned by where their own index stands, as keys are."""
    layout = gpt.layout()
    layout.query_angles.copy_(layout.key_angles)


def _usual_bands(gpt: VideoGPT) -> None:
    """Queries and keys at their own places, in bands that slow down geometrically to a hundredth."""
    places = token_positions(gpt.config.grid, gpt.config.prefix)[:-1].float()
    bands = [places[:, axis, None] * SLOWEST ** (torch.arange(pairs) / pairs) for axis, pairs in enumerate(BANDS)]
    for angles in (gpt.layout().query_angles, gpt.layout().key_angles):
        angles.copy_(torch.cat(bands, dim=-1))


def _without_earlier(gpt: VideoGPT) -> None:
    """Leave the embedding of "stood there one latent frame earlier" at nothing."""
    for parameter in gpt.earlier_embedding.parameters():
        nn.init.zeros_(parameter).requires_grad_(False)


def _torchs(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(queries[None], keys[None], values[None], is_causal=True)[0]


def train(shards: Path, variant: Variant, steps: int, batch: int, seed: int) -> tuple[float, float, int]:
    """Bits per token on the validation clips, CPU seconds a step, and parameters that train."""
    clips, held_out = TokenShards.open(shards, "train"), TokenShards.open(shards, "val")
    manifest = clips.manifest
    torch.manual_seed(seed)
    gpt = VideoGPT(
        GPTConfig(
            codebook_size=manifest.codebook_size,
            grid=manifest.grid,
            size=SIZE,
            levels=tuple(manifest.source.get("levels", ())),
            z_loss=variant.z_loss,
        )
    )
    variant.prepare(gpt)
    bf16 = pick_precision("auto", torch.device("cpu")) == "bf16"
    optimizer = variant.optimizer(gpt, variant.lr, 0.0, torch.bfloat16 if bf16 else torch.float32)
    order, schedule, begin = Order(len(clips), batch, seed), Schedule(steps, WARMUP, DECAY_SHARE), time.process_time()
    with variant.during():
        for step in range(steps):
            indices = torch.from_numpy(clips.batch(order.batch(step))[0])
            take_step(gpt.train(), optimizer, indices, variant.lr * schedule.factor(step), bf16)
    spent = (time.process_time() - begin) / steps
    return bits(gpt, held_out, batch), spent, sum(p.numel() for p in gpt.parameters() if p.requires_grad)


@torch.no_grad()
def bits(gpt: VideoGPT, clips: TokenShards, batch: int) -> float:
    """Bits per token on all clips, in fp32."""
    gpt.eval()
    losses = []
    for begin in range(0, len(clips), batch):
        chosen = np.arange(begin, min(begin + batch, len(clips)))
        losses.append(gpt(torch.from_numpy(clips.batch(chosen)[0])).losses)
    return float(torch.cat(losses).mean()) / math.log(2)


def rows(name: str, found: list[tuple[float, float, int]], base: dict[str, float]) -> list[dict[str, Any]]:
    """Figures of one variant, means over seeds, beside those of the recipe as it is."""
    judged, spent, parameters = zip(*found, strict=True)
    figures = [
        ("val_bits_per_token", "bits", statistics.mean(judged)),
        ("cpu_seconds_per_step", "s", statistics.mean(spent)),
        ("parameters", "", parameters[0]),
    ]
    told = [row(name, metric, unit, ours, base.get(metric)) for metric, unit, ours in figures]
    told[0] |= {"by_seed": list(judged)}
    return told


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=Path, required=True, help="token shards with train and val")
    parser.add_argument("--steps", type=int, default=300, help="length of each training")
    parser.add_argument("--batch", type=int, default=16, help="clips a step")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="of weights and order")
    parser.add_argument("--only", default="", help="names that contain this, beside the recipe as it is")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks/gpt_ablations.json"), help="JSON file")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    manifest = TokenShards.open(chosen.shards, "train").manifest
    note = (
        f"One change at a time: {chosen.steps} steps of {chosen.batch} clips of {math.prod(manifest.grid)} tokens, "
        f"{manifest.codebook_size} codes, dim {SIZE.dim}, depth {SIZE.depth}, seeds {chosen.seeds}; no conditions. "
        "Alternative: the recipe as it is."
    )
    table = json.loads(chosen.out.read_text())["rows"] if chosen.out.exists() else []
    for name, variant in variants().items():
        if name in {row["case"] for row in table} or (name != AS_IT_IS and chosen.only not in name):
            continue
        found = [train(chosen.shards, variant, chosen.steps, chosen.batch, seed) for seed in chosen.seeds]
        table += rows(name, found, {row["metric"]: row["ours"] for row in table if row["case"] == AS_IT_IS})
        print(f"{name}: {table[-3]['ours']:.4f} bits per token", flush=True)
        save(table, chosen.out, note)
    report(table, chosen.out, note)


if __name__ == "__main__":
    main()
