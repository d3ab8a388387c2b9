"""One recipe at other strides and codebooks: what a token may cover, and what it costs.

    python benchmarks/tokenizer_shapes.py --data clips64.npz clips128.npz --out runs/shapes.json

The protocol of benchmarks/tokenizer_protocol.py, one seed, for each file of clips. Bits per pixel here are nominal
(log2 K per token): what a GPT really needs, tools/compare_tokenizers.py measures.
"""

import argparse
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from report import report, row
from tokenizer_protocol import Clips, Curve, Recipe, train

from tokenreel.tokenizer import TokenizerConfig
from tokenreel.training.hardware import keep_freed_memory

SHAPES = {
    "(4,4,4), 10 bits": {"stride": (4, 4, 4), "levels": (8, 5, 5, 5)},
    "(4,8,8), 9.3 bits": {"stride": (4, 8, 8), "levels": (5, 5, 5, 5)},
    "(4,8,8), 16 bits": {"stride": (4, 8, 8), "levels": (8, 8, 8, 8, 4, 4)},
    "(4,8,8), 18 bits": {"stride": (4, 8, 8), "levels": (8, 8, 8, 8, 8, 8)},
    "(2,8,8), 10 bits": {"stride": (2, 8, 8), "levels": (8, 5, 5, 5)},
    "(1,8,8), 10 bits": {"stride": (1, 8, 8), "levels": (8, 5, 5, 5)},
}
LARGE = ("(4,8,8), 9.3 bits", "(4,8,8), 16 bits")
"""Shapes tried on clips above 64 pixels, where the others would take too long on a CPU."""


def rows(case: str, config: TokenizerConfig, clips: Clips, curve: Curve) -> list[dict[str, Any]]:
    """The figures of one training."""
    grid = config.grid(*clips.val.shape[1:4])
    bits = math.log2(config.codebook_size) * math.prod(grid) / math.prod(clips.val.shape[1:4])
    figures: list[tuple[str, str, float]] = [
        ("val_psnr", "dB", curve.psnr[max(curve.psnr)]),
        ("tokens_per_clip", "", math.prod(grid)),
        ("nominal_bits_per_pixel", "", bits),
        ("perplexity", "codes", curve.perplexity),
        ("parameters", "", curve.parameters),
        ("cpu_seconds_per_step", "s", curve.cpu_seconds),
    ]
    return [row(case, metric, unit, ours) for metric, unit, ours in figures]


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="npz files as make_clips.py writes them")
    parser.add_argument("--only", default="", help="shapes whose name contains this")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks/tokenizer_shapes.json"), help="JSON file")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    table = []
    for path in arguments.data:
        clips = Clips.load(path)
        pixels = clips.val.shape[2]
        for name, changes in SHAPES.items():
            if arguments.only not in name or (pixels > 64 and name not in LARGE):
                continue
            recipe = Recipe()
            recipe = replace(recipe, config=replace(recipe.config, **changes))
            case = f"{path.stem}, {pixels} px, {name}"
            print(case)
            table += rows(case, recipe.config, clips, train(clips, recipe, seed=0))
    report(
        table,
        arguments.out,
        f"The protocol's recipe ({Recipe().steps} steps, one seed) at other strides and codebooks.",
    )


if __name__ == "__main__":
    main()
