"""Which items a training step sees: a function of (seed, step) and of nothing else.

The order is an endless concatenation of seeded permutations, one per epoch. Item ``i`` of step ``s`` has the
position ``p = s * batch_size + i`` in it and lies in epoch ``p // num_items``: any step is reached without
replaying the steps before it, and resuming needs one number. ``batch_size`` is global and cut by rank, so a
run may go on with another number of processes. Up to 2^22 items an epoch's permutation is listed, of more each
place is worked out when it is asked for, so that a hundred million cost no time at the start and no memory.

    order = Order(num_items=len(shards), batch_size=16, seed=0)
    for step in range(start, steps):
        indices, records = shards.batch(order.batch(step))
"""

import numpy as np

from tokenreel.datasets.large_shuffle import LargeShuffle

LARGEST_LISTED = 2**22
"""Items of which a permutation is sorted in less than a second, and kept in 32 MB."""
_SEED_LIMIT = 2**32  # above it, numpy would spill the seed into the word that holds the epoch
_CHANCE = 1  # in a third word, which the seeds of permutations lack


class Order:
    """The batches of one run; ``batch(step)`` is pure, the object only remembers the last two permutations.

    Args:
        num_items: Number of items in the data set, at least 1.
        batch_size: Items per step over all ranks, at least 1; may exceed ``num_items``.
        seed: In [0, 2**32).
        rank: This process, in [0, world_size).
        world_size: Number of processes; divides ``batch_size``.

    Raises:
        ValueError: If an argument is out of its range.
    """

    def __init__(self, num_items: int, batch_size: int, seed: int = 0, rank: int = 0, world_size: int = 1) -> None:
        if num_items < 1:
            raise ValueError(f"num_items is {num_items}, expected at least 1; the data set is empty")
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}, expected at least 1")
        if not 0 <= seed < _SEED_LIMIT:
            raise ValueError(f"seed is {seed}, expected 0 <= seed < 2**32")
        if not 0 <= rank < world_size:
            raise ValueError(f"rank is {rank}, expected 0 <= rank < world_size {world_size}")
        if batch_size % world_size:
            near = max(world_size, batch_size - batch_size % world_size)
            raise ValueError(
                f"the global batch_size {batch_size} is not divisible by {world_size} processes; use {near}"
            )
        self.num_items = num_items
        self.batch_size = batch_size
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self._permutations: dict[int, np.ndarray] = {}

    def batch(self, step: int) -> np.ndarray:
        """Ids of the items that this rank sees at ``step``.

        Args:
            step: Step of the run, counted from 0.

        Returns:
            int64 (batch_size / world_size,), values in [0, num_items).

        Raises:
            ValueError: If ``step`` is negative.
        """
        if step < 0:
            raise ValueError(f"step is {step}, expected 0 or more")
        share = self.batch_size // self.world_size
        start = step * self.batch_size + self.rank * share
        pieces = []
        position = start
        while position < start + share:
            epoch, offset = divmod(position, self.num_items)
            length = min(self.num_items - offset, start + share - position)
            pieces.append(self._items(epoch, offset, offset + length))
            position += length
        return np.concatenate(pieces)

    def chance(self, step: int) -> np.ndarray:
        """Random numbers for whatever a step leaves to chance; functions of (seed, step) and the place in the batch.

        Returns:
            int64 (batch_size / world_size, 2), in [0, 2**62): a number of the step, the same in every row and for
            every rank, and one of each item that :meth:`batch` gives this rank.
        """
        share = self.batch_size // self.world_size
        raw = np.random.PCG64([self.seed, step, _CHANCE]).random_raw(1 + self.batch_size)
        raw = (raw >> np.uint64(2)).astype(np.int64)
        own = raw[1 + self.rank * share :][:share]
        return np.stack([np.full_like(own, raw[0]), own], axis=1)

    def times_seen(self, step: int) -> np.ndarray:
        """How often all ranks together have seen each item after ``step`` steps: int64 (num_items,)."""
        epochs, offset = divmod(step * self.batch_size, self.num_items)
        times = np.full(self.num_items, epochs, dtype=np.int64)
        times[self._items(epochs, 0, offset)] += 1
        return times

    def _items(self, epoch: int, begin: int, end: int) -> np.ndarray:
        """Items at some places of an epoch."""
        if self.num_items <= LARGEST_LISTED:
            return self._permutation(epoch)[begin:end]
        return LargeShuffle(self.num_items, [self.seed, epoch]).items(begin, end)

    def _permutation(self, epoch: int) -> np.ndarray:
        if epoch not in self._permutations:
            while len(self._permutations) >= 2:  # a batch that straddles epochs needs two
                del self._permutations[next(iter(self._permutations))]
            # numpy promises the raw stream of PCG64 for ever, Generator.permutation only until its next
            # release: sorting raw numbers keeps old runs resumable under a new numpy.
            raw = np.random.PCG64([self.seed, epoch]).random_raw(self.num_items)
            self._permutations[epoch] = np.argsort(raw, kind="stable").astype(np.int64, copy=False)
        return self._permutations[epoch]
