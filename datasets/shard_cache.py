"""Copies of remote shards on this disk: checked, bounded, shared by processes and by jobs.

cache = ShardCache(Path("runs/remote"), most_bytes=20 * 2**30)
path = cache.shard(open_place("s3://bucket/tokens/train"), entry)
"""

import hashlib
import os
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from tokenreel.datasets.atomic_file import temporary_name, writer_of
from tokenreel.datasets.atomic_folder import atomic_folder, process_lives
from tokenreel.datasets.file_lock import file_lock
from tokenreel.datasets.place import LocalPlace, Place
from tokenreel.datasets.shard_manifest import ShardEntry
from tokenreel.datasets.shard_table import REMEDY

_LOCKS = 64
_ABANDONED = 24 * 3600.0
"""Seconds without a further byte after which a shard on its way to another machine no longer comes."""


@dataclass(frozen=True)
class ShardCache:
    """A folder of copies. A shard is kept under its checksum, so that what changed in the store is never mixed up.

    Attributes:
        folder: Where; made when needed. Tokenizers and captions lie there, too; they are few, and not counted.
        most_bytes: The shards used longest ago are removed when all are larger than this; the newest one stays.
    """

    folder: Path = Path("runs/remote")
    most_bytes: int = 20 * 2**30

    def shard(self, place: Place, entry: ShardEntry) -> Path:
        """A shard on this disk: the file itself, or a copy of which the checksum was compared.

        Raises:
            FileNotFoundError: If it is missing.
            ValueError: If it is another file than the manifest's.
            OSError: If it cannot be had, or the disk is full.
        """
        if isinstance(place, LocalPlace):
            return place.folder / entry.name
        path = self.folder / "shards" / f"{entry.sha256}.tar"
        if not self._is_there(path, entry):
            with self._lock(entry.sha256):
                if not self._is_there(path, entry):  # another process may have been faster
                    self._download(place, entry, path)
        return path

    def folder_of(self, place: Place, names: Sequence[str], key: str) -> Path:
        """Some files of a place on this disk: the folder itself, or a copy.

        Args:
            place: The folder.
            names: The files; no listing is asked for, since web servers have none.
            key: What tells this folder's contents from others' (its checksum).

        Raises:
            FileNotFoundError: If a file is missing.
            OSError: If one cannot be had, or the disk is full.
        """
        if isinstance(place, LocalPlace):
            return place.folder
        path = self.folder / f"{place.text.rsplit('/', 1)[-1]}-{key[:16]}"
        with self._lock(key):
            if not path.is_dir():
                with atomic_folder(path) as building:
                    for name in names:
                        place.receive(name, building / name)
        return path

    def _is_there(self, path: Path, entry: ShardEntry) -> bool:
        try:
            if path.stat().st_size != entry.bytes:
                return False
            os.utime(path)  # used now
        except FileNotFoundError:
            return False
        except OSError:  # a cache that may only be read
            return path.is_file()
        return True

    def _download(self, place: Place, entry: ShardEntry, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._make_room(entry.bytes)
        temporary = temporary_name(path)
        try:
            for attempt in ("first", "last"):  # once more: it may have been replaced, or garbled on the way
                place.receive(entry.name, temporary)
                with temporary.open("rb") as file:
                    got = hashlib.file_digest(file, "sha256").hexdigest()
                if got == entry.sha256:
                    break
                if attempt == "last":
                    raise ValueError(
                        f"{place}/{entry.name} has {temporary.stat().st_size} bytes of sha256 {got[:12]}, the manifest "
                        f"says {entry.bytes} of {entry.sha256[:12]}; {REMEDY}"
                    )
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        self._make_room(0, keep=path)  # of processes that load at the same time none knows what the others will need

    def _make_room(self, needed: int, keep: Path | None = None) -> None:
        """Remove what was used longest ago, so that ``needed`` bytes more stay within the bound; never ``keep``."""
        found, total = [], needed
        for path in (self.folder / "shards").iterdir():
            try:
                status = path.stat()
            except FileNotFoundError:  # removed by another process
                continue
            if ".tmp-" in path.name:
                if _is_coming(path, status.st_mtime):
                    total += status.st_size  # another shard on its way, of another thread, process or machine
                else:
                    path.unlink(missing_ok=True)
                continue
            total += status.st_size
            if path != keep:
                found.append((status.st_mtime, status.st_size, path))
        for _, size, path in sorted(found):
            if total <= self.most_bytes:
                return
            try:
                path.unlink(missing_ok=True)  # whoever has it open may go on reading
            except PermissionError:  # on Windows nobody may
                continue
            total -= size

    def _lock(self, key: str) -> AbstractContextManager[None]:
        number = int(hashlib.sha256(key.encode()).hexdigest(), 16) % _LOCKS
        return file_lock(self.folder / "locks" / f"{number:02d}.lock")


def _is_coming(temporary: Path, written: float) -> bool:
    """Whether somebody may still be writing a temporary file; ``written`` is when it last grew."""
    writer = writer_of(temporary.name)
    return time.time() - written < _ABANDONED if writer is None else process_lives(writer)
