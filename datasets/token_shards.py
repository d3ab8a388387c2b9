"""The token shards of one split, opened for training: clip number in, indices and record out.

shards = TokenShards.open(Path("runs/tokens"), split="train", tokenizer=fingerprint)
indices, records = shards.batch(order.batch(step))
"""

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from tokenreel.datasets.shard_file import Location, check_shard, read_block, scan_shard
from tokenreel.datasets.shard_manifest import MANIFEST_NAME, ShardManifest

# A parsed record takes about this many times the bytes of its JSON.
_RECORD_OVERHEAD = 8


def splits(folder: Path) -> list[str]:
    """Names of the finished splits under ``folder``, sorted; empty when there are none."""
    return sorted(path.parent.name for path in folder.glob(f"*/{MANIFEST_NAME}"))


class TokenShards:
    """Random access to the clips of one split; open it with `TokenShards.open`.

    Blocks that were read stay in memory up to ``cache_bytes``: a small data set is read from disk once, a
    large one costs one read of a block per clip.

    Attributes:
        manifest: What the shards are.
        folder: Where they are.
    """

    def __init__(self, folder: Path, manifest: ShardManifest, cache_bytes: int) -> None:
        self.folder = folder
        self.manifest = manifest
        self._cache_bytes = cache_bytes
        self._starts = [0, *accumulate(shard.clips for shard in manifest.shards)]
        self._blocks: dict[int, list[Location]] = {}
        self._cache: OrderedDict[tuple[int, int], tuple[np.ndarray, list[dict[str, Any]]]] = OrderedDict()
        self._cached = 0

    @classmethod
    def open(
        cls,
        folder: Path,
        split: str = "train",
        tokenizer: str | None = None,
        verify: bool = False,
        cache_bytes: int = 2**30,
    ) -> "TokenShards":
        """Open the shards of one split and check that they are complete.

        Args:
            folder: Made by tools/tokenize_dataset.py, e.g. ``runs/tokens``; has one folder per split.
            split: Which split.
            tokenizer: Fingerprint (sha256, hex) that the shards must come from; None takes any.
            verify: Also compare every shard's sha256 (reads all of them, about 1 GB/s).
            cache_bytes: Memory for blocks that were read, in bytes.

        Returns:
            The opened shards.

        Raises:
            FileNotFoundError: If folder, split, manifest or a shard is missing.
            ValueError: If the shards are of another tokenizer, damaged, or without clips.
        """
        home = folder / split
        if not home.is_dir():
            there = ", ".join(splits(folder)) or "no splits"
            raise FileNotFoundError(f"no token shards in {home} ({folder} has {there}); run tools/tokenize_dataset.py")
        manifest = ShardManifest.load(home)
        if tokenizer is not None and tokenizer != manifest.tokenizer:
            raise ValueError(
                f"the shards in {home} were made by tokenizer {manifest.tokenizer[:12]}, "
                f"expected {tokenizer[:12]}; run "
                "tools/tokenize_dataset.py with this tokenizer, or use the one that made them"
            )
        if not manifest.shards:
            raise ValueError(f"the split {home} has no clips; tokenize videos into it or choose another split")
        for entry in manifest.shards:
            check_shard(home / entry.name, entry, verify)
        return cls(home, manifest, cache_bytes)

    def __len__(self) -> int:
        """Number of clips."""
        return self._starts[-1]

    @property
    def num_videos(self) -> int:
        """Number of distinct videos that the clips were cut from."""
        return self.manifest.videos

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
        row, record = self._row(number)
        return row.astype(np.int64), record

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
        indices = np.empty((len(numbers), *self.manifest.grid), np.int64)
        records = []
        for place, number in enumerate(numbers):
            indices[place], record = self._row(int(number))
            records.append(record)
        return indices, records

    def _row(self, number: int) -> tuple[np.ndarray, dict[str, Any]]:
        if not 0 <= number < len(self):
            raise IndexError(f"clip {number} of {len(self)}")
        shard = bisect_right(self._starts, number) - 1
        block, row = divmod(number - self._starts[shard], self.manifest.block)
        indices, records = self._block(shard, block)
        return indices[row], records[row]

    def _block(self, shard: int, block: int) -> tuple[np.ndarray, list[dict[str, Any]]]:
        if (shard, block) in self._cache:
            self._cache.move_to_end((shard, block))
            return self._cache[shard, block]
        entry = self.manifest.shards[shard]
        path = self.folder / entry.name
        try:
            if shard not in self._blocks:
                self._blocks[shard] = scan_shard(path, self.manifest, entry.clips)
            loaded = read_block(path, self._blocks[shard], block, self.manifest, entry.clips)
        except ValueError as error:
            raise ValueError(f"clips {self._starts[shard]}..{self._starts[shard + 1] - 1}: {error}") from error
        self._cache[shard, block] = loaded
        self._cached += self._cost(shard, block)
        while self._cached > self._cache_bytes and len(self._cache) > 1:
            self._cached -= self._cost(*self._cache.popitem(last=False)[0])
        return loaded

    def _cost(self, shard: int, block: int) -> int:
        npy, text = self._blocks[shard][block]
        return npy[1] + _RECORD_OVERHEAD * text[1]
