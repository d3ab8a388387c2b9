"""How long training steps take, and how much of it they wait for data."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Meter:
    """Clock of the training steps alone: evaluation and saving do not count."""

    def __init__(self, step: int, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"
        self._restart(step)

    def _restart(self, step: int) -> None:
        self._step = step
        self._begin = time.perf_counter()
        self._paused = self._waited = 0.0
        self._gaps: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Time spent on a batch; of a GPU the time in which it had nothing else to do, since it works behind us."""
        begin, before = time.perf_counter(), self._mark()
        yield
        self._waited += 0.0 if self._on_gpu else time.perf_counter() - begin
        after = self._mark()
        if before is not None and after is not None:
            self._gaps.append((before, after))

    def _mark(self) -> "torch.cuda.Event | None":
        """A point in the GPU's queue of work."""
        if not self._on_gpu:
            return None
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Time that is no training."""
        begin = time.perf_counter()
        yield
        self._paused += time.perf_counter() - begin

    def take(self, step: int) -> tuple[int, float, float]:
        """Steps and seconds since the last call, and the share of them spent waiting for data.

        To be called when the loss of the last step is known: then the marks in a GPU's queue have been passed.
        """
        seconds = max(time.perf_counter() - self._begin - self._paused, 1e-9)
        waited = self._waited + sum(before.elapsed_time(after) for before, after in self._gaps) / 1000
        result = step - self._step, seconds, waited / seconds
        self._restart(step)
        return result
