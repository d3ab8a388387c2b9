"""What matters in the tokenizer: one thing changed at a time, at a smaller budget than the protocol's.

    python benchmarks/tokenizer_ablations.py --data clips.npz --out benchmarks/results/tokenizer_ablations.json

Validation clips are 64 of the file's *training* clips, held out by a seeded shuffle, so that nothing here is
chosen on the clips that benchmarks/tokenizer_protocol.py reports. Otherwise its protocol, one seed: read
differences under about 0.3 dB as noise. Variants that --out already holds are kept, so a stopped run goes on.
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from report import report, row, save
from tokenizer_protocol import Clips, Curve, Recipe, train
from torch import nn

from tokenreel.tokenizer import LossConfig
from tokenreel.tokenizer.blocks import CausalMixer
from tokenreel.training.hardware import keep_freed_memory
from tokenreel.training.optimizer import MuonAdamW

HELD_OUT = 64
STEPS = 200
AS_IT_IS = "as it is"


@dataclass(frozen=True)
class Variant:
    """One change of the protocol's recipe."""

    recipe: Recipe
    prepare: Callable[[nn.Module], None] = lambda model: None
    """What is done to the model before it trains."""
    optimizer: Callable[[nn.Module, Recipe], torch.optim.Optimizer] | None = None
    """Another optimizer than the tool's."""


def variants() -> dict[str, Variant]:
    """All changes by name; the recipe as it is comes first."""
    base = Recipe(steps=STEPS)

    def config(**changes: Any) -> Variant:
        return Variant(replace(base, config=replace(base.config, **changes)))

    def loss(config: LossConfig) -> Variant:
        return Variant(replace(base, loss=config))

    return {
        AS_IT_IS: Variant(base),
        "loss: l2": loss(LossConfig(l2=1.0, log_l2=0.0)),
        "loss: l1": loss(LossConfig(l1=1.0, log_l2=0.0)),
        "optimizer: AdamW, lr 2e-3": Variant(replace(base, lr=2e-3), optimizer=_adamw),
        "optimizer: twice the lr": Variant(replace(base, lr=base.lr * 2)),
        "norm: none": Variant(base, prepare=_without_norms),
        "time mixed nowhere": Variant(base, prepare=lambda model: _freeze_taps(model, "encoder", "decoder")),
        "time mixed in the encoder only": Variant(base, prepare=lambda model: _freeze_taps(model, "decoder")),
        "time mixed in the decoder only": Variant(base, prepare=lambda model: _freeze_taps(model, "encoder")),
        "blocks: 4 + 3 instead of 2 + 5": config(encoder_depth=4, decoder_depth=3),
        "width 184, 1 + 2 blocks": config(width=184, encoder_depth=1, decoder_depth=2),
        "quantizer: FSQ 4^5": config(levels=(4, 4, 4, 4, 4)),
        "quantizer: VQ 1024": config(quantizer="vq"),
        "quantizer: BSQ 10 bits": config(quantizer="bsq", bits=10),
        "patch (2,4,4): twice the tokens": config(stride=(2, 4, 4)),
        "patch (4,8,8): a quarter of the tokens": config(stride=(4, 8, 8)),
    }


def _adamw(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    return MuonAdamW([], [p for p in model.parameters() if p.requires_grad], recipe.lr)


def _without_norms(model: nn.Module) -> None:
    """Replace every norm by nothing."""
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.LayerNorm | nn.RMSNorm):
                setattr(module, name, nn.Identity())


def _freeze_taps(model: nn.Module, *sides: str) -> None:
    """Leave the temporal taps as they start: each latent frame sees itself alone."""
    for name, module in model.named_modules():
        if isinstance(module, CausalMixer) and any(side in name for side in sides):
            module.taps.requires_grad_(False)


def held_out(clips: Clips) -> Clips:
    """Training clips only, some of them held out."""
    order = np.random.default_rng(0).permutation(len(clips.train))
    return Clips(clips.train[order[HELD_OUT:]], clips.train[order[:HELD_OUT]])


def rows(name: str, curve: Curve, base: dict[str, float]) -> list[dict[str, Any]]:
    """Figures of one variant beside those of the recipe as it is."""
    figures = [
        ("val_psnr", "dB", curve.psnr[max(curve.psnr)]),
        ("perplexity", "codes", curve.perplexity),
        ("cpu_seconds_per_step", "s", curve.cpu_seconds),
        ("parameters", "", curve.parameters),
    ]
    return [row(name, metric, unit, ours, base.get(metric)) for metric, unit, ours in figures]


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="npz with train and val, uint8 (N, 16, 64, 64, 3)")
    parser.add_argument("--only", default="", help="names that contain this, beside the recipe as it is")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks/tokenizer_ablations.json"), help="JSON file")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    clips = held_out(Clips.load(arguments.data))
    note = (
        f"One change at a time, {STEPS} steps, one seed, {HELD_OUT} of the training clips of {arguments.data.name} "
        "held out. Alternative: the recipe as it is."
    )
    table = json.loads(arguments.out.read_text())["rows"] if arguments.out.exists() else []
    for name, variant in variants().items():
        if name in {row["case"] for row in table} or (name != AS_IT_IS and arguments.only not in name):
            continue
        print(name)
        curve = train(clips, variant.recipe, seed=0, prepare=variant.prepare, optimizer=variant.optimizer)
        table += rows(name, curve, {row["metric"]: row["ours"] for row in table if row["case"] == AS_IT_IS})
        save(table, arguments.out, note)
    report(table, arguments.out, note)


if __name__ == "__main__":
    main()
