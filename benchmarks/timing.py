"""How speed benchmarks take times: cases in turn with the matrix products that bound them, several rounds, medians.

On a CPU the clock is the CPU time of this process, which other processes disturb less than the wall clock; on a GPU
it is the time until the device has finished.
"""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import ceil

import torch
from torch.profiler import profile

Work = Callable[[], object]
SHORTEST = 0.05  # seconds that a timing lasts at least


def products(shapes: Sequence[tuple[int, int, int]], device: str, dtype: torch.dtype) -> list[tuple[Work, int]]:
    """Matrix products (rows, inner, columns) that show what the device can do: (work, operations), 2 a multiply-add."""
    random = partial(torch.randn, device=device, dtype=dtype)
    return [(partial(torch.matmul, random(n, k), random(k, m)), 2 * n * k * m) for n, k, m in shapes]


def fastest(done: Sequence[tuple[Work, int]], times: Sequence[float]) -> float:
    """Operations a second of the fastest of several products, from their seconds."""
    return max(operations / took for (_, operations), took in zip(done, times, strict=True))


def clock(device: str) -> float:
    """CPU seconds of this process, or the time at which the GPU has finished."""
    if device == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def seconds(work: Work, device: str, repeats: int = 1) -> float:
    """Seconds per call."""
    begin = clock(device)
    for _ in range(repeats):
        work()
    return (clock(device) - begin) / repeats


def medians(works: Sequence[Work], device: str, rounds: int) -> list[float]:
    """Seconds per call of each, measured in turn."""
    for work in works:
        work()  # a first call allocates, and compiles
    repeats = [max(1, ceil(SHORTEST / seconds(work, device))) for work in works]
    times: list[list[float]] = [[] for _ in works]
    for _ in range(rounds):
        for place, work in enumerate(works):
            times[place].append(seconds(work, device, repeats[place]))
    return [statistics.median(own) for own in times]


def shares(work: Work, kinds: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """Where the time of one call on a CPU goes: share of each kind, named by parts of its operations' names.

    Kinds must not call each other; what belongs to none is "everything else".
    """
    with profile() as found:
        work()
    events = found.key_averages()
    total = sum(event.self_cpu_time_total for event in events)
    spent = {
        kind: sum(event.cpu_time_total for event in events if any(name in event.key for name in names)) / total
        for kind, names in kinds.items()
    }
    return {**spent, "everything else": 1 - sum(spent.values())}
