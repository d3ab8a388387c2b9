"""The videos a command works on: the user's folder, or the embedded world when none is named."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tokenreel.datasets.clip_cache import open_or_ingest
from tokenreel.datasets.clip_groups import ClipGroups
from tokenreel.datasets.clip_shapes import parse_size, windows_by_shape
from tokenreel.datasets.clip_store import ClipStore
from tokenreel.datasets.clip_windows import ClipWindows
from tokenreel.datasets.curation import NO_RULES, CurationRules
from tokenreel.datasets.frame_fit import Size
from tokenreel.datasets.ingest import Decoder, IngestSettings
from tokenreel.datasets.origins import origins
from tokenreel.datasets.world_states import WORLD_FILE
from tokenreel.datasets.worlds import WorldSettings, write_world

EMBEDDED_WORLD = Path("data/balls")


@dataclass(frozen=True)
class DataSettings:
    """Where videos come from and how they are brought to frames."""

    data: Path | None = None
    """Folder of videos (train/, val/ or flat; classes as sub-folders), LeRobot dataset, HDF5, npz or npy file, or a
    clip store; default: the embedded world of balls, made in data/balls."""
    size: int = 64
    """Height of the frames in pixels, and their width: scaled to cover it, then centre cropped."""
    width: int = 0
    """Width in pixels of frames that are not square; 0: as the height."""
    more_sizes: tuple[str, ...] = ()
    """Other frame sizes, HEIGHTxWIDTH: each video is brought to the size nearest its shape instead of being cut to one;
    48x80 80x48, say, for wide and upright videos beside square ones."""
    fps: float = 10.0
    """Frames per second the videos are brought to, by time; 0 keeps every frame at its own rate."""
    part: str = ""
    """Which part of a dataset to read: a camera of a LeRobot dataset, an array of an HDF5 or npz file; default: all."""
    decoder: Decoder = "pyav"
    """"pyav" reads everything; "decord" is an alternative for plain mp4."""
    cache: Path = Path("runs/clips")
    """Folder in which decoded videos are kept, so that they are decoded once."""
    curation: CurationRules = field(default_factory=CurationRules)
    """Which parts of the videos are worth training on."""

    def ingest_settings(self) -> IngestSettings:
        """How videos become frames."""
        others = tuple(self.frame_sizes[1:])
        return IngestSettings(
            *self.frame_size, fps=self.fps or None, decoder=self.decoder, curation=self.curation, others=others
        )

    @property
    def frame_size(self) -> Size:
        """(height, width) in pixels; of several the first."""
        return self.size, self.width or self.size

    @property
    def frame_sizes(self) -> list[Size]:
        """All of them."""
        return [self.frame_size, *map(parse_size, self.more_sizes)]

    def describe(self, store: ClipStore) -> dict[str, Any]:
        """What shards and models keep of the videos they were made from, for :meth:`of_model`."""
        return {
            "folder": str(self.data or EMBEDDED_WORLD),
            "clip_store": str(store.path),
            "fingerprint": store.fingerprint,
            "size": self.size,
            "width": self.width,
            "more_sizes": list(self.more_sizes),
            "fps": self.fps,
            "part": self.part,
            "decoder": self.decoder,
            "curation": store.curation.told,
            "origins": origins(store.records),
        }

    @classmethod
    def of_model(cls, origin: Mapping[str, Any], data: Path | None, cache: Path) -> "DataSettings":
        """Videos as a model was trained on them.

        Args:
            origin: What :meth:`describe` said of them.
            data: Other videos to bring to the same frames; None: its clip store, or the folder that was made from.
            cache: Folder of decoded videos.
        """
        kept = {name: origin[name] for name in ("size", "width", "fps", "decoder")}
        kept["more_sizes"] = tuple(origin.get("more_sizes", ()))
        # Models from before there was curation were trained on whole videos.
        rules = CurationRules(**origin["curation"]) if "curation" in origin else NO_RULES
        store = Path(origin["clip_store"])
        folder = store if store.is_dir() else Path(origin["folder"])
        # What is said of one dataset means nothing in another, or in a store.
        part = origin.get("part", "") if data is None and folder != store else ""
        return cls(data=data or folder, cache=cache, curation=rules, part=part, **kept)


def open_data(settings: DataSettings) -> ClipStore:
    """Open the clip store of the videos; make the world and the store first where they are missing.

    Raises:
        FileNotFoundError: If the folder is missing.
        ValueError: If it holds no usable video.
        OSError: If the store cannot be written.
    """
    data = settings.data
    if data is None:
        data = EMBEDDED_WORLD
        if not (data / WORLD_FILE).exists():
            print(f"making the embedded world in {data}")
            write_world("balls", data, **asdict(WorldSettings()))
    return open_or_ingest(data, settings.ingest_settings(), settings.cache, part=settings.part)


def held_out_windows(
    settings: DataSettings, clip_frames: int, one_per_video: bool, size: Size | None = None
) -> ClipWindows:
    """Clips of the validation split, not overlapping; of the training split, and said so, where it has none.

    Args:
        settings: The videos.
        clip_frames: Frames of a clip.
        one_per_video: Only the first clip of each.
        size: (height, width) of the frames, since they have one shape; default: the first of the settings.

    Raises:
        Errors of :func:`open_data`, and ValueError if no video is long enough.
    """
    store = open_data(settings)
    height, width = size or store.first_size
    split = store.held_out_split(clip_frames, (height, width))
    if split != "val":
        print(f"no validation video of {height}x{width} has {clip_frames} frames: taking clips of split {split!r}")
    hop = max((record.frames for record in store.split(split)), default=1) if one_per_video else clip_frames
    return ClipWindows(store, split, clip_frames, hop, size)


def held_out_groups(store: ClipStore, lengths: Sequence[int]) -> ClipGroups[ClipWindows]:
    """Clips of every shape of the validation split, not overlapping; of the training split where it has none.

    Args:
        store: The videos.
        lengths: Frames of clips, from :func:`~tokenreel.datasets.clip_shapes.check_lengths`.

    Raises:
        ValueError: If no video is long enough.
    """
    split = store.held_out_split(lengths[-1])
    if split != "val":
        print(f"no validation video has {lengths[-1]} frames: taking clips of split {split!r}")
    return ClipGroups(windows_by_shape(store, split, lengths, hop=lengths[0]))
