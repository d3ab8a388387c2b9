"""The videos a command works on: the user's folder, or the embedded world when none is named."""

from dataclasses import dataclass
from pathlib import Path

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
    """Height and width of the frames in pixels: shorter side scaled, centre cropped."""
    fps: float = 10.0
    """Frames per second the videos are brought to, by time; 0 keeps every frame at its own rate."""
    decoder: Decoder = "pyav"
    """"pyav" reads everything; "decord" is an alternative for plain mp4."""
    cache: Path = Path("runs/clips")
    """Folder in which decoded videos are kept, so that they are decoded once."""

    def ingest_settings(self) -> IngestSettings:
        """How videos become frames."""
        return IngestSettings(height=self.size, width=self.size, fps=self.fps or None, decoder=self.decoder)


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
