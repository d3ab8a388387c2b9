"""The clip store: frames decoded once, memory-mapped, with a record per video.

store = ClipStore.open(Path("runs/clips/videos-64x64-10fps-0a1b2c3d"))  # made by clip_cache
store.frames(store.records[0], 0, 16)  # uint8 (16, 64, 64, 3)
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tokenreel.datasets.clip_record import (
    CHANNELS,
    CLIPS_FILE,
    FORMAT_VERSION,
    FRAMES_FILE,
    STORE_FILE,
    ClipRecord,
)
from tokenreel.datasets.curation import NO_RULES, CurationRules
from tokenreel.datasets.frame_fit import Size


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

    def held_out_split(self, clip_frames: int, size: Size | None = None) -> str:
        """``val`` if a video of it has so many frames, of that size if one is named; else ``train``."""
        fit = (record.frames >= clip_frames and size in (None, record.size) for record in self.split("val"))
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


def is_clip_store(path: Path) -> bool:
    """Whether a folder is a (finished) clip store."""
    return (path / STORE_FILE).is_file()
