"""What drafts save: drawing several indices at once against one by one, the same model, prompts and random numbers.

    python benchmarks/drafts.py --runs runs/demo/gpt runs/mine/gpt --out benchmarks/results/drafts_cpu.json

Each model continues the first latent frame of validation clips to the end of its window, interleaved with and without
drafts, one thread, medians. The two draw the same indices but for rounding, which decides where a random number falls
on the edge between two indices; how many clips came out the same is told. The first row of a model says how much moves:
the share of indices that are what they were one latent frame earlier. Where a window slides, reading it again counts
as a pass.
"""

import argparse
import statistics
import time
from pathlib import Path
from typing import Any, Literal
from unittest.mock import patch

import numpy as np
import torch
from report import report, row
from torch import Tensor

from tokenreel.datasets.token_shards import TokenShards
from tokenreel.training.hardware import keep_freed_memory
from tokenreel.transformer import SamplingSettings, VideoGPT, sample_indices
from tokenreel.transformer.static_decoder import StaticDecoder

NOTE = (
    "Ours: several indices at once from drafts. Alternative: one by one. top-p {top_p}, prompts of "
    "one latent frame. Nothing is said of the clips."
)


class Passes:
    """Counts the decoder's passes."""

    def __init__(self) -> None:
        self.count, self._run = 0, StaticDecoder._run

    def __call__(self, decoder: StaticDecoder, *inputs: Any) -> Tensor:
        """Run and count one."""
        self.count += 1
        return self._run(decoder, *inputs)


def measure(name: str, gpt: VideoGPT, clips: Tensor, batch: int, top_p: float, repeats: int) -> list[dict[str, Any]]:
    """Rows of one model and one number of clips at once."""
    kinds: tuple[Literal["auto", "off"], ...] = ("auto", "off")
    seconds: dict[str, list[float]] = {"auto": [], "off": []}
    passes = {"auto": 0, "off": 0}
    drawn: dict[str, Tensor] = {}
    same = 0
    for number in range(repeats):
        prompt = clips[number * batch : (number + 1) * batch, :1]
        for speculative in kinds:
            settings, counted = SamplingSettings(top_p=top_p, speculative=speculative), Passes()
            with patch.object(StaticDecoder, "_run", lambda self, *x, counted=counted: counted(self, *x)):
                begin = time.perf_counter()
                made = sample_indices(gpt, prompt, clips.shape[1] - 1, settings, range(batch))
                seconds[speculative].append(time.perf_counter() - begin)
            passes[speculative] += counted.count - 1  # the first reads the prompt
            drawn[speculative] = made
        same += int((drawn["auto"] == drawn["off"]).flatten(1).all(dim=1).sum())
    tokens = clips[0, 1:].numel()
    speeds = [batch * tokens / statistics.median(seconds[speculative]) for speculative in kinds]
    at_once = [repeats * tokens / passes[speculative] for speculative in kinds]
    case = f"{name}, batch {batch}"
    return [
        row(case, "sampling", "tokens/s", *speeds),
        row(case, "indices of a clip per pass", "", *at_once),
        row(case, "clips that came out the same", "share", same / (repeats * batch)),
    ]


def main() -> None:
    """Measure every run and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, nargs="+", required=True, help="run or model folders of GPTs")
    parser.add_argument("--shards", type=Path, nargs="+", required=True, help="token shards of each, in that order")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 2, 4, 8], help="clips at once")
    parser.add_argument("--repeats", type=int, default=5, help="runs of each; medians are told")
    parser.add_argument("--top-p", type=float, default=0.9, help="as tools/sample.py")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks/drafts.json"), help="JSON file")
    arguments = parser.parse_args()
    if len(arguments.runs) != len(arguments.shards):
        parser.error(f"got {len(arguments.runs)} runs and {len(arguments.shards)} shards, expected as many")
    torch.set_num_threads(1)
    keep_freed_memory()
    table: list[dict[str, Any]] = []
    for run, folder in zip(arguments.runs, arguments.shards, strict=True):
        gpt, shards = VideoGPT.from_pretrained(run), TokenShards.open(folder, "val")
        count = arguments.repeats * max(arguments.batches)
        clips = torch.from_numpy(shards.batch(np.linspace(0, len(shards) - 1, count).round().astype(int))[0])
        copied = float((clips[:, 1:] == clips[:, :-1]).float().mean())
        table.append(row(run.name, "indices as one latent frame earlier", "share", copied))
        for batch in arguments.batches:
            table += measure(run.name, gpt, clips, batch, arguments.top_p, arguments.repeats)
            print(table[-3], flush=True)
    report(table, arguments.out, NOTE.format(top_p=arguments.top_p))


if __name__ == "__main__":
    main()
