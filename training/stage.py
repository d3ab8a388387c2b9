"""What a training must say about itself, so that the loop can train it."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

from torch import Tensor, nn

from tokenreel.training.best import Aim
from tokenreel.training.watch import Level


class Evaluation(NamedTuple):
    """What a stage found when it judged its model."""

    metrics: Mapping[str, float | str]
    """Numbers to log, and what is to be said in words."""
    show: Callable[[], list[Path]]
    """Writes pictures and videos, and tells which."""
    verdict: Literal["go on", "keep", "go back"] = "go on"
    """"keep": the present state is worth going back to; "go back": to the state last kept, and on from there."""


class Stage(Protocol):
    """What a training must say about itself."""

    aim: Aim
    """By what its best model is chosen."""
    level: Level
    """When its :meth:`error` is far above another one."""
    in_parts: bool
    """Whether of several processes each is to hold a part of the model; its ``blocks`` are then gathered in turn."""

    @property
    def model(self) -> nn.Module:
        """What trains; its ``forward`` takes a batch and returns an object with a ``loss``."""

    def batch(self, step: int) -> dict[str, Tensor]:
        """Arguments of ``model.forward`` for this rank's cut of a step, on the CPU; of (seed, step) alone."""

    def accumulating(self) -> AbstractContextManager[None]:
        """Entered around every part of a step but its last, where batches are cut into parts."""

    def observe(self, output: Any) -> None:
        """See the output of every step, to count what is counted over windows."""

    def error(self, output: Any) -> float:
        """How far a step's output was off: positive, and comparable from the run's beginning to its end."""

    def metrics(self, output: Any, steps: int, seconds: float) -> Mapping[str, float | str]:
        """What to log of the newest output; ``steps`` were taken in ``seconds`` since the last log.

        Every rank tells numbers of the same names; what is logged are their means.
        """

    def evaluate(self, step: int, folder: Path) -> Evaluation:
        """Judge the model on validation data, all ranks together; pictures and videos of it belong into ``folder``.

        A model in parts is whole meanwhile, so that a rank may run it as often as it likes.
        """

    def exposures(self, step: int) -> Mapping[str, float]:
        """How often clips and videos have been seen after so many steps; asked of the first rank alone."""

    def export(self, folder: Path, step: int) -> None:
        """Save the model in its folder form, with its provenance; asked of the first rank alone."""

    def state_dict(self) -> dict[str, Any]:
        """What it remembers beside its model, such as what :meth:`observe` counted."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what :meth:`state_dict` told."""
