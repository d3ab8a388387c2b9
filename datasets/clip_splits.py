"""Which split each video of a clip store belongs to, and which videos are copies of others."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace

from tokenreel.datasets.clip_record import ClipRecord

# Share of the videos of a flat folder, or of the frames of a single video, that become the validation split.
VALIDATION_SHARE = 0.1
# Flags that name the record of which this one is a copy.
COPIES = ("duplicate_of", "near_duplicate_of")


def with_duplicates(records: Sequence[ClipRecord]) -> list[ClipRecord]:
    """Flags records whose source file is byte for byte that of an earlier one."""
    first: dict[tuple[str, int], str] = {}
    flagged = []
    for record in records:
        original = first.setdefault((record.sha256, record.start), record.key)
        if original != record.key:
            record = replace(record, flags={**record.flags, "duplicate_of": original})
        flagged.append(record)
    return flagged


def with_splits(records: Sequence[ClipRecord], given: dict[str, str | None]) -> list[ClipRecord]:
    """Decides the split of each record.

    What is given decides, even between copies (see :func:`leaks`). Otherwise, or where there is no ``val`` beside
    ``train``, a hash of the key takes about a tenth of the videos, at least one of two; the shots of a video, the
    videos of a group, a copy and its original stay together. Of a single video the last tenth of the frames becomes the
    validation split.

    Args:
        records: Records whose ``split`` is not yet meant.
        given: Split by key, as folders or metadata say; None where they say nothing.
    """
    splits = {record.key: given[record.key] or "train" for record in records}
    free = [record for record in records if splits[record.key] == "train"]
    if "val" not in splits.values():
        leaders = kinship(free)
        families = list(dict.fromkeys(leaders.values()))
        held_out = _held_out(families) if len(families) > 1 else set()
        for key, leader in leaders.items():
            if leader in held_out:
                splits[key] = "val"
    placed = [replace(record, split=splits[record.key]) for record in records]
    if len({record.file for record in placed}) == 1 and {record.split for record in placed} == {"train"}:
        return _last_tenth_held_out(placed)
    return placed


def kinship(records: Sequence[ClipRecord]) -> dict[str, str]:
    """Which records show the same: by key, the key of the first one that does.

    Shots of one video do, videos of one group, what is flagged as a copy of another, and all that these show.
    """
    leaders = {record.key: record.key for record in records}

    def leader(key: str) -> str:
        """Follow the pointers to one that points to itself."""
        while leaders[key] != key:
            leaders[key] = leaders[leaders[key]]
            key = leaders[key]
        return key

    first_of: dict[str, str] = {}
    rank = {record.key: number for number, record in enumerate(records)}
    for record in records:
        others = [first_of.setdefault(record.file, record.key)]
        if record.group is not None:
            # No file is called so.
            others.append(first_of.setdefault(f"/{record.group}", record.key))
        others += [record.flags[flag] for flag in COPIES if record.flags.get(flag) in leaders]
        for other in others:
            ends = sorted((leader(record.key), leader(other)), key=rank.__getitem__)
            leaders[ends[1]] = ends[0]
    return {key: leader(key) for key in leaders}


def leaks(records: Sequence[ClipRecord]) -> list[tuple[ClipRecord, ClipRecord]]:
    """What shows the same on two sides of the split, as only splits that were given do: (record, its kin).

    Of several that are in one split, such as shots of a video, the first one stands for all.
    """
    leaders = kinship(records)
    families: dict[str, dict[str, ClipRecord]] = {}
    for record in records:
        families.setdefault(leaders[record.key], {}).setdefault(record.split, record)
    kin = [list(family.values()) for family in families.values()]
    return [(other, first) for first, *others in kin for other in others]


def leak_warning(records: Sequence[ClipRecord]) -> str | None:
    """Words about :func:`leaks`; None if there are none."""
    if not (found := leaks(records)):
        return None
    copy, of = found[0]
    return (
        f"the splits that were given put {len(found)} copies or videos of one group on both sides, so validation looks "
        f"better than it is, such as {copy.file} ({copy.split}) and {of.file} ({of.split}); remove one of each, or "
        "leave copies out with --curation.duplicates drop"
    )


def _held_out(keys: list[str]) -> set[str]:
    """About a tenth of the keys, at least one and not all; adding videos does not move the others."""
    draws = {key: int(hashlib.sha256(key.encode("ascii")).hexdigest()[:8], 16) / 2**32 for key in keys}
    chosen = {key for key, draw in draws.items() if draw < VALIDATION_SHARE}
    if not chosen:
        return {min(keys, key=draws.__getitem__)}
    if len(chosen) == len(keys):
        return chosen - {max(keys, key=draws.__getitem__)}
    return chosen


def _last_tenth_held_out(records: list[ClipRecord]) -> list[ClipRecord]:
    """The shots of a single video, the last ones in the validation split, one of them cut in two if need be."""
    frames = sum(record.frames for record in records)
    wanted = max(1, int(frames * VALIDATION_SHARE)) if frames > 1 else 0
    placed: list[ClipRecord] = []
    for record in reversed(records):
        if wanted >= record.frames:
            placed.append(replace(record, split="val"))
        elif wanted:
            placed += reversed(_head_and_tail(record, record.frames - wanted))
        else:
            placed.append(record)
        wanted = max(0, wanted - record.frames)
    return placed[::-1]


def _head_and_tail(record: ClipRecord, cut: int) -> list[ClipRecord]:
    actions = record.actions
    head = replace(record, frames=cut, actions=actions[:cut] if actions is not None else None)
    tail = replace(
        record,
        key=f"{record.key}-tail",
        split="val",
        offset=record.offset + head.bytes,
        frames=record.frames - cut,
        actions=actions[cut:] if actions is not None else None,
        start=record.start + cut,
    )
    return [head, tail]
