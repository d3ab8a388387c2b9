"""A folder of files in a store that fsspec knows: S3, Google Cloud Storage, Azure, a web server, memory."""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from tokenreel.datasets.place import SCHEMES, Place

T = TypeVar("T")
TRIES = 4
FIRST_PAUSE = 0.5
"""Seconds before the second try; each pause is twice the one before."""


class RemotePlace(Place):
    """A folder in a store. It may be pickled, and used after a fork: connections are fsspec's, one per process.

    Credentials and endpoints come from where the store's own library looks for them (AWS_ACCESS_KEY_ID,
    AWS_ENDPOINT_URL, ~/.aws, FSSPEC_S3_..., GOOGLE_APPLICATION_CREDENTIALS, AZURE_STORAGE_ACCOUNT_KEY).
    """

    def __init__(self, url: str) -> None:
        self.text, self.scheme = url, url.split("://")[0]

    def child(self, name: str) -> "RemotePlace":
        """The folder ``name`` in this one."""
        return RemotePlace(f"{self.text}/{name}")

    def read(self, name: str) -> bytes:
        """The contents of a file; raises as `Place.read`."""
        return self._tried(name, lambda store, path: store.cat_file(path))

    def write(self, name: str, data: bytes) -> None:
        """Put one object, which is seen whole or not at all.

        Raises:
            ValueError: If the store can only be read.
            OSError: If it cannot be written.
        """
        self._check_writable()
        self._tried(name, lambda store, path: store.pipe_file(path, data))

    def create(self, name: str, data: bytes) -> bool:
        """Put an object unless it is there; returns whether it is the one that stayed."""
        self._check_writable()
        if self.exists(name):
            return False
        try:
            self._tried(name, lambda store, path: store.pipe_file(path, data, mode="create"))
        except FileExistsError:
            return False
        return self.read(name) == data  # stores that know no "create" keep what came last

    def receive(self, name: str, path: Path) -> None:
        """Load an object down to ``path``; raises as `Place.read`."""
        self._tried(name, lambda store, remote: store.get_file(remote, str(path)))

    def send(self, path: Path, name: str) -> None:
        """Load a file up, whole or not at all; raises as `write`."""
        self._check_writable()
        self._tried(name, lambda store, remote: store.put_file(str(path), remote))

    def size(self, name: str) -> int | None:
        """Bytes of an object; None if it is missing."""
        try:
            return int(self._tried(name, lambda store, path: store.info(path))["size"])
        except FileNotFoundError:
            return None

    def sizes(self) -> dict[str, int]:
        """Size in bytes of each object by name, listed anew; empty if the folder is missing."""
        try:
            found = self._tried("", lambda store, path: store.ls(path, detail=True, refresh=True))
        except FileNotFoundError:
            return {}
        return {
            entry["name"].rstrip("/").rsplit("/", 1)[-1]: entry["size"] for entry in found if entry["type"] == "file"
        }

    def _check_writable(self) -> None:
        if self.scheme in ("http", "https"):
            raise ValueError(f"{self.text}: a web server can only be read, expected a folder or a store such as s3://")

    def _tried(self, name: str, work: Callable[[Any, str], T]) -> T:
        """Do something with a file; again after a pause when the store fails for a reason that may pass."""
        url = f"{self.text}/{name}".rstrip("/")
        pause = FIRST_PAUSE
        for left in reversed(range(TRIES)):
            try:
                store = self._store()
                store.invalidate_cache()  # fsspec keeps listings, other processes write
                return work(store, store._strip_protocol(url))
            except (FileNotFoundError, FileExistsError, PermissionError, IsADirectoryError) as error:
                raise type(error)(f"{url}: {_reason(error)}") from error
            except _passing_errors() as error:
                if not left:
                    raise OSError(f"{url}: {_reason(error)}; tried {TRIES} times, try again later") from error
            time.sleep(pause)
            pause *= 2
        raise AssertionError("the last try returns or raises")

    def _store(self) -> Any:
        import fsspec

        try:
            # A URL may name the account: abfs://container@account.dfs.core.windows.net/tokens.
            told = fsspec.get_filesystem_class(self.scheme)._get_kwargs_from_urls(self.text)
            return fsspec.filesystem(self.scheme, use_listings_cache=False, **told)
        except ImportError as error:
            raise ValueError(
                f"{self.scheme}:// needs the package {SCHEMES[self.scheme]}, which is not installed; "
                'pip install "tokenreel[remote]", or that package'
            ) from error


def _passing_errors() -> tuple[type[BaseException], ...]:
    """Errors that may pass: the system's, and those of the web client that fsspec lets through."""
    client = sys.modules.get("aiohttp")
    return (OSError, client.ClientError) if client else (OSError,)


def _reason(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
