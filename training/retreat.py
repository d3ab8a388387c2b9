"""The state of a training worth going back to, when what follows turns out worse."""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from tokenreel.training.ema import WeightAverage
from tokenreel.training.sharding import load, whole

EXTRA_STATE = "_extra_state"


class Retreat:
    """Weights, optimizer and weight average as they once were, in main memory and in every checkpoint.

    What a module tells by ``get_extra_state`` is not kept: it may be what knows that the training went back.
    """

    def __init__(self) -> None:
        self.kept: dict[str, Any] | None = None

    def keep(self, model: nn.Module, optimizer: torch.optim.Optimizer, average: WeightAverage | None) -> None:
        """Copy the present state; an older copy is dropped."""
        weights = {name: tensor for name, tensor in model.state_dict().items() if not name.endswith(EXTRA_STATE)}
        state = {"weights": weights, "optimizer": optimizer.state_dict()}
        self.kept = _copied(whole({**state, "average": None if average is None else average.state_dict()}))

    def go_back(self, model: nn.Module, optimizer: torch.optim.Optimizer, average: WeightAverage | None) -> None:
        """Bring the kept state back, and drop it.

        Raises:
            RuntimeError: If nothing is kept.
        """
        if self.kept is None:
            raise RuntimeError("a stage asked to go back before it asked to keep anything")
        load(model, optimizer, self.kept, strict=False)
        if average is not None and self.kept["average"] is not None:
            average.load_state_dict(self.kept["average"])
        self.kept = None


def _copied(state: Any) -> Any:
    """A deep copy whose tensors lie in main memory."""
    if isinstance(state, Tensor):
        return state.detach().to("cpu", copy=True)
    if isinstance(state, dict):
        return {name: _copied(part) for name, part in state.items()}
    if isinstance(state, list):
        return [_copied(part) for part in state]
    return copy.deepcopy(state)
