"""Saving a run as it grows: its model, the best model, a checkpoint. A full disk does not end the training."""

import json
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from tokenreel.training import ranks
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
        """Save model and checkpoint, and the model as the best one if it is.

        Args:
            log: Told when it fails.
            step: Steps taken.
            found_best: Whether the validation of this step was the best so far.
            must: Whether failing is an error; otherwise the training goes on, and the next time is another try.

        Raises:
            OSError: If it must and cannot.
        """
        with ranks.first_alone():
            lost = ranks.is_first() and not self._keeps_best(log, step, found_best, must)
        if ranks.agreed(lost):
            self.best.take_back()

    def _keeps_best(self, log: RunLog, step: int, found_best: bool, must: bool) -> bool:
        """Save, and tell whether the model that validation found best by now is on the disk."""
        run, settings = self.settings.run, self.settings
        try:
            with released(self.stage.model, self.average):
                self.stage.export(run / MODEL, step)
                if found_best:
                    self.stage.export(run / BEST, step)
                    found_best = False
            log.sync()
            # Last, so that a run killed before it takes up and repeats all that belongs to this step.
            save_checkpoint(
                run,
                step,
                self.stage.model,
                self.optimizer,
                self.average,
                self.retreat,
                self.schedule,
                self.others,
                settings.keep,
                {self.best.step},
                self.stage.exposures(step),
            )
        except OSError as error:
            if must:
                raise
            log.log(step, {"unsaved": f"{error}; the training goes on and tries again at the next checkpoint"})
        return not found_best


def released(model: nn.Module, average: WeightAverage | None) -> AbstractContextManager[None]:
    """The weights to judge and to release: their average, if there is one."""
    return nullcontext() if average is None else average.applied_to(model)


def set_aside_best(run: Path, best: Best) -> str:
    """Give the best model of a shorter run another name, when the run goes on from before it; tell so in words."""
    folder, number = run / BEST, 1
    told = folder / "provenance.json"
    if not told.is_file() or json.loads(told.read_text()).get("step") == best.step:
        return ""
    while (kept := run / f"{BEST}_before_{number}").exists():
        number += 1
    folder.rename(kept)
    return f" (but its best model, now in {kept})"
