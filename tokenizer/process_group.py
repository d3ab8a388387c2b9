"""What the processes of a training tell each other; one process alone talks to nobody.

Whether there are several is asked at every call: a model may be built before its process group.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, distributed


def world_size() -> int:
    """Number of processes that train together, 1 without a process group."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def summed(values: Tensor) -> Tensor:
    """Sum of a tensor over all processes, in place; the same values everywhere."""
    if world_size() > 1:
        distributed.all_reduce(values)
    return values


def averaged(values: Tensor) -> Tensor:
    """Mean of a tensor over all processes; gradients flow back to each of them."""
    return values if world_size() == 1 else _Total.apply(values) / world_size()


class _Total(torch.autograd.Function):
    """What depends on a sum depends on every process's part of it, so gradients are summed as well."""

    @staticmethod
    def forward(_: Any, values: Tensor) -> Tensor:
        """Values of any shape -> their sum over all processes."""
        return summed(values.clone())

    @staticmethod
    def backward(_: Any, gradient: Tensor) -> Tensor:
        """The gradient of the sum, from all processes -> that of this one's part."""
        return summed(gradient.clone())


def gathered(rows: Tensor) -> Tensor:
    """Rows (N, D) of all processes one below the other; N may differ between them."""
    if world_size() == 1:
        return rows
    counts = [torch.zeros(1, dtype=torch.int64, device=rows.device) for _ in range(world_size())]
    distributed.all_gather(counts, torch.tensor([len(rows)], device=rows.device))
    longest = max(int(count) for count in counts)
    padded = torch.cat([rows, rows.new_zeros(longest - len(rows), rows.shape[1])])
    pieces = [torch.empty_like(padded) for _ in counts]
    distributed.all_gather(pieces, padded)
    return torch.cat([piece[: int(count)] for piece, count in zip(pieces, counts, strict=True)])


def same_as_first(values: Tensor) -> Tensor:
    """A tensor of the same shape everywhere becomes that of the first process, in place."""
    if world_size() > 1:
        distributed.broadcast(values, 0)
    return values


@contextmanager
def same_chance(device: torch.device) -> Iterator[None]:
    """A block in which all processes draw the same random numbers: those of the first one."""
    seed = same_as_first(torch.randint(2**62, (1,)).to(device))
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(int(seed))
        yield
