"""Tokenizer speed: training step, encode and decode against the matrix products they cannot do without.

    python benchmarks/tokenizer_speed.py --out benchmarks/results/tokenizer_speed_cpu.json   # one thread, minutes
    python benchmarks/tokenizer_speed.py --compile --batches 8      # torch.compile beside it, minutes more
    python benchmarks/tokenizer_speed.py --device cuda              # preset base

All cases take turns with the products that measure the ceiling, several rounds; medians (benchmarks/timing.py). On a
CPU the clock is the CPU time of one thread, in which VideoGPT was measured.
"""

import argparse
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from report import report, row
from timing import Work, fastest, medians, products
from tokenizer_protocol import protocol_config, take_step
from torch.utils.flop_counter import FlopCounterMode

from tokenreel.tokenizer import PRESETS, TokenizerConfig, TokenizerObjective, VideoTokenizer
from tokenreel.training.hardware import keep_freed_memory, peak_memory_mb, pick_device
from tokenreel.training.optimizer import build_optimizer

Kind = Literal["train", "encode", "decode"]
Precision = Literal["fp32", "bf16"]
Peers = dict[tuple[Kind, int], float]

FRAMES = 16
SIZES = {"protocol": 64, "protocol-vq": 64, "tiny": 64, "small": 64, "base": 128}
"""Height and width of the frames each model is made for."""
VIDEOGPT: Peers = {
    ("train", 1): 5.0, ("train", 4): 6.6, ("train", 8): 6.25,
    ("encode", 1): 22.49, ("encode", 4): 31.05,
    ("decode", 1): 34.46, ("decode", 4): 37.29,
}  # fmt: skip
"""Clips/s by work and batch: its small VQ-VAE (1.1 M parameters, 64x64x16, stride 4x4x4, 1,024 codes) in fp32."""
VIDEOGPT_MIB: Peers = {("train", 4): 814, ("encode", 4): 524, ("decode", 4): 526}
ELSEWHERE = "VideoGPT's small VQ-VAE in fp32, measured elsewhere on the same kind of core, one thread, CPU seconds"
MEMORY_BATCH = 4
"""On a CPU; a GPU is asked about the largest batch."""


@dataclass(frozen=True)
class Case:
    """One thing to measure."""

    preset: str
    precision: Precision
    kind: Kind
    batch: int
    device: str
    compiled: bool = False

    @property
    def config(self) -> TokenizerConfig:
        """Shape of the tokenizer."""
        if self.preset == "protocol-vq":
            return replace(protocol_config(), quantizer="vq")
        return protocol_config() if self.preset == "protocol" else PRESETS[self.preset]

    @property
    def name(self) -> str:
        """As the report calls it."""
        size = SIZES[self.preset]
        clip = f"{FRAMES}x{size}x{size} by {'x'.join(map(str, self.config.stride))}"
        how = f"{self.precision}, compiled" if self.compiled else self.precision
        return f"{self.preset} ({clip}), {self.kind}, batch {self.batch}, {how}"

    def row(self, metric: str, unit: str, ours: float, limit: float | None, peers: Peers) -> dict[str, Any]:
        """One row of the report, with VideoGPT's figure where it has one for this case."""
        comparable = self.preset.startswith("protocol") and self.device == "cpu"
        peer = peers.get((self.kind, self.batch)) if comparable else None
        return row(self.name, metric, unit, ours, peer, limit) | ({"alternative_source": ELSEWHERE} if peer else {})


def prepare(case: Case) -> Work:
    """What is timed: one call, with the data already on the device."""
    torch.manual_seed(0)
    tokenizer = VideoTokenizer(case.config).to(case.device)
    clip = (FRAMES, SIZES[case.preset], SIZES[case.preset])
    video = torch.rand(case.batch, 3, *clip, device=case.device) * 2 - 1
    with torch.no_grad():
        tokenizer.train()(video)  # a learned codebook begins with the first features it sees
    tokenizer.eval()
    if case.compiled and case.kind != "train":
        # Not the whole of encode and decode: they look at values first, which would break the graph.
        tokenizer.encoder.compile(dynamic=False)
        tokenizer.decoder.compile(dynamic=False)
    precise = partial(torch.autocast, case.device, torch.bfloat16, enabled=case.precision == "bf16")
    if case.kind == "train":
        return _training_step(case, tokenizer, video)
    grid = (case.batch, *case.config.grid(*clip))
    indices = torch.randint(case.config.codebook_size, grid, device=case.device)

    def work() -> object:
        with precise():
            return tokenizer.encode(video) if case.kind == "encode" else tokenizer.decode(indices)

    return work


def _training_step(case: Case, tokenizer: VideoTokenizer, video: torch.Tensor) -> Work:
    """Forward, backward, clipping and Muon, as tools/train_tokenizer.py does it."""
    objective = TokenizerObjective(tokenizer.train())
    optimizer = build_optimizer(objective, 1e-3, 0.0, torch.float32 if case.precision == "fp32" else torch.bfloat16)
    if case.compiled:
        objective.compile(dynamic=False)

    return partial(take_step, objective, optimizer, video, 1e-3, case.precision == "bf16")


def product_flops(case: Case) -> int:
    """Operations (2 per multiply-add) of one call's matrix products.

    Convolutions are left out: depthwise, they are 1 % forward, and torch counts them 64 times backward.
    """
    work = prepare(replace(case, compiled=False))
    with FlopCounterMode(display=False) as counter:
        work()
    return sum(flops for op, flops in counter.get_flop_counts()["Global"].items() if "convolution" not in str(op))


def product_shapes(case: Case) -> list[tuple[int, int, int]]:
    """Products (rows, inner, columns) among which is one that the device does fast."""
    width, rows = case.config.width, 8192
    large = [(1024,) * 3] if case.device == "cpu" else [(4096,) * 3, (8192,) * 3]
    return [(rows, width, 4 * width), (rows, 4 * width, width), *large]


def measure(cases: list[Case], rounds: int) -> list[dict[str, Any]]:
    """Rows of speed, all cases of one model and one precision against the ceiling of their round."""
    dtype = torch.float32 if cases[0].precision == "fp32" else torch.bfloat16
    ceilings = products(product_shapes(cases[0]), cases[0].device, dtype)
    works = [*(prepare(case) for case in cases), *(work for work, _ in ceilings)]
    times = medians(works, cases[0].device, rounds)
    rate = fastest(ceilings, times[len(cases) :])
    rows = []
    for case, took in zip(cases, times, strict=False):
        ours, limit = case.batch / took, case.batch * rate / product_flops(case)
        rows.append(case.row("speed", "clips/s", ours, limit, VIDEOGPT) | {"matmul_gflops": rate / 1e9})
        rows.append(case.row("share of limit", "%", 100 * ours / limit, 100, {}))
    return rows


def memory(case: Case) -> tuple[float, float]:
    """MiB before the model is built and at the peak of two calls; for a process of its own."""
    torch.set_num_threads(1)
    keep_freed_memory()
    before = peak_memory_mb(torch.device(case.device))
    work = prepare(case)
    work()
    work()
    return before, peak_memory_mb(torch.device(case.device))


def measure_memory(case: Case) -> dict[str, Any]:
    """Row of peak memory."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as processes:
        before, peak = processes.submit(memory, case).result()
    return case.row("peak memory", "MiB", peak, before or None, VIDEOGPT_MIB)


def arguments() -> argparse.Namespace:
    """The command line, with the device's own defaults."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks/tokenizer_speed.json"), help="JSON file")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--preset", nargs="+", choices=tuple(SIZES), help="CUDA: base; CPU: all others but small")
    parser.add_argument("--batches", type=int, nargs="+", help="clips at once (CPU: 1 4 8; CUDA: 1 8 32)")
    parser.add_argument("--rounds", type=int, default=5, help="timings of each case")
    parser.add_argument("--compile", action="store_true", help="the largest batch compiled too; takes minutes")
    chosen = parser.parse_args()
    chosen.device = pick_device(chosen.device).type
    cpu = chosen.device == "cpu"
    chosen.preset = chosen.preset or (["protocol", "protocol-vq", "tiny"] if cpu else ["base"])
    chosen.batches = sorted(chosen.batches or ([1, 4, 8] if cpu else [1, 8, 32]))
    return chosen


def main() -> None:
    """Measure the cases and report them."""
    chosen = arguments()
    torch.set_num_threads(1)
    keep_freed_memory()
    if chosen.compile:
        torch._dynamo.config.recompile_limit = 64  # every case is a graph of its own
    device, largest = chosen.device, chosen.batches[-1]
    groups = [(preset, precision) for preset in chosen.preset for precision in get_args(Precision)]
    # Memory first, while this process is small: a child's peak begins with what its parent held.
    held = MEMORY_BATCH if device == "cpu" else largest
    spaces = [measure_memory(Case(*group, kind, held, device)) for group in groups for kind in get_args(Kind)]
    rows = []
    for group in groups:
        cases = [Case(*group, kind, batch, device) for kind in get_args(Kind) for batch in chosen.batches]
        if chosen.compile:
            cases += [replace(case, compiled=True) for case in cases if case.batch == largest]
        rows += measure(cases, chosen.rounds)
    note = (
        "Limit of speed: the matrix products alone, at the rate of the fastest of several, measured in turn with the "
        f"cases in the same precision; of memory: the process before the model. Alternative: {ELSEWHERE}."
    )
    report(rows + spaces, chosen.out, note)


if __name__ == "__main__":
    main()
