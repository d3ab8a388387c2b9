"""A file of arrays as a source of videos: which arrays are frames, which splits, what others say of them."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tokenreel.datasets.array_file import HDF5_SUFFIXES, ArrayFacts, array_facts, read_array
from tokenreel.datasets.found_video import FoundVideo, Rejected, VideoPlace, listing_of, unique_keys
from tokenreel.datasets.video_metadata import SPLITS, VideoMetadata, metadata_of

CHANNELS = (1, 3, 4)
MOVING_MNIST = (20, 10_000, 64, 64)
TOLD = {"label": ("label", "labels"), "caption": ("caption", "captions"), "actions": ("actions", "action")}
"""What arrays beside the frames are called: ``train_label`` beside ``train_data``."""


@dataclass(frozen=True)
class ArraySource:
    """The videos in one file of arrays, see ``array_file`` for the layouts.

    Attributes:
        root: The file.
        arrays: What is in it, by name.
        members: Names of those that are frames.
        others: Empty.
    """

    root: Path
    arrays: Mapping[str, ArrayFacts]
    members: tuple[str, ...]
    others: Counter[str]

    @classmethod
    def open(cls, path: Path, part: str) -> "ArraySource":
        """Looks what is in a file.

        Args:
            path: The file.
            part: The array to read; empty: all that are frames.

        Raises:
            ValueError: If it cannot be read, or has no frames.
        """
        arrays = array_facts(path)
        members = [name for name, array in sorted(arrays.items()) if _are_frames(array)]
        if any(arrays[name].shape == MOVING_MNIST for name in members):
            raise ValueError(
                f"{path} looks like Moving MNIST, whose first axis is time; run make_dataset.py moving-mnist with it"
            )
        wanted = [name for name in members if part in ("", name)]
        if not wanted:
            held = ", ".join(f"{name} {array.dtype} {array.shape}" for name, array in list(arrays.items())[:6])
            remedy = "; store colours as whole numbers from 0 to 255" if any(map(_shaped, arrays.values())) else ""
            raise ValueError(
                f"no frames {f'named {part!r} ' if part else ''}in {path}: found {held or 'nothing'}; expected "
                f"{', '.join(members) or f'an array of uint8 (N, T, H, W, C) or (T, H, W, C){remedy}'}"
            )
        return cls(path, arrays, tuple(wanted), Counter())

    @property
    def kind(self) -> str:
        """What it is, in a few words."""
        name = "HDF5" if self.root.suffix in HDF5_SUFFIXES else self.root.suffix.removeprefix(".")
        return f"{name} file with frames in {', '.join(self.members)}"

    def fingerprint(self) -> str:
        """sha256 (hex) of name, size and time of the file, and of what is read of it."""
        status = self.root.stat()
        return listing_of({self.root.name: (status.st_size, status.st_mtime_ns)}, *self.members)

    def describe(self) -> tuple[list[FoundVideo], list[Rejected]]:
        """The videos of all arrays.

        Raises:
            ValueError: If an array that tells of them does not fit, or cannot be read.
        """
        rate = self._rate()
        names, found = [], []
        for member in self.members:
            split = SPLITS.get(_first_word(member))
            for number, (place, metadata) in enumerate(self._videos(member, rate)):
                names.append(f"{member}/{number:06d}")
                found.append((split, metadata, place))
        keys = unique_keys(names)
        return [FoundVideo(name, keys[name], *rest) for name, rest in zip(names, found, strict=True)], []

    def _videos(self, member: str, rate: float | None) -> Iterator[tuple[VideoPlace, VideoMetadata]]:
        shape, path = self.arrays[member].shape, str(self.root.absolute())
        starts = self._beside(member, ("idx",))
        bounds = None if starts is None else self._bounds(member, starts)
        many = bounds is None and _has_many(shape)
        count = len(bounds) - 1 if bounds else shape[0] if many else 1
        told = {name: self._beside(member, words) for name, words in TOLD.items()}
        per_frame = None if many else told["actions"]
        for name, values in told.items():
            expected = shape[0] if values is per_frame else count
            if values is not None and len(values) != expected:
                raise ValueError(
                    f"{self.root}: {len(values)} entries of {name} for {member}, expected {expected}; store one for "
                    f"each {'frame' if values is per_frame else 'video'}"
                )
        for number in range(count):
            first, last = (bounds[number], bounds[number + 1]) if bounds else (0, None)
            place = VideoPlace(path, "array", member, number if many else None, first, last, rate=rate)
            apart = {name: values for name, values in told.items() if values is not None and values is not per_frame}
            entry = {name: values[number] for name, values in apart.items()}
            if per_frame is not None:
                entry["actions"] = per_frame[first:last]
            yield place, self._metadata(entry, f"{self.root}, {member} {number}")

    def _metadata(self, entry: Mapping[str, Any], where: str) -> VideoMetadata:
        plain = {name: value.tolist() if hasattr(value, "tolist") else value for name, value in entry.items()}
        return metadata_of({name: v.decode() if isinstance(v, bytes) else v for name, v in plain.items()}, where)

    def _beside(self, member: str, words: Sequence[str]) -> np.ndarray | None:
        """The array beside one of frames that is called by one of these words."""
        folder, slash, name = member.rpartition("/")
        for word in words:
            beside = f"{folder}{slash}{_first_word(name)}_{word}"
            if beside in self.arrays and beside != member:
                return read_array(self.root, beside)
        return None

    def _bounds(self, member: str, starts: np.ndarray) -> list[int]:
        """Where the videos of ``(frames, H, W, C)`` begin, and where the last one ends."""
        frames = self.arrays[member].shape[0]
        bounds = [*starts.tolist(), frames]
        if starts.ndim != 1 or starts.dtype.kind not in "iu" or bounds[0] < 0 or bool((np.diff(bounds) <= 0).any()):
            raise ValueError(
                f"{self.root}: the idx of {member} must be increasing numbers of frames, from 0 to {frames - 1}"
            )
        return bounds

    def _rate(self) -> float | None:
        if "fps" not in self.arrays:
            return None
        rate = float(read_array(self.root, "fps"))
        if not 0 < rate <= 1000:
            raise ValueError(f"{self.root}: fps is {rate}, expected more than 0 and at most 1000")
        return rate


def _are_frames(array: ArrayFacts) -> bool:
    return array.dtype == np.uint8 and _shaped(array)


def _shaped(array: ArrayFacts) -> bool:
    """As frames are, whatever its numbers."""
    shape = array.shape
    return 0 not in shape and (len(shape) == 4 or (len(shape) == 5 and shape[4] in CHANNELS))


def _has_many(shape: tuple[int, ...]) -> bool:
    """Whether the first axis counts videos, and not frames."""
    return len(shape) == 5 or shape[3] not in CHANNELS


def _first_word(name: str) -> str:
    return name.rpartition("/")[2].partition("_")[0]
