"""The token shards of one split, opened for training: clip number in, indices and record out.

shards = TokenShards.open("runs/tokens", split="train", tokenizer=fingerprint)  # or "s3://bucket/tokens"
indices, records = shards.batch(order.batch(step))
"""

import os
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np

from tokenreel.datasets.place import LocalPlace, Place, open_place
from tokenreel.datasets.shard_cache import ShardCache
from tokenreel.datasets.shard_file import missing_shard, wrong_size
from tokenreel.datasets.shard_manifest import MANIFEST_NAME, ShardEntry, ShardManifest
from tokenreel.datasets.shard_table import ShardTable, check_sha256, read_into, read_table

USUAL_SPLITS = ("test", "train", "val")
DOWNLOADS_AT_ONCE = 8
OPEN_FILES = 256
MOST_LISTED = 2**20
"""Clips whose records are read one after the other, in some tens of seconds."""


def splits(folder: Path | str | Place) -> list[str]:
    """Names of the finished splits in a folder, sorted; of a URL those of `USUAL_SPLITS`, since the web lists none."""
    place = open_place(folder)
    if isinstance(place, LocalPlace):
        return sorted(path.parent.name for path in place.folder.glob(f"*/{MANIFEST_NAME}"))
    return [name for name in USUAL_SPLITS if place.child(name).exists(MANIFEST_NAME)]


class TokenShards:
    """Random access to the clips of one split; open it with `TokenShards.open`.

    A shard is checked from end to end, its checksum included, when the first of its clips is asked for; from then on
    a clip is two short reads. Memory holds four bytes per clip and no clips: those the system keeps where it has
    room. It may be pickled, and used after a fork and by several threads.

    Attributes:
        manifest: What the shards are; lists all of them.
        place: Where they are.
        skipped: What is wrong with those that were left out, by name.
    """

    def __init__(self, place: Place, manifest: ShardManifest, cache: ShardCache) -> None:
        self.place = place
        self.manifest = manifest
        self.skipped: dict[str, str] = {}
        self.num_videos = manifest.videos
        """Number of distinct videos that the clips were cut from."""
        self._cache = cache
        self._keep(range(len(manifest.shards)))
        self._files: OrderedDict[int, FileIO] = OrderedDict()

    @classmethod
    def open(
        cls,
        folder: Path | str | Place,
        split: str = "train",
        tokenizer: str | None = None,
        verify: bool = False,
        skip_bad: bool = False,
        cache: ShardCache | None = None,
    ) -> "TokenShards":
        """Open the shards of one split and check that they are complete.

        Args:
            folder: Made by tools/tokenize_dataset.py, e.g. ``runs/tokens`` or ``s3://bucket/tokens``; has one folder
                per split.
            split: Which split.
            tokenizer: Fingerprint (sha256, hex) that the shards must come from; None takes any.
            verify: Check all shards now, and not each when it is used first (reads all of them).
            skip_bad: Check all shards now and go on without those that are missing or damaged: `skipped` says which,
                clips are counted without them.
            cache: Where copies of remote shards are kept; None is the usual folder.

        Returns:
            The opened shards.

        Raises:
            FileNotFoundError: If folder, split, manifest or a shard is missing.
            ValueError: If the shards are of another tokenizer, damaged, or without clips.
        """
        root = open_place(folder)
        home = root.child(split)
        if not home.exists(MANIFEST_NAME) and not home.exists("plan.json"):
            there = ", ".join(splits(root)) or "no splits"
            raise FileNotFoundError(f"no token shards in {home} ({root} has {there}); run tools/tokenize_dataset.py")
        manifest = ShardManifest.load(home)
        if tokenizer is not None and tokenizer != manifest.tokenizer:
            raise ValueError(
                f"the shards in {home} were made by tokenizer {manifest.tokenizer[:12]}, "
                f"expected {tokenizer[:12]}; run "
                "tools/tokenize_dataset.py with this tokenizer, or use the one that made them"
            )
        if not manifest.shards:
            raise ValueError(f"the split {home} has no clips; tokenize videos into it or choose another split")
        shards = cls(home, manifest, cache or ShardCache())
        if skip_bad:
            shards._leave_out_bad()
        else:
            shards._check_sizes()
            for number in range(len(manifest.shards)) if verify else ():
                shards._opened(number)
        return shards

    def __len__(self) -> int:
        """Number of clips."""
        return int(self._starts[-1])

    @property
    def is_remote(self) -> bool:
        """Whether they lie in a store, and copies on this disk are read."""
        return not isinstance(self.place, LocalPlace)

    def places_of_clips(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Of every clip a number of its video, 0 to videos - 1, and its first frame: int64 (clips,) twice.

        None where finding it out would read too much: of very many clips, and of shards that are not on this disk.

        Raises:
            ValueError: If a shard is damaged; names the shard and its clips.
        """
        if len(self) > MOST_LISTED or not isinstance(self.place, LocalPlace):
            return None
        numbers: dict[str, int] = {}
        videos, starts = np.empty(len(self), np.int64), np.empty(len(self), np.int64)
        for number in range(len(self)):
            shard = int(np.searchsorted(self._starts, number, side="right")) - 1
            file, table = self._opened(shard)
            block, inside = divmod(number - int(self._starts[shard]), self.manifest.block)
            last = inside + 1 == self.manifest.block
            record = table.record(file, number - int(self._starts[shard]), block, last)
            videos[number] = numbers.setdefault(record["video"], len(numbers))
            starts[number] = record["start"]
        return videos, starts

    def clip(self, number: int) -> tuple[np.ndarray, dict[str, Any]]:
        """One clip.

        Args:
            number: In [0, len).

        Returns:
            indices int64 (T', H', W') in [0, K), and its record.

        Raises:
            IndexError: If there is no such clip.
            ValueError: If its shard is damaged; names the shard and its clips.
        """
        indices, records = self.batch([number])
        return indices[0], records[0]

    def batch(self, numbers: Sequence[int] | np.ndarray) -> tuple[np.ndarray, list[dict[str, Any]]]:
        """Several clips, in the order asked for; the same clip may come twice.

        Args:
            numbers: B clip numbers in [0, len).

        Returns:
            indices int64 (B, T', H', W') in [0, K), and their B records.

        Raises:
            IndexError: If there is no such clip.
            ValueError: If a shard is damaged; names the shard and its clips.
        """
        wanted = np.asarray(numbers, np.int64)
        if outside := [int(number) for number in wanted[(wanted < 0) | (wanted >= len(self))]]:
            raise IndexError(f"clip {outside[0]} of {len(self)}")
        shards = np.searchsorted(self._starts, wanted, side="right") - 1
        self._fetch({int(shard) for shard in shards})
        stored = np.empty((len(wanted), int(np.prod(self.manifest.grid))), self.manifest.dtype)
        into, size = stored.view(np.uint8).reshape(-1).data, stored.itemsize * stored.shape[1]
        records = []
        places = (wanted - self._starts[shards]).tolist()
        for row, (shard, place) in enumerate(zip(shards.tolist(), places, strict=True)):
            file, table = self._opened(shard)
            block, inside = divmod(place, self.manifest.block)
            read_into(file, into[row * size : (row + 1) * size], int(table.blocks[block]) + inside * size)
            records.append(table.record(file, place, block, inside + 1 == self.manifest.block))
        return stored.reshape(-1, *self.manifest.grid).astype(np.int64), records

    def _keep(self, numbers: Sequence[int]) -> None:
        """Count the clips of these shards alone."""
        self._numbers = list(numbers)
        clips = [self.manifest.shards[number].clips for number in self._numbers]
        self._starts = np.concatenate([[0], np.cumsum(clips)])
        self._tables: list[ShardTable | None] = [None] * len(clips)

    def _check_sizes(self) -> None:
        """Compare the files on this disk with the manifest; those of a store are compared when they are loaded."""
        if not isinstance(self.place, LocalPlace):
            return
        sizes = self.place.sizes()
        for shard, entry in enumerate(self.manifest.shards):
            path = f"{self._clips(shard)}: {self.place}/{entry.name}"
            if entry.name not in sizes:
                raise FileNotFoundError(missing_shard(path))
            if sizes[entry.name] != entry.bytes:
                raise ValueError(wrong_size(path, sizes[entry.name], entry))

    def _leave_out_bad(self) -> None:
        tables: dict[int, ShardTable] = {}
        for number, entry in enumerate(self.manifest.shards):
            try:
                tables[number] = self._opened(number)[1]
            except (ValueError, FileNotFoundError) as error:
                self.skipped[entry.name] = str(error)
        if not tables:
            raise ValueError(
                f"all {len(self.skipped)} shards in {self.place} are bad, the first: "
                f"{next(iter(self.skipped.values()))}"
            )
        self._files.clear()
        self._keep(list(tables))
        self._tables = list(tables.values())
        if self.skipped:
            self.num_videos = len({self.clip(number)[1]["video"] for number in range(len(self))})

    def _fetch(self, shards: set[int]) -> None:
        """Load and check those shards of a store that were not used yet, several at a time."""
        new = [shard for shard in shards if self._tables[shard] is None]
        if isinstance(self.place, LocalPlace) or len(new) < 2:
            return
        with ThreadPoolExecutor(DOWNLOADS_AT_ONCE) as pool:
            list(pool.map(lambda shard: self._cache.shard(self.place, self._entry(shard)), new))

    def _entry(self, shard: int) -> ShardEntry:
        return self.manifest.shards[self._numbers[shard]]

    def _opened(self, shard: int) -> tuple[FileIO, ShardTable]:
        """The file of a shard, and where its clips are in it.

        Raises:
            ValueError, OSError: If it is missing or damaged; names the shard and its clips.
        """
        file, table = self._files.get(shard), self._tables[shard]
        if file is not None and table is not None:
            with suppress(KeyError):  # another thread made room; the file stays open while this one has it
                self._files.move_to_end(shard)
            return file, table
        try:
            file, table = self._check(shard, table)
        except (ValueError, OSError) as error:
            raise type(error)(f"{self._clips(shard)}: {error}") from error
        self._files[shard], self._tables[shard] = file, table
        while len(self._files) > OPEN_FILES:
            self._files.popitem(last=False)  # closed when the last thread that reads from it has done so
        return file, table

    def _clips(self, shard: int) -> str:
        return f"clips {self._starts[shard]}..{self._starts[shard + 1] - 1}"

    def _check(self, shard: int, table: ShardTable | None) -> tuple[FileIO, ShardTable]:
        entry = self._entry(shard)
        path = self._cache.shard(self.place, entry)
        try:
            return self._load(path, shard, entry, table)
        except (ValueError, FileNotFoundError):
            if isinstance(self.place, LocalPlace):
                raise
        path.unlink(missing_ok=True)  # a copy that was damaged since, or that another process made room of
        return self._load(self._cache.shard(self.place, entry), shard, entry, None)

    def _load(self, path: Path, shard: int, entry: ShardEntry, table: ShardTable | None) -> tuple[FileIO, ShardTable]:
        try:
            file = FileIO(path)
        except FileNotFoundError as error:
            raise FileNotFoundError(missing_shard(path)) from error
        status = os.fstat(file.fileno())
        if status.st_size != entry.bytes:
            raise ValueError(wrong_size(path, status.st_size, entry))
        if table is None or table.inode != status.st_ino:  # new, or another file than before
            check_sha256(file, path, entry.sha256)
            table = read_table(file, path, self._numbers[shard], self.manifest, entry.clips)
        return file, table

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_files": OrderedDict()}
