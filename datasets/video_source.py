"""What a path is: the one place where sources of videos are known, each of which gives the same kind of listing."""

from pathlib import Path

from tokenreel.datasets.array_file import HDF5_SUFFIXES, NUMPY_SUFFIXES
from tokenreel.datasets.array_source import ArraySource
from tokenreel.datasets.found_video import VideoSource
from tokenreel.datasets.lerobot_source import LeRobotSource, is_lerobot
from tokenreel.datasets.video_folder import VideoFolder

PICKLES = (".pkl", ".pickle", ".pt", ".pth")
RECORDS = (".tfrecord", ".tfrecords")


def video_source(path: Path, part: str = "") -> VideoSource:
    """Finds out what a path holds, and lists it; nothing is decoded.

    Args:
        path: A folder of videos, a LeRobot dataset, an HDF5, npz or npy file.
        part: Which part to read: a camera, an array; empty: all.

    Raises:
        FileNotFoundError: If there is nothing.
        ValueError: If it holds no videos, or is of a kind that cannot be read.
    """
    suffix = path.suffix.lower()
    if path.is_file() and suffix in HDF5_SUFFIXES + NUMPY_SUFFIXES:
        return ArraySource.open(path, part)
    if path.is_file() and suffix in PICKLES:
        raise ValueError(f"{path} is a pickle, which executes what is in it; store its arrays as HDF5 or npz")
    if path.is_file() and suffix in RECORDS:
        raise ValueError(f"{path} is a file of TFRecords; make_dataset.py bair reads those of BAIR, convert others")
    if is_lerobot(path):
        return LeRobotSource.open(path, part)
    folder = VideoFolder.scan(path)
    if part:
        raise ValueError(f"part {part!r} of {path}, which is a folder of videos; leave the option out")
    return folder
