"""A folder of videos becomes a clip store: files decoded once, in child processes, nothing silently lost."""

import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tokenreel.datasets.clip_record import (
    CLIPS_FILE,
    FORMAT_VERSION,
    FRAMES_FILE,
    REJECTED_FILE,
    SOURCES_FILE,
    STORE_FILE,
    ClipRecord,
    write_lines,
)
from tokenreel.datasets.clip_splits import with_duplicates, with_splits
from tokenreel.datasets.curation import NO_RULES, CurationRules
from tokenreel.datasets.decoding import Decoder
from tokenreel.datasets.found_video import FoundVideo, Rejected, VideoSource
from tokenreel.datasets.frame_fit import Size
from tokenreel.datasets.ingest_pool import decode_all
from tokenreel.datasets.ingest_shots import LEFT_NOTHING, ShotWriter, records_of, rejection


@dataclass(frozen=True)
class IngestSettings:
    """How videos are brought to frames.

    Attributes:
        height: Height of the stored frames in pixels.
        width: Width of the stored frames in pixels.
        fps: Frames per second of the stored frames, by time; None keeps every frame of every source.
        decoder: ``pyav`` or ``decord``.
        time_limit: Seconds after which a file is given up.
        workers: Child processes that decode; 0 means one per CPU core.
        curation: What of the videos is kept; by default every video whole.
        others: Other (height, width) that will do: each video is brought to the one nearest its shape.
    """

    height: int = 64
    width: int = 64
    fps: float | None = 10.0
    decoder: Decoder = "pyav"
    time_limit: float = 600.0
    workers: int = 0
    curation: CurationRules = NO_RULES
    others: tuple[Size, ...] = ()

    def __post_init__(self) -> None:
        for height, width in (sizes := [(self.height, self.width), *self.others]):
            if height < 1 or width < 1:
                raise ValueError(f"frame size {height}x{width}, expected at least 1x1; use e.g. 64x64")
        if len(set(sizes)) < len(sizes):
            raise ValueError(f"frame sizes {sizes}, expected each once; leave the second one out")
        if self.fps is not None and not 0 < self.fps <= 1000:
            raise ValueError(f"fps {self.fps}, expected more than 0 and at most 1000; use e.g. 10")
        if self.decoder not in ("pyav", "decord"):
            raise ValueError(f"decoder {self.decoder!r}, expected 'pyav' or 'decord'")
        if self.time_limit <= 0:
            raise ValueError(f"time_limit {self.time_limit} s, expected more than 0; use e.g. 600")
        if self.workers < 0:
            raise ValueError(f"workers {self.workers}, expected 0 (one per CPU core) or more")

    @property
    def that_matter(self) -> dict[str, Any]:
        """The settings on which the pixels of the stored frames depend."""
        usual = {"height": self.height, "width": self.width, "fps": self.fps, "decoder": self.decoder}
        usual |= {"letterbox": True} if self.curation.letterbox else {}
        return usual | ({"others": [list(size) for size in self.others]} if self.others else {})


def ingest(videos: VideoSource, settings: IngestSettings, folder: Path, console: Console) -> None:
    """Decodes the videos of a source and writes a clip store.

    Args:
        videos: What to read.
        settings: How.
        folder: An existing, empty folder; it is a clip store when this returns, and rubbish if it raises.
        console: Shows a progress bar, unless it is quiet.

    Raises:
        ValueError: If metadata are broken, a rule does not fit, or not one video could be read.
        OSError: If the store cannot be written.
    """
    found, rejected = videos.describe()
    if settings.curation.letterbox and any(video.place.reader == "array" for video in found):
        raise ValueError(f"curation.letterbox looks for bars in video files, {videos.root} has arrays; leave it out")
    records: list[ClipRecord] = []
    sources: list[dict[str, Any]] = []
    with (
        (folder / FRAMES_FILE).open("wb") as frames,
        _progress(console) as bar,
        # Closed at once, so that after an error no child is left that still writes.
        closing(_decoded(found, settings, folder)) as answers,
    ):
        writer = ShotWriter(frames, folder / FRAMES_FILE, settings.curation.duplicates)
        for video, answer in bar.track(answers, total=len(found), description="reading videos"):
            if "rejected" in answer:
                rejected.append(Rejected(video.name, answer["rejected"]))
                continue
            source = records_of(video, answer, settings.fps)
            try:
                kept = writer.write(source, Path(answer["part"]))
            except OSError as error:
                raise _cannot_write(folder, str(error)) from error
            records += kept
            sources.append(source.told)
            if not kept:
                rejected.append(Rejected(video.name, rejection(source.stretches)))
        frames.flush()
        os.fsync(frames.fileno())
    if not records:
        raise ValueError(_all_rejected(videos.root, rejected))
    shots, folders = len(records), {video.name: video.split for video in found}
    records = with_splits(with_duplicates(records), {record.key: folders[record.file] for record in records})
    write_lines(folder / CLIPS_FILE, [record.to_json() for record in records])
    write_lines(folder / SOURCES_FILE, [json.dumps(source) for source in sources])
    write_lines(folder / REJECTED_FILE, [json.dumps(vars(item)) for item in rejected])
    summary = _summary(videos, settings, records, rejected) | {"shots": shots, "left_out": _left_out(sources)}
    (folder / STORE_FILE).write_text(json.dumps(summary, indent=2) + "\n", encoding="ascii")


def _progress(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, disable=console.quiet or not console.is_terminal, transient=True)


def fingerprint(records: Sequence[ClipRecord], settings: dict[str, Any]) -> str:
    """sha256 (hex) over what a store holds: key, source, split, place of each record, and the settings."""
    content: list[list[Any]] = []
    after: dict[str, int] = {}
    for record in records:
        # Where nothing is left out, the lengths tell the places.
        place = [record.frames] if record.start == after.get(record.file, 0) else [record.frames, record.start]
        after[record.file] = record.start + record.frames
        content.append([record.key, record.sha256, record.split, *place])
    return hashlib.sha256(json.dumps([content, settings], sort_keys=True).encode("ascii")).hexdigest()


def _decoded(
    found: list[FoundVideo], settings: IngestSettings, folder: Path
) -> Generator[tuple[FoundVideo, dict[str, Any]]]:
    """Yields each video with the worker's answer and the ``part`` that holds its frames."""
    parts = folder / "parts"
    parts.mkdir()
    jobs = (
        {
            **settings.that_matter,
            "others": settings.others,
            "rules": settings.curation.told,
            **asdict(video.place),
            "part": str(parts.absolute() / f"{number}.u8"),
            "want_indices": video.metadata.actions is not None,
        }
        for number, video in enumerate(found)
    )
    workers = max(1, min(settings.workers or _cpu_cores(), len(found)))
    with closing(decode_all(jobs, workers, settings.time_limit, parts)) as answers:
        for number, (video, answer) in enumerate(zip(found, answers, strict=True)):
            if "failed" in answer:
                raise _cannot_write(folder, answer["failed"])
            part = parts / f"{number}.u8"
            yield video, {**answer, "part": part}
            part.unlink(missing_ok=True)
    shutil.rmtree(parts)


def _cpu_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cannot_write(folder: Path, reason: str) -> OSError:
    return OSError(f"cannot write in {folder}: {reason}; free space or use another folder")


def _summary(
    videos: VideoSource, settings: IngestSettings, records: list[ClipRecord], rejected: list[Rejected]
) -> dict[str, Any]:
    splits = sorted({record.split for record in records})
    of = {split: [record for record in records if record.split == split] for split in splits}
    return {
        "format_version": FORMAT_VERSION,
        "settings": settings.that_matter,
        "curation": settings.curation.told,
        "source": videos.root.absolute().name,
        "kind": videos.kind,
        "fingerprint": fingerprint(records, settings.that_matter),
        "bytes": sum(record.bytes for record in records),
        "videos": {split: len({record.file for record in members}) for split, members in of.items()},
        "frames": {split: sum(record.frames for record in members) for split, members in of.items()},
        "rejected": len(rejected),
        "ignored": dict(videos.others),
    }


def _left_out(sources: list[dict[str, Any]]) -> dict[str, int]:
    """Number of frames by the reason why they are not in the store."""
    frames: Counter[str] = Counter()
    for stretch in (stretch for source in sources for stretch in source["stretches"] if stretch["dropped"]):
        frames[stretch["dropped"]] += stretch["stop"] - stretch["start"]
    return dict(frames)


def _all_rejected(root: Path, rejected: list[Rejected]) -> str:
    reasons = "; ".join(f"{item.file}: {item.reason}" for item in rejected[:3])
    return (
        f"not one of the {len(rejected)} videos in {root} can be used ({reasons}"
        f"{'; …' if len(rejected) > 3 else ''}); give files that a player shows"
        f"{', or turn rules of curation off' if any(LEFT_NOTHING in item.reason for item in rejected) else ''}"
    )
