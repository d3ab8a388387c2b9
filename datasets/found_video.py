"""What a data source finds before anything is decoded: videos, where their frames are, what is said about them."""

import hashlib
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from tokenreel.datasets.video_metadata import VideoMetadata


@dataclass(frozen=True)
class VideoPlace:
    """Where the frames of a video are, for the process that reads them.

    Attributes:
        path: The file, absolute.
        reader: ``video`` for what a video decoder reads, ``array`` for numpy's and HDF5's arrays of frames.
        member: Name of the array in the file.
        index: Which video of an array of videos; None if its first axis is time.
        start: First frame of the array's.
        stop: Frame after the last; None: to the end.
        begin: Second in the video file at which it begins.
        end: Second at which it ends; None: to the end of the file.
        rate: Frames per second of an array; None if unknown.
    """

    path: str
    reader: Literal["video", "array"] = "video"
    member: str = ""
    index: int | None = None
    start: int = 0
    stop: int | None = None
    begin: float = 0.0
    end: float | None = None
    rate: float | None = None

    @property
    def is_whole_file(self) -> bool:
        """Whether it is a video file with nothing else in it."""
        return self.reader == "video" and self.begin == 0 and self.end is None


@dataclass(frozen=True)
class FoundVideo:
    """A video and what is said about it.

    Attributes:
        name: Path relative to the root, with ``/``; of a part of a file, a name that looks like one.
        key: Unique name made of letters, digits, ``_`` and ``-``.
        split: ``train``, ``val`` or ``test`` as given; None if nothing is said.
        metadata: All else that is said.
        place: Where its frames are.
    """

    name: str
    key: str
    split: str | None
    metadata: VideoMetadata
    place: VideoPlace


@dataclass(frozen=True)
class Rejected:
    """A file that was left out, and why."""

    file: str
    reason: str


class VideoSource(Protocol):
    """Something that videos come from; ``video_source`` finds the right one for a path."""

    @property
    def root(self) -> Path:
        """The folder or file."""
        ...

    @property
    def kind(self) -> str:
        """What it is, in a few words."""
        ...

    @property
    def others(self) -> Counter[str]:
        """Number of files in it that are of no use, by extension."""
        ...

    def fingerprint(self) -> str:
        """sha256 (hex) that changes when what is in it changes."""
        ...

    def describe(self) -> tuple[list[FoundVideo], list[Rejected]]:
        """The videos in a fixed order, and what is left out.

        Raises:
            ValueError: If what is said about them is broken.
        """
        ...


def listing_of(files: Mapping[str, tuple[int, int]], *more: str) -> str:
    """sha256 (hex) of names, sizes and modification times of files, and of ``more``."""
    parts = [f"{name!a} {size} {time}" for name, (size, time) in sorted(files.items())]
    return hashlib.sha256("\n".join([*parts, *(f"{word!a}" for word in more)]).encode("ascii")).hexdigest()


def unique_keys(names: Sequence[str]) -> dict[str, str]:
    """A key for each file name (relative, with ``/``): letters, digits, ``_`` and ``-``, no two alike.

    Folders are joined with ``__`` and dots become ``-``; where other characters are lost a short hash
    follows. A key has no dots because WebDataset cuts keys at the first one.
    """
    keys: dict[str, str] = {}
    taken: set[str] = set()
    for name in names:
        stem = os.path.splitext(name)[0].replace("/", "__").replace(".", "-")
        plain = re.sub(r"[^A-Za-z0-9_-]", "-", stem)
        if plain != stem:
            digest = hashlib.sha256(os.fsencode(name)).hexdigest()
            plain = f"{plain}-{digest[:6]}"
        key, number = plain, 1
        while key in taken:
            number += 1
            key = f"{plain}-{number}"
        taken.add(key)
        keys[name] = key
    return keys
