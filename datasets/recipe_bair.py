"""BAIR robot pushing as it is downloaded: the original TFRecords, read without TensorFlow; or VideoGPT's HDF5 file.

Source: Ebert, Finn, Lee, Levine, "Self-Supervised Visual Planning with Temporal Skip Connections", 2017.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from tokenreel.datasets.array_file import HDF5_SUFFIXES
from tokenreel.datasets.array_source import ArraySource
from tokenreel.datasets.dataset_folder import begin_folder, finish_folder, is_recorded, write_recording
from tokenreel.datasets.gameplay import DATASET_FILE
from tokenreel.datasets.tfrecord import Feature, read_examples

ARCHIVE = "bair_robot_pushing_dataset_v0.tar"
PAGE = "http://rail.eecs.berkeley.edu/datasets"
RECORDS = "softmotion30_44k"
SIZE, FPS = 64, 10.0
SOURCE = f"BAIR robot pushing, small ({PAGE})"
LICENCE = "none is stated where it is offered"
EXPECTED = {"train": 43_264, "test": 256}


@dataclass(frozen=True)
class BairSettings:
    """What was downloaded."""

    root: Path = Path("data/BAIR")
    """Folder with softmotion30_44k, as unpacked from bair_robot_pushing_dataset_v0.tar; or VideoGPT's HDF5 file."""
    camera: Literal["aux1", "main"] = "aux1"
    """The camera that published figures are about is aux1."""


def make_bair(settings: BairSettings, out: Path, progress: Callable[[int, int], None]) -> bool:
    """Writes every trajectory as a lossless video of 30 frames with its actions, into ``out/{train,test}/``.

    Returns:
        Whether anything was made; False if all was there.

    Raises:
        FileNotFoundError: If nothing was downloaded; the message says what belongs where.
        ValueError: If a file is damaged or no BAIR, or the folder holds something else.
        OSError: If a file cannot be written.
    """
    files = {split: sorted(_records(settings.root).glob(f"{split}/*.tfrecord*")) for split in EXPECTED}
    told = {"recipe": "bair", "camera": settings.camera, "files": {split: len(paths) for split, paths in files.items()}}
    if not begin_folder(out, told, DATASET_FILE):
        return False
    done, total = 0, sum(map(len, files.values()))
    for split, paths in files.items():
        for path in paths:
            for number, example in enumerate(read_examples(path)):
                video = out / split / f"{path.stem}_{number:03d}.mkv"
                if not is_recorded(video):
                    frames, actions = _trajectory(example, settings.camera, f"{path}, record {number}")
                    said = {"actions": actions} if actions else {}
                    write_recording(video, frames, FPS, {"source": SOURCE, "licence": LICENCE, **said})
            done += 1
            progress(done, total)
    finish_folder(out, told, DATASET_FILE)
    return True


def videogpt_file(root: Path) -> ArraySource | None:
    """VideoGPT's HDF5 file, which needs no conversion; None if ``root`` is none.

    Raises:
        ValueError: If it cannot be read, or has no frames of both splits.
    """
    if not root.is_file() or root.suffix not in HDF5_SUFFIXES:
        return None
    source = ArraySource.open(root, "")
    lacking = {f"{split}_{part}" for split in EXPECTED for part in ("data", "idx")} - set(source.arrays)
    if lacking:
        raise ValueError(f"{root} lacks {', '.join(sorted(lacking))}; expected the layout of VideoGPT's BAIR file")
    return source


def _records(root: Path) -> Path:
    """The folder with ``train`` and ``test``.

    Raises:
        FileNotFoundError: If it is not there, or empty.
    """
    folder = next((path for path in (root / RECORDS, root) if any(path.glob("t*/*.tfrecord*"))), None)
    if folder is not None and all(any(folder.glob(f"{split}/*.tfrecord*")) for split in EXPECTED):
        return folder
    if folder is not None:
        lacking = next(split for split in EXPECTED if not any(folder.glob(f"{split}/*.tfrecord*")))
        raise FileNotFoundError(f"BAIR in {folder}: no {lacking}/*.tfrecords; unpack {ARCHIVE} again")
    packed = (root / ARCHIVE).is_file()
    fetch = "" if packed else f"download {PAGE}/{ARCHIVE} (30 GB) into {root}, then "
    raise FileNotFoundError(
        f"BAIR in {root}: {RECORDS}/train/*.tfrecords are missing; {fetch}run: tar -xf {root / ARCHIVE} -C {root} "
        f"(or give VideoGPT's HDF5 file as --root)"
    )


def _trajectory(example: dict[str, Feature], camera: str, where: str) -> tuple[np.ndarray, list[list[float]] | None]:
    """Frames, uint8 (T, 64, 64, 3), and actions; ``action[t]`` leads to frame t + 1."""
    frames: list[np.ndarray] = []
    actions: list[list[float]] = []
    while (image := example.get(f"{len(frames)}/image_{camera}/encoded")) is not None:
        action = example.get(f"{len(frames)}/action")
        if len(image) != 1 or len(image[0]) != SIZE * SIZE * 3:
            raise ValueError(f"{where}: frame {len(frames)} is no picture of {SIZE}x{SIZE}; download it again")
        frames.append(np.frombuffer(image[0], np.uint8).reshape(SIZE, SIZE, 3))
        if isinstance(action, np.ndarray):
            actions.append(action.tolist())
    if not frames:
        raise ValueError(f"{where} has no frames of camera {camera}; expected the records of {ARCHIVE}")
    return np.stack(frames), actions if len(actions) == len(frames) else None
