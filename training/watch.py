"""Accidents of a training: steps that are not taken, a loss that runs away, and the one way back there is.

A step whose loss or gradient is not finite changes nothing and is counted. After several in a row, when weights
are no longer finite, or when the loss stays far above the level it had, the weights go back to the last checkpoint
that was taken while all was well, once in a run, and training goes on from there with the next clips and half
the learning rate.
"""

import math
from collections import deque
from typing import Any, NamedTuple

from torch import nn

from tokenreel.training.sharding import not_finite

MOST_IN_A_ROW = 5
"""Steps without finite numbers, one after the other, after which the weights are to blame."""
WINDOW = 20
"""Steps over which the error is averaged: single batches differ."""
LONG = 50
"""Steps in a row far above the best level, after which it will not come down by itself."""
HALF = 0.5


class Level(NamedTuple):
    """Which error is far above another one: more than ``times`` it, and more than ``more`` above it."""

    times: float
    more: float

    def far_above(self, error: float, best: float) -> bool:
        """Whether an error is that far above the best."""
        return error > max(self.times * best, best + self.more)

    def near(self, error: float, best: float) -> bool:
        """Whether it is no further than a tenth of the way from it."""
        return error <= best + 0.1 * (max(self.times * best, best + self.more) - best)


BITS = Level(1.5, 0.5)
"""For bits per token, as the run doctor takes them."""
SQUARED_ERROR = Level(10.0, 0.0)
"""For squared errors, of which batches of Atari clips differ by a factor of 5."""


class Watch:
    """What is known of a run's accidents; part of every checkpoint.

    Args:
        model: What trains.
        level: When an error is far above another.
    """

    def __init__(self, model: nn.Module, level: Level) -> None:
        self._model, self._level = model, level
        self.skipped = 0
        """Steps that were not taken."""
        self.in_a_row = 0
        """The last ones of them."""
        self.went_back = 0
        """Step at which the weights went back; 0 before."""
        self.calm_step = 0
        """Last step at which the error was near its best level."""
        self._errors: deque[float] = deque(maxlen=WINDOW)
        self._best = math.inf
        self._high = 0

    @property
    def rate_factor(self) -> float:
        """Factor on the learning rate."""
        return HALF if self.went_back else 1.0

    def sound(self, loss: float, norm: float) -> bool:
        """Whether a step may be taken, by its loss and the norm of its gradient; to be asked once a step."""
        if math.isfinite(loss) and math.isfinite(norm):
            self.in_a_row = 0
            return True
        self.skipped += 1
        self.in_a_row += 1
        return False

    def follow(self, step: int, error: float) -> None:
        """Take in the error of a step that was taken."""
        self._errors.append(error)
        if len(self._errors) < WINDOW:
            self.calm_step = step
            return
        level = sum(self._errors) / WINDOW
        self._best = min(self._best, level)
        self._high = self._high + 1 if self._level.far_above(level, self._best) else 0
        if self._level.near(level, self._best):
            self.calm_step = step

    def accident(self) -> str | None:
        """What calls for a way back, in words; None while nothing does."""
        if self.in_a_row >= MOST_IN_A_ROW:
            return f"{self.in_a_row} steps in a row had no finite loss or gradient"
        if self.in_a_row and (bad := self.broken()):
            return f"{len(bad)} tensors of weights, {bad[0]} the first, are no longer finite"
        if self._high >= LONG:
            level = sum(self._errors) / len(self._errors)
            return f"the training error was far above its best, {self._best:.3g}, for {LONG} steps and is {level:.3g}"
        return None

    def broken(self) -> list[str]:
        """Names of weights and buffers that are not finite."""
        # Infinity is a number of steps in buffers.
        buffers = [name for name, tensor in self._model.named_buffers() if bool(tensor.isnan().any())]
        return not_finite(self._model) + buffers

    def go_back(self, step: int) -> None:
        """Begin anew after the weights went back at a step."""
        self.went_back, self.in_a_row, self._high = step, 0, 0
        self._errors.clear()

    def state_dict(self) -> dict[str, Any]:
        """All of it as numbers."""
        return {
            "skipped": self.skipped,
            "in_a_row": self.in_a_row,
            "went_back": self.went_back,
            "calm_step": self.calm_step,
            "errors": list(self._errors),
            "best": self._best,
            "high": self._high,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what :meth:`state_dict` told."""
        self.skipped, self.in_a_row = state["skipped"], state["in_a_row"]
        self.went_back, self.calm_step = state["went_back"], state["calm_step"]
        self._errors = deque(state["errors"], maxlen=WINDOW)
        self._best, self._high = state["best"], state["high"]
