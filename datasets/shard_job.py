"""Tokenizing as a job of independent shards: any number of processes may share it, a killed one is run again.

store_plan(folder, plan)
for number, (start, stop) in enumerate(plan.ranges):
    if finished_shard(folder, plan, number) is None:
        put_shard(folder, plan, number, indices, records)
if not unfinished(folder, plan):
    finish(folder, plan)
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from tokenreel.datasets.atomic_file import writer_of
from tokenreel.datasets.atomic_folder import process_lives
from tokenreel.datasets.place import LocalPlace, Place, open_place
from tokenreel.datasets.shard_block import Record
from tokenreel.datasets.shard_file import read_clips, shard_entry, write_shard
from tokenreel.datasets.shard_manifest import (
    ShardEntry,
    ShardManifest,
    exact_keys,
    json_bytes,
    read_json,
    shard_name,
)
from tokenreel.datasets.shard_receipt import RECEIPTS, ShardReceipt, read_receipt, receipt_name, write_receipt

PLAN_NAME = "plan.json"
AT_ONCE = 16
"""Requests to a store at the same time."""


@dataclass(frozen=True)
class ShardPlan:
    """What a job will write: fixed before the first shard, so that all processes write the same shards.

    Attributes:
        manifest: The manifest without shards.
        num_clips: Clips of the split, in a fixed order.
        clips_per_shard: Clips per shard; the last one may be shorter.

    Raises:
        ValueError: If a number is not positive or the manifest has shards already.
    """

    manifest: ShardManifest
    num_clips: int
    clips_per_shard: int = 4096

    def __post_init__(self) -> None:
        shard_ranges(self.num_clips, self.clips_per_shard)
        if self.manifest.shards or self.manifest.videos:
            raise ValueError(f"a plan's manifest lists no shards yet, got {len(self.manifest.shards)}")

    @property
    def ranges(self) -> list[tuple[int, int]]:
        """Clips ``start <= i < stop`` of each shard."""
        return shard_ranges(self.num_clips, self.clips_per_shard)

    def to_json(self) -> dict[str, Any]:
        """The plan as plain JSON values."""
        return {
            "manifest": self.manifest.to_json(),
            "num_clips": self.num_clips,
            "clips_per_shard": self.clips_per_shard,
        }

    @classmethod
    def from_json(cls, data: Any) -> "ShardPlan":
        """The plan that `to_json` described.

        Raises:
            ValueError: If a key is unknown or missing, or a value is not what it must be.
        """
        values = exact_keys(cls, data)
        return cls(**{**values, "manifest": ShardManifest.from_json(values["manifest"])})


def shard_ranges(num_clips: int, clips_per_shard: int) -> list[tuple[int, int]]:
    """Cut ``num_clips`` clips into shards of ``clips_per_shard``.

    Returns:
        ``(start, stop)`` per shard; the last one may be shorter.

    Raises:
        ValueError: If a number is not an integer of at least 1.
    """
    for name, value in (("num_clips", num_clips), ("clips_per_shard", clips_per_shard)):
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} is {value!r}, expected an integer of at least 1")
    starts = range(0, num_clips, clips_per_shard)
    return [(start, min(start + clips_per_shard, num_clips)) for start in starts]


def store_plan(folder: Path | Place, plan: ShardPlan) -> None:
    """Make the folder this job's, or check that it already is.

    Args:
        folder: Of one split, e.g. ``runs/tokens/train``; made when missing.
        plan: What will be written.

    Raises:
        ValueError: If the folder belongs to another job; names what differs.
        OSError: If the folder cannot be written.
    """
    place = open_place(folder)
    if not place.exists(PLAN_NAME) and place.create(PLAN_NAME, json_bytes(plan.to_json())):
        return
    before = _flat(read_json(place, PLAN_NAME, ShardPlan.from_json))
    now = _flat(plan)
    if different := [name for name in now if before[name] != now[name]]:
        name = different[0]
        others = f" (and {', '.join(different[1:])})" if different[1:] else ""
        raise ValueError(
            f"{place} belongs to another job: {name} is {before[name]!r}, expected "
            f"{now[name]!r}{others}; choose another --out or delete the folder"
        )


def put_shard(
    folder: Path | Place, plan: ShardPlan, number: int, indices: np.ndarray, records: Sequence[Record]
) -> ShardEntry:
    """Write shard ``number`` and then its receipt; each is whole or absent, and the same whoever writes it.

    Args:
        folder: Of the split.
        plan: The job.
        number: Which shard, in [0, len(plan.ranges)).
        indices: Its clips, integers (N, T', H', W').
        records: One per clip.

    Raises:
        ValueError: If indices or records are not what the plan says.
        OSError: If they cannot be written.
    """
    place, name = open_place(folder), shard_name(number)
    if isinstance(place, LocalPlace):
        entry = write_shard(place.folder / name, indices, records, plan.manifest)
    else:
        with TemporaryDirectory() as building:
            entry = write_shard(Path(building) / name, indices, records, plan.manifest)
            place.send(Path(building) / name, name)
    write_receipt(place, number, ShardReceipt(entry, frozenset(record["video"] for record in records)))
    return entry


def finished_shard(folder: Path | Place, plan: ShardPlan, number: int) -> ShardEntry | None:
    """The manifest's line for shard ``number`` if it is there and whole; None if it must be written.

    On this disk the checksum is compared; in a store, which keeps its own, the size.
    """
    receipt = _receipt(open_place(folder), plan, number)
    return receipt.entry if receipt else None


def _receipt(place: Place, plan: ShardPlan, number: int) -> ShardReceipt | None:
    """The receipt of a shard that is there and whole; made where it is missing."""
    start, stop = plan.ranges[number]
    receipt = read_receipt(place, number, stop - start)
    if receipt is None:
        return _late_receipt(place, plan, number)
    whole = place.size(receipt.entry.name) == receipt.entry.bytes
    if whole and isinstance(place, LocalPlace):
        whole = shard_entry(place.folder / receipt.entry.name, stop - start) == receipt.entry
    return receipt if whole else None


def _late_receipt(place: Place, plan: ShardPlan, number: int) -> ShardReceipt | None:
    """Of a shard without one: its writer was killed in between, or was an older version."""
    if not isinstance(place, LocalPlace) or place.size(shard_name(number)) is None:
        return None
    path, (start, stop) = place.folder / shard_name(number), plan.ranges[number]
    try:
        _, records = read_clips(path, plan.manifest, stop - start)
    except ValueError:
        return None
    receipt = ShardReceipt(shard_entry(path, clips=stop - start), frozenset(record["video"] for record in records))
    write_receipt(place, number, receipt)
    return receipt


def unfinished(folder: Path | Place, plan: ShardPlan) -> list[int]:
    """Which shards of the whole job have no file or no receipt yet; a listing, nothing is read."""
    place = open_place(folder)
    shards, receipts = place.sizes(), place.child(RECEIPTS).sizes()
    return [
        number
        for number in range(len(plan.ranges))
        if shard_name(number) not in shards or receipt_name(number) not in receipts
    ]


def finish(folder: Path | Place, plan: ShardPlan) -> ShardManifest:
    """Check that every shard is what its receipt says and write the manifest: the split exists from here on.

    Any number of processes may do so, at the same time or again. Files that killed processes left under temporary
    names are removed.

    Args:
        folder: Of the split.
        plan: The job.

    Returns:
        The manifest as written.

    Raises:
        ValueError: If a shard is missing or damaged; names the first one and how many. If the folder is another job's.
        OSError: If the folder cannot be written.
    """
    place = open_place(folder)
    store_plan(place, plan)  # two jobs may have begun at the same moment in a store that cannot refuse one
    numbers = range(len(plan.ranges))
    with ThreadPoolExecutor(1 if isinstance(place, LocalPlace) else AT_ONCE) as pool:
        receipts = list(pool.map(lambda number: _receipt(place, plan, number), numbers))
    if bad := [number for number in numbers if receipts[number] is None]:
        start, stop = plan.ranges[bad[0]]
        raise ValueError(
            f"{len(bad)} of {len(numbers)} shards are missing or damaged, the first: {place}/{shard_name(bad[0])}, "
            f"clips {start}..{stop - 1}; run tools/tokenize_dataset.py again, which writes those alone"
        )
    if isinstance(place, LocalPlace):
        for home in (place.folder, place.folder / RECEIPTS):
            _remove_leftovers(home)
    whole = [receipt for receipt in receipts if receipt]
    videos = frozenset[str]().union(*(receipt.videos for receipt in whole))
    manifest = replace(plan.manifest, videos=len(videos), shards=tuple(receipt.entry for receipt in whole))
    manifest.save(place)
    return manifest


def _remove_leftovers(folder: Path) -> None:
    for leftover in folder.glob("*.tmp-*"):
        pid = writer_of(leftover.name)
        # Another process may share the job, and whether one of another machine lives is not known here.
        if pid is not None and not process_lives(pid):
            leftover.unlink(missing_ok=True)


def _flat(plan: ShardPlan) -> dict[str, Any]:
    """The plan's values on one level, so that a difference can be named."""
    data = plan.to_json()
    return {**data.pop("manifest"), **data}
