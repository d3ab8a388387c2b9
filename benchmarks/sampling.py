"""Sampling speed: our static-cache decoder against x-transformers' own cache, over the same weights.

    python benchmarks/sampling.py --out benchmarks/results/sampling_cpu.json

Both draw the same latent frames after the same prompt with the same random numbers, interleaved, one thread;
medians. The limit reads weights and cache once per step at the memory bandwidth measured in the same run.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from report import report
from torch import Tensor

from tokenreel.transformer import GPTConfig, GPTSize, SamplingSettings, VideoGPT, sample_indices
from tokenreel.transformer.conditions import Conditions

GRID = (4, 8, 8)
SETTINGS = SamplingSettings(top_k=100)


@torch.no_grad()
def sample_with_library_cache(gpt: VideoGPT, prompt: Tensor, num_latent_frames: int, seeds: list[int]) -> Tensor:
    """The same sampling over x-transformers' decoder and its own key-value cache."""
    B, start = prompt.shape[0], prompt[0].numel()
    total = start + num_latent_frames * gpt.config.indices_per_frame
    sequence = torch.zeros(B, total, dtype=torch.int64)
    sequence[:, :start] = prompt.flatten(1)
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    uniform = torch.stack([torch.rand(total - start, generator=g, dtype=torch.float64) for g in generators])
    angles = gpt.key_angles.repeat_interleave(2, dim=-1)[None]
    tables = gpt.tables()
    told = gpt.conditions(Conditions(), B, GRID[0])
    tokens = torch.cat([gpt.embed_prefix(told, tables), gpt.embed(sequence[:, :start], 0, tables, told)], dim=1)
    cache = None
    for place in range(start, total):
        hidden, cache = gpt.backbone.decoder(
            tokens,
            rotary_pos_emb=(angles[:, : gpt.config.prefix + place], 1.0),
            cache=cache,
            input_not_include_cache=cache is not None,
            cache_age=0 if cache is not None else 1,
            return_hiddens=True,
        )
        index = gpt.head.pick(hidden[:, -1], tables.head, SETTINGS, uniform[:, place - start, None])
        sequence[:, place] = index
        tokens = gpt.embed(index[:, None], place, tables, told, before=sequence[:, :place])
    return sequence.view(B, -1, *GRID[1:])


def measured_bandwidth() -> float:
    """Bytes per second read from memory by one thread: sum of an array larger than the caches."""
    array = torch.ones(2**28 // 4)
    return array.nbytes / min(_seconds(array.sum) for _ in range(5))


def compare(name: str, size: GPTSize, batch: int, repeats: int, bandwidth: float) -> dict[str, object]:
    """One row: tokens per second of both, and the bandwidth limit."""
    torch.manual_seed(0)
    gpt = VideoGPT(GPTConfig(codebook_size=1024, grid=GRID, size=size)).eval()
    for parameter in gpt.parameters():  # a fresh model scores all indices alike
        torch.nn.init.normal_(parameter, std=0.02)
    gpt.query_angles.copy_(gpt.key_angles)  # the library has one angle for both
    prompt = torch.randint(0, 1024, (batch, 1, *GRID[1:]))
    seeds = list(range(batch))
    if not torch.equal(
        sample_indices(gpt, prompt, GRID[0] - 1, SETTINGS, seeds),
        sample_with_library_cache(gpt, prompt, GRID[0] - 1, seeds),
    ):
        raise ValueError(f"{name}, batch {batch}: the two samplers drew different indices")
    ours, theirs = [], []
    for _ in range(repeats):
        ours.append(_seconds(lambda: sample_indices(gpt, prompt, GRID[0] - 1, SETTINGS, seeds)))
        theirs.append(_seconds(lambda: sample_with_library_cache(gpt, prompt, GRID[0] - 1, seeds)))
    tokens = batch * (GRID[0] - 1) * GRID[1] * GRID[2]
    weights = sum(p.numel() for p in gpt.backbone.parameters()) + gpt.config.codebook_size * size.dim
    mean_length = gpt.config.prefix + gpt.config.num_indices * 5 / 8  # from a quarter to the whole of the window
    step_bytes = 4 * (weights + batch * 2 * size.depth * size.dim * mean_length)
    return {
        "case": f"{name}, batch {batch}",
        "metric": "sampling speed",
        "unit": "tokens/s",
        "ours": tokens / statistics.median(ours),
        "alternative": tokens / statistics.median(theirs),
        "limit": batch * bandwidth / step_bytes,
    }


def _seconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def main() -> None:
    """Measure the cases and report them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4, 16])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    bandwidth = measured_bandwidth()
    sizes = {"dim 256, depth 4": GPTSize(256, 4), "dim 576, depth 8": GPTSize(576, 8)}
    rows = [
        compare(name, size, batch, arguments.repeats, bandwidth)
        for name, size in sizes.items()
        for batch in arguments.batches
    ]
    note = f"alternative: x-transformers' own cache; limit: memory bandwidth ({bandwidth / 1e9:.1f} GB/s)"
    report(rows, arguments.out, note)


if __name__ == "__main__":
    main()
