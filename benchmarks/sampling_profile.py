"""Where a decode step's time goes, part by part, each beside its own limit.

    python benchmarks/sampling_profile.py --out benchmarks/results/sampling_profile.json

The clips of sampling.py, drawn one index at a time by one thread; the parts are timed where they run, medians over all
steps, by the CPU time of this process, which other processes disturb less. A part's limit is what it must read at the
memory bandwidth, or its multiplications at the rate of the fastest product, whichever takes longer; parts that do
little of either have none: there it is the number of operations that costs, each of which takes microseconds to start.
Looking at the clock costs a few microseconds for each of about fifty calls per step.
"""

import argparse
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import patch

import torch
from report import report, row
from sampling import CODES, FRAME, GRID, PROMPT, SETTINGS, SIZES, TIMED, measured_bandwidth, random_gpt
from timing import fastest, medians, products
from torch import Tensor

from tokenreel.training.hardware import keep_freed_memory
from tokenreel.transformer import GPTSize, VideoGPT, attention_step, head, static_decoder
from tokenreel.transformer.conditions import Conditions
from tokenreel.transformer.products import Product
from tokenreel.transformer.sliding_window import SlidingWindow

LAYERS, HEAD = "cache and the rest of the layers", "product: scores"
NOTE = (
    "Milliseconds per step; small: dim 256, depth 4; large: dim 576, depth 8; windows of 1,024 tokens, 1,024 codes, "
    "top-k 100. Limit: weights or cache read once at {bandwidth:.1f} GB/s, or multiplications at {rate:.0f} GFLOP/s, "
    "whichever takes longer. In the sum the parts without a limit count nothing."
)


class Stopwatch:
    """Seconds spent in each part of each step, without those in the parts within it."""

    def __init__(self) -> None:
        self.steps: list[dict[str, float]] = [defaultdict(float)]
        self._within = [0.0]

    def next_step(self) -> None:
        """What follows belongs to another step."""
        self.steps.append(defaultdict(float))

    def around(self, part: str, work: Callable[..., Any]) -> Callable[..., Any]:
        """The same work, timed."""

        def timed(*inputs: Any, **named: Any) -> Any:
            self._within.append(0.0)
            begin = time.process_time()
            out = work(*inputs, **named)
            took = time.process_time() - begin
            self.steps[-1][part] += took - self._within.pop()
            self._within[-1] += took
            return out

        return timed


class TimedProduct:
    """A product that is timed."""

    def __init__(self, product: Product, part: str, watch: Stopwatch) -> None:
        self._call = watch.around(part, product)
        self.added, self.gate, self.times = (
            watch.around(part, work) for work in (product.added, product.gate, product.times)
        )

    def __call__(self, x: Tensor) -> Tensor:
        """The product."""
        out: Tensor = self._call(x)
        return out


@torch.no_grad()
def profiled(gpt: VideoGPT, batch: int) -> list[dict[str, float]]:
    """Seconds of each part in each of the steps that sampling.py times."""
    prompt, watch = torch.randint(0, CODES, (batch, PROMPT, *GRID[1:])), Stopwatch()
    window = SlidingWindow(gpt, prompt, SETTINGS, Conditions(), None)
    generator = torch.Generator().manual_seed(0)

    def next_frame() -> None:
        window.next_frame(torch.rand(batch, *window.draws, generator=generator, dtype=torch.float64))

    next_frame()
    decoder = window._decoder
    names = {"qkv": "qkv", "out": "out", "up": "feed-forward", "gate": "feed-forward", "down": "feed-forward"}
    layers = []
    for layer in decoder.layers:
        fields = {
            field: TimedProduct(getattr(layer, field), f"product: {name}", watch) for field, name in names.items()
        }
        layers.append(layer._replace(**cast(Any, fields)))
    decoder.layers = layers
    of_torch = SimpleNamespace(
        scaled_dot_product_attention=watch.around("attention", static_decoder.F.scaled_dot_product_attention)
    )
    embed = watch.around("embedding", gpt.embed)

    def first_of_a_step(*inputs: Any) -> Any:
        watch.next_step()
        return embed(*inputs)

    with (
        patch.object(static_decoder, "F", of_torch),
        patch.object(attention_step, "attend_once", watch.around("attention", attention_step.attend_once)),
        patch.object(static_decoder, "_unit", watch.around("norms", static_decoder._unit)),
        patch.object(decoder, "_project", watch.around("turning", decoder._project)),
        patch.object(decoder, "forward", watch.around(LAYERS, decoder.forward)),
        patch.object(gpt, "embed", first_of_a_step),
        patch.object(head, "pick", watch.around("filters and draw", head.pick)),
        patch.object(gpt.head, "pick", watch.around(HEAD, gpt.head.pick)),
    ):
        for _ in range(TIMED):
            next_frame()
    return watch.steps[1:]


def limits(size: GPTSize, batch: int, bandwidth: float, rate: float, prefix: int) -> dict[str, float]:
    """Seconds per step that each part needs at least."""
    dim, depth = size.dim, size.depth
    length = prefix + (PROMPT + 1 + TIMED / 2) * FRAME
    weights = {
        "product: qkv": depth * 3 * dim**2,
        "product: out": depth * dim**2,
        "product: feed-forward": depth * 12 * dim**2,
        HEAD: CODES * dim,
    }
    least = {part: max(4 * n / bandwidth, 2 * batch * n / rate) for part, n in weights.items()}
    cached = batch * depth * 2 * dim * length
    return {**least, "attention": max(4 * cached / bandwidth, 2 * cached / rate)}


def measure(name: str, batch: int, repeats: int, bandwidth: float, rate: float) -> list[dict[str, Any]]:
    """Rows of one case: its parts, the longest first, and the whole step."""
    size, gpt = SIZES[name], random_gpt(SIZES[name])
    steps = [step for _ in range(repeats) for step in profiled(gpt, batch)]
    parts = {part: statistics.median(step[part] for step in steps) for part in steps[0]}
    least = limits(size, batch, bandwidth, rate, gpt.config.prefix)
    case = f"{name}, batch {batch}"
    rows = []
    for part in sorted(parts, key=lambda part: -parts[part]):
        limit = 1e3 * least[part] if part in least else None
        rows.append(row(case, part, "ms", 1e3 * parts[part], limit=limit))
    return [*rows, row(case, "a step", "ms", 1e3 * sum(parts.values()), limit=1e3 * sum(least.values()))]


def main() -> None:
    """Measure the cases and report them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="JSON file")
    parser.add_argument("--repeats", type=int, default=5, help="runs of each; medians are told")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16], help="clips at once")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    bandwidth = measured_bandwidth()
    large = products([(1024, 1024, 1024), (2048, 576, 2304)], "cpu", torch.float32)
    rate = fastest(large, medians([work for work, _ in large], "cpu", 5))
    cases = [(name, batch) for name in SIZES for batch in arguments.batches]
    table = [row for case in cases for row in measure(*case, arguments.repeats, bandwidth, rate)]
    report(table, arguments.out, NOTE.format(bandwidth=bandwidth / 1e9, rate=rate / 1e9))


if __name__ == "__main__":
    main()
