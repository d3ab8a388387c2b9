"""The training loop that both stages share.

A stage says what a batch is, what to log and how to judge the model; the loop does the rest: precision,
gradients, clipping, schedule, weight average, checkpoints, log. What step ``s`` trains on is a function of
(seed, s) alone, so a resumed run goes on exactly.
"""

import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from tokenreel.training.checkpoints import latest_checkpoint, load_checkpoint, save_checkpoint
from tokenreel.training.ema import WeightAverage
from tokenreel.training.hardware import (
    compiles,
    peak_memory_mb,
    pick_device,
    pick_precision,
)
from tokenreel.training.optimizer import build_optimizer
from tokenreel.training.retreat import Retreat
from tokenreel.training.run_folder import open_run
from tokenreel.training.run_log import RunLog
from tokenreel.training.schedule import warmup_stable_decay
from tokenreel.training.settings import TrainingSettings


class Evaluation(NamedTuple):
    """What a stage found when it judged its model."""

    metrics: Mapping[str, float | str]
    """Numbers to log, and what is to be said in words."""
    media: list[Path]
    """Pictures and videos that were written."""
    verdict: Literal["go on", "keep", "go back"] = "go on"
    """"keep": the present state is worth going back to; "go back": to the state last kept, and on from there."""


class Stage(Protocol):
    """What a training must say about itself."""

    @property
    def model(self) -> nn.Module:
        """What trains; its ``forward`` takes a batch and returns an object with a ``loss``."""

    def batch(self, step: int) -> dict[str, Tensor]:
        """Arguments of ``model.forward`` for a step; a function of (seed, step) alone."""

    def observe(self, output: Any) -> None:
        """See the output of every step, to count what is counted over windows."""

    def metrics(self, output: Any, steps: int, seconds: float) -> Mapping[str, float | str]:
        """What to log of the newest output; ``steps`` were taken in ``seconds`` since the last log."""

    def evaluate(self, step: int, folder: Path) -> Evaluation:
        """Judge the model on validation data; write pictures and videos into ``folder``."""

    def export(self, folder: Path, step: int) -> None:
        """Save the model in its folder form, with its provenance."""


def train(stage: Stage, settings: TrainingSettings, config: dict[str, Any], fixed: set[str]) -> None:
    """Train a stage's model for ``settings.steps`` steps.

    Args:
        stage: Model, data and judgement.
        settings: Length, rates, intervals.
        config: The tool's whole resolved configuration, written to ``config.json``.
        fixed: Names in ``config`` that a resumed run may not change.

    Raises:
        ValueError: If the run folder holds another run, the loss is no longer finite, or several processes
            were launched.
        OSError: If the run folder or a checkpoint cannot be written.
    """
    ready = _prepare(stage, settings, config, fixed)
    model, optimizer, average, first = ready.model, ready.optimizer, ready.average, ready.first_step
    log = RunLog(settings.run, config, first, settings.steps, settings.wandb)
    if first:
        log.console.print(f"resumed at step {first} of {settings.steps}", soft_wrap=True)
    meter = _Meter(first)
    try:
        for step in range(first, settings.steps):
            with meter.waiting():
                batch = {name: tensor.to(ready.device) for name, tensor in stage.batch(step).items()}
            rate = settings.lr * warmup_stable_decay(step, settings.steps, settings.warmup, settings.decay_share)
            output, norm = _step(ready.accelerator, model, optimizer, batch, rate, settings.clip_norm)
            stage.observe(output)
            if average is not None:
                average.update(stage.model)
            done = step + 1
            logs, judges, saves = (
                done % every == 0 or done == settings.steps
                for every in (settings.log_every, settings.evaluate_every, settings.checkpoint_every)
            )
            if logs or saves:
                _check_finite(output.loss.item(), float(norm), done)
            if logs:
                taken, seconds, wait_share = meter.take(done)
                common = {"optim/lr": rate, "optim/grad_norm": float(norm), "speed/data_wait_share": wait_share}
                common["memory/peak_mb"] = peak_memory_mb(ready.device)
                log.log(done, {**stage.metrics(output, taken, seconds), **common})
            del output  # what it holds would be kept through the next step
            with meter.paused():
                if judges:
                    _evaluate(stage, ready, log, done)
                if saves:
                    with ready.released(stage.model):
                        stage.export(settings.run / "model", done)
                    # Last, so that a run killed before it takes up and repeats all that belongs to this step.
                    save_checkpoint(settings.run, done, stage.model, optimizer, average, ready.retreat)
    finally:
        log.close()


class _Ready(NamedTuple):
    """What a run needs beside its stage."""

    accelerator: Accelerator
    device: torch.device
    model: nn.Module
    optimizer: torch.optim.Optimizer
    average: WeightAverage | None
    retreat: Retreat
    first_step: int

    def released(self, model: nn.Module) -> AbstractContextManager[None]:
        """The weights to judge and to release: their average, if there is one."""
        return nullcontext() if self.average is None else self.average.applied_to(model)


def _prepare(stage: Stage, settings: TrainingSettings, config: dict[str, Any], fixed: set[str]) -> _Ready:
    """Open the run folder, put everything on its device, and restore the last checkpoint if asked to."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError(
            f"{os.environ['WORLD_SIZE']} processes launched, expected one; start the tool with plain python"
        )
    device = pick_device(settings.device)
    open_run(settings.run, config, settings.resume, fixed)
    bf16 = pick_precision(settings.precision, device) == "bf16"
    accelerator = Accelerator(cpu=device.type == "cpu", mixed_precision="bf16" if bf16 else "no")
    stage.model.to(device)
    dtype = torch.bfloat16 if bf16 else torch.float32
    optimizer = build_optimizer(stage.model, settings.lr, settings.weight_decay, dtype)
    average = WeightAverage(stage.model, settings.ema_decay) if settings.ema_decay else None
    checkpoint, retreat = latest_checkpoint(settings.run) if settings.resume else None, Retreat()
    first = load_checkpoint(checkpoint, stage.model, optimizer, average, retreat) if checkpoint else 0
    model = accelerator.prepare_model(stage.model)
    if compiles(settings.compile, settings.steps, stage.model):
        torch._dynamo.config.suppress_errors = settings.compile == "auto"
        model.compile(dynamic=False)
    return _Ready(accelerator, device, model, optimizer, average, retreat, first)


def _step(
    accelerator: Accelerator,
    model: Callable[..., Any],
    optimizer: torch.optim.Optimizer,
    batch: dict[str, Tensor],
    rate: float,
    clip_norm: float,
) -> tuple[Any, Tensor]:
    """One optimizer step; returns the model's output and the gradient's norm before clipping."""
    for group in optimizer.param_groups:
        group["lr"] = rate
    output = model(**batch)
    accelerator.backward(output.loss)
    norm = accelerator.clip_grad_norm_(model.parameters(), clip_norm)  # type: ignore[attr-defined]
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return output, norm


def _evaluate(stage: Stage, ready: _Ready, log: RunLog, step: int) -> None:
    """Judge, tell, and keep the present state or go back to the kept one as the stage wants."""
    stage.model.eval()
    # Eager, since compiling other shapes and modes costs minutes.
    with ready.released(stage.model), torch.compiler.set_stance("force_eager"):
        found = stage.evaluate(step, log.run / "samples")
    stage.model.train()
    if found.verdict == "keep":
        ready.retreat.keep(stage.model, ready.optimizer, ready.average)
    elif found.verdict == "go back":
        ready.retreat.go_back(stage.model, ready.optimizer, ready.average)
    log.log(step, found.metrics, important=True)
    for path in found.media:
        log.media(step, f"samples/{path.stem.rsplit('_', 1)[0]}", path)
    if found.verdict == "go back":
        _evaluate(stage, ready, log, step)  # the last figures told are of the weights that go on


def _check_finite(loss: float, norm: float, step: int) -> None:
    """Stop before weights that are no numbers are saved."""
    if not (math.isfinite(loss) and math.isfinite(norm)):
        raise ValueError(
            f"loss {loss} and gradient norm {norm} at step {step}, expected finite numbers; lower --lr or "
            "raise --warmup, and go on from the last checkpoint with --resume"
        )


class _Meter:
    """Clock of the training steps alone: evaluation and saving do not count."""

    def __init__(self, step: int) -> None:
        self._restart(step)

    def _restart(self, step: int) -> None:
        self._step = step
        self._begin = time.perf_counter()
        self._paused = self._waited = 0.0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Time spent on a batch."""
        begin = time.perf_counter()
        yield
        self._waited += time.perf_counter() - begin

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Time that is no training."""
        begin = time.perf_counter()
        yield
        self._paused += time.perf_counter() - begin

    def take(self, step: int) -> tuple[int, float, float]:
        """Steps and seconds since the last call, and the share of them spent waiting for data."""
        seconds = max(time.perf_counter() - self._begin - self._paused, 1e-9)
        result = step - self._step, seconds, self._waited / seconds
        self._restart(step)
        return result
