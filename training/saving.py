"""Saving a run as it grows: its model, the best model, a checkpoint. A full disk does not end the training."""

import json
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from tokenreel.training import ranks, sharding
from tokenreel.training.best import Best
from tokenreel.training.checkpoints import Remembering, save_checkpoint
from tokenreel.training.ema import WeightAverage
from tokenreel.training.retreat import Retreat
from tokenreel.training.run_log import RunLog
from tokenreel.training.schedule import Schedule
from tokenreel.training.settings import TrainingSettings
from tokenreel.training.stage import Stage

MODEL, BEST = "model", "best"
"""Folders of a run with its newest model and with the one that validation found best."""


@dataclass(frozen=True)
class Saver:
    """Saves a run."""

    stage: Stage
    settings: TrainingSettings
    optimizer: torch.optim.Optimizer
    average: WeightAverage | None
    retreat: Retreat
    schedule: Schedule
    others: Mapping[str, Remembering]
    best: Best

    def save(self, log: RunLog, step: int, found_best: bool, must: bool) -> None:
        """Save model and checkpoint, and the model as the best one if it is; for all processes to call.

        Args:
            log: Told when it fails.
            step: Steps taken.
            found_best: Whether the validation of this step was the best so far.
            must: Whether failing is an error; otherwise the training goes on, and the next time is another try.

        Raises:
            OSError: If it must and cannot.
        """
        with released(self.stage.model, self.average), sharding.told_whole(self.stage.model, ranks.is_first()):
            exposures: dict[str, float] = {}
            exported = self._done(log, step, must, lambda: exposures.update(self._export(step, found_best)))
        if exported:
            # Last, so that a run killed before it takes up and repeats all that belongs to this step.
            self._done(log, step, must, lambda: self._save_checkpoint(log, step, exposures))
        elif found_best:
            self.best.take_back()

    def _done(self, log: RunLog, step: int, must: bool, write: Callable[[], None]) -> bool:
        """Write something; whether the first process could."""
        failed = False
        with ranks.first_alone():
            try:
                write()
            except OSError as error:
                if must:
                    raise
                log.log(step, {"unsaved": f"{error}; the training goes on and tries again at the next checkpoint"})
                failed = True
        return not ranks.agreed(failed)

    def _export(self, step: int, found_best: bool) -> Mapping[str, float]:
        """Write the models; how often clips were seen, worked out before others wait for this process."""
        if not ranks.is_first():
            return {}
        for folder in (MODEL, BEST) if found_best else (MODEL,):
            self.stage.export(self.settings.run / folder, step)
        return self.stage.exposures(step)

    def _save_checkpoint(self, log: RunLog, step: int, exposures: Mapping[str, float]) -> None:
        log.sync()
        save_checkpoint(
            self.settings.run,
            step,
            self.stage.model,
            self.optimizer,
            self.average,
            self.retreat,
            self.schedule,
            self.others,
            self.settings.keep,
            {self.best.step},
            exposures,
        )


def released(model: nn.Module, average: WeightAverage | None) -> AbstractContextManager[None]:
    """The weights to judge and to release: their average, if there is one."""
    return nullcontext() if average is None else average.applied_to(model)


def set_aside_best(run: Path, best: Best) -> str:
    """Give the best model of a shorter run another name, when the run goes on from before it; tell so in words.

    The best model of the part that both share was overwritten by it, so the next validation counts as the best; also
    when it was set aside by an attempt that ended before its first checkpoint.
    """
    words, kept = "", True
    with ranks.first_alone():
        if ranks.is_first():
            told = run / BEST / "provenance.json"
            there = told.is_file()
            kept = there and json.loads(told.read_text()).get("step") == best.step
            words = _set_aside(run) if there and not kept else ""
    if ranks.agreed(not kept):
        best.forget()
    return words


def _set_aside(run: Path) -> str:
    """Do so."""
    number = 1
    while (aside := run / f"{BEST}_before_{number}").exists():
        number += 1
    (run / BEST).rename(aside)
    return f" (but its best model, now in {aside})"
