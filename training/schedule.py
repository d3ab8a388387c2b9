"""Learning rate over a run."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """Up, flat, then linearly down. A run can be prolonged from its flat part, which a cosine has not."""

    steps: int
    """Length of the run."""
    warmup: int
    """Steps of linear rise."""
    decay_share: float
    """Share of the run, at its end, over which the rate falls."""
    floor: float = 0.02
    """Factor towards which it falls."""

    def factor(self, step: int) -> float:
        """Factor on the peak learning rate at a step about to be taken, 0 .. steps - 1."""
        rise = min(1.0, (step + 1) / max(1, self.warmup))
        fall = min(1.0, (self.steps - step) / self._decay_steps)
        return rise * (self.floor + (1 - self.floor) * fall)

    @property
    def stable_steps(self) -> int:
        """Steps before the rate begins to fall: up to there, a longer run would have done the same."""
        return self.steps - self._decay_steps + 1

    def shares(self, step: int, other: "Schedule") -> bool:
        """Whether the state after ``step`` steps of another schedule could be one of this one's as well.

        The warm-up is left out: it may be changed after an accident.
        """
        same = (self.steps, self.decay_share) == (other.steps, other.decay_share)
        return same or step <= min(self.stable_steps, other.stable_steps)

    @property
    def _decay_steps(self) -> int:
        return max(1, round(self.decay_share * self.steps))
