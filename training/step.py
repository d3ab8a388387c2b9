"""One optimizer step: its batch whole or in parts, clipping, and a look at whether all numbers are finite."""

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from tokenreel.training.sharding import not_finite

AGAIN = "go on from the last checkpoint with --resume"


@dataclass(frozen=True)
class Stepper:
    """What every step of a run is taken with."""

    accelerator: Accelerator
    model: nn.Module
    optimizer: torch.optim.Optimizer
    clip_norm: float
    """Longer gradients are shortened to this norm."""
    parts: int
    """A rank's clips go through the model in so many parts; the gradient is that of all ranks' clips."""
    accumulating: Callable[[], AbstractContextManager[None]]
    """Around every part of a step but its last."""

    def take(
        self, batch: dict[str, Tensor], rate: float, check: Callable[[float, float], bool] | None
    ) -> tuple[Any, Tensor]:
        """Change the weights once.

        Args:
            batch: Arguments of the model's ``forward``, the clips along their first axis.
            rate: Learning rate.
            check: Looks at the loss and at the gradient's norm before the weights change, and tells whether they may;
                None waits for neither.

        Returns:
            The model's output, as of the whole batch, and the gradient's norm before clipping.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        outputs = []
        for number, part in enumerate(_parts(batch, self.parts), start=1):
            with self._waiting() if number < self.parts else nullcontext():
                output = self.model(**part)
                self.accelerator.backward(output.loss / self.parts)
            outputs.append(output)
        joined = outputs[0] if self.parts == 1 else _joined(outputs)
        norm = self.accelerator.clip_grad_norm_(self.model.parameters(), self.clip_norm)  # type: ignore[attr-defined]
        if check is None or check(joined.loss.item(), float(norm)):
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return joined, norm

    @contextmanager
    def _waiting(self) -> Iterator[None]:
        """Around a part after which others follow: with the last one, ranks tell each other all they have."""
        with self.accumulating(), self.accelerator.no_sync(self.model):
            yield


def check_finite(loss: float, norm: float, model: nn.Module, step: int, since: int) -> None:
    """Stop before weights that are no numbers are made or saved.

    Args:
        loss: Of the step.
        norm: Of its gradient.
        model: With the weights as they were before the step.
        step: About to be taken, from 1.
        since: Step up to which all was finite.

    Raises:
        ValueError: If something is not finite; it tells which, the likely cause and the remedy.
    """
    if math.isfinite(loss) and math.isfinite(norm):
        return
    bad = not_finite(model)
    if bad:
        raise ValueError(
            f"{len(bad)} tensors of weights, {bad[0]} the first, are no longer finite: it happened after step {since} "
            f"and before step {step}, by too high a learning rate; lower --lr or raise --warmup, and {AGAIN}"
        )
    if not math.isfinite(loss):
        raise ValueError(
            f"the loss of step {step} is {loss}, expected a finite number, while all weights are finite: the learning "
            f"rate is too high, or the batch is bad; lower --lr or raise --warmup, and {AGAIN}; if it stops at step "
            f"{step} again, check the clips of that step"
        )
    raise ValueError(
        f"the gradient of step {step} is {norm}, expected a finite number, while its loss {loss:.4g} and all weights "
        f"are finite: numbers grew too large on the way back; lower --lr or raise --warmup or use --precision fp32, "
        f"and {AGAIN}"
    )


def _parts(batch: dict[str, Tensor], count: int) -> list[dict[str, Tensor]]:
    """The batch cut along its first axis, in order."""
    cut = {name: tensor.chunk(count) for name, tensor in batch.items()}
    return [{name: pieces[number] for name, pieces in cut.items()} for number in range(count)]


def _joined(outputs: list[Any]) -> Any:
    """Outputs of equal parts as one: numbers are averaged, what has a row per clip is put together."""
    first = outputs[0]
    if isinstance(first, Tensor):
        tensors = [output.detach() for output in outputs]
        return torch.stack(tensors).mean(0) if first.ndim == 0 else torch.cat(tensors)
    if isinstance(first, dict):
        return {name: _joined([output[name] for output in outputs]) for name in first}
    return type(first)(*(_joined(list(parts)) for parts in zip(*outputs, strict=True)))
