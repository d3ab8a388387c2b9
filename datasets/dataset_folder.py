"""A folder of videos that a program writes one by one: interrupted and begun again it ends the same.

if begin_folder(out, settings, "dataset.json"):
for name, episode in ...:
write_recording(out / "train" / name, episode.frames, fps, sidecar)
finish_folder(out, settings, "dataset.json")
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tokenreel.datasets.atomic_file import atomic_file
from tokenreel.datasets.video_writer import write_video


def begin_folder(out: Path, settings: Mapping[str, Any], file: str) -> bool:
    """Makes the folder, or finds it begun or finished with the same settings.

    Args:
        out: The folder.
        settings: What is to be written, as JSON has it.
        file: Name of the file that holds the settings when all is written, such as ``world.json``.

    Returns:
        Whether there is anything left to write.

    Raises:
        ValueError: If it holds something else.
        OSError: If it cannot be written.
    """
    kind = file.removesuffix(".json")
    finished, begun = out / file, _begun(out, file)
    if finished.exists():
        _expect_same(finished, settings, kind)
        return False
    if begun.exists():
        _expect_same(begun, settings, kind)
    elif out.is_dir() and any(out.iterdir()):
        raise ValueError(f"{out} is not empty and holds no {kind}; expected a new folder: choose another --out")
    out.mkdir(parents=True, exist_ok=True)
    write_json(begun, settings, indent=2)
    return True


def finish_folder(out: Path, settings: Mapping[str, Any], file: str) -> None:
    """Marks a folder as finished."""
    write_json(out / file, settings, indent=2)
    _begun(out, file).unlink(missing_ok=True)


def is_recorded(video: Path) -> bool:
    """Whether a video and what is said of it are there."""
    # The sidecar is written after its video, so it stands for both.
    return video.with_suffix(".json").exists()


def write_recording(video: Path, frames: np.ndarray, fps: float, sidecar: Mapping[str, Any]) -> None:
    """Writes a video and the JSON file beside it.

    Args:
        video: Target; see ``video_writer.VideoFile``.
        frames: uint8 (T, H, W, 3), RGB.
        fps: Frames per second.
        sidecar: What is said of it.
    """
    write_video(video, frames, fps)
    write_json(video.with_suffix(".json"), sidecar)


def write_json(path: Path, value: Mapping[str, Any], indent: int | None = None) -> None:
    """Writes a JSON file that is whole or absent."""
    with atomic_file(path) as file:
        file.write(json.dumps(value, indent=indent).encode("ascii"))


def _begun(out: Path, file: str) -> Path:
    return out / f"{file}.partial"


def _expect_same(file: Path, settings: Mapping[str, Any], kind: str) -> None:
    try:
        there = json.loads(file.read_text())
    except ValueError as error:
        raise ValueError(f"{file} is not readable JSON ({error}); delete the folder {file.parent}") from None
    # As JSON has them: a tuple comes back as a list.
    wanted = json.loads(json.dumps(settings))
    different = [key for key in wanted if not isinstance(there, dict) or there.get(key) != wanted[key]]
    if different:
        key = different[0]
        got = there.get(key) if isinstance(there, dict) else there
        raise ValueError(
            f"{file.parent} holds another {kind}: {key} is {got!r} there, expected {wanted[key]!r}; "
            "choose another --out or delete the folder"
        )
