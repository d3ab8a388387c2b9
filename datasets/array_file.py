"""Arrays of frames in one file: HDF5 (as VideoGPT keeps BAIR), npz or npy.

Every array of uint8 with four or five axes is frames: ``(N, T, H, W, C)`` videos, ``(T, H, W, C)`` one video, or
``(N, T, H, W)`` grey videos; C is 1, 3 or 4. An array ``train_data`` belongs to the split ``train``, as the first word
of its name says, and others of that beginning tell more of its videos, one entry for each:

* ``train_idx``: where videos begin in ``(frames, H, W, C)``, all frames one after the other;
* ``train_label``, ``train_caption``; ``train_actions`` ``(N, T)`` or ``(N, T, size)``, or one entry per frame;
* ``fps``: frames per second, one number for the file.

Nothing is unpickled.
"""

import importlib
import zipfile
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import numpy as np

HDF5_SUFFIXES = (".h5", ".hdf5", ".hdf")
NUMPY_SUFFIXES = (".npy", ".npz")
ONLY_ARRAY = "frames"
"""What the array of a npy file is called."""
DEEPEST = 16


class ModuleMissing(ValueError):
    """A package that only some need is not installed; the message says which."""


class ArrayFacts:
    """Shape and type of an array that is not read yet.

    Attributes:
        shape: Its axes.
        dtype: Type of its numbers.
    """

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype) -> None:
        self.shape, self.dtype = shape, dtype


def array_facts(path: Path) -> dict[str, ArrayFacts]:
    """The arrays in a file by name, nothing of them read.

    Raises:
        ValueError: If the file is damaged, or links to other files.
        ModuleMissing: If what reads it is not installed.
    """
    try:
        return dict(_hdf5_facts(path) if path.suffix in HDF5_SUFFIXES else _numpy_facts(path))
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, RuntimeError) as error:
        if isinstance(error, ModuleMissing):
            raise
        raise ValueError(f"cannot read {path} ({error}); download or convert it again") from error


@lru_cache(maxsize=2)
def open_array(path: str, member: str) -> np.ndarray:
    """An array of a file, mapped or read in pieces as they are asked for; one in an npz is read whole.

    Raises:
        ValueError, OSError, LookupError: If it cannot be read.
    """
    if path.endswith(HDF5_SUFFIXES):
        # Sliced like an array.
        return cast(np.ndarray, _h5py().File(path, "r")[member])
    if path.endswith(".npz"):
        with np.load(path, allow_pickle=False) as arrays:
            return arrays[member]
    return np.load(path, mmap_mode="r", allow_pickle=False)


def read_array(path: Path, member: str) -> np.ndarray:
    """A small array of a file, read whole.

    Raises:
        ValueError: If it cannot be read.
    """
    try:
        # Not what was kept of an earlier reading: the file may have changed.
        return np.asarray(open_array.__wrapped__(str(path), member)[()])
    except (OSError, EOFError, LookupError, zipfile.BadZipFile) as error:
        raise ValueError(f"cannot read {member} of {path} ({error}); download or convert it again") from error


def _numpy_facts(path: Path) -> Iterator[tuple[str, ArrayFacts]]:
    if path.suffix == ".npy":
        with path.open("rb") as file:
            yield ONLY_ARRAY, _header(file)
        return
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            with archive.open(name) as file:
                yield name.removesuffix(".npy"), _header(file)


def _header(file: Any) -> ArrayFacts:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    return ArrayFacts(shape, dtype)


def _hdf5_facts(path: Path) -> Iterator[tuple[str, ArrayFacts]]:
    h5py = _h5py()
    with h5py.File(path, "r") as file:
        yield from _members(h5py, file, "")


def _members(h5py: Any, group: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, ArrayFacts]]:
    if prefix.count("/") > DEEPEST:
        raise ValueError(f"groups lie more than {DEEPEST} deep in each other: {prefix}")
    for name in group:
        # A link could lead to any other file of the machine, or in a circle.
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):  # type: ignore[call-overload]
            raise ValueError(f"{prefix}{name} is a link, which is not followed; store the array itself")
        member = group[name]
        if isinstance(member, h5py.Dataset):
            if member.external or member.is_virtual:
                raise ValueError(f"{prefix}{name} keeps its numbers in other files; store the array itself")
            yield prefix + name, ArrayFacts(member.shape or (), member.dtype)
        elif isinstance(member, h5py.Group):
            yield from _members(h5py, member, f"{prefix}{name}/")


def _h5py() -> Any:
    try:
        return importlib.import_module("h5py")
    except ImportError as error:
        raise ModuleMissing("reading HDF5 files needs the package h5py; pip install 'tokenreel[hdf5]'") from error
