"""What steps of many models cost here, taken with the trainings' own step (no command of its own)."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from tokenreel.datasets.clip_store import ClipStore
from tokenreel.datasets.clip_windows import ClipWindows
from tokenreel.tokenizer import PRESETS, VideoTokenizer
from tokenreel.tokenizer.frames import to_video
from tokenreel.tokenizer.objective import TokenizerObjective
from tokenreel.training.hardware import DeviceName, keep_freed_memory, peak_memory_mb, pick_device, pick_precision
from tokenreel.training.optimizer import build_optimizer
from tokenreel.training.plan_costs import GPTOption, Option, TokenizerOption
from tokenreel.training.planning import TOKENS_PER_PARAMETER
from tokenreel.training.step import Stepper
from tokenreel.transformer import GPTConfig, GPTSize, VideoGPT

TOKENIZERS = ("tiny", "small", "base")
"""Presets in question, the smallest first."""
GPTS = (GPTSize(128, 4), GPTSize(256, 4), GPTSize(384, 6), GPTSize(512, 8), GPTSize(768, 12), GPTSize(1024, 16))
"""Sizes in question, the smallest first."""
CLIPS = {"cpu": 16, "cuda": 32}
"""Clips per step of a tokenizer, by device: a GPU is not busy with few."""
TOKENS = {"cpu": 2048, "cuda": 16_384}
"""Tokens per step of a GPT, by device, as nearly as whole clips make it."""
BYTES_PER_PARAMETER = 16
"""Weights, gradients, and two numbers of the optimizer."""
TIMED_STEPS, LONG = 3, 6.0
"""Steps of a model after the first; seconds after which there is no further one."""


@dataclass(frozen=True)
class Survey:
    """What to measure, for a process of its own."""

    sample: Path
    """Clip store with some clips."""
    clip_frames: int
    strides: tuple[tuple[int, int, int], ...]
    """The coarsest first."""
    device: DeviceName
    tokenizing_seconds: float
    """That there are for training a tokenizer: larger ones than can have steps enough in it are not measured."""
    gpt_seconds: float
    """That there are for training a GPT."""
    worth_steps: int
    """Steps that are enough for a tokenizer."""
    seconds: float
    """After which no further model is begun with."""
    presets: tuple[str, ...] = TOKENIZERS
    sizes: tuple[GPTSize, ...] = GPTS
    clips: int = 0
    """Per step of a tokenizer; 0: as is usual on the device."""
    tokens: int = 0
    """Per step of a GPT; 0: as is usual on the device."""


@dataclass(frozen=True)
class Found:
    """What a survey found."""

    tokenizers: tuple[TokenizerOption, ...]
    gpts: tuple[GPTOption, ...]
    left_out: tuple[str, ...]
    """Models that there was no time to measure, in words."""

    @property
    def options(self) -> list[Option]:
        """Of both kinds."""
        return [*self.tokenizers, *self.gpts]


def survey(job: Survey) -> Found:
    """Take a few steps of every model that comes into question; to be called in a process of its own.

    The smallest come first and are always measured; larger ones as long as there is time, and as long as the hours
    planned for could be enough for them.
    """
    keep_freed_memory()
    device, begin = pick_device(job.device), time.monotonic()
    process = peak_memory_mb(device) * 2**20 if device.type == "cpu" else 0.0
    bench = _Bench(device, process, job.clips or CLIPS[device.type], job.tokens or TOKENS[device.type])
    windows = ClipWindows(ClipStore.open(job.sample), "train", job.clip_frames)
    tokenizers: list[TokenizerOption] = []
    gpts: list[GPTOption] = []
    left_out: list[str] = []

    def _late() -> bool:
        return time.monotonic() - begin > job.seconds

    for stride in job.strides:
        for number, preset in enumerate(job.presets):
            if number and (_late() or not _tokenizer_may_do(tokenizers[-1], preset, job)):
                left_out += [f"tokenizer {preset} at stride {stride}"] if _late() else []
                break
            tokenizers.append(bench.tokenizer(preset, stride, windows))
    height, width = windows.records[0].height, windows.records[0].width
    for stride in job.strides:
        grid = replace(PRESETS["tiny"], stride=stride).grid(job.clip_frames, height, width)
        for number, size in enumerate(job.sizes):
            if number > 1 and (_late() or not _gpt_may_do(gpts[-1], size, job)):
                left_out += [f"GPT {size.dim} x {size.depth} at stride {stride}"] if _late() else []
                break
            gpts.append(bench.gpt(size, stride, grid))
    return Found(tuple(tokenizers), tuple(gpts), tuple(left_out))


def _tokenizer_may_do(smaller: TokenizerOption, preset: str, job: Survey) -> bool:
    """Whether a larger tokenizer could get steps enough, if it is slower by half as much as it is larger."""
    growth = _weights(preset) / _weights(smaller.preset)
    return job.tokenizing_seconds / (smaller.seconds_per_step * growth / 2) >= job.worth_steps


def _gpt_may_do(smaller: GPTOption, size: GPTSize, job: Survey) -> bool:
    """The same of a GPT: tokens enough."""
    with torch.device("meta"):  # counted without being made
        gpt = VideoGPT(GPTConfig(codebook_size=PRESETS["tiny"].codebook_size, grid=(1, 1, 1), size=size))
    parameters = _size(gpt)
    speed = smaller.batch_size * smaller.tokens_per_clip / smaller.seconds_per_step
    return job.gpt_seconds * speed * smaller.parameters / parameters * 2 >= TOKENS_PER_PARAMETER * parameters


def _weights(preset: str) -> int:
    """As many as a tokenizer's blocks have, but for a factor that is the same for all."""
    config = PRESETS[preset]
    return config.width**2 * (config.encoder_depth + config.decoder_depth)


@dataclass(frozen=True)
class _Bench:
    """Takes steps on a device."""

    device: torch.device
    process_bytes: float
    """Before the first model."""
    clips: int
    """Per step of a tokenizer."""
    tokens: int
    """Per step of a GPT."""

    def tokenizer(self, preset: str, stride: tuple[int, int, int], windows: ClipWindows) -> TokenizerOption:
        """A tokenizer of a preset with another stride."""
        torch.manual_seed(0)
        model = TokenizerObjective(VideoTokenizer(replace(PRESETS[preset], stride=stride)))
        batch_size = self.clips

        def batches(count: int) -> Iterator[dict[str, Tensor]]:
            """As many as are timed, of so many clips."""
            for step in range(TIMED_STEPS + 1):
                clips = [(step * count + i) % len(windows) for i in range(count)]
                yield {"video": to_video(windows.batch(clips))}

        seconds, peak = self._steps(model, batches, batch_size)
        return TokenizerOption(preset, stride, _size(model), batch_size, seconds, peak, self._fixed(model))

    def gpt(self, size: GPTSize, stride: tuple[int, int, int], grid: tuple[int, int, int]) -> GPTOption:
        """A GPT on the grid that a stride makes."""
        torch.manual_seed(0)
        model = VideoGPT(GPTConfig(codebook_size=PRESETS["tiny"].codebook_size, grid=grid, size=size, z_loss=1e-4))
        tokens = math.prod(grid)
        batch_size = max(1, round(self.tokens / tokens))

        def batches(count: int) -> Iterator[dict[str, Tensor]]:
            """As many as are timed, of so many clips."""
            for _ in range(TIMED_STEPS + 1):
                yield {"indices": torch.randint(model.config.codebook_size, (count, *grid))}

        seconds, peak = self._steps(model, batches, batch_size)
        return GPTOption(
            size.dim, size.depth, stride, tokens, _size(model), batch_size, seconds, peak, self._fixed(model)
        )

    def _steps(
        self, model: nn.Module, batches: Callable[[int], Iterator[dict[str, Tensor]]], batch_size: int
    ) -> tuple[float, float]:
        """Seconds of a step and peak bytes, at a batch size; measured on fewer clips where they do not fit."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        model.to(self.device)
        count = batch_size
        while True:
            try:
                seconds = self._timed(model, batches(count))
                break
            except torch.OutOfMemoryError:
                if count == 1:
                    return math.inf, math.inf
                count //= 2
        peak, fixed, times = peak_memory_mb(self.device) * 2**20, self._fixed(model), batch_size / count
        return seconds * times, fixed + max(0.0, peak - fixed) * times

    def _timed(self, model: nn.Module, batches: Iterator[dict[str, Tensor]]) -> float:
        """Seconds of a step, of the quickest of several after the first; other programs make single ones slow."""
        bf16 = pick_precision("auto", self.device) == "bf16"
        accelerator = Accelerator(cpu=self.device.type == "cpu", mixed_precision="bf16" if bf16 else "no")
        optimizer = build_optimizer(model, 1e-4, 0.0, torch.bfloat16 if bf16 else torch.float32)
        stepper = Stepper(accelerator, accelerator.prepare_model(model), optimizer, 1.0, 1, nullcontext)
        seconds: list[float] = []
        for batch in batches:
            begin = time.perf_counter()
            placed = {name: tensor.to(self.device) for name, tensor in batch.items()}
            stepper.take(placed, 1e-4, lambda loss, norm: math.isfinite(loss + norm))  # waits for the device
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
            seconds.append(time.perf_counter() - begin)
            if len(seconds) > 1 and sum(seconds) > LONG:
                break
        return min(seconds[1:])

    def _fixed(self, model: nn.Module) -> float:
        """Bytes that a training needs whatever its batch: the process on a CPU, weights, gradients, optimizer."""
        return self.process_bytes + BYTES_PER_PARAMETER * _size(model)


def _size(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
