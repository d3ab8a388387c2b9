"""The order of clips of several shapes: every step has one shape, and every clip its turn.

Clips of one shape are a bucket. Each bucket has its own endless order (:class:`~tokenreel.datasets.order.Order`) and
its own number of clips per step, so that steps of all shapes cost about the same. In each round every bucket has as
many steps as its clips fill, a remainder carried over to the next round, in an order drawn from (seed, round). So all
clips are seen equally often, whatever their shape, and any step is found without replaying those before it.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tokenreel.datasets.order import Order

_ROUNDS = 3  # in a third word of the seed, beside what an order draws


class Bucket(NamedTuple):
    """Clips of one shape."""

    clips: int
    """How many there are."""
    per_step: int
    """How many of them a step has, over all ranks."""


class BucketOrder:
    """The batches of one run over several buckets; ``batch(step)`` is pure.

    Clips are numbered over all buckets, one after the other.

    Args:
        buckets: At least one.
        seed: In [0, 2**32).
        rank: This process, in [0, world_size).
        world_size: Number of processes; divides the clips per step of every bucket.

    Raises:
        ValueError: If an argument is out of its range.
    """

    def __init__(self, buckets: Sequence[Bucket], seed: int = 0, rank: int = 0, world_size: int = 1) -> None:
        if not buckets:
            raise ValueError("got no buckets, expected at least one; the data set is empty")
        self.buckets, self.seed = list(buckets), seed
        # Each its own seed: equal ones would draw clips of two buckets in the same order.
        seeds = [seed, *(_other_seed(seed, number) for number in range(1, len(buckets)))]
        self._orders = [
            Order(bucket.clips, bucket.per_step, own, rank, world_size)
            for bucket, own in zip(buckets, seeds, strict=True)
        ]
        self._first = np.cumsum([0, *(bucket.clips for bucket in buckets)])
        self._round: tuple[int, np.ndarray] | None = None

    @property
    def num_items(self) -> int:
        """Clips of all buckets."""
        return int(self._first[-1])

    @property
    def clips_per_step(self) -> float:
        """On average over many steps."""
        return self.num_items / sum(bucket.clips / bucket.per_step for bucket in self.buckets)

    def place(self, step: int) -> tuple[int, int]:
        """Whose step it is: a bucket, and how many steps it had before.

        Raises:
            ValueError: If ``step`` is negative.
        """
        if step < 0:
            raise ValueError(f"step is {step}, expected 0 or more")
        if len(self.buckets) == 1:
            return 0, step
        number = self._round_of(step)
        turns, at = self._turns(number), step - sum(self._done(number))
        bucket = int(turns[at])
        return bucket, self._done(number)[bucket] + int((turns[:at] == bucket).sum())

    def batch(self, step: int) -> np.ndarray:
        """Numbers of the clips that this rank sees at ``step``: int64 (n,), all of one bucket."""
        bucket, own = self.place(step)
        return self._first[bucket] + self._orders[bucket].batch(own)

    def chance(self, step: int) -> np.ndarray:
        """Random numbers for whatever a step leaves to chance; see ``Order.chance``."""
        return self._orders[self.place(step)[0]].chance(step)

    def steps_of(self, step: int) -> list[int]:
        """How many of the first ``step`` steps each bucket had."""
        if len(self.buckets) == 1:
            return [step]
        number = self._round_of(step)
        done = self._done(number)
        turns = self._turns(number)[: step - sum(done)]
        return [before + int((turns == bucket).sum()) for bucket, before in enumerate(done)]

    def times_seen(self, step: int) -> np.ndarray:
        """How often all ranks together have seen each clip after ``step`` steps: int64 (clips,)."""
        each = zip(self._orders, self.steps_of(step), strict=True)
        return np.concatenate([order.times_seen(own) for order, own in each])

    def clips_by(self, step: int) -> int:
        """How many clips the first ``step`` steps had."""
        return sum(own * bucket.per_step for own, bucket in zip(self.steps_of(step), self.buckets, strict=True))

    def spread(self, step: int) -> dict[str, float]:
        """How often the clips have been seen by then: ``min``, ``median``, ``max``."""
        if len(self.buckets) > 1:
            times = self.times_seen(step)
            return {name: float(of(times)) for name, of in (("min", np.min), ("median", np.median), ("max", np.max))}
        epochs, begun = divmod(self.clips_by(step), self.num_items)
        half = 2 * begun - self.num_items  # sorted, those seen once more come last
        median = epochs + (0.5 if half == 0 else float(half > 0))
        return {"min": float(epochs), "median": median, "max": float(epochs + (begun > 0))}

    def _done(self, rounds: int) -> list[int]:
        """Steps that each bucket had after so many rounds: its clips so many times, to the nearest step."""
        return [(rounds * bucket.clips + bucket.per_step // 2) // bucket.per_step for bucket in self.buckets]

    def _round_of(self, step: int) -> int:
        """The round in which a step lies: the last one that begins no later."""
        low, high = 0, 1
        while sum(self._done(high)) <= step:
            low, high = high, 2 * high
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if sum(self._done(middle)) <= step else (low, middle)
        return low

    def _turns(self, number: int) -> np.ndarray:
        """Whose turn it is at each step of a round."""
        if self._round is None or self._round[0] != number:
            counts = np.subtract(self._done(number + 1), self._done(number))
            raw = np.random.PCG64([self.seed, number, _ROUNDS]).random_raw(int(counts.sum()))
            turns = np.repeat(np.arange(len(counts)), counts)[np.argsort(raw, kind="stable")]
            self._round = number, turns
        return self._round[1]


def order_over(
    counts: Sequence[int],
    costs: Sequence[int],
    batch_size: int,
    seed: int,
    rank: int = 0,
    world_size: int = 1,
    parts: int = 1,
    usual_cost: int = 0,
) -> BucketOrder:
    """An order in which a step of any bucket costs no more than a usual one, as far as can be.

    Args:
        counts: Clips of each bucket.
        costs: What a clip of each costs, such as its pixels.
        batch_size: Clips per step of a bucket of the usual cost.
        seed: See :class:`BucketOrder`, as the two that follow.
        rank: See there.
        world_size: See there.
        parts: Into which every rank cuts its clips of a step.
        usual_cost: What a clip of the shape costs that ``batch_size`` is meant for, whether or not there are such
            clips; 0: one of the first bucket.

    Raises:
        ValueError: If an argument is out of its range.
    """
    least, usual = world_size * parts, usual_cost or costs[0]
    sizes = [batch_size if cost == usual else max(least, batch_size * usual // cost // least * least) for cost in costs]
    buckets = [Bucket(count, size) for count, size in zip(counts, sizes, strict=True)]
    return BucketOrder(buckets, seed, rank, world_size)


def _other_seed(seed: int, number: int) -> int:
    return int(np.random.PCG64([seed, number, _ROUNDS + 1]).random_raw()) >> 32
