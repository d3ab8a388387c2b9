"""What a clip store looks like on disk: file names, version, and the record of one video."""

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

FORMAT_VERSION = 1
FRAMES_FILE = "frames.u8"
CLIPS_FILE = "clips.jsonl"
REJECTED_FILE = "rejected.jsonl"
SOURCES_FILE = "sources.jsonl"
STORE_FILE = "store.json"
CHANNELS = 3


@dataclass(frozen=True)
class ClipRecord:
    """One video in a clip store, or one shot of a video.

    Attributes:
        key: Unique name made of letters, digits, ``_`` and ``-``.
        file: Path of the source file relative to the data folder, with ``/``; of a video that is a part of a file, a
            name that looks like one.
        split: ``train``, ``val`` or ``test``.
        offset: First byte of its frames in ``frames.u8``.
        frames: Number of frames.
        height: Height of the frames in pixels.
        width: Width of the frames in pixels.
        fps: Frames per second of the frames as stored.
        source_fps: Measured frames per second of the source; 0 when unknown.
        source_frames: Frames decoded from the source.
        time_base: Seconds per tick of the source's time stamps, as a fraction, e.g. ``1/15360``.
        rotation: Degrees counter-clockwise by which frames were turned: 0, 90, 180 or 270.
        sha256: Of the source file; of the frames as stored, where the video is a part of a file.
        flags: What is unusual, by name: ``damaged`` (reason), ``static``, ``black``, ``vfr``, ``upsampled``,
            ``alpha`` (laid over white), ``clock_jumps`` (number), ``bars_cut_off`` (shares above,
            below, left and right), ``duplicate_of`` (key of one from the same bytes),
            ``near_duplicate_of`` (key of one that looks the same), ``actions_length``, ``actions_mismatch`` and
            ``actions_resampled`` (what).
        label: Class, from the folder or the metadata.
        caption: Text from the metadata.
        actions: One action per stored frame, from the metadata.
        action_names: Names of the actions 0, 1, ….
        start: Where in its video it begins, in frames as stored.
        licence: Under what terms the video may be used.
        source: Where the video comes from.
        group: Videos of one group stay on one side of the split.
        extra: All else that the metadata say of it.
    """

    key: str
    file: str
    split: str
    offset: int
    frames: int
    height: int
    width: int
    fps: float
    source_fps: float
    source_frames: int
    time_base: str
    rotation: int
    sha256: str
    flags: dict[str, Any] = field(default_factory=dict)
    label: str | None = None
    caption: str | None = None
    actions: list[Any] | None = None
    action_names: list[str] | None = None
    start: int = 0
    licence: str | None = None
    source: str | None = None
    group: str | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def frame_bytes(self) -> int:
        """Bytes of one frame."""
        return self.height * self.width * CHANNELS

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the frames in pixels."""
        return self.height, self.width

    @property
    def bytes(self) -> int:
        """Bytes of all frames."""
        return self.frames * self.frame_bytes

    def to_json(self) -> str:
        """The record as one line of JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, line: str) -> "ClipRecord":
        """Reads what ``to_json`` wrote; fields that a later minor version may add are passed over.

        Raises:
            ValueError: If the line is no record.
        """
        data = json.loads(line)
        if not isinstance(data, dict):
            raise ValueError("not a JSON object")
        try:
            return cls(**{f.name: data[f.name] for f in fields(cls) if f.name in data})
        except TypeError as error:
            raise ValueError(f"not a clip record: {error}") from error


def write_lines(path: Path, lines: list[str]) -> None:
    """Writes lines of ASCII text."""
    path.write_text("".join(f"{line}\n" for line in lines), encoding="ascii")
