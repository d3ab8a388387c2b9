"""The best model so far by validation, and how long nothing better came."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple


class Aim(NamedTuple):
    """What a model is judged by."""

    metric: str
    """Name of a validation metric."""
    higher: bool
    """Whether more of it is better."""


class Best:
    """The best validation of a run and how many came after it; part of every checkpoint.

    Args:
        aim: What is best.
    """

    def __init__(self, aim: Aim) -> None:
        self.aim = aim
        self.value: float | None = None
        """Of the best validation; None before the first."""
        self.step = 0
        """Steps taken until then."""
        self.since = 0
        """Validations after it."""
        self._before = self.state_dict()

    def judge(self, metrics: Mapping[str, Any], step: int) -> bool:
        """Take in a validation; whether it is the best so far. One that found no finite number is none."""
        value = float(metrics.get(self.aim.metric, math.nan))
        if math.isfinite(value) and self._beats(value):
            self._before = self.state_dict()
            self.value, self.step, self.since = value, step, 0
            return True
        self.since += 1
        return False

    def take_back(self) -> None:
        """Forget the best validation, since its model could not be saved: the one before is the best again."""
        self.load_state_dict({**self._before, "since": self._before["since"] + 1})

    def forget(self) -> None:
        """Take the next validation for the best: the model of the one before is no longer there."""
        self.load_state_dict({"value": None, "step": 0, "since": self.since})

    def _beats(self, value: float) -> bool:
        if self.value is None:
            return True
        return value > self.value if self.aim.higher else value < self.value

    def waited(self, patience: int) -> bool:
        """Whether so many validations in a row brought nothing better; a patience of 0 has no end."""
        return 0 < patience <= self.since

    def words(self) -> str:
        """Which validation was the best."""
        return "no validation yet" if self.value is None else f"{self.aim.metric} {self.value:.4f} at step {self.step}"

    def state_dict(self) -> dict[str, Any]:
        """Value, step and count."""
        return {"value": self.value, "step": self.step, "since": self.since}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what :meth:`state_dict` told."""
        self.value, self.step, self.since = state["value"], state["step"], state["since"]
