"""GPT training speed: whole optimizer steps against the matrix products that they cannot do without.

    python benchmarks/gpt_training.py --out benchmarks/results/gpt_training.json     # one thread, 16 minutes
    python benchmarks/gpt_training.py --shapes small --batches 4                     # minutes
    python benchmarks/gpt_training.py --device cuda                                  # 50 M, 150 M and 500 M parameters

A step is forward, backward, clipping and Muon with AdamW, as tools/train_gpt.py takes it: bf16 and compiled. Beside it
in the same run, in turn: the same model eager in fp32, and products of matrices. The limit counts the products of the
model, three times for forward and backward, half of the attention's since it is causal, nothing else: neither the
optimizer nor what is computed twice. So 100 % cannot be reached.

Our heads have 64 dimensions: 4 heads at dim 256, 9 at dim 576, where VideoGPT has 4 in both (of 66 dimensions at its
264, since its width must be a multiple of 3 and of the heads). Our perceptrons are gated: 16·D² weights a layer
instead of its 12·D², so a third more to compute at the same dim and depth.
"""

import argparse
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from report import report, row
from timing import Work, fastest, medians, products, shares
from tokenizer_protocol import take_step
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from tokenreel.training.hardware import keep_freed_memory, peak_memory_mb, pick_device, pick_precision
from tokenreel.training.optimizer import MuonAdamW, build_optimizer
from tokenreel.transformer import GPTConfig, GPTSize, VideoGPT

GRID = (4, 16, 16)
CODES = 1024
TOKENS = 1024
SHAPES = {
    "small": GPTSize(256, 4),
    "large": GPTSize(576, 8),
    "50 M": GPTSize(512, 12),
    "150 M": GPTSize(768, 16),
    "500 M": GPTSize(1536, 13),
}
VIDEOGPT = {("small", 1): 853.0, ("small", 4): 599.0, ("large", 1): 192.0, ("large", 4): 167.0}
"""Tokens/s by shape and batch: its GPT with hidden 264 and depth 4, or 576 and 8, eager in fp32 with its own
checkpointing, which cannot be turned off."""
VIDEOGPT_MIB = {("small", 1): 952.0, ("small", 4): 1428.0, ("large", 1): 1971.0, ("large", 4): 3191.0}
ELSEWHERE = "VideoGPT, measured elsewhere on the same kind of core, one thread, CPU seconds"
MARKED = {"alternative_source": ELSEWHERE}
DATASHEET = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "RTX 4090": 165e12}
"""Dense bf16 operations a second that makers name, by part of the GPU's name."""
KINDS = {
    "products of layers and head": ("aten::mm", "aten::addmm"),
    "attention": ("tokenreel::attend_by_rows", "_scaled_dot_product_flash"),
    "optimizer": ("Optimizer.step",),
}
"""What a step on a CPU is made of, by the names of operations."""
BACKENDS = {"flash": SDPBackend.FLASH_ATTENTION, "cudnn": SDPBackend.CUDNN_ATTENTION}


@dataclass(frozen=True)
class Case:
    """One way to train one model."""

    shape: str
    batch: int
    device: str
    fast: bool = True
    """As the tool trains: in bf16 where the hardware has it, and compiled; else eager in fp32."""
    checkpointed: bool = False

    @property
    def size(self) -> GPTSize:
        """Shape of the model."""
        return SHAPES[self.shape]

    @property
    def bf16(self) -> bool:
        """Whether products are in bf16."""
        return self.fast and pick_precision("auto", torch.device(self.device)) == "bf16"

    @property
    def name(self) -> str:
        """As the report calls it."""
        return (
            f"{self.shape} (dim {self.size.dim}, depth {self.size.depth}, {self.size.heads} heads), batch {self.batch}"
        )


def build(case: Case) -> tuple[VideoGPT, MuonAdamW, Tensor]:
    """The model, its optimizer, and a batch on the device."""
    torch.manual_seed(0)
    gpt = VideoGPT(GPTConfig(codebook_size=CODES, grid=GRID, size=case.size, z_loss=1e-4)).to(case.device)
    gpt.backbone.checkpoint_activations = case.checkpointed
    optimizer = build_optimizer(gpt, 1e-3, 0.0, torch.bfloat16 if case.bf16 else torch.float32)
    return gpt, optimizer, torch.randint(CODES, (case.batch, *GRID), device=case.device)


def training_step(case: Case) -> Work:
    """A whole step, as one call."""
    gpt, optimizer, indices = build(case)
    if case.fast:
        gpt.compile(dynamic=False)
    return partial(take_step, gpt, optimizer, indices, 1e-3, case.bf16)


def optimizer_step(case: Case) -> Work:
    """What Muon and AdamW do in a step, alone."""
    gpt, optimizer, _ = build(case)
    for parameter in gpt.parameters():
        parameter.grad = torch.randn_like(parameter)
    return optimizer.step


def operations_per_token(size: GPTSize) -> int:
    """Of the products of a training step, 2 for each multiply-add, three times for forward and backward."""
    gpt = VideoGPT(GPTConfig(codebook_size=CODES, grid=GRID, size=size))
    weights = sum(module.weight.numel() for module in gpt.backbone.modules() if isinstance(module, nn.Linear))
    # Scores and mixing, each 2·N·D for a token that sees N others; on average it sees half of them.
    attention = size.depth * 2 * TOKENS * size.dim
    return 3 * (2 * (weights + CODES * size.dim) + attention)


def ceilings(case: Case, dtype: torch.dtype) -> list[tuple[Work, int]]:
    """Products of the model's own shapes, and square ones."""
    dim, rows = case.size.dim, case.batch * TOKENS
    squares = [(1024,) * 3] if case.device == "cpu" else [(4096,) * 3, (8192,) * 3]
    return products([(rows, dim, 8 * dim), (rows, 4 * dim, dim), *squares], case.device, dtype)


def measure(shape: str, batch: int, device: str, rounds: int) -> list[dict[str, Any]]:
    """Rows of speed of one shape and batch, all measured in turn."""
    fast, plain = Case(shape, batch, device), Case(shape, batch, device, fast=False)
    in_fp32, in_bf16 = ceilings(fast, torch.float32), ceilings(fast, torch.bfloat16)
    works = [training_step(fast), training_step(plain), optimizer_step(fast)]
    ours, eager, optimizer, *bounds = medians([*works, *(work for work, _ in in_fp32 + in_bf16)], device, rounds)
    rates = fastest(in_fp32, bounds[: len(in_fp32)]), fastest(in_bf16, bounds[len(in_fp32) :])
    tokens, operations = batch * TOKENS, operations_per_token(fast.size)
    limits = [rate / operations for rate in rates]
    limit = limits[fast.bf16]
    rows = [
        row(fast.name, "training", "tokens/s", tokens / ours, tokens / eager, limit)
        | {"alternative_source": "the same model, eager in fp32", "matmul_gflops": rates[fast.bf16] / 1e9},
        row(fast.name, "share of the limit", "%", 100 * tokens / ours / limit, None, 100),
        row(fast.name, "training, eager in fp32", "tokens/s", tokens / eager, None, limits[0])
        | {"matmul_gflops": rates[0] / 1e9},
        row(fast.name, "optimizer's share of the step", "%", 100 * optimizer / ours),
    ]
    if device == "cpu" and (peer := VIDEOGPT.get((shape, batch))):
        rows.append(row(fast.name, "training, and VideoGPT", "tokens/s", tokens / ours, peer, limit) | MARKED)
        rows.append(row(fast.name, "times VideoGPT", "", tokens / ours / peer) | MARKED)
    if device == "cpu":
        found = shares(works[0], KINDS)
        rows += [row(fast.name, f"time in: {kind}", "%", 100 * share) for kind, share in found.items()]
    peaks = [peak for name, peak in DATASHEET.items() if device == "cuda" and name in torch.cuda.get_device_name()]
    for peak in peaks[:1]:
        rows.append(row(fast.name, "MFU, of the maker's peak", "%", 100 * operations * tokens / ours / peak, None, 100))
    return rows


def memory(case: Case) -> tuple[float, float]:
    """MiB before the model is built and at the peak of two steps; for a process of its own.

    Eager on a CPU, where the compiler would need more memory than the model.
    """
    torch.set_num_threads(1)
    keep_freed_memory()
    before = peak_memory_mb(torch.device(case.device))
    gpt, optimizer, indices = build(case)
    if case.device == "cuda":
        gpt.compile(dynamic=False)
    for _ in range(2):
        take_step(gpt, optimizer, indices, 1e-3, case.bf16)
    return before, peak_memory_mb(torch.device(case.device))


def measure_memory(case: Case) -> dict[str, Any]:
    """Row of peak memory."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as processes:
        before, peak = processes.submit(memory, case).result()
    compares = case.device == "cpu" and not case.checkpointed
    peer = VIDEOGPT_MIB.get((case.shape, case.batch)) if compares else None
    metric = "peak memory, checkpointed activations" if case.checkpointed else "peak memory"
    return row(case.name, metric, "MiB", peak, peer, before or None) | (MARKED if peer else {})


def arguments() -> argparse.Namespace:
    """The command line, with the device's own defaults."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks/gpt_training.json"), help="JSON file")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--shapes", nargs="+", choices=tuple(SHAPES), help="CPU: small large; CUDA: 50 M to 500 M")
    parser.add_argument("--batches", type=int, nargs="+", help="clips a step (CPU: 1 4; CUDA: 8 32)")
    parser.add_argument("--rounds", type=int, default=5, help="timings of each case")
    parser.add_argument("--attention", choices=("auto", *BACKENDS), default="auto", help="torch's kernel, on CUDA")
    chosen = parser.parse_args()
    chosen.device = pick_device(chosen.device).type
    cpu = chosen.device == "cpu"
    chosen.shapes = chosen.shapes or (["small", "large"] if cpu else ["50 M", "150 M", "500 M"])
    chosen.batches = chosen.batches or ([1, 4] if cpu else [8, 32])
    return chosen


def run(chosen: argparse.Namespace) -> Sequence[dict[str, Any]]:
    """All rows; memory first, while this process is small: a child's peak begins with what its parent held."""
    groups = [(shape, batch) for shape in chosen.shapes for batch in chosen.batches]
    spaces = [
        measure_memory(Case(*group, chosen.device, checkpointed=checkpointed))
        for group in groups
        for checkpointed in (False, True)
    ]
    rows = []
    for group in groups:
        print(f"{group[0]}, batch {group[1]}", flush=True)
        rows += measure(*group, chosen.device, chosen.rounds)
    return rows + spaces


def main() -> None:
    """Measure the cases and report them."""
    chosen = arguments()
    torch.set_num_threads(1)
    keep_freed_memory()
    if chosen.device == "cuda":
        torch.set_float32_matmul_precision("high")  # fp32 products as anyone would run them
    torch._dynamo.config.recompile_limit = 64  # every case is a graph of its own
    load = os.getloadavg()
    with nullcontext() if chosen.attention == "auto" else sdpa_kernel(BACKENDS[chosen.attention]):
        rows = run(chosen)
    note = (
        f"{TOKENS} tokens a clip {GRID}, {CODES} codes, whole optimizer steps. Limit of speed: the model's matrix "
        "products alone at the rate of the fastest of several, measured in turn with the cases; of memory: the process "
        f"before the model. Load average at the start {load[0]:.1f}, at the end {os.getloadavg()[0]:.1f}, of "
        f"{os.cpu_count()} cores."
    )
    report(rows, chosen.out, note)


if __name__ == "__main__":
    main()
