"""Clips of several shapes, numbered over all of them; what is asked for at once has one shape."""

from collections.abc import Sequence
from typing import Any, Generic, Protocol, TypeVar

import numpy as np


class Clips(Protocol):
    """Clips of one shape: windows of a clip store, or token shards."""

    def __len__(self) -> int: ...

    def batch(self, ids: np.ndarray) -> Any:
        """Several clips."""

    def places_of_clips(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Of each clip the number of its video and its first frame; None where this is not known."""

    @property
    def num_videos(self) -> int:
        """Videos that they are of."""
        ...


C = TypeVar("C", bound=Clips)


class ClipGroups(Generic[C]):
    """Groups of clips, one behind the other; every video is in one of them.

    Args:
        groups: At least one.
    """

    def __init__(self, groups: Sequence[C]) -> None:
        self.groups = list(groups)
        self._ends = np.cumsum([len(group) for group in groups])

    def __len__(self) -> int:
        return int(self._ends[-1])

    @property
    def first(self) -> C:
        """The group whose shape comes first."""
        return self.groups[0]

    @property
    def num_videos(self) -> int:
        """Videos that the clips are of."""
        return sum(group.num_videos for group in self.groups)

    def part(self, ids: np.ndarray) -> tuple[C, np.ndarray]:
        """The group that holds clips, and their numbers within it.

        Args:
            ids: int64 (B,), of one group.

        Raises:
            IndexError: If there are no such clips, or they are of several groups.
        """
        numbers = np.searchsorted(self._ends, ids, side="right")
        if not len(ids) or numbers[0] >= len(self.groups) or (numbers != numbers[0]).any():
            raise IndexError(f"clips {ids.tolist()} of groups that end at {self._ends.tolist()}, expected some of one")
        number = int(numbers[0])
        return self.groups[number], ids - (self._ends[number - 1] if number else 0)

    def batches(self, ids: np.ndarray, size: int) -> list[np.ndarray]:
        """Cut clips, in ascending order, into parts of at most ``size`` of one group each."""
        parts = []
        for own in np.split(ids, np.searchsorted(ids, self._ends[:-1])):
            parts += [own[begin : begin + size] for begin in range(0, len(own), size)]
        return parts

    def batch(self, ids: np.ndarray) -> Any:
        """Several clips of one shape."""
        group, own = self.part(ids)
        return group.batch(own)

    def places_of_clips(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Of each clip the number of its video over all groups, and its first frame; None where one is not known."""
        videos, starts, before = [], [], 0
        for group in self.groups:
            places = group.places_of_clips()
            if places is None:
                return None
            videos.append(places[0] + before)
            starts.append(places[1])
            before += group.num_videos
        return np.concatenate(videos), np.concatenate(starts)
