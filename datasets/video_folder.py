"""A folder of videos as people have them: which files, which splits and classes, what is said about them.

Layouts: ``root/{train,val,test}/[class/]*.mp4`` or flat ``root/[class/]*.mp4``, with any depth below;
``valid`` and ``validation`` mean ``val``.
"""

import hashlib
import json
import os
import re
import stat
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from tokenreel.datasets.clip_record import STORE_FILE
from tokenreel.datasets.video_metadata import VideoMetadata, read_metadata_file, read_sidecar

VIDEO_EXTENSIONS = (".mp4", ".avi", ".webm", ".mkv", ".mov", ".gif", ".m4v", ".mpg", ".mpeg", ".ts")
SPLIT_FOLDERS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
METADATA_FILE = "metadata.jsonl"
OUTSIDE_SPLITS = "lies outside the split folders, so it would be in no split; move it into one of them"


@dataclass(frozen=True)
class FoundVideo:
    """A video file and what is said about it.

    Attributes:
        name: Path relative to the root, with ``/``.
        key: Unique name made of letters, digits, ``_`` and ``-``.
        split: ``train``, ``val`` or ``test`` as given by its folder; None in a flat folder.
        metadata: Sidecar before ``metadata.jsonl`` before class folder.
    """

    name: str
    key: str
    split: str | None
    metadata: VideoMetadata


@dataclass(frozen=True)
class Rejected:
    """A file that was left out, and why."""

    file: str
    reason: str


@dataclass
class VideoFolder:
    """The listing of a folder of videos; nothing is decoded.

    Attributes:
        root: The folder.
        files: (size in bytes, modification time in ns) of each video, sidecar and metadata file, by name
            relative to the root.
        videos: Names of the videos, sorted.
        others: Number of other files by extension.
    """

    root: Path
    files: dict[str, tuple[int, int]] = field(default_factory=dict)
    videos: list[str] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)

    @classmethod
    def scan(cls, root: Path) -> "VideoFolder":
        """Lists a folder; follows links but no loops; leaves out hidden, ``*.tmp*`` and clip-store folders.

        Raises:
            FileNotFoundError: If there is no such folder.
            ValueError: If it holds no videos.
        """
        if not root.is_dir():
            got = "is a file" if root.exists() else "does not exist"
            raise FileNotFoundError(f"data folder {root} {got}; give a folder that holds videos ({_extensions()})")
        folder = cls(root)
        seen: set[tuple[int, int]] = set()
        for here, subfolders, names in os.walk(root, followlinks=True):
            status = os.stat(here)
            place = (status.st_dev, status.st_ino)
            if place in seen or (STORE_FILE in names and Path(here) != root):
                subfolders.clear()
                continue
            seen.add(place)
            subfolders[:] = sorted(name for name in subfolders if not _ignored(name))
            folder._add(Path(here), sorted(name for name in names if not _ignored(name)))
        folder.videos.sort()
        if not folder.videos:
            raise ValueError(folder._nothing())
        return folder

    def fingerprint(self) -> str:
        """sha256 (hex) of names, sizes and modification times of all files that matter."""
        listing = sorted([name, *facts] for name, facts in self.files.items())
        return hashlib.sha256(json.dumps(listing).encode("ascii")).hexdigest()

    def describe(self) -> tuple[list[FoundVideo], list[Rejected]]:
        """Reads the metadata and decides key, split and label of each video.

        Returns:
            The videos in the order of their names, and files that are left out.

        Raises:
            ValueError: If a sidecar or a line of a ``metadata.jsonl`` is broken.
        """
        has_splits = any(_split_of(name) for name in self.videos)
        told, rejected = self._told()
        keys = unique_keys(self.videos)
        videos = []
        for name in self.videos:
            split = _split_of(name)
            if has_splits and split is None:
                rejected.append(Rejected(name, OUTSIDE_SPLITS))
                continue
            classes = PurePosixPath(name).parts[1 if split else 0 : -1]
            metadata = VideoMetadata(label=classes[0] if classes else None)
            metadata = told.get(name, VideoMetadata()).over(metadata)
            sidecar = _sidecar_of(name)
            if sidecar in self.files:
                metadata = read_sidecar(self.root / sidecar).over(metadata)
            videos.append(FoundVideo(name, keys[name], split, metadata))
        return videos, rejected

    def _add(self, here: Path, names: list[str]) -> None:
        relative = here.relative_to(self.root)
        is_top = not relative.parts or (len(relative.parts) == 1 and relative.name in SPLIT_FOLDERS)
        videos = {name for name in names if name.lower().endswith(VIDEO_EXTENSIONS)}
        sidecars = {_sidecar_of(name) for name in videos}
        for name in names:
            try:
                status = os.stat(here / name)
            except OSError:
                # A link to nowhere, or gone since the listing.
                continue
            if not stat.S_ISREG(status.st_mode):
                continue
            if name not in videos and name not in sidecars and not (is_top and name == METADATA_FILE):
                self.others[PurePosixPath(name).suffix.lower()] += 1
                continue
            path = (relative / name).as_posix()
            self.files[path] = (status.st_size, status.st_mtime_ns)
            if name in videos:
                self.videos.append(path)

    def _told(self) -> tuple[dict[str, VideoMetadata], list[Rejected]]:
        """What the metadata files say, by name of the video; and lines about videos that are not there."""
        known = set(self.videos)
        told: dict[str, VideoMetadata] = {}
        missing: list[Rejected] = []
        for file in sorted(name for name in self.files if PurePosixPath(name).name == METADATA_FILE):
            entries = read_metadata_file(self.root / file)
            for entry, (line, metadata) in entries.items():
                name = os.path.normpath(PurePosixPath(file).parent / entry).replace(os.sep, "/")
                if name in known:
                    told[name] = metadata.over(told.get(name, VideoMetadata()))
                else:
                    missing.append(Rejected(name, f"named in {file}, line {line}, but no such video was found"))
        return told, missing

    def _nothing(self) -> str:
        return (
            f"no videos in {self.root}: found {counted(self.others) or 'nothing'}, "
            f"expected files named {_extensions()}; give a folder of videos, or make one with tools/make_world.py"
        )


def counted(files: dict[str, int]) -> str:
    """Words for numbers of files by extension, the four most common ones: ``3 .txt files, 1 .wav file``."""
    most = sorted(files.items(), key=lambda item: -item[1])[:4]
    return ", ".join(f"{count} {suffix or 'nameless'} file{'s' * (count > 1)}" for suffix, count in most)


def unique_keys(names: list[str]) -> dict[str, str]:
    """A key for each file name (relative, with ``/``): letters, digits, ``_`` and ``-``, no two alike.

    Folders are joined with ``__`` and dots become ``-``; where other characters are lost a short hash
    follows. A key has no dots because WebDataset cuts keys at the first one.
    """
    keys: dict[str, str] = {}
    taken: set[str] = set()
    for name in names:
        stem = name[: len(name) - len(PurePosixPath(name).suffix)].replace("/", "__").replace(".", "-")
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


def _split_of(name: str) -> str | None:
    parts = PurePosixPath(name).parts
    return SPLIT_FOLDERS.get(parts[0]) if len(parts) > 1 else None


def _sidecar_of(name: str) -> str:
    return str(PurePosixPath(name).with_suffix(".json"))


def _ignored(name: str) -> bool:
    return name.startswith(".") or ".tmp" in name


def _extensions() -> str:
    return " ".join(VIDEO_EXTENSIONS)
