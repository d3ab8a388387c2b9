"""A folder of videos as people have them: which files, which splits and classes, what is said about them.

Layouts: ``root/{train,val,test}/[class/]*.mp4`` or flat ``root/[class/]*.mp4``, with any depth below;
``valid`` and ``validation`` mean ``val``.
"""

import os
import stat
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from tokenreel.datasets.clip_record import STORE_FILE
from tokenreel.datasets.found_video import FoundVideo, Rejected, VideoPlace, listing_of, unique_keys
from tokenreel.datasets.metadata_files import METADATA_FILES, read_metadata_file, read_sidecar
from tokenreel.datasets.video_metadata import SPLITS, VideoMetadata

VIDEO_EXTENSIONS = (".mp4", ".avi", ".webm", ".mkv", ".mov", ".gif", ".m4v", ".mpg", ".mpeg", ".ts")
OUTSIDE_SPLITS = "lies outside the split folders, so it would be in no split; move it into one of them"
BROKEN_LINK = "is a link that leads nowhere, or in a circle; correct it or remove it"
WITHOUT_SPLIT = "has no split while other videos have one; say it in the metadata, or for none of them"


@dataclass
class VideoFolder:
    """The listing of a folder of videos; nothing is decoded.

    Attributes:
        root: The folder.
        files: (size in bytes, modification time in ns) of each video, sidecar and metadata file, by name
            relative to the root.
        videos: Names of the videos, sorted.
        others: Number of other files by extension.
        broken: Names of links that lead nowhere, or in a circle, where a video should be.
    """

    kind = "folder of videos"

    root: Path
    files: dict[str, tuple[int, int]] = field(default_factory=dict)
    videos: list[str] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)

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
        return listing_of(self.files)

    def describe(self) -> tuple[list[FoundVideo], list[Rejected]]:
        """Reads the metadata and decides key, split and label of each video.

        Returns:
            The videos in the order of their names, and files that are left out.

        Raises:
            ValueError: If a sidecar or a line of a metadata file is broken, or names another split than the folder.
        """
        told, rejected = self._told()
        rejected += [Rejected(name, BROKEN_LINK) for name in self.broken]
        keys = unique_keys(self.videos)
        has_folders = any(_split_of(name) for name in self.videos)
        root = self.root.absolute()
        videos = []
        for name in self.videos:
            folder = _split_of(name)
            if has_folders and folder is None:
                rejected.append(Rejected(name, OUTSIDE_SPLITS))
                continue
            metadata = self._metadata(name, folder, told.get(name))
            if folder and metadata.split not in (None, folder):
                raise ValueError(
                    f"{self.root / name}: its metadata say split {metadata.split!r}, its folder says {folder!r}; "
                    "remove one of the two"
                )
            place = VideoPlace(f"{root}{os.sep}{name.replace('/', os.sep)}")
            videos.append(FoundVideo(name, keys[name], folder or metadata.split, metadata, place))
        if any(video.split for video in videos):
            rejected += [Rejected(video.name, WITHOUT_SPLIT) for video in videos if video.split is None]
            videos = [video for video in videos if video.split is not None]
        return videos, rejected

    def _metadata(self, name: str, folder: str | None, told: VideoMetadata | None) -> VideoMetadata:
        """What is said about a video: in its sidecar, before a metadata file, before the folder of its class."""
        classes = name.split("/")[1 if folder else 0 : -1]
        metadata = VideoMetadata(label=classes[0] if classes else None)
        if told is not None:
            metadata = told.over(metadata)
        sidecar = _sidecar_of(name)
        if sidecar in self.files:
            metadata = read_sidecar(self.root / sidecar).over(metadata)
        return metadata

    def _add(self, here: Path, names: list[str]) -> None:
        relative = here.relative_to(self.root)
        videos = {name for name in names if name.lower().endswith(VIDEO_EXTENSIONS)}
        sidecars = {_sidecar_of(name) for name in videos}
        prefix = f"{relative.as_posix()}/" if relative.parts else ""
        for name in names:
            try:
                status = os.stat(f"{here}{os.sep}{name}")
            except OSError:
                # Or gone since the listing.
                if name in videos:
                    self.broken.append(prefix + name)
                continue
            if not stat.S_ISREG(status.st_mode):
                continue
            if name not in videos and name not in sidecars and name not in METADATA_FILES:
                self.others[PurePosixPath(name).suffix.lower()] += 1
                continue
            path = prefix + name
            self.files[path] = (status.st_size, status.st_mtime_ns)
            if name in videos:
                self.videos.append(path)

    def _told(self) -> tuple[dict[str, VideoMetadata], list[Rejected]]:
        """What the metadata files say, by name of the video; and lines about videos that are not there."""
        known = set(self.videos)
        told: dict[str, VideoMetadata] = {}
        missing: list[Rejected] = []
        files = [name for name in self.files if name.rpartition("/")[2] in METADATA_FILES]
        # What lies nearer to a video is believed first.
        for file in sorted(files, key=lambda name: (name.count("/"), name)):
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


def _split_of(name: str) -> str | None:
    first, slash, _ = name.partition("/")
    return SPLITS.get(first) if slash else None


def _sidecar_of(name: str) -> str:
    return f"{name[: name.rindex('.')]}.json"


def _ignored(name: str) -> bool:
    return name.startswith(".") or ".tmp" in name


def _extensions() -> str:
    return " ".join(VIDEO_EXTENSIONS)
