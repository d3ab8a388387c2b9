"""From a decoded video to the records of its shots: which frames go into the store, and what is said of the rest."""

import base64
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from tokenreel.datasets.clip_record import CHANNELS, ClipRecord
from tokenreel.datasets.curation import Duplicates, Stretch
from tokenreel.datasets.found_video import FoundVideo
from tokenreel.datasets.near_duplicates import SeenVideos
from tokenreel.datasets.video_metadata import aligned_actions

LEFT_NOTHING = "curation left nothing of it"
# Pictures are kept of so many stretches that were left out for one reason, this many pixels high at most.
PICTURES_PER_REASON = 60
PICTURE_SIDE = 96


@dataclass
class Source:
    """One video as it came out of the decoder.

    Attributes:
        stretches: All of it, in order; a copy that is dropped is marked here when it is found.
        records: One per stretch, None for those left out. ``offset`` is meant within the video.
        samples: Number and difference hash of some frames.
        size: (height, width) of its frames in pixels.
        told: What the store keeps of it; its list of ``stretches`` is filled when it is written.
    """

    stretches: list[Stretch]
    records: list[ClipRecord | None]
    samples: list[tuple[int, int]]
    size: tuple[int, int]
    told: dict[str, Any]

    def samples_of(self, record: ClipRecord) -> list[tuple[int, int]]:
        """The samples in one of its shots, by number of the frame in the shot."""
        stop = record.start + record.frames
        return [(frame - record.start, value) for frame, value in self.samples if record.start <= frame < stop]


def records_of(video: FoundVideo, answer: dict[str, Any], fps: float | None) -> Source:
    """The records of what curation keeps of a video.

    Args:
        video: The file and what is said about it.
        answer: See ``ingest_worker.decode``.
        fps: Frames per second of the stored frames; None for the source's.
    """
    facts = answer["facts"]
    stretches = [Stretch(**stretch) for stretch in answer["stretches"]]
    actions, remark = aligned_actions(video.metadata.actions, facts, answer["indices"])
    kept = sum(stretch.dropped is None for stretch in stretches)
    whole = ClipRecord(
        key=video.key,
        file=video.name,
        split=video.split or "train",
        offset=0,
        frames=answer["frames"],
        height=answer["height"],
        width=answer["width"],
        fps=fps or facts["source_fps"],
        source_fps=facts["source_fps"],
        source_frames=facts["source_frames"],
        time_base=facts["time_base"],
        rotation=facts["rotation"],
        sha256=answer["sha256"],
        flags={**_flags(facts, fps), **remark},
        label=video.metadata.label,
        caption=video.metadata.caption,
        actions=actions,
        action_names=video.metadata.action_names,
        licence=video.metadata.licence,
        source=video.metadata.source,
        group=video.metadata.group,
        extra=video.metadata.extra,
    )
    shots = count(1)
    records = [
        None
        if stretch.dropped
        else _shot(whole, stretch, f"{video.key}-shot{next(shots):03}" if kept > 1 else video.key)
        for stretch in stretches
    ]
    names = ("codec", "source_height", "source_width", "rotation", "source_fps", "damaged")
    told = {"file": video.name, **{name: facts[name] for name in names}, "height": whole.height, "width": whole.width}
    told |= {"fps": whole.fps, "frames": whole.frames, "stretches": []}
    samples = [(frame, value) for frame, value in answer["samples"]]
    return Source(stretches, records, samples, (whole.height, whole.width), told)


def rejection(stretches: Sequence[Stretch]) -> str:
    """Why nothing of a video is kept, in a few words."""
    counts = Counter[str]()
    for stretch in stretches:
        counts[stretch.dropped or ""] += stretch.frames
    return f"{LEFT_NOTHING}: " + ", ".join(f"{n} frame{'s' * (n > 1)} {reason}" for reason, n in counts.items())


class ShotWriter:
    """Appends the kept shots of one video after another to the frames of a store, and looks for copies.

    Args:
        frames: The file of frames, empty.
        path: Its name.
        duplicates: What to do about copies.
    """

    def __init__(self, frames: BinaryIO, path: Path, duplicates: Duplicates) -> None:
        self._frames, self._path, self._duplicates = frames, path, duplicates
        self._seen = SeenVideos()
        self._first_of: dict[str, str] = {}
        self._pictures: Counter[str] = Counter()

    def write(self, source: Source, part: Path) -> list[ClipRecord]:
        """Appends what is kept of a video; ``source.told`` is complete then.

        Args:
            source: The video.
            part: File with all of its frames.

        Returns:
            The records, at their places in the file of frames.

        Raises:
            OSError: If a file cannot be read or written.
        """
        written = []
        for number, (stretch, record) in enumerate(zip(source.stretches, source.records, strict=True)):
            if record is not None and self._duplicates != "off":
                record = self._known(record, source, part)
                if record is None:
                    source.stretches[number] = stretch = replace(stretch, dropped="duplicate")
            if record is not None:
                record = self._appended(record, source, part)
                written.append(record)
            picture = None if stretch.dropped is None else self._picture(stretch, source, part)
            told = {name: value for name, value in asdict(stretch).items() if name not in ("static", "black")}
            source.told["stretches"].append({**told, "key": record.key if record else None, "picture": picture})
        return written

    def _known(self, record: ClipRecord, source: Source, part: Path) -> ClipRecord | None:
        """The record, flagged if it is a copy; None if copies are left out."""
        drop = self._duplicates == "drop"
        if self._first_of.setdefault(record.sha256, record.file) != record.file:
            return None if drop else record  # flagged by clip_splits
        first = source.size[0] * source.size[1] * CHANNELS * record.start
        frames = partial(read_frames, part, first, source.size)
        original = self._seen.copy_of(source.samples_of(record), record.frames, frames)
        if original is None:
            return record
        return None if drop else replace(record, flags={**record.flags, "near_duplicate_of": original})

    def _appended(self, record: ClipRecord, source: Source, part: Path) -> ClipRecord:
        record = replace(record, offset=self._frames.tell())
        with part.open("rb") as file:
            file.seek(record.start * record.frame_bytes)
            left = record.bytes
            while left:
                piece = file.read(min(left, 1 << 20))
                if not piece:
                    raise OSError(f"{part} ends too early")
                self._frames.write(piece)
                left -= len(piece)
        if self._duplicates != "off":
            self._frames.flush()
            frames = partial(read_frames, self._path, record.offset, source.size)
            self._seen.add(record.key, source.samples_of(record), record.frames, frames)
        return record

    def _picture(self, stretch: Stretch, source: Source, part: Path) -> str | None:
        """The middle frame of what is left out, as JPEG in base64; None if there are enough of its kind."""
        reason = str(stretch.dropped)
        self._pictures[reason] += 1
        if self._pictures[reason] > PICTURES_PER_REASON:
            return None
        return jpeg_of(read_frames(part, 0, source.size, [(stretch.start + stretch.stop) // 2])[0])


def read_frames(path: Path, offset: int, size: tuple[int, int], numbers: Sequence[int]) -> np.ndarray:
    """Some frames of a file of frames, uint8 (N, H, W, 3).

    Args:
        path: The file.
        offset: Where its video begins, in bytes.
        size: (height, width) in pixels.
        numbers: Which frames.

    Raises:
        OSError: If the file cannot be read, or ends before one of them.
    """
    frames = np.empty((len(numbers), *size, CHANNELS), np.uint8)
    with path.open("rb", buffering=0) as file:
        for frame, number in zip(frames, numbers, strict=True):
            file.seek(offset + number * frame.nbytes)
            if file.readinto(frame.data) < frame.nbytes:
                raise OSError(f"{path} ends too early")
    return frames


def jpeg_of(image: np.ndarray) -> str:
    """A small JPEG of a frame, uint8 (H, W, 3), in base64."""
    picture = Image.fromarray(image)
    picture.thumbnail((PICTURE_SIDE, PICTURE_SIDE))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=70)
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def _shot(whole: ClipRecord, stretch: Stretch, key: str) -> ClipRecord:
    seen = {name: True for name in ("static", "black") if getattr(stretch, name)}
    return replace(
        whole,
        key=key,
        start=stretch.start,
        frames=stretch.frames,
        flags={**seen, **whole.flags},
        actions=whole.actions[stretch.start : stretch.stop] if whole.actions is not None else None,
    )


def _flags(facts: dict[str, Any], fps: float | None) -> dict[str, Any]:
    flags = {
        "damaged": facts["damaged"],
        "vfr": facts["vfr"],
        "alpha": facts["alpha"],
        # A thousandth is the difference between 30 and 29.97.
        "upsampled": bool(fps and facts["source_fps"] and facts["source_fps"] < fps * 0.998),
        "clock_jumps": facts["clock_jumps"],
        "bars_cut_off": [round(share, 3) for share in facts["bars"]] if any(facts["bars"]) else None,
    }
    return {name: value for name, value in flags.items() if value}
