"""The clip store: frames decoded once, memory-mapped, with a record per video; and the clips cut from it.

store = open_or_ingest(Path("my/videos"), IngestSettings(height=64, width=64, fps=10.0))
windows = ClipWindows(store, "train", clip_frames=16)
windows[0]  # uint8 (16, 64, 64, 3)
"""

import hashlib
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from tokenreel.datasets.atomic_folder import atomic_folder
from tokenreel.datasets.clip_record import (
    CHANNELS,
    CLIPS_FILE,
    FORMAT_VERSION,
    FRAMES_FILE,
    REJECTED_FILE,
    STORE_FILE,
    ClipRecord,
)
from tokenreel.datasets.clip_splits import leak_warning
from tokenreel.datasets.curation import NO_RULES, CurationRules
from tokenreel.datasets.found_video import VideoSource
from tokenreel.datasets.frame_fit import Size
from tokenreel.datasets.ingest import IngestSettings, ingest
from tokenreel.datasets.video_folder import counted
from tokenreel.datasets.video_source import video_source

SAID = ("label", "caption", "licence", "source")
"""What the record of a clip takes over from that of its video."""


class ClipStore:
    """Read access to a clip store. It may be pickled, and used after a fork.

    Attributes:
        path: Its folder.
        info: What ``store.json`` says: settings, source, fingerprint, counts per split.
        records: One per video.
    """

    def __init__(self, path: Path, info: dict[str, Any], records: Sequence[ClipRecord]) -> None:
        self.path, self.info, self.records = path, info, tuple(records)
        self._data: np.ndarray | None = None

    @classmethod
    def open(cls, path: Path) -> "ClipStore":
        """Opens a store and checks that it is whole.

        Raises:
            FileNotFoundError: If there is no clip store.
            ValueError: If it is of another version, or damaged.
        """
        if not is_clip_store(path):
            raise FileNotFoundError(f"no clip store in {path}: {STORE_FILE} is missing; ingest the videos again")
        again = "delete the folder and ingest the videos again"
        try:
            info = json.loads((path / STORE_FILE).read_text(encoding="utf-8"))
            version = info["format_version"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path / STORE_FILE} cannot be read ({error!r}); {again}") from error
        if version != FORMAT_VERSION:
            raise ValueError(f"clip store {path} has format version {version}, expected {FORMAT_VERSION}; {again}")
        records = []
        for number, line in enumerate((path / CLIPS_FILE).read_text(encoding="utf-8").splitlines(), start=1):
            try:
                records.append(ClipRecord.from_json(line))
            except ValueError as error:
                raise ValueError(f"{path / CLIPS_FILE}, line {number}: {error}; {again}") from error
        size = (path / FRAMES_FILE).stat().st_size
        expected = max((record.offset + record.bytes for record in records), default=0)
        if size != expected or size == 0:
            raise ValueError(f"{path / FRAMES_FILE} has {size} bytes, expected {expected}; {again}")
        return cls(path, info, records)

    @property
    def fingerprint(self) -> str:
        """sha256 (hex) of what the store holds."""
        return self.info["fingerprint"]

    @property
    def curation(self) -> CurationRules:
        """The rules that chose what it holds."""
        return CurationRules(**self.info["curation"]) if "curation" in self.info else NO_RULES

    def split(self, name: str) -> list[ClipRecord]:
        """The records of one split, in the order of the store."""
        return [record for record in self.records if record.split == name]

    @property
    def first_size(self) -> Size:
        """(height, width) of the frames that it was made for; it may hold videos of other sizes beside."""
        return self.info["settings"]["height"], self.info["settings"]["width"]

    def held_out_split(self, clip_frames: int) -> str:
        """``val`` if a video of it, of the first size, has so many frames; else ``train``, better than nothing."""
        fit = (record.frames >= clip_frames and record.size == self.first_size for record in self.split("val"))
        return "val" if any(fit) else "train"

    def frames(self, record: ClipRecord, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Reads frames of one video.

        Args:
            record: One of ``records``.
            start: First frame.
            stop: Frame after the last; None for the end of the video.

        Returns:
            uint8 (T, H, W, 3), a copy.

        Raises:
            IndexError: If the frames are not all there.
        """
        return self.view(record, start, stop).copy()

    def view(self, record: ClipRecord, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Frames as ``frames`` gives them, but mapped from the file and not writeable."""
        stop = record.frames if stop is None else stop
        if not 0 <= start <= stop <= record.frames:
            raise IndexError(f"frames {start}:{stop} of {record.key}, which has {record.frames} frames")
        first = record.offset + start * record.frame_bytes
        flat = self._bytes()[first : first + (stop - start) * record.frame_bytes]
        return flat.reshape(stop - start, record.height, record.width, CHANNELS)

    def _bytes(self) -> np.ndarray:
        # Mapped at first use in each process; np.asarray drops the subclass, whose slices are slow.
        if self._data is None:
            self._data = np.asarray(np.memmap(self.path / FRAMES_FILE, np.uint8, mode="r"))
        return self._data

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_data": None}


class ClipWindows:
    """All clips of ``clip_frames`` consecutive frames in one split, one at each start divisible by ``hop``.

    A clip store may hold videos of several frame sizes; these are those of one of them (see ``clip_shapes`` for all).

    Attributes:
        store: The clip store.
        size: (height, width) of the frames: the one asked for, else the store's first.
        records: The videos of that size that are long enough, in the order of the store.
        skipped: The videos that are shorter than a clip, or of another size.
        clip_frames: Frames per clip.
        hop: Frames between the starts of neighbouring clips.

    Args:
        store: The clip store.
        split: Which videos.
        clip_frames: See above.
        hop: See above.
        size: See above.
        below: Only videos with fewer frames than this.

    Raises:
        ValueError: If no such video of the split is long enough.
    """

    def __init__(
        self,
        store: ClipStore,
        split: str,
        clip_frames: int,
        hop: int = 1,
        size: Size | None = None,
        below: int | None = None,
    ) -> None:
        if clip_frames < 1 or hop < 1:
            raise ValueError(f"clip_frames {clip_frames} and hop {hop}, expected at least 1 each")
        videos = store.split(split)
        self.store, self.clip_frames, self.hop, self.size = store, clip_frames, hop, size or store.first_size
        lengths = range(clip_frames, below or sys.maxsize)
        fits = [record.frames in lengths and record.size == self.size for record in videos]
        self.records = [record for record, fit in zip(videos, fits, strict=True) if fit]
        self.skipped = [record for record, fit in zip(videos, fits, strict=True) if not fit]
        if not self.records:
            raise ValueError(_too_short(store, split, videos, clip_frames))
        counts = [(record.frames - clip_frames) // hop + 1 for record in self.records]
        self._ends = np.cumsum(counts)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def location(self, index: int) -> tuple[ClipRecord, int]:
        """The video and the first frame of a clip.

        Raises:
            IndexError: If there is no clip with this number.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"clip {index}, expected 0 to {len(self) - 1}")
        video = int(np.searchsorted(self._ends, index, side="right"))
        before = int(self._ends[video - 1]) if video else 0
        return self.records[video], (int(index) - before) * self.hop

    @property
    def num_videos(self) -> int:
        """Videos that the clips are of."""
        return len(self.records)

    def places_of_clips(self) -> tuple[np.ndarray, np.ndarray]:
        """Of every clip the place of its video in ``records``, and its first frame: int64 (clips,) twice."""
        counts = np.diff(self._ends, prepend=0)
        begins = np.repeat(self._ends - counts, counts)
        return np.repeat(np.arange(len(counts)), counts), (np.arange(len(begins)) - begins) * self.hop

    def record(self, index: int, later: int = 0) -> dict[str, Any]:
        """What is known about one clip: its video, its place in it, and what the user said about it.

        Args:
            index: Number of the clip.
            later: Frames by which it begins later than that one.

        Returns:
            "video", "start", "fps"; "label", "caption", "licence", "source", "actions" (``actions[t]`` is what was
            done after frame t of the clip) and "action_names" where they are known.
        """
        video, start = self.location(index)
        start += later
        record: dict[str, Any] = {"video": video.key, "start": start, "fps": video.fps}
        record |= {name: value for name in SAID if (value := getattr(video, name)) is not None}
        if video.actions is not None:
            record["actions"] = video.actions[start : start + self.clip_frames]
            record["action_names"] = video.action_names
        return record

    def __getitem__(self, index: int) -> np.ndarray:
        """One clip, uint8 (T, H, W, 3)."""
        record, start = self.location(index)
        return self.store.frames(record, start, start + self.clip_frames)

    def batch(self, ids: Sequence[int] | np.ndarray) -> np.ndarray:
        """Several clips, uint8 (B, T, H, W, 3)."""
        height, width = self.size
        # Copied once, straight into place: np.stack over clips took 15 times as long.
        clips = np.empty((len(ids), self.clip_frames, height, width, CHANNELS), np.uint8)
        for clip, index in zip(clips, ids, strict=True):
            record, start = self.location(int(index))
            clip[:] = self.store.view(record, start, start + self.clip_frames)
        return clips


def is_clip_store(path: Path) -> bool:
    """Whether a folder is a (finished) clip store."""
    return (path / STORE_FILE).is_file()


def open_or_ingest(
    data: Path, settings: IngestSettings, cache: Path = Path("runs/clips"), progress: bool = True, part: str = ""
) -> ClipStore:
    """Opens the clip store of a folder of videos, and makes it first if it is not there yet.

    Args:
        data: What ``video_source`` knows, such as a folder of videos; or a clip store.
        settings: How videos are brought to frames.
        cache: Folder that holds the stores; the name of each tells folder, size and fps, and a hash of the
            listing.
        progress: Whether to show a progress bar and a summary.
        part: Which part of a dataset to read, see ``video_source``.

    Raises:
        FileNotFoundError: If there is nothing at that path.
        ValueError: If it holds no readable video, broken metadata, or a clip store made with other settings.
        OSError: If the store cannot be written.
    """
    if is_clip_store(data):
        if part:
            raise ValueError(f"part {part!r} of {data}, which is a clip store; give the data that it was made from")
        return _opened_as_is(data, settings)
    videos = video_source(data, part)
    path = cache / _store_name(videos, settings)
    if is_clip_store(path):
        return ClipStore.open(path)
    console = Console(quiet=not progress)
    console.print(f"{data}: {videos.kind}", highlight=False, soft_wrap=True, markup=False)
    with atomic_folder(path) as temporary:
        ingest(videos, settings, temporary, console)
    store = ClipStore.open(path)
    console.print(_summary(store), highlight=False, soft_wrap=True)
    if leak := leak_warning(store.records):
        console.print(f"note: {leak}", highlight=False, soft_wrap=True, markup=False)
    return store


def _opened_as_is(path: Path, settings: IngestSettings) -> ClipStore:
    store = ClipStore.open(path)
    wanted_others = [list(size) for size in settings.others]
    if (others := store.info["settings"].get("others", [])) != wanted_others:
        raise ValueError(f"clip store {path} has other sizes {others}, expected {wanted_others}; give its videos")
    for name in ("height", "width", "fps"):
        got, wanted = store.info["settings"][name], getattr(settings, name)
        if got != wanted:
            raise ValueError(f"clip store {path} has {name} {got}, expected {wanted}; give the videos it was made from")
    # The defaults ask for nothing of a store that is finished.
    for name, wanted in settings.curation.told.items() if settings.curation not in (NO_RULES, CurationRules()) else ():
        got = store.curation.told[name]
        if got != wanted:
            raise ValueError(
                f"clip store {path} was made with curation.{name} {got}, expected {wanted}; give the videos it was "
                "made from"
            )
    return store


def _store_name(videos: VideoSource, settings: IngestSettings) -> str:
    chosen = [FORMAT_VERSION, videos.fingerprint(), settings.that_matter, settings.curation.told]
    content = json.dumps(chosen, sort_keys=True)
    key = hashlib.sha256(content.encode("ascii")).hexdigest()[:8]
    name = re.sub(r"[^A-Za-z0-9_-]", "-", videos.root.absolute().name) or "videos"
    rate = "native" if settings.fps is None else f"{settings.fps:g}"
    return f"{name}-{settings.height}x{settings.width}-{rate}fps-{key}"


def _summary(store: ClipStore) -> str:
    frames = sum(record.frames for record in store.records)
    videos, shots = len({record.file for record in store.records}), store.info["shots"]
    line = f"kept {videos} videos ({frames} frames{f' in {shots} shots' if shots != videos else ''})"
    if left_out := store.info["left_out"]:
        line += ", left out " + ", ".join(f"{count} frames {reason}" for reason, count in left_out.items())
    rejected = store.info["rejected"]
    line += f", rejected {rejected} (see {store.path / REJECTED_FILE})" if rejected else ", rejected none"
    ignored = counted(store.info["ignored"])
    return f"{line}, ignored {ignored}" if ignored else line


def _too_short(store: ClipStore, split: str, videos: list[ClipRecord], clip_frames: int) -> str:
    if not videos:
        splits = ", ".join(sorted({record.split for record in store.records}))
        return f"no videos in split {split!r} of {store.path}, expected one of {splits}; add a folder {split}"
    fit = [record for record in videos if record.size == store.first_size]
    if not fit:
        height, width = store.first_size
        return (
            f"no video of split {split!r} has frames of {height}x{width}, expected some; name a size first that more "
            "of them are nearest to (--size, --width)"
        )
    longest = max(fit, key=lambda record: record.frames)
    # Clips are cut in multiples of the tokenizer's time stride, most often 4.
    use = longest.frames // 4 * 4 or longest.frames
    return (
        f"the longest video of split {split!r} has {longest.frames} frames at {longest.fps:g} fps, "
        f"expected at least {clip_frames}; use --clip-frames {use}, a higher --fps, or longer videos"
    )
