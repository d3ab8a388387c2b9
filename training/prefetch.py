"""Batches of a run in the order of its steps, made here or ahead of time by worker processes.

A batch is a function of its step alone, so whoever makes it makes the same one, whatever the number of workers.
"""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection
from types import TracebackType
from typing import Self

import torch
from torch import Tensor

# Lets tensors travel between processes through shared memory instead of a pipe.
from torch import multiprocessing as _  # noqa: F401

Batch = dict[str, Tensor]
AHEAD = 2
"""Batches per worker that are made before they are asked for."""


class Batches:
    """The batches of steps ``first`` to ``steps - 1``; to be used in a ``with`` block, which ends the workers.

    Args:
        make: Makes the batch of a step; a function of the step alone.
        first: Step asked for first.
        steps: Steps of the run; nothing is made beyond them.
        workers: Processes that make batches ahead of time; 0 makes each when it is asked for, in this process.
        stopping: Whether the run is about to end, so that workers may have been told to as well.

    Raises:
        ValueError: If there are to be workers on a system that cannot fork.
    """

    def __init__(
        self,
        make: Callable[[int], Batch],
        first: int,
        steps: int,
        workers: int,
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        if workers and "fork" not in multiprocessing.get_all_start_methods():
            raise ValueError(f"workers {workers}: this system cannot fork processes; use --workers 0")
        self._make, self._steps, self._workers, self._stopping = make, steps, workers, stopping
        self._next = first
        self._coming: deque[tuple[int, Future[Batch | Exception]]] = deque()
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Self:
        if self._workers:
            # Forked, not started anew: a worker needs what makes batches, and nothing of it has to be pickled.
            self._pool = ProcessPoolExecutor(
                self._workers, multiprocessing.get_context("fork"), _begin_work, (self._make,)
            )
            self._order_more()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def take(self, step: int) -> Batch:
        """The batch of the next step.

        Args:
            step: One more than the time before.

        Raises:
            ChildProcessError: If a worker died.
            Exception: What making the batch raised, wherever it was made.
        """
        if self._pool is None:
            return self._make(step)
        try:
            number, future = self._coming.popleft()
            self._order_more()
            assert number == step, f"batch {number} is next, not {step}"
            made = future.result()
        except BrokenProcessPool:
            if self._stopping():  # whoever ends the run may have signalled all of its processes
                self._pool = None
                return self._make(step)
            raise ChildProcessError(
                f"a worker process that makes batches died before step {step + 1}, expected {self._workers} to live: "
                "memory ran out, or somebody killed it; go on with --resume and fewer --workers (0 needs none)"
            ) from None
        if isinstance(made, Exception):
            raise made
        return made

    def _order_more(self) -> None:
        assert self._pool is not None
        while len(self._coming) < AHEAD * self._workers and self._next < self._steps:
            self._coming.append((self._next, self._pool.submit(_made, self._next)))
            self._next += 1


_make_in_worker: Callable[[int], Batch] | None = None


def _begin_work(make: Callable[[int], Batch]) -> None:
    """Get a worker ready."""
    global _make_in_worker
    _make_in_worker = make
    # Ctrl-C reaches all processes of a terminal: the training finishes its step, and workers end with it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    torch.set_num_threads(1)  # OpenMP's threads do not survive a fork
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A training that is killed leaves no workers behind."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(1)


def _made(step: int) -> Batch | Exception:
    """The batch, or a mistake in settings or data, to be told as if it had been found in the training itself."""
    assert _make_in_worker is not None
    try:
        return _make_in_worker(step)
    except (ValueError, OSError) as error:
        return error
