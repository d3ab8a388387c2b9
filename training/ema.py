"""Moving average of a model's weights, for evaluation and release."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from tokenreel.training.sharding import own, part


class WeightAverage:
    """Exponential moving average of a model's parameters; buffers are taken as they are.

    Args:
        model: The model that trains.
        decay: Share of the old average kept at each step, in [0, 1); early steps keep less.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"ema_decay {decay}: expected 0 (off) or a value below 1, such as 0.999")
        self.decay = decay
        self.restart(model)

    def restart(self, model: nn.Module) -> None:
        """Begin anew with the model's present weights."""
        self.steps = 0
        self.average = {name: p.detach().clone() for name, p in model.named_parameters()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move the average towards the model's present weights."""
        self.steps += 1
        decay = min(self.decay, self.steps / (self.steps + 9))
        for name, parameter in model.named_parameters():
            own(self.average[name]).lerp_(own(parameter), 1 - decay)

    def state_dict(self) -> dict[str, Any]:
        """Steps and averaged weights, as they are."""
        return {"steps": self.steps, "weights": self.average}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what :meth:`state_dict` told, of whole weights."""
        self.steps = state["steps"]
        for name, tensor in state["weights"].items():
            own(self.average[name]).copy_(own(part(tensor, like=self.average[name])))

    @contextmanager
    def applied_to(self, model: nn.Module) -> Iterator[None]:
        """Lend the averaged weights to the model for the length of a ``with`` block."""
        trained = {name: p.detach().clone() for name, p in model.named_parameters()}
        _copy_into(model, self.average)
        try:
            yield
        finally:
            _copy_into(model, trained)


@torch.no_grad()
def _copy_into(model: nn.Module, weights: dict[str, Tensor]) -> None:
    for name, parameter in model.named_parameters():
        own(parameter).copy_(own(weights[name]))
