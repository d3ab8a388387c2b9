"""Which shards of a job one process writes: arithmetic on its number, so that nobody has to hand them out."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Share:
    """Process ``rank`` of ``processes``, over the units ``start <= i < stop`` (None: to the end).

    Raises:
        ValueError: If a number is out of its range.
    """

    rank: int = 0
    processes: int = 1
    start: int = 0
    stop: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.processes:
            raise ValueError(f"rank {self.rank} of {self.processes} processes, expected 0 <= rank < processes")

    @classmethod
    def of_environment(cls, shard_range: str) -> "Share":
        """The share of this process under ``accelerate launch`` or ``torchrun``; all of it otherwise.

        Args:
            shard_range: ``100:200``, ``100:``, ``:200``, or empty for all.

        Raises:
            ValueError: If it reads otherwise.
        """
        match = re.fullmatch(r"(\d*):(\d*)", shard_range or ":")
        start, stop = (int(text) if text else None for text in match.groups()) if match else (1, 0)
        if stop is not None and (start or 0) >= stop:
            raise ValueError(f"shard_range {shard_range!r}, expected START:STOP such as 0:100, 100: or :100")
        return cls(int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1)), start or 0, stop)

    def of(self, units: Sequence[T]) -> Sequence[T]:
        """The units of this process."""
        return units[self.start : self.stop][self.rank :: self.processes]

    def whole(self, count: int) -> bool:
        """Whether it is all of ``count`` units."""
        return self.processes == 1 and self.start == 0 and (self.stop is None or self.stop >= count)
