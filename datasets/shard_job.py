"""Tokenizing as a job of independent shards: any number of processes may share it, a killed one is run again.

store_plan(folder, plan)
for number, (start, stop) in enumerate(plan.ranges):
    if finished_shard(folder, plan, number) is None:
        write_shard(folder / shard_name(number), indices, records, plan.manifest)
finish(folder, plan)
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tokenreel.datasets.atomic_folder import process_lives
from tokenreel.datasets.shard_file import read_clips, shard_entry
from tokenreel.datasets.shard_manifest import (
    ShardEntry,
    ShardManifest,
    exact_keys,
    read_json,
    shard_name,
    write_json,
)

PLAN_NAME = "plan.json"


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


def store_plan(folder: Path, plan: ShardPlan) -> None:
    """Make ``folder`` this job's, or check that it already is.

    Args:
        folder: Folder of one split, e.g. ``runs/tokens/train``; made when missing.
        plan: What will be written.

    Raises:
        ValueError: If the folder belongs to another job; names what differs.
        OSError: If the folder cannot be written.
    """
    path = folder / PLAN_NAME
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_json(path, plan.to_json())
        return
    before = _flat(read_json(path, ShardPlan.from_json))
    now = _flat(plan)
    if different := [name for name in now if before[name] != now[name]]:
        name = different[0]
        others = f" (and {', '.join(different[1:])})" if different[1:] else ""
        raise ValueError(
            f"{folder} belongs to another job: {name} is {before[name]!r}, expected "
            f"{now[name]!r}{others}; choose another --out or delete the folder"
        )


def finished_shard(folder: Path, plan: ShardPlan, number: int) -> ShardEntry | None:
    """The manifest's line for shard ``number`` if it is there and whole; None if it must be written.

    Args:
        folder: Folder of the split.
        plan: The job.
        number: Which shard, in [0, len(plan.ranges)).

    Returns:
        The line, with the sha256 of the file as it is now.
    """
    path = folder / shard_name(number)
    start, stop = plan.ranges[number]
    if not path.is_file():
        return None
    try:
        read_clips(path, plan.manifest, stop - start)
    except ValueError:
        return None
    return shard_entry(path, clips=stop - start)


def finish(folder: Path, plan: ShardPlan) -> ShardManifest:
    """Read every shard back and write the manifest: the split exists from here on.

    Files that killed processes left under temporary names are removed.

    Args:
        folder: Folder of the split.
        plan: The job.

    Returns:
        The manifest as written.

    Raises:
        ValueError: If a shard is missing or damaged; names the first one and how many.
        OSError: If the folder cannot be written.
    """
    entries: list[ShardEntry] = []
    bad: list[str] = []
    videos: set[str] = set()
    for number, (start, stop) in enumerate(plan.ranges):
        path = folder / shard_name(number)
        try:
            _, records = read_clips(path, plan.manifest, stop - start)
        except FileNotFoundError:
            bad.append(f"{path} is missing; run tools/tokenize_dataset.py again")
            continue
        except ValueError as error:
            bad.append(str(error))
            continue
        videos.update(record["video"] for record in records)
        entries.append(shard_entry(path, clips=stop - start))
    if bad:
        raise ValueError(f"{len(bad)} of {len(plan.ranges)} shards are missing or damaged, the first: {bad[0]}")
    for leftover in folder.glob("*.tmp-*"):
        pid = leftover.name.rpartition(".tmp-")[2]
        if not (pid.isdigit() and process_lives(int(pid))):  # another process may share the job
            leftover.unlink(missing_ok=True)
    manifest = replace(plan.manifest, videos=len(videos), shards=tuple(entries))
    manifest.save(folder)
    return manifest


def _flat(plan: ShardPlan) -> dict[str, Any]:
    """The plan's values on one level, so that a difference can be named."""
    data = plan.to_json()
    return {**data.pop("manifest"), **data}
