"""What a folder of token shards is and what it was made from: ``manifest.json``."""

import json
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from tokenreel.datasets.atomic_file import atomic_file
from tokenreel.datasets.place import Place, open_place

FORMAT_VERSION = 1
MANIFEST_NAME = "manifest.json"

T = TypeVar("T")

_SHA256 = re.compile(r"[0-9a-f]{64}")
_SPLIT = re.compile(r"[A-Za-z0-9_-]+")


def shard_name(number: int) -> str:
    """File name of shard ``number`` (counted from 0), e.g. ``shard-000012.tar``."""
    return f"shard-{number:06d}.tar"


@dataclass(frozen=True)
class ShardEntry:
    """One shard: file name, size in bytes, sha256 of the file (hex), number of clips.

    Raises:
        ValueError: If a field has the wrong type or range.
    """

    name: str
    bytes: int
    sha256: str
    clips: int

    def __post_init__(self) -> None:
        _check(isinstance(self.name, str), "name", self.name, "a string")
        _check(_is_count(self.bytes, 1), "bytes", self.bytes, "an integer of at least 1")
        _check(_matches(_SHA256, self.sha256), "sha256", self.sha256, "64 hexadecimal digits")
        _check(_is_count(self.clips, 1), "clips", self.clips, "an integer of at least 1")


@dataclass(frozen=True)
class ShardManifest:
    """The token shards of one split.

    Attributes:
        tokenizer: Fingerprint (sha256, hex) of the tokenizer that made the indices.
        stride: Downsampling (time, height, width) of that tokenizer.
        codebook_size: K; indices are in [0, K).
        grid: Latent grid (t_lat, h_lat, w_lat) of every clip.
        split: Name of the split, e.g. ``train``.
        frame_size: (height, width) in pixels of the frames, ``grid * stride``.
        fps: Frames per second of the clips; None when each video kept its own (then it is in the records).
        clip_frames: Frames of one clip, ``t_lat * stride_t``.
        hop: Frames from the start of one clip to the start of the next one of the same video.
        source: Where the clips come from and what is known of their indices (JSON; the same in every run of the
            same job): ``data`` (folder, clip store, fingerprint, frames), ``levels`` (values of each digit of an
            index, empty if it has none), ``labels`` (class names).
        block: Clips per sample of the tar; the last block of a shard may be shorter.
        videos: Number of distinct videos; 0 as long as there are no shards.
        shards: The files in order; shard k is called ``shard_name(k)``.
        format_version: Always `FORMAT_VERSION`.

    Raises:
        ValueError: If a field has the wrong type or range, or two fields contradict each other.
    """

    tokenizer: str
    stride: tuple[int, int, int]
    codebook_size: int
    grid: tuple[int, int, int]
    split: str
    frame_size: tuple[int, int]
    fps: float | None
    clip_frames: int
    hop: int
    source: dict[str, Any] = field(default_factory=dict)
    block: int = 64
    videos: int = 0
    shards: tuple[ShardEntry, ...] = ()
    format_version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        _check_version(self.format_version)
        _check(_matches(_SHA256, self.tokenizer), "tokenizer", self.tokenizer, "64 hexadecimal digits")
        _check(_matches(_SPLIT, self.split), "split", self.split, "letters, digits, - and _")
        for name, length in (("stride", 3), ("grid", 3), ("frame_size", 2)):
            value = getattr(self, name)
            right = isinstance(value, tuple) and len(value) == length and all(_is_count(v, 1) for v in value)
            _check(right, name, value, f"{length} integers of at least 1")
        for name, least in (
            ("codebook_size", 2),
            ("clip_frames", 1),
            ("hop", 1),
            ("block", 1),
            ("videos", 0),
        ):
            value = getattr(self, name)
            _check(_is_count(value, least), name, value, f"an integer of at least {least}")
        _check(self.codebook_size <= 2**32, "codebook_size", self.codebook_size, "at most 2**32")
        right = self.fps is None or (_is_number(self.fps) and 0 < self.fps < float("inf"))
        _check(right, "fps", self.fps, "a positive number or null")
        right = isinstance(self.source, dict) and _is_json(self.source)
        _check(right, "source", self.source, "an object of plain JSON values")
        pixels = tuple(g * s for g, s in zip(self.grid, self.stride, strict=True))
        frames = (self.clip_frames, *self.frame_size)
        _check(frames == pixels, "clip_frames, frame_size", frames, f"grid x stride = {pixels}")
        for number, shard in enumerate(self.shards):
            _check(isinstance(shard, ShardEntry), "shards", shard, "a ShardEntry")
            _check(shard.name == shard_name(number), "name", shard.name, shard_name(number))

    @property
    def num_clips(self) -> int:
        """Number of clips in all shards."""
        return sum(shard.clips for shard in self.shards)

    @property
    def dtype(self) -> np.dtype:
        """Type of the indices on disk: uint16 where K <= 65,536, else uint32 (little endian)."""
        return np.dtype("<u2" if self.codebook_size <= 2**16 else "<u4")

    def to_json(self) -> dict[str, Any]:
        """The manifest as plain JSON values."""
        return json.loads(json.dumps(asdict(self)))

    @classmethod
    def from_json(cls, data: Any) -> "ShardManifest":
        """The manifest that `to_json` described.

        Args:
            data: Parsed JSON.

        Returns:
            An equal manifest.

        Raises:
            ValueError: If a key is unknown or missing, or a value is not what it must be.
        """
        if isinstance(data, dict):  # the version first: another one may well have other keys
            _check_version(data.get("format_version", FORMAT_VERSION))
        values = dict(exact_keys(cls, data))
        for name in ("stride", "grid", "frame_size", "shards"):
            _check(isinstance(values[name], list), name, values[name], "a list")
            values[name] = tuple(values[name])
        values["shards"] = tuple(ShardEntry(**exact_keys(ShardEntry, shard)) for shard in values["shards"])
        return cls(**values)

    def save(self, folder: Path | Place) -> None:
        """Write ``manifest.json`` into a folder or place, whole or not at all.

        Raises:
            OSError: If it cannot be written.
        """
        open_place(folder).write(MANIFEST_NAME, json_bytes(self.to_json()))

    @classmethod
    def load(cls, folder: Path | Place) -> "ShardManifest":
        """Read ``manifest.json`` of a folder or place.

        Raises:
            FileNotFoundError: If there is none: the shards were never finished.
            ValueError: If it is damaged or of another version; names the file.
        """
        place = open_place(folder)
        try:
            return read_json(place, MANIFEST_NAME, cls.from_json)
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f"{place} has no {MANIFEST_NAME}: tokenizing was interrupted; run tools/tokenize_dataset.py again"
            ) from error


def json_bytes(data: dict[str, Any]) -> bytes:
    """``data`` as a JSON file; the same data gives the same bytes."""
    return (json.dumps(data, indent=2, allow_nan=False) + "\n").encode()


def write_json(path: Path, data: dict[str, Any]) -> None:
    """Write ``data`` to ``path`` atomically; the same data gives the same bytes."""
    with atomic_file(path) as file:
        file.write(json_bytes(data))


def read_json(place: Path | Place, name: str, parse: Callable[[Any], T]) -> T:
    """Read the JSON file ``name`` of a folder or place and ``parse`` it; a ValueError names the file."""
    place = open_place(place)
    data = place.read(name)
    try:
        return parse(json.loads(data))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{place}/{name}: {error}") from error


def exact_keys(kind: type, data: Any) -> dict[str, Any]:
    """``data`` itself, once it is known to have the fields of the dataclass ``kind`` and no others.

    Raises:
        ValueError: If ``data`` is no object, or a key is unknown or missing.
    """
    _check(isinstance(data, dict), kind.__name__, data, "a JSON object")
    expected = {entry.name for entry in fields(kind)}
    _check(not data.keys() - expected, "unknown keys", sorted(data.keys() - expected), "none")
    _check(not expected - data.keys(), "missing keys", sorted(expected - data.keys()), "none")
    return data


def _check(right: bool, name: str, got: Any, expected: str) -> None:
    if not right:
        raise ValueError(f"{name}: got {got!r}, expected {expected}")


def _check_version(got: Any) -> None:
    _check(got == FORMAT_VERSION, "format_version", got, f"{FORMAT_VERSION}; tokenize again")


def _is_count(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _matches(pattern: re.Pattern[str], value: Any) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None


def _is_json(value: Any) -> bool:
    try:
        return json.loads(json.dumps(value, allow_nan=False)) == value
    except (TypeError, ValueError):
        return False
