"""One process per run folder: a lock that the system takes back when its holder dies, however it dies."""

import errno
import json
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from tokenreel.training.run_folder import check_writable, refuse_existing

LOCK_FILE = "lock"
"""Stays in the run folder and means nothing by being there: the lock is the system's, not the file's."""


@contextmanager
def claimed(run: Path, resume: bool) -> Iterator[None]:
    """Hold a run folder for the length of a ``with`` block; before any work, since data may take hours to prepare.

    Raises:
        ValueError: If another process trains in it, or it holds a run and ``resume`` is off.
        OSError: If it cannot be written.
    """
    check_writable(run)
    with (run / LOCK_FILE).open("a+b") as file:
        try:
            _lock(file)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                raise ValueError(
                    f"{run} is in use by {_holder(run)}, expected one training per run folder; wait for its end, or "
                    "choose another --run"
                ) from None
            print(f"the file system of {run} has no locks ({error.strerror}): see to it that nothing else trains there")
        file.truncate(0)
        file.write(json.dumps({"pid": os.getpid(), "host": platform.node()}).encode())
        file.flush()
        try:
            refuse_existing(run, resume)
            yield
        finally:
            if [path.name for path in run.iterdir()] == [LOCK_FILE]:  # a mistake was found before anything was done
                (run / LOCK_FILE).unlink()
                run.rmdir()


def _holder(run: Path) -> str:
    try:
        told = json.loads((run / LOCK_FILE).read_text())
        return f"process {told['pid']} on {told['host']}"
    except (OSError, ValueError, KeyError):
        return "another process"


if os.name == "nt":
    import msvcrt

    _BEHIND_THE_TEXT = 2**20  # a locked byte could not be read

    def _lock(file: BinaryIO) -> None:
        file.seek(_BEHIND_THE_TEXT)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]

else:
    import fcntl

    def _lock(file: BinaryIO) -> None:
        # Of the process, not of the open file: forked workers, which outlive a killed training by moments, have none.
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
