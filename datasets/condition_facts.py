"""What the videos of a store say of themselves that a model can be conditioned on: labels, captions, actions."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from tokenreel.datasets.clip_record import ClipRecord

WORD_BYTES = 16
"""A longer word of a caption counts as several."""
MOST_ACTIONS = 4096
"""Discrete actions a model is made for; a larger number is a mistake, or an amount."""
ROUNDING = 1e-9
"""A deviation below this, relative to the mean, is that of a number that never changes."""
LARGEST = 1e100
"""Bound of the numbers in a vector: their squares must be finite too."""


def condition_facts(records: Sequence[ClipRecord]) -> dict[str, Any]:
    """Gather what a GPT must know before it can be told such things.

    Args:
        records: Videos, of which some may have no label, caption or actions.

    Returns:
        "labels", the sorted names; and where there are any "captions", {"words": words of the longest}, and
        "actions": {"names": one per discrete action, of all videos together} or, for actions that are vectors,
        {"size", "mean", "std"} over all frames. "std" is 0 for a number that never changes.

    Raises:
        ValueError: If actions are neither whole numbers from 0 nor finite vectors of one length, are beyond their
            names, or differ in kind between videos.
    """
    facts: dict[str, Any] = {"labels": sorted({record.label for record in records if record.label is not None})}
    longest = max((_words(record.caption) for record in records if record.caption is not None), default=0)
    if longest:
        facts["captions"] = {"words": longest}
    acting = [record for record in records if record.actions]
    if acting:
        vectors = _are_vectors(acting)
        facts["actions"] = _vector_facts(acting) if vectors else {"names": _names(acting)}
    return facts


def _words(caption: str) -> int:
    return sum(math.ceil(len(word.encode("utf-8")) / WORD_BYTES) for word in caption.split())


def _are_vectors(records: Sequence[ClipRecord]) -> bool:
    """Whether the actions are vectors: all of them or none."""
    first = records[0]
    vectors = isinstance(_actions(first)[0], list)
    for record in records:
        for frame, action in enumerate(_actions(record)):
            if isinstance(action, list) != vectors:
                raise ValueError(
                    f"{record.file}: action {frame} is {action!r}, expected {'a list of' if vectors else 'single'} "
                    f"numbers as in {first.file}; give all videos actions of one kind"
                )
    return vectors


def _names(records: Sequence[ClipRecord]) -> list[str]:
    """Names of the discrete actions: those of all videos in the order they come up, or else their numbers."""
    named: dict[tuple[str, ...], str] = {}
    for record in records:
        if record.action_names:
            named.setdefault(tuple(record.action_names), record.file)
    if not named:
        return [str(number) for number in range(max(max(_whole(record)) for record in records) + 1)]
    (first, file), others = next(iter(named.items())), len(named) - 1
    for record in records:
        if not record.action_names and others:
            raise ValueError(
                f"{record.file}: no action_names, expected some, as they differ between other videos; name its actions"
            )
        names, place = (record.action_names, record.file) if record.action_names else (first, file)
        if max(_whole(record)) >= len(names):
            raise ValueError(
                f"{record.file}: action {max(_whole(record))}, expected 0 to {len(names) - 1}, as there are "
                f"{len(names)} action_names in {place}; correct the action or name it"
            )
    return list(dict.fromkeys(name for names in named for name in names))


def _whole(record: ClipRecord) -> Iterable[int]:
    """The actions of a video as whole numbers from 0."""
    for frame, action in enumerate(_actions(record)):
        if not 0 <= action < MOST_ACTIONS or action != int(action):
            raise ValueError(
                f"{record.file}: action {frame} is {action!r}, expected a whole number from 0 to {MOST_ACTIONS - 1}; "
                "write actions that are amounts as lists of numbers"
            )
        yield int(action)


def _vector_facts(records: Sequence[ClipRecord]) -> dict[str, Any]:
    """Size, mean and deviation of actions that are vectors."""
    first = records[0]
    size = len(_actions(first)[0])
    count, mean, squares = 0, np.zeros(size), np.zeros(size)
    for record in records:
        vectors = _vectors(record, size, first.file)
        # Mean and squared deviations of this video merged with those of all before: exact where sums of squares of
        # large numbers are not.
        shift, before = vectors.mean(axis=0) - mean, count
        count += len(vectors)
        mean = mean + shift * len(vectors) / count
        squares += np.square(vectors - vectors.mean(axis=0)).sum(axis=0) + shift**2 * before * len(vectors) / count
    std = np.sqrt(squares / count)
    std[std <= ROUNDING * np.maximum(1, np.abs(mean))] = 0
    return {"size": size, "mean": mean.tolist(), "std": std.tolist()}


def _vectors(record: ClipRecord, size: int, first: str) -> np.ndarray:
    """The actions of a video, float64 (T, size)."""
    for frame, action in enumerate(_actions(record)):
        if len(action) != size or size == 0:
            raise ValueError(
                f"{record.file}: action {frame} has {len(action)} numbers, expected {size or 'at least 1'} as in "
                f"{first}; give all frames of all videos vectors of one length"
            )
        if not all(abs(number) < LARGEST for number in action):
            raise ValueError(f"{record.file}: action {frame} is {action!r}, expected finite numbers; correct it")
    return np.array(record.actions, dtype=np.float64)


def _actions(record: ClipRecord) -> list[Any]:
    assert record.actions, "only videos with actions come here"
    return record.actions
