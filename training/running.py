"""A run while it trains: what the loop and its parts share."""

from dataclasses import dataclass, field

import torch

from tokenreel.training.best import Best
from tokenreel.training.ema import WeightAverage
from tokenreel.training.retreat import Retreat
from tokenreel.training.run_log import RunLog
from tokenreel.training.saving import Saver
from tokenreel.training.schedule import Schedule
from tokenreel.training.settings import TrainingSettings
from tokenreel.training.stage import Stage
from tokenreel.training.step import Stepper
from tokenreel.training.watch import Watch


@dataclass
class Running:
    """What a run needs beside its stage's data."""

    stage: Stage
    settings: TrainingSettings
    device: torch.device
    stepper: Stepper
    schedule: Schedule
    average: WeightAverage | None
    retreat: Retreat
    best: Best
    watch: Watch
    saver: Saver
    first_step: int
    resumed: str
    """Where the run goes on, if it does, in words."""
    log: RunLog = field(init=False)

    def is_due(self, every: int, step: int) -> bool:
        """Whether something that is done every so many steps, and at the end, is to be done now."""
        return step % every == 0 or step == self.settings.steps

    def rate(self, step: int) -> float:
        """Learning rate of a step, from 1."""
        return self.settings.lr * self.schedule.factor(step - 1) * self.watch.rate_factor
