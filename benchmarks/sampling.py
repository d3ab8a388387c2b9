"""Sampling speed: our decoder against x-transformers' own cache over the same weights, and the bandwidth bound.

    python benchmarks/sampling.py --out benchmarks/results/sampling_cpu.json

Windows of 1,024 tokens (16 x 8 x 8). Both continue the same prompt of nine latent frames with the same random numbers
and draw the same indices (of nearly all clips, as rounding may decide), interleaved, one thread. The first new latent
frame, with the prefill in it, is not timed, the next two are: their mean length of cache is that of a clip continued
from a quarter of the window to its end.
Medians. The bound reads weights and cache once per step at the memory bandwidth that is measured in the same run;
weights that stay in a processor's cache can beat it.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from report import report, row
from torch import Tensor

from tokenreel.training.hardware import keep_freed_memory
from tokenreel.transformer import GPTConfig, GPTSize, SamplingSettings, VideoGPT, sample_latent_frames
from tokenreel.transformer.conditions import Conditions
from tokenreel.transformer.products import Precision

GRID, PROMPT, TIMED = (16, 8, 8), 9, 2
FRAME = 64
CODES = 1024
SETTINGS = SamplingSettings(top_k=100, speculative="off")  # these weights are random: see drafts.py
SIZES = {"small": GPTSize(256, 4), "large": GPTSize(576, 8)}
VIDEOGPT = {("small", 1): 229.0, ("small", 4): 533.0, ("large", 1): 41.0, ("large", 4): 78.0}
"""Tokens per second of the same shapes, measured elsewhere on the same kind of core, one thread."""
ALIKE = 0.9
"""Share of the clips that must come out the same: rounding may decide where a number falls on the edge between two."""
NOTE = (
    "small: dim 256, depth 4; large: dim 576, depth 8; windows of 1,024 tokens, 1,024 codes, top-k 100. Alternative: "
    "x-transformers' own cache on the same weights; where it says so VideoGPT, measured elsewhere on the same kind of "
    "core, or our own with weights in fp32. Limit: weights and cache read once per step at {bandwidth:.1f} GB/s."
)


def random_gpt(size: GPTSize) -> VideoGPT:
    """A model of a size, the same every time."""
    torch.manual_seed(0)
    gpt = VideoGPT(GPTConfig(codebook_size=CODES, grid=GRID, size=size)).eval()
    for parameter in gpt.parameters():  # a fresh model scores all indices alike
        torch.nn.init.normal_(parameter, std=0.02)
    return gpt


@torch.no_grad()
def with_library_cache(gpt: VideoGPT, prompt: Tensor, seeds: list[int]) -> Iterator[Tensor]:
    """The same sampling over x-transformers' decoder and its own key-value cache, latent frame by latent frame."""
    B, start = prompt.shape[0], prompt[0].numel()
    sequence = gpt.sequence(torch.zeros(B, gpt.config.num_indices, dtype=torch.int64))
    sequence[:, 1 : 1 + start] = prompt.flatten(1)
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    angles = gpt.layout().key_angles.repeat_interleave(2, dim=-1)[None]
    tables, told = gpt.tables(), gpt.conditions(Conditions(), B, GRID[0])
    begin = gpt.embed(sequence, torch.arange(start + 1), gpt.layout().order, tables, told)
    tokens = torch.cat([told.prefix, begin], dim=1)
    cache = None
    for first in range(start, gpt.config.num_indices, FRAME):
        uniform = torch.stack([torch.rand(FRAME, generator=each, dtype=torch.float64) for each in generators])
        for place in range(first, first + FRAME):
            hidden, cache = gpt.backbone.decoder(
                tokens,
                rotary_pos_emb=(angles[:, : gpt.config.prefix + place], 1.0),
                cache=cache,
                input_not_include_cache=cache is not None,
                cache_age=0 if cache is not None else 1,
                return_hiddens=True,
            )
            index = gpt.head.pick(hidden[:, -1], tables.head, SETTINGS, uniform[:, place - first, None])
            sequence[:, place + 1] = index
            tokens = gpt.embed(sequence, torch.tensor([place + 1]), gpt.layout().order, tables, told)
        yield sequence[:, first + 1 : first + 1 + FRAME].view(B, *GRID[1:])


def measured_bandwidth() -> float:
    """Bytes per second read from memory by one thread: sum of an array larger than the caches, by CPU time."""
    array = torch.ones(2**28 // 4)
    seconds = []
    for _ in range(20):
        begin = time.process_time()
        array.sum()
        seconds.append(time.process_time() - begin)
    return array.nbytes / min(seconds)


def timed(frames: Callable[[], Iterator[Tensor]]) -> tuple[float, Tensor]:
    """Seconds of the second and third latent frame, and the three."""
    source = frames()
    made = [next(source)]
    begin = time.perf_counter()
    made += [next(source) for _ in range(TIMED)]
    return time.perf_counter() - begin, torch.stack(made)


def compare(name: str, batch: int, repeats: int, bandwidth: float) -> list[dict[str, Any]]:
    """Rows of one case: tokens per second beside the library and the bound, and beside VideoGPT."""
    size = SIZES[name]
    gpt = random_gpt(size)
    layout = gpt.layout()
    layout.query_angles.copy_(layout.key_angles)  # the library turns queries and keys by the same angles
    prompt, seeds = torch.randint(0, CODES, (batch, PROMPT, *GRID[1:])), list(range(batch))
    ours, theirs = [], []
    rounded: dict[Precision, list[float]] = {"bf16": [], "int8": []}
    for _ in range(repeats):
        for precision, spent in rounded.items():
            settings = replace(SETTINGS, precision=precision)
            spent.append(timed(partial(sample_latent_frames, gpt, prompt, None, settings, seeds))[0])
        seconds, made = timed(lambda: sample_latent_frames(gpt, prompt, None, SETTINGS, seeds))
        ours.append(seconds)
        seconds, expected = timed(lambda: with_library_cache(gpt, prompt, seeds))
        theirs.append(seconds)
        same = (made == expected).transpose(0, 1).flatten(1).all(dim=1).float().mean()
        if same < ALIKE:
            raise ValueError(
                f"{name}, batch {batch}: the two samplers drew other indices in {1 - same:.0%} of the clips"
            )
    tokens = batch * TIMED * FRAME
    weights = sum(p.numel() for p in gpt.backbone.parameters()) + CODES * size.dim
    length = gpt.config.prefix + (PROMPT + 1 + TIMED / 2) * FRAME
    limit = batch * bandwidth / (4 * (weights + batch * 2 * size.depth * size.dim * length))
    speed, case = tokens / statistics.median(ours), f"{name}, batch {batch}"
    rows = [row(case, "sampling", "tokens/s", speed, tokens / statistics.median(theirs), limit)]
    for precision, spent in rounded.items():
        rows.append(
            row(case, f"weights in {precision}, and in fp32", "tokens/s", tokens / statistics.median(spent), speed)
        )
    if (name, batch) in VIDEOGPT:
        rows.append(row(case, "sampling, and VideoGPT", "tokens/s", speed, VIDEOGPT[name, batch], limit))
    return rows


def main() -> None:
    """Measure the cases and report them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="JSON file")
    parser.add_argument("--repeats", type=int, default=5, help="runs of each; medians are told")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4, 16, 64], help="clips at once")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    bandwidth = measured_bandwidth()
    cases = [(name, batch) for name in SIZES for batch in arguments.batches]
    table = [row for case in cases for row in compare(*case, arguments.repeats, bandwidth)]
    report(table, arguments.out, NOTE.format(bandwidth=bandwidth / 1e9))


if __name__ == "__main__":
    main()
