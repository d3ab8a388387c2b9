"""A LeRobot dataset (versions 2 and 3) as a source of videos: one per episode and camera, with tasks and actions.

Version 2 keeps a video file per episode and camera and ``meta/episodes.jsonl``; version 3 keeps many episodes in each
file, and ``meta/episodes/*/*.parquet`` says at which seconds they begin and end. ``action[t]`` leads to frame t + 1.

Source: docs/source/lerobot-dataset-v3.mdx of huggingface/lerobot, and ``meta/info.json`` of datasets on the hub.
"""

import importlib
import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from tokenreel.datasets.array_file import ModuleMissing
from tokenreel.datasets.found_video import FoundVideo, Rejected, VideoPlace, listing_of, unique_keys
from tokenreel.datasets.video_metadata import SPLITS, VideoMetadata

INFO = Path("meta/info.json")
EPISODES = "meta/episodes.jsonl"
FIELDS = re.compile(r"\{(video_key|episode_chunk|episode_index|chunk_index|file_index)(:0\dd)?\}")
"""What may stand in a path of ``info.json``: anything else could lead anywhere."""
NUMBERS = ("episode_index", "chunk_index", "file_index")


@dataclass(frozen=True)
class LeRobotSource:
    """The episodes of a LeRobot dataset, seen by its cameras.

    Attributes:
        root: Its folder.
        info: ``meta/info.json``.
        cameras: Features that are videos.
        others: Empty.
    """

    root: Path
    info: Mapping[str, Any]
    cameras: tuple[str, ...]
    others: Counter[str] = field(default_factory=Counter)

    @classmethod
    def open(cls, root: Path, part: str) -> "LeRobotSource":
        """Reads what a dataset says of itself.

        Args:
            root: Its folder.
            part: The camera to read, as in ``observation.images.top`` or ``top``; empty: all.

        Raises:
            ValueError: If it is of another version, or has no videos.
        """
        try:
            info = json.loads((root / INFO).read_text(encoding="utf-8"))
            version, features = str(info["codebase_version"]), info["features"]
            kinds = {str(name): str(feature["dtype"]) for name, feature in features.items()}
            if int(info.get("chunks_size", 1000)) < 1:
                raise ValueError("chunks_size is less than 1")
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise ValueError(f"{root / INFO} cannot be read ({error!r}); download it again") from error
        if not re.match(r"v[23]\.", version):
            raise ValueError(
                f"LeRobot dataset {root} has version {version}, expected v2 or v3; convert it with lerobot"
            )
        cameras = tuple(name for name, kind in kinds.items() if kind == "video")
        if not cameras:
            told = ", ".join(f"{name} ({kind})" for name, kind in kinds.items())
            raise ValueError(
                f"LeRobot dataset {root} has no videos: {told}; expected features of dtype video, convert its images"
            )
        chosen = tuple(name for name in cameras if part in ("", name, name.rpartition(".")[2]))
        if not chosen:
            raise ValueError(f"camera {part!r} of {root}: expected one of {', '.join(cameras)}")
        return cls(root, info, chosen)

    @property
    def kind(self) -> str:
        """What it is, in a few words."""
        return f"LeRobot dataset ({self.info['codebase_version']}) with {', '.join(self.cameras)}"

    def fingerprint(self) -> str:
        """sha256 (hex) of names, sizes and times of its files, and the cameras."""
        files = {}
        for folder in ("meta", "data", "videos"):
            for here, _, names in os.walk(self.root / folder):
                for name in names:
                    status = os.stat(os.path.join(here, name))
                    files[os.path.relpath(os.path.join(here, name), self.root)] = (status.st_size, status.st_mtime_ns)
        return listing_of(files, *self.cameras)

    def describe(self) -> tuple[list[FoundVideo], list[Rejected]]:
        """The episodes in their order, by camera.

        Raises:
            ValueError: If the metadata are broken, or what reads them is not installed.
        """
        episodes = sorted(self._episodes(), key=lambda episode: episode["episode_index"])
        actions, splits, licence = self._actions(episodes), self._splits(), self._licence()
        places: dict[str, tuple[dict[str, Any], str, VideoPlace]] = {}
        rejected = []
        for camera in self.cameras:
            for episode in episodes:
                file, place = self._place(episode, camera)
                name = file if place.is_whole_file else f"{camera}/episode_{episode['episode_index']:06d}"
                if os.path.isfile(place.path):
                    places[name] = (episode, camera, place)
                else:
                    rejected.append(Rejected(name, f"there is no file {file}"))
        keys = unique_keys(list(places))
        found = []
        for name, (episode, camera, place) in places.items():
            number = episode["episode_index"]
            metadata = VideoMetadata(
                caption="; ".join(episode.get("tasks") or []) or None,
                actions=actions.get(number),
                licence=licence,
                source=self.root.absolute().name,
                group=f"episode {number}" if len(self.cameras) > 1 else None,
                extra={"episode": number, "camera": camera, "robot_type": self.info.get("robot_type")},
            )
            split = next((split for split, numbers in splits.items() if number in numbers), None)
            found.append(FoundVideo(name, keys[name], split, metadata, place))
        return found, rejected

    def _episodes(self) -> list[dict[str, Any]]:
        """What is said of every episode: "episode_index", "tasks", and in version 3 where it is."""
        path = self.root / EPISODES
        try:
            if path.is_file():
                lines = path.read_text(encoding="utf-8").splitlines()
                episodes = [json.loads(line) for line in lines if line.strip()]
            else:
                files = sorted((self.root / "meta/episodes").rglob("*.parquet"))
                episodes = [row for file in files for row in _rows(file)]
            if not all(isinstance(episode["episode_index"], int) for episode in episodes) or not episodes:
                raise ValueError("no episodes")
        except (ValueError, LookupError, TypeError) as error:
            if isinstance(error, ModuleMissing):
                raise
            folder = self.root / "meta"
            raise ValueError(f"the episodes in {folder} cannot be read ({error!r}); download them") from error
        return episodes

    def _place(self, episode: Mapping[str, Any], camera: str) -> tuple[str, VideoPlace]:
        """The file in which an episode is seen by a camera, relative to the root, and its place in it."""
        if f"videos/{camera}/file_index" not in episode:
            file = self._path("video_path", episode, camera)
            return file, VideoPlace(str((self.root / file).absolute()))
        begin, end = (self._said(episode, f"videos/{camera}/{name}_timestamp") for name in ("from", "to"))
        file = self._path("video_path", self._numbers(episode, f"videos/{camera}"), camera)
        return file, VideoPlace(str((self.root / file).absolute()), begin=float(begin), end=float(end))

    def _numbers(self, episode: Mapping[str, Any], kind: str) -> dict[str, Any]:
        """Chunk and file in which version 3 keeps something of an episode."""
        return {name: self._said(episode, f"{kind}/{name}") for name in ("chunk_index", "file_index")}

    def _said(self, episode: Mapping[str, Any], column: str) -> Any:
        if episode.get(column) is None:
            raise ValueError(
                f"the episodes in {self.root / 'meta'} lack {column!r} of episode {episode['episode_index']}; download "
                "them again"
            )
        return episode[column]

    def _path(self, template: str, numbers: Mapping[str, Any], camera: str = "") -> str:
        """A path of ``info.json`` filled in, relative to the root."""
        known: dict[str, Any] = {"video_key": camera} if camera else {}
        known |= {name: int(numbers[name]) for name in NUMBERS if name in numbers}
        if "episode_index" in known:
            known["episode_chunk"] = known["episode_index"] // int(self.info.get("chunks_size", 1000))
        pattern = self.info.get(template)
        rest, asked = FIELDS.sub("", str(pattern)), {match[1] for match in FIELDS.finditer(str(pattern))}
        if not isinstance(pattern, str) or "{" in rest or "}" in rest:
            raise ValueError(f"{self.root / INFO}: {template} is {pattern!r}, expected one as LeRobot writes it")
        if missing := sorted(asked - set(known)):
            raise ValueError(
                f"{self.root / INFO}: {template} is {pattern!r}, but the episodes say no {', '.join(missing)}, only "
                f"{', '.join(sorted(known))}; download the dataset again, all of one version"
            )
        path = PurePosixPath(pattern.format(**known))
        if path.is_absolute() or ".." in path.parts:
            raise ValueError(f"{self.root / INFO}: {template} is {pattern!r}, expected one as LeRobot writes it")
        return str(path)

    def _actions(self, episodes: list[dict[str, Any]]) -> dict[int, list[Any]]:
        """The actions of each episode, one per frame; none where the dataset has none."""
        if "action" not in self.info["features"]:
            return {}
        actions: dict[int, list[tuple[int, Any]]] = {}
        for file in sorted({self._data_file(episode) for episode in episodes}):
            if not (self.root / file).is_file():
                raise ValueError(f"{self.root / file} is missing; it holds the actions of {self.root}, download it")
            for row in _rows(self.root / file, ["episode_index", "frame_index", "action"]):
                actions.setdefault(row["episode_index"], []).append((row["frame_index"], row["action"]))
        # A single whole number is one of several actions, not an amount.
        feature = self.info["features"]["action"]
        single = str(feature["dtype"]).startswith("int") and list(feature.get("shape", [1])) == [1]
        return {
            number: [done[0] if single and isinstance(done, list) else done for _, done in sorted(rows, key=_frame)]
            for number, rows in actions.items()
        }

    def _data_file(self, episode: Mapping[str, Any]) -> str:
        if "data/file_index" not in episode:
            return self._path("data_path", episode)
        return self._path("data_path", self._numbers(episode, "data"))

    def _splits(self) -> dict[str, range]:
        """Episodes by split; what is all ``train`` says nothing."""
        splits = {}
        for name, told in (self.info.get("splits") or {}).items():
            numbers = re.fullmatch(r"(\d+):(\d+)", str(told))
            if name not in SPLITS or numbers is None:
                raise ValueError(
                    f"{self.root / INFO}: split {name!r} is {told!r}, expected one of {', '.join(SPLITS)} with "
                    "episodes as in '0:50'; correct it"
                )
            splits[SPLITS[name]] = range(int(numbers[1]), int(numbers[2]))
        return splits

    def _licence(self) -> str | None:
        """What the head of the README says."""
        readme = self.root / "README.md"
        text = readme.read_text(encoding="utf-8", errors="replace") if readme.is_file() else ""
        head = re.match(r"---\n(.*?)\n---", text, re.DOTALL)
        said = re.search(r"^license:\s*(\S.*?)\s*$", head[1], re.MULTILINE) if head else None
        return said[1] if said else None


def is_lerobot(path: Path) -> bool:
    """Whether a folder is a LeRobot dataset."""
    return (path / INFO).is_file()


def _frame(row: tuple[int, Any]) -> int:
    return row[0]


def _rows(path: Path, columns: list[str] | None = None) -> Iterator[dict[str, Any]]:
    """The rows of a Parquet file.

    Raises:
        ValueError: If it cannot be read.
        ModuleMissing: If what reads it is not installed.
    """
    try:
        parquet = importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise ModuleMissing(
            "reading LeRobot datasets needs the package pyarrow; pip install 'tokenreel[lerobot]'"
        ) from error
    try:
        with parquet.ParquetFile(path) as file:
            known = [name for name in file.schema_arrow.names if not name.startswith("stats/")]
            for batch in file.iter_batches(columns=columns or known):
                yield from batch.to_pylist()
    except (OSError, ValueError, LookupError) as error:
        raise ValueError(f"cannot read {path} ({error}); download it again") from error
