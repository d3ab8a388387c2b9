"""Both trainings as a plan has them, but a few steps long: what they cost here (no command of its own).

To be called in a process of its own (``training/own_process.py``), so that its memory is that of the training alone.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from tokenreel.datasets.clip_windows import ClipWindows
from tokenreel.datasets.data_source import open_data
from tokenreel.generation import VideoModel
from tokenreel.tokenizer import VideoTokenizer
from tokenreel.tokenizer.frames import to_video
from tokenreel.tools import tokenize_dataset, train_gpt, train_tokenizer
from tokenreel.tools.gpt_data import matching_tokenizer, open_shards
from tokenreel.training import ranks
from tokenreel.training.hardware import keep_freed_memory, peak_memory_mb
from tokenreel.training.loop import train
from tokenreel.training.plan_costs import StageCost
from tokenreel.training.stage import Evaluation
from tokenreel.transformer import SamplingSettings

PROMPT_FRAMES = 4
ENCODINGS = 4


class TokenizerCost(NamedTuple):
    """Of a tokenizer."""

    stage: StageCost
    seconds_per_clip: float
    """To tokenize."""


class GPTCost(NamedTuple):
    """Of a GPT."""

    stage: StageCost
    seconds_per_sample: float
    """One clip, as long as the window, from a prompt of a latent frame."""


@dataclass
class _Clock:
    """When a training did what, in seconds of the wall clock."""

    begun: float
    first_batch: float = 0.0
    judging: list[float] = field(default_factory=list)
    """Of each validation."""
    saving: float = 0.0
    """When it began to save after the newest one."""


class _Timed:
    """Of a stage: tells a clock what the loop asks of it."""

    clock: _Clock

    def batch(self, step: int) -> dict[str, Any]:
        """The batch; with the first one the start is over."""
        self.clock.first_batch = self.clock.first_batch or time.time()
        return super().batch(step)  # type: ignore[misc]

    def evaluate(self, step: int, folder: Path) -> Evaluation:
        """The evaluation and its pictures, timed."""
        begin = time.time()
        found: Evaluation = super().evaluate(step, folder)  # type: ignore[misc]
        self.clock.judging.append(time.time() - begin)
        self.clock.saving = 0.0
        return found._replace(show=partial(self._timed_show, found.show))

    def _timed_show(self, show: Callable[[], list[Path]]) -> list[Path]:
        begin = time.time()
        paths = show()
        self.clock.judging[-1] += time.time() - begin
        return paths

    def export(self, folder: Path, step: int) -> None:
        """The model; from here on the run is saved."""
        self.clock.saving = self.clock.saving or time.time()
        super().export(folder, step)  # type: ignore[misc]


class _TimedTokenizer(_Timed, train_tokenizer.TokenizerStage):
    """A tokenizer's training, timed."""


class _TimedGPT(_Timed, train_gpt.GPTStage):
    """A GPT's training, timed."""


def rehearse_tokenizer(config: train_tokenizer.Config, tokens: Path, hop: int, asked_at: float) -> TokenizerCost:
    """Train a tokenizer for a few steps, and tokenize the same clips with it.

    Args:
        config: Of the training; the data a sample.
        tokens: Folder for the shards.
        hop: Frames between their clips.
        asked_at: Wall clock time at which this process was asked for.
    """
    keep_freed_memory()
    ranks.join(config)
    torch.manual_seed(config.seed)
    stage = _TimedTokenizer(config, open_data(config))
    cost = _rehearsed(stage, config, _Clock(asked_at), "speed/clips_per_s", 1)
    per_clip = _encoding(stage.model.tokenizer.eval(), stage.windows.first)
    tokenize_dataset.tokenize_dataset(
        tokenize_dataset.Config(
            tokenizer=config.run, out=str(tokens), hop=hop, cache=config.cache, device=config.device
        )
    )
    return TokenizerCost(cost, per_clip)


def rehearse_gpt(config: train_gpt.Config, asked_at: float) -> GPTCost:
    """Train a GPT for a few steps, and sample a clip from it.

    Args:
        config: Of the training, on shards of a sample.
        asked_at: As there.
    """
    keep_freed_memory()
    ranks.join(config)
    shards = open_shards(config, "train")
    tokenizer = matching_tokenizer(config, shards.first.manifest.tokenizer, None)
    torch.manual_seed(config.seed)
    stage = _TimedGPT(config, shards, tokenizer)
    tokens = stage.model.config.num_indices
    cost = _rehearsed(stage, config, _Clock(asked_at), "speed/tokens_per_s", tokens)
    return GPTCost(cost, _sampling(config, stage.model.device))


def _rehearsed(stage: Any, config: Any, clock: _Clock, speed: str, per_clip: int) -> StageCost:
    """Train through the trainings' own loop; the log has the seconds of every step."""
    stage.clock = clock
    train(stage, config, {}, set())
    saving = time.time() - clock.saving
    lines = [json.loads(line) for line in (config.run / "metrics.jsonl").read_text().splitlines()]
    seconds = np.array([config.batch_size * per_clip / line[speed] for line in lines if speed in line])
    first = len(seconds) // 2  # a compiler may come back after some steps
    typical = typical_step(seconds[first:])
    *earlier, judging = clock.judging
    return StageCost(
        seconds_per_step=typical,
        start_seconds=clock.first_batch - clock.begun,
        first_seconds=max(0.0, float((seconds[:first] - typical).sum() + sum(earlier) - len(earlier) * judging)),
        pause_seconds=judging + saving,
        saving_seconds=saving,
        peak_bytes=peak_memory_mb(next(stage.model.parameters()).device) * 2**20,
    )


def typical_step(seconds: np.ndarray) -> float:
    """Mean without the tenth of the steps at either end: what a long run takes per step, but for single accidents."""
    cut = -(-len(seconds) // 10) if len(seconds) > 4 else 0
    return float(np.sort(seconds)[cut : len(seconds) - cut].mean())


@torch.no_grad()
def _encoding(tokenizer: VideoTokenizer, windows: ClipWindows) -> float:
    """Seconds to make tokens of a clip, many at once as tools/tokenize_dataset.py does."""
    at_once, device = tokenize_dataset.Config().batch_size, next(tokenizer.parameters()).device
    seconds = []
    for step in range(ENCODINGS):
        clips = [(step * at_once + i) % len(windows) for i in range(at_once)]
        begin = time.perf_counter()
        tokenizer.encode(to_video(windows.batch(clips)).to(device)).cpu()
        seconds.append((time.perf_counter() - begin) / at_once)
    return float(np.median(seconds[1:]))


def _sampling(config: train_gpt.Config, device: torch.device) -> float:
    """Seconds for one clip from a prompt of a latent frame, decoded."""
    model = VideoModel.from_pretrained(config.run, device)
    step = model.tokenizer.config.stride[0]
    prompt = np.zeros((1, max(step, PROMPT_FRAMES // step * step), *model.frame_size, 3), np.uint8)
    begin = time.perf_counter()
    model.continue_frames(prompt, model.window - prompt.shape[1], SamplingSettings(top_p=0.9))
    return time.perf_counter() - begin


def shortened(config: Any, run: Path, steps: int) -> Any:
    """Settings of a training for a rehearsal of it: every step logged, validated and saved halfway and at the end.

    The first validation makes and loads much that all later ones find.
    """
    return replace(
        config,
        run=run,
        steps=steps,
        log_every=1,
        evaluate_every=-(-steps // 2),
        checkpoint_every=10**9,
        warmup=min(config.warmup, steps // 10),
        wandb="disabled",
    )
