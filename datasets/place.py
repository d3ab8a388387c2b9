"""A folder of files, on this disk or behind a URL: what shards are written to and read from.

place = open_place("s3://bucket/tokens/train")  # or a folder
place.write("manifest.json", data)
"""

import os
import re
import shutil
from abc import ABC, abstractmethod
from contextlib import suppress
from pathlib import Path

from tokenreel.datasets.atomic_file import atomic_file, temporary_name

SCHEMES = {
    **{name: "s3fs" for name in ("s3", "s3a")},
    **{name: "gcsfs" for name in ("gs", "gcs")},
    **{name: "adlfs" for name in ("az", "abfs", "abfss")},
    **{name: "aiohttp" for name in ("http", "https")},
    "memory": "fsspec",
}
"""Stores that a URL may name, and the package that fsspec needs for each; ``file://`` is a folder. Others are refused:
some schemes of fsspec, and of WebDataset, run what the URL says."""
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
_CONTAINER_OF_ACCOUNT = re.compile(r"[a-z0-9$-]+@[A-Za-z0-9.-]+")
"""What Azure's URLs begin with, ``container@account.dfs.core.windows.net``: neither is a secret."""


class Place(ABC):
    """A folder of files.

    Attributes:
        text: How it is named to people: the folder, or the URL.
    """

    text: str

    def __str__(self) -> str:
        return self.text

    @abstractmethod
    def child(self, name: str) -> "Place":
        """The folder ``name`` in this one."""

    @abstractmethod
    def read(self, name: str) -> bytes:
        """The contents of a file.

        Raises:
            FileNotFoundError: If it is missing.
            OSError: If it cannot be read.
        """

    @abstractmethod
    def write(self, name: str, data: bytes) -> None:
        """Write a file, whole or not at all; one that is there is replaced.

        Raises:
            OSError: If it cannot be written.
        """

    @abstractmethod
    def create(self, name: str, data: bytes) -> bool:
        """Write a file unless it is there; returns whether it was written."""

    @abstractmethod
    def receive(self, name: str, path: Path) -> None:
        """Copy a file to ``path`` on this disk; raises as `read`."""

    @abstractmethod
    def send(self, path: Path, name: str) -> None:
        """Copy a file of this disk here, whole or not at all; raises as `write`."""

    @abstractmethod
    def size(self, name: str) -> int | None:
        """Bytes of a file; None if it is missing."""

    def exists(self, name: str) -> bool:
        """Whether a file is there."""
        return self.size(name) is not None

    @abstractmethod
    def sizes(self) -> dict[str, int]:
        """Size in bytes of each file by name; empty if the folder is missing."""


class LocalPlace(Place):
    """A folder on this disk; it appears with the first file."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.text = folder, str(folder)

    def child(self, name: str) -> "LocalPlace":
        """The folder ``name`` in this one."""
        return LocalPlace(self.folder / name)

    def read(self, name: str) -> bytes:
        """The contents of a file; raises as `Place.read`."""
        return (self.folder / name).read_bytes()

    def write(self, name: str, data: bytes) -> None:
        """Write a file beside its name and rename it, so that it is seen whole or not at all."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with atomic_file(self.folder / name) as file:
            file.write(data)

    def create(self, name: str, data: bytes) -> bool:
        """Write a file unless it is there, by a hard link where the disk has those; returns whether it was written."""
        path, ready = self.folder / name, temporary_name(self.folder / name)
        if path.exists():
            return False
        self.write(ready.name, data)
        try:
            os.link(ready, path)  # of several writers one succeeds; a rename would replace
        except FileExistsError:
            return False
        except OSError:  # a disk without links
            os.replace(ready, path)
        finally:
            ready.unlink(missing_ok=True)
        return True

    def receive(self, name: str, path: Path) -> None:
        """Copy a file to ``path``; raises as `Place.read`."""
        shutil.copyfile(self.folder / name, path)

    def send(self, path: Path, name: str) -> None:
        """Copy a file here, whole or not at all."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with atomic_file(self.folder / name) as target, path.open("rb") as source:
            shutil.copyfileobj(source, target)

    def size(self, name: str) -> int | None:
        """Bytes of a file; None if it is missing."""
        path = self.folder / name
        return path.stat().st_size if path.is_file() else None

    def sizes(self) -> dict[str, int]:
        """Size in bytes of each file by name; empty if the folder is missing."""
        if not self.folder.is_dir():
            return {}
        found = {}
        with os.scandir(self.folder) as entries:
            for entry in entries:
                # Another process may finish a file, which takes its temporary name away.
                with suppress(FileNotFoundError):
                    if entry.is_file():
                        found[entry.name] = entry.stat().st_size
        return found


def open_place(where: "str | Path | Place") -> Place:
    """The folder, or what a URL names.

    Args:
        where: Folder, or URL of a scheme in `SCHEMES`, or ``file://``.

    Raises:
        ValueError: If the scheme is another one, or the URL has parts that it should not have.
    """
    if isinstance(where, Place):
        return where
    match = _URL.fullmatch(where) if isinstance(where, str) else None
    if match is None:
        _check_no_url(str(where))
        return LocalPlace(Path(where))
    scheme, rest = match[1].lower(), match[2]
    if scheme == "file":
        return LocalPlace(Path(rest))
    if scheme not in SCHEMES or "::" in rest:
        known = ", ".join(f"{name}://" for name in ("file", *SCHEMES))
        raise ValueError(f"got the URL {where!r}, expected a folder or one of {known}, not chained by ::")
    host = rest.split("/")[0]
    if "@" in host and not (SCHEMES[scheme] == "adlfs" and _CONTAINER_OF_ACCOUNT.fullmatch(host)):
        raise ValueError(
            f"got a {scheme}:// URL with a name or a password in it, which logs and models would keep; expected them "
            "in the store's own environment variables or files"
        )
    if scheme.startswith("http") and re.search(r"[?#]", rest):
        raise ValueError(f"got {where!r}, expected the URL of a folder, without ? and #")
    from tokenreel.datasets.place_remote import RemotePlace

    return RemotePlace(f"{scheme}://{rest.rstrip('/')}")


def _check_no_url(where: str) -> None:
    """Refuse what was meant as a URL: ``pipe:…``, chains, and URLs that a Path has lost a slash of."""
    scheme, colon, _ = where.partition(":")
    if colon and ("::" in where or scheme.lower() in {*SCHEMES, "file", "pipe"}) and len(scheme) > 1:
        raise ValueError(f"got {where!r}, expected a folder, or a URL such as s3://bucket/tokens (as a str)")
