"""Folders that are complete or absent, whenever the process is killed."""

import os
import platform
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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
    temporary = path.with_name(f"{path.name}.tmp-{os.getpid()}-{_host()}")
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


def _host() -> str:
    return re.sub(r"[^A-Za-z0-9-]", "-", platform.node()) or "local"


def _remove_abandoned(cache: Path) -> None:
    """Removes folders of dead processes; other machines may share the disk and be at work."""
    if os.name == "nt":
        # There, asking whether a process lives can end it.
        return
    for folder in cache.glob(f"*.tmp-*-{_host()}"):
        pid = folder.name.removesuffix(f"-{_host()}").rpartition(".tmp-")[2]
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
