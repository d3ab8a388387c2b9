"""Folders that are complete or absent, whenever the process is killed."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tokenreel.datasets.atomic_file import host_name, temporary_name


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Gives a new folder to fill, which appears as ``path`` when the block ends.

    An exception inside the block removes it. If ``path`` exists by then, because another process was faster,
    that one stays. What killed processes of this machine left beside ``path`` is removed first.

    Args:
        path: Final name; the folders above are made.

    Yields:
        ``<name>.tmp-<pid>-<host>`` in the same folder.

    Raises:
        OSError: If the folder cannot be made or renamed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(path.parent)
    temporary = temporary_name(path)
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
        try:
            temporary.rename(path)
        except OSError:
            if not path.is_dir():
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _remove_abandoned(cache: Path) -> None:
    """Removes folders of dead processes; other machines may share the disk and be at work."""
    if os.name == "nt":
        # There, asking whether a process lives can end it.
        return
    for folder in cache.glob(f"*.tmp-*-{host_name()}"):
        pid = folder.name.removesuffix(f"-{host_name()}").rpartition(".tmp-")[2]
        if pid.isdigit() and not process_lives(int(pid)):
            shutil.rmtree(folder, ignore_errors=True)


def process_lives(pid: int) -> bool:
    """Whether a process of this machine is running."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True
