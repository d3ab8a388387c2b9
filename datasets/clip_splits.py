"""Which split each video of a clip store belongs to, and which videos are copies of others."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace

from tokenreel.datasets.clip_record import ClipRecord

# Share of the videos of a flat folder, or of the frames of a single video, that become the validation split.
VALIDATION_SHARE = 0.1


def with_duplicates(records: Sequence[ClipRecord]) -> list[ClipRecord]:
    """Flags records whose source file is byte for byte that of an earlier one."""
    first: dict[str, str] = {}
    flagged = []
    for record in records:
        original = first.setdefault(record.sha256, record.key)
        if original != record.key:
            record = replace(record, flags={**record.flags, "duplicate_of": original})
        flagged.append(record)
    return flagged


def with_splits(records: Sequence[ClipRecord], given: dict[str, str | None]) -> list[ClipRecord]:
    """Decides the split of each record.

    Folders decide where there are split folders. Otherwise, or where there is no ``val`` beside ``train``, a
    hash of the key takes about a tenth of the videos, at least one of two, and a copy goes where its original
    goes. Of a single video the last tenth of the frames becomes the validation split.

    Args:
        records: Records whose ``split`` is not yet meant.
        given: Split by key, as the folders say; None where they say nothing.
    """
    splits = {record.key: given[record.key] or "train" for record in records}
    free = [record for record in records if splits[record.key] == "train"]
    if "val" not in splits.values() and len(free) > 1:
        originals = [record.key for record in free if "duplicate_of" not in record.flags]
        held_out = _held_out(originals) if len(originals) > 1 else set()
        for record in free:
            if record.flags.get("duplicate_of", record.key) in held_out:
                splits[record.key] = "val"
    placed = [replace(record, split=splits[record.key]) for record in records]
    if len(placed) == 1 and placed[0].split == "train" and placed[0].frames > 1:
        return _head_and_tail(placed[0])
    return placed


def _held_out(keys: list[str]) -> set[str]:
    """About a tenth of the keys, at least one and not all; adding videos does not move the others."""
    draws = {key: int(hashlib.sha256(key.encode("ascii")).hexdigest()[:8], 16) / 2**32 for key in keys}
    chosen = {key for key, draw in draws.items() if draw < VALIDATION_SHARE}
    if not chosen:
        return {min(keys, key=draws.__getitem__)}
    if len(chosen) == len(keys):
        return chosen - {max(keys, key=draws.__getitem__)}
    return chosen


def _head_and_tail(record: ClipRecord) -> list[ClipRecord]:
    cut = record.frames - max(1, int(record.frames * VALIDATION_SHARE))
    actions = record.actions
    head = replace(record, frames=cut, actions=actions[:cut] if actions is not None else None)
    tail = replace(
        record,
        key=f"{record.key}-tail",
        split="val",
        offset=record.offset + head.bytes,
        frames=record.frames - cut,
        actions=actions[cut:] if actions is not None else None,
    )
    return [head, tail]
