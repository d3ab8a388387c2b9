"""The training loop that both stages share.

A stage says what a batch is, what to log and how to judge the model; the loop does the rest: precision,
gradients, clipping, schedule, weight average, checkpoints, log. What step ``s`` trains on is a function of
(seed, s) alone, so a resumed run goes on exactly.
"""

import os
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from tokenreel.training.batch_facts import batch_facts
from tokenreel.training.checkpoints import checkpoint_for, latest_checkpoint, load_checkpoint, save_checkpoint
from tokenreel.training.ema import WeightAverage
from tokenreel.training.hardware import (
    compiles,
    peak_memory_mb,
    pick_device,
    pick_precision,
)
from tokenreel.training.meter import Meter
from tokenreel.training.optimizer import build_optimizer
from tokenreel.training.retreat import Retreat
from tokenreel.training.run_folder import open_run
from tokenreel.training.run_log import RunLog
from tokenreel.training.schedule import Schedule
from tokenreel.training.settings import TrainingSettings
from tokenreel.training.step import Stepper, check_finite


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

    def accumulating(self) -> AbstractContextManager[None]:
        """Entered around every part of a step but its last, where batches are cut into parts."""

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
        ValueError: If the run folder holds another run, a loss or gradient is no longer finite, or several
            processes were launched.
        OSError: If the run folder or a checkpoint cannot be written.
    """
    ready = _prepare(stage, settings, config, fixed)
    optimizer, average, first, schedule = ready.stepper.optimizer, ready.average, ready.first_step, ready.schedule
    log = RunLog(settings.run, config, first, settings.steps, settings.wandb)
    if first:
        log.console.print(ready.resumed, soft_wrap=True)
    meter, sound = Meter(first, ready.device), first
    try:
        for step in range(first, settings.steps):
            done = step + 1
            with meter.waiting():
                batch = {name: tensor.to(ready.device) for name, tensor in stage.batch(step).items()}
            logs, judges, saves = (
                done % every == 0 or done == settings.steps
                for every in (settings.log_every, settings.evaluate_every, settings.checkpoint_every)
            )
            saves = saves or done == schedule.stable_steps  # from where the run can be prolonged
            check = partial(check_finite, model=stage.model, step=done, since=sound) if logs or saves else None
            rate = settings.lr * schedule.factor(step)
            output, norm = ready.stepper.take(batch, rate, check)
            sound = sound if check is None else done
            stage.observe(output)
            if average is not None:
                average.update(stage.model)
            if logs:
                taken, seconds, wait_share = meter.take(done)
                common = {"optim/lr": rate, "optim/grad_norm": float(norm), "speed/data_wait_share": wait_share}
                common["memory/peak_mb"] = peak_memory_mb(ready.device)
                log.log(done, {**stage.metrics(output, taken, seconds), **batch_facts(batch), **common})
            del output  # what it holds would be kept through the next step
            with meter.paused():
                if judges:
                    _evaluate(stage, ready, log, done)
                if saves:
                    with ready.released(stage.model):
                        stage.export(settings.run / "model", done)
                    # Last, so that a run killed before it takes up and repeats all that belongs to this step.
                    save_checkpoint(settings.run, done, stage.model, optimizer, average, ready.retreat, schedule)
    except (ValueError, RuntimeError) as error:
        log.log(done, {"error": str(error)})  # in the log too, for whoever looks at the run afterwards
        raise
    finally:
        log.close()


class _Ready(NamedTuple):
    """What a run needs beside its stage."""

    device: torch.device
    stepper: Stepper
    schedule: Schedule
    average: WeightAverage | None
    retreat: Retreat
    first_step: int
    resumed: str
    """Where the run goes on, if it does, in words."""

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
    schedule, retreat = Schedule(settings.steps, settings.warmup, settings.decay_share), Retreat()
    checkpoint = checkpoint_for(settings.run, schedule) if settings.resume else None
    first = load_checkpoint(checkpoint, stage.model, optimizer, average, retreat) if checkpoint else 0
    resumed = f"resumed at step {first} of {settings.steps}"
    if checkpoint != latest_checkpoint(settings.run):
        resumed += ", from before the learning rate fell: what the shorter run did after that is left behind"
    model = accelerator.prepare_model(stage.model)
    if compiles(settings.compile, settings.steps, stage.model):
        torch._dynamo.config.suppress_errors = settings.compile == "auto"
        model.compile(dynamic=False)
    stepper = Stepper(accelerator, model, optimizer, settings.clip_norm, settings.accumulate, stage.accumulating)
    return _Ready(device, stepper, schedule, average, retreat, first, resumed)


def _evaluate(stage: Stage, ready: _Ready, log: RunLog, step: int) -> None:
    """Judge, tell, and keep the present state or go back to the kept one as the stage wants."""
    stage.model.eval()
    # Eager, since compiling other shapes and modes costs minutes.
    with ready.released(stage.model), torch.compiler.set_stance("force_eager"):
        found = stage.evaluate(step, log.run / "samples")
    stage.model.train()
    if found.verdict == "keep":
        ready.retreat.keep(stage.model, ready.stepper.optimizer, ready.average)
    elif found.verdict == "go back":
        ready.retreat.go_back(stage.model, ready.stepper.optimizer, ready.average)
    log.log(step, found.metrics, important=True)
    for path in found.media:
        log.media(step, f"samples/{path.stem.rsplit('_', 1)[0]}", path)
    if found.verdict == "go back":
        _evaluate(stage, ready, log, step)  # the last figures told are of the weights that go on
