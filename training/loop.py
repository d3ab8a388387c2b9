"""The training loop that both stages share.

A stage says what a batch is, what to log and how to judge the model; the loop does the rest: precision,
gradients, clipping, schedule, weight average, checkpoints, log, and what to do when something goes wrong. What
step ``s`` trains on is a function of (seed, s) alone, so a resumed run goes on exactly; several processes cut it
among them (:mod:`.ranks`).
"""

import signal
import warnings
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import Accelerator, AutocastKwargs, DistributedDataParallelKwargs
from torch import Tensor

from tokenreel.training import ranks, sharding
from tokenreel.training.accidents import take_step
from tokenreel.training.batch_facts import batch_facts
from tokenreel.training.best import Best
from tokenreel.training.checkpoints import Remembering, checkpoint_for, latest_checkpoint, load_checkpoint
from tokenreel.training.ema import WeightAverage
from tokenreel.training.hardware import compiles, peak_memory_mb, pick_device, pick_precision
from tokenreel.training.interruption import Interruption, Stopped
from tokenreel.training.meter import Meter
from tokenreel.training.optimizer import build_optimizer
from tokenreel.training.prefetch import Batches
from tokenreel.training.retreat import Retreat
from tokenreel.training.run_folder import open_run
from tokenreel.training.run_log import RunLog
from tokenreel.training.running import Running
from tokenreel.training.saving import BEST, Saver, released, set_aside_best
from tokenreel.training.schedule import Schedule
from tokenreel.training.settings import TrainingSettings
from tokenreel.training.silent_log import SilentLog
from tokenreel.training.stage import Evaluation, Stage
from tokenreel.training.step import Stepper
from tokenreel.training.watch import Watch


def train(stage: Stage, settings: TrainingSettings, config: dict[str, Any], fixed: set[str]) -> None:
    """Train a stage's model for ``settings.steps`` steps.

    Args:
        stage: Model, data and judgement.
        settings: Length, rates, intervals.
        config: The tool's whole resolved configuration, written to ``config.json``.
        fixed: Names in ``config`` that a resumed run may not change.

    Raises:
        ValueError: If the run folder holds another run, or losses or gradients are not finite or grow without end.
        OSError: If the run folder or the last checkpoint cannot be written, or a worker died.
        Stopped: If it was asked to stop, when all is saved.
    """
    run = _prepare(stage, settings, config, fixed)
    first, steps = run.first_step, settings.steps
    with Interruption() as stop, Batches(stage.batch, first, steps, settings.workers, lambda: bool(stop.asked)) as data:
        run.log = log = (
            RunLog(settings.run, config, first, steps, settings.wandb) if ranks.is_first() else SilentLog(settings.run)
        )
        if run.resumed:
            log.say(run.resumed)
        meter, done, asked, ends = Meter(first, run.device), first, False, run.best.waited(settings.patience)
        try:
            while done < steps and not ends:
                done += 1
                with meter.waiting():
                    batch = {name: tensor.to(run.device) for name, tensor in data.take(done - 1).items()}
                output, norm = take_step(run, batch, done)
                if run.is_due(settings.log_every, done):
                    _log(run, batch, output, norm, meter, done)
                del output  # what it holds would be kept through the next step
                with meter.paused():
                    found_best = run.is_due(settings.evaluate_every, done) and _evaluate(run, done)
                    asked = ranks.agreed(stop.asked is not None)
                    ends = done == steps or run.best.waited(settings.patience) or asked
                    # From the last stable step the run can be prolonged.
                    due = run.is_due(settings.checkpoint_every, done) or done == run.schedule.stable_steps
                    if ends or found_best or due:
                        run.saver.save(log, done, found_best, must=ends)
        except (ValueError, RuntimeError) as error:
            # In the log too, for whoever looks at the run afterwards.
            log.log(done, {"error": ranks.lost_rank(error) or str(error)})
            raise
        finally:
            log.close()
    _tell_the_end(run, done, asked and (stop.asked or signal.SIGTERM))


def _prepare(stage: Stage, settings: TrainingSettings, config: dict[str, Any], fixed: set[str]) -> Running:
    """Open the run folder, put everything on its device, and restore the last checkpoint if asked to."""
    ranks.check_joined()
    # Depthwise kernels have an axis of length 1, whose stride means nothing.
    warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
    warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated")  # torch 2.11 knows no other name
    device = pick_device(settings.device)
    with ranks.first_alone():
        if ranks.is_first():
            open_run(settings.run, config, settings.resume, fixed)
    bf16 = pick_precision(settings.precision, device) == "bf16"
    in_parts = sharding.place(stage.model, device, stage.in_parts)
    accelerator = _accelerator(stage, device, bf16, in_parts)
    dtype = torch.bfloat16 if bf16 else torch.float32
    optimizer = build_optimizer(stage.model, settings.lr, settings.weight_decay, dtype)
    average = WeightAverage(stage.model, settings.ema_decay) if settings.ema_decay else None
    schedule, retreat = Schedule(settings.steps, settings.warmup, settings.decay_share), Retreat()
    best, watch = Best(stage.aim), Watch(stage.model, stage.level)
    others: dict[str, Remembering] = {"stage": stage, "best": best, "watch": watch}
    checkpoint = checkpoint_for(settings.run, schedule) if settings.resume else None
    first = load_checkpoint(checkpoint, stage.model, optimizer, average, retreat, others) if checkpoint else 0
    ranks.check_alike("the step to go on from", first, f"put {settings.run} on a disk that all machines share")
    resumed = f"resumed at step {first} of {settings.steps}" if first else ""
    if ranks.agreed(checkpoint != latest_checkpoint(settings.run)):
        resumed += ", from before the learning rate fell: what the shorter run did after that is left behind"
        resumed += set_aside_best(settings.run, best)
    # Nothing is left for accelerate to gather of a model in parts.
    model = accelerator.prepare_model(stage.model, evaluation_mode=in_parts)
    if compiles(settings.compile, settings.steps, stage.model):
        torch._dynamo.config.suppress_errors = settings.compile == "auto"
        sharding.compile_model(stage.model)  # without what gathers gradients around it
    stepper = Stepper(accelerator, model, optimizer, settings.clip_norm, settings.accumulate, stage.accumulating)
    saver = Saver(stage, settings, optimizer, average, retreat, schedule, others, best)
    return Running(stage, settings, device, stepper, schedule, average, retreat, best, watch, saver, first, resumed)


def _accelerator(stage: Stage, device: torch.device, bf16: bool, in_parts: bool) -> Accelerator:
    return Accelerator(
        cpu=device.type == "cpu",
        mixed_precision="bf16" if bf16 else "no",
        kwargs_handlers=[
            # Buffers are alike without being sent: what moves them looks at all ranks' features.
            DistributedDataParallelKwargs(
                broadcast_buffers=False,
                find_unused_parameters=bool(getattr(stage.model, "rests_in_part", False)),
            ),
            # A copy of weights that are gathered for their turn alone would outlive it.
            AutocastKwargs(cache_enabled=not in_parts),
        ],
    )


def _log(run: Running, batch: dict[str, Tensor], output: Any, norm: Tensor, meter: Meter, step: int) -> None:
    """Tell of a step what the stage and what the loop knows of it."""
    taken, seconds, wait_share = meter.take(step)
    told: dict[str, float | str] = {"optim/lr": run.rate(step), "optim/grad_norm": float(norm)}
    told |= {"speed/data_wait_share": wait_share, "memory/peak_mb": peak_memory_mb(run.device)}
    if run.watch.skipped:
        told["optim/skipped_steps"] = run.watch.skipped
    run.log.log(step, ranks.together({**run.stage.metrics(output, taken, seconds), **batch_facts(batch), **told}))


def _evaluate(run: Running, step: int) -> bool:
    """Judge, tell, and keep the present state or go back to the kept one; whether it is the best so far."""
    stage, folder = run.stage, run.settings.run / "samples"
    stage.model.eval()
    with (
        released(stage.model, run.average),
        sharding.gathered(stage.model),
        torch.compiler.set_stance("force_eager"),  # compiling other shapes and modes costs minutes
    ):
        found = stage.evaluate(step, folder)
        media = _shown(found, run.log, step)
    stage.model.train()
    if found.verdict == "keep":
        run.retreat.keep(stage.model, run.stepper.optimizer, run.average)
    elif found.verdict == "go back":
        run.retreat.go_back(stage.model, run.stepper.optimizer, run.average)
    ranks.wait_for_all()  # the first one may still write its videos
    run.log.log(step, found.metrics, important=True)
    for path in media:
        run.log.media(step, f"samples/{path.stem.rsplit('_', 1)[0]}", path)
    if found.verdict == "go back":
        return _evaluate(run, step)  # the last figures told are of the weights that go on
    return run.best.judge(found.metrics, step)


def _shown(found: Evaluation, log: RunLog, step: int) -> list[Path]:
    """Pictures and videos of an evaluation; without them the training goes on."""
    if not ranks.is_first():
        return []
    try:
        return found.show()
    except OSError as error:
        log.log(step, {"unsaved": f"cannot write pictures of step {step} ({error}), the training goes on; free space"})
        return []


def _tell_the_end(run: Running, done: int, asked: signal.Signals | Literal[False]) -> None:
    """Say which model is best and why the run ended early, if it did.

    Raises:
        Stopped: If it was asked to end.
    """
    settings, best = run.settings, run.best
    if best.waited(settings.patience):
        waited = f"{best.since} validations in a row brought nothing better"
        ranks.say(f"ended at step {done} of {settings.steps}: {waited}")
    if best.value is not None and best.step < done:
        there = f"that model is in {settings.run / BEST}" if (settings.run / BEST).is_dir() else "that model is gone"
        ranks.say(f"best validation: {best.words()}; {there}")
    if asked and done < settings.steps:
        raise Stopped(f"stopped at step {done} of {settings.steps} and saved", asked)
