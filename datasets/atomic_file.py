"""Files that are complete or absent, whenever the process is killed."""

import os
import platform
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """Open ``path`` for writing so that it appears under its name only when whole and on the disk.

    The bytes go to a temporary file in the same folder, are synced, and replace ``path`` when the block ends; an
    exception inside the block removes them and leaves ``path`` as it was.

    Args:
        path: Final name; its folder must exist.

    Yields:
        A binary file, open for writing and reading.

    Raises:
        OSError: If the disk is full or the folder cannot be written.
    """
    temporary = temporary_name(path)
    try:
        with temporary.open("w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def temporary_name(path: Path) -> Path:
    """``<name>.tmp-<pid>-<host>`` beside ``path``: no two processes share it, also when machines share the disk."""
    return path.with_name(f"{path.name}.tmp-{os.getpid()}-{host_name()}")


def writer_of(temporary: str) -> int | None:
    """The process of this machine that a temporary name belongs to; None for those of other machines."""
    pid, _, host = temporary.rpartition(".tmp-")[2].partition("-")
    return int(pid) if pid.isdigit() and host == host_name() else None


def host_name() -> str:
    """This machine's name, as part of a file name."""
    return re.sub(r"[^A-Za-z0-9-]", "-", platform.node()) or "local"


def _sync_folder(folder: Path) -> None:
    """Make the rename itself survive a power cut; Windows cannot open a folder and needs no such call."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
