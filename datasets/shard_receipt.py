"""What the writer of a shard leaves beside it: size, checksum, clips, videos.

With the receipts of all shards the manifest is written without reading a shard, by whoever comes last; and a shard
that was damaged after it was written is known from one that is whole.
"""

from dataclasses import asdict, dataclass
from typing import Any

from tokenreel.datasets.place import Place
from tokenreel.datasets.shard_manifest import ShardEntry, exact_keys, json_bytes, read_json, shard_name

RECEIPTS = "receipts"
"""Folder of the receipts in the folder of a split."""


@dataclass(frozen=True)
class ShardReceipt:
    """One shard's line for the manifest, and the videos that its clips were cut from."""

    entry: ShardEntry
    videos: frozenset[str]


def receipt_name(number: int) -> str:
    """File name of the receipt of shard ``number``, in `RECEIPTS`."""
    return f"{number:06d}.json"


def write_receipt(place: Place, number: int, receipt: ShardReceipt) -> None:
    """Leave the receipt of a shard that is whole and under its name; the same shard gives the same bytes."""
    told = {**asdict(receipt.entry), "videos": sorted(receipt.videos)}
    place.child(RECEIPTS).write(receipt_name(number), json_bytes(told))


def read_receipt(place: Place, number: int, clips: int) -> ShardReceipt | None:
    """The receipt of shard ``number`` of ``clips`` clips; None if there is none that can be read."""
    try:
        receipt = read_json(place.child(RECEIPTS), receipt_name(number), _parse)
    except (FileNotFoundError, ValueError):
        return None
    return receipt if (receipt.entry.name, receipt.entry.clips) == (shard_name(number), clips) else None


def _parse(data: Any) -> ShardReceipt:
    values = dict(data) if isinstance(data, dict) else {}
    videos = values.pop("videos", None)
    if not isinstance(videos, list) or not all(isinstance(video, str) for video in videos):
        raise ValueError(f"videos: got {videos!r}, expected a list of names")
    return ShardReceipt(ShardEntry(**exact_keys(ShardEntry, values)), frozenset(videos))
