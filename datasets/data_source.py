"""The videos a command works on: the user's folder, or the embedded world when none is named."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenreel.datasets.clip_store import ClipStore, open_or_ingest
from tokenreel.datasets.ingest import Decoder, IngestSettings
from tokenreel.datasets.world_states import WORLD_FILE
from tokenreel.datasets.worlds import write_world

EMBEDDED_WORLD = Path("data/balls")


@dataclass(frozen=True)
class DataSettings:
    """Where videos come from and how they are brought to frames."""

    data: Path | None = None
    """Folder of videos (train/, val/ or flat; classes as sub-folders), or a clip store; default: the embedded world
    of balls, made in data/balls."""
    size: int = 64
    """Height of the frames in pixels, and their width: scaled to cover it, then centre cropped."""
    width: int = 0
    """Width in pixels of frames that are not square; 0: as the height."""
    fps: float = 10.0
    """Frames per second the videos are brought to, by time; 0 keeps every frame at its own rate."""
    decoder: Decoder = "pyav"
    """"pyav" reads everything; "decord" is an alternative for plain mp4."""
    cache: Path = Path("runs/clips")
    """Folder in which decoded videos are kept, so that they are decoded once."""

    def ingest_settings(self) -> IngestSettings:
        """How videos become frames."""
        return IngestSettings(*self.frame_size, fps=self.fps or None, decoder=self.decoder)

    @property
    def frame_size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.size, self.width or self.size

    def to_json(self) -> dict[str, Any]:
        """What a model's provenance keeps of it."""
        return {"size": self.size, "width": self.width, "fps": self.fps, "decoder": self.decoder}

    @classmethod
    def of_model(cls, origin: Mapping[str, Any], data: Path | None, cache: Path) -> "DataSettings":
        """Videos as a model was trained on them.

        Args:
            origin: ``provenance.json``'s ``data``: what :meth:`to_json` kept, and the ``clip_store``.
            data: Other videos to bring to the same frames; None: the clip store it was trained on.
            cache: Folder of decoded videos.
        """
        kept = {name: origin[name] for name in ("size", "width", "fps", "decoder")}
        return cls(data=data or Path(origin["clip_store"]), cache=cache, **kept)


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
            write_world("balls", data, 600, 64, 64, 48, 10.0, 0)
    return open_or_ingest(data, settings.ingest_settings(), settings.cache)
