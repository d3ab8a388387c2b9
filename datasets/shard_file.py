"""One token shard: a WebDataset tar whose samples are blocks of clips.

Sample ``000012-00003`` (shard 12, block 3) has two members: ``.npy`` holds the indices ``(N, T', H', W')``,
``.json`` the list of their N clip records. Plain WebDataset reads these files. We read them ourselves, since
WebDataset's decoders execute code from pickles.
"""

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tokenreel.datasets.atomic_file import atomic_file
from tokenreel.datasets.shard_block import Record, encode_block
from tokenreel.datasets.shard_manifest import ShardEntry, ShardManifest
from tokenreel.datasets.shard_table import REMEDY, block_key, read_blocks

_SHARD = re.compile(r"shard-(\d{6})\.tar")


def write_shard(path: Path, indices: np.ndarray, records: Sequence[Record], manifest: ShardManifest) -> ShardEntry:
    """Write one shard atomically; the same clips give the same bytes.

    Args:
        path: ``.../shard-000012.tar`` in an existing folder; replaced when it exists.
        indices: Integers (N, T', H', W') in [0, K), N at least 1.
        records: One JSON object per clip; ``record["video"]`` names the video it was cut from.
        manifest: Says grid, K and block; its list of shards is not looked at.

    Returns:
        The shard's line for the manifest.

    Raises:
        ValueError: If indices or records are not what the manifest says.
        OSError: If the disk is full or the folder read-only; nothing is left behind.
    """
    from webdataset import TarWriter  # here, since reading shards needs no webdataset

    if len(indices) != len(records) or not len(indices):
        raise ValueError(f"got {len(records)} records for {len(indices)} clips, expected one per clip")
    number = shard_number(path)
    try:
        # encoder=False: bytes go in as they are. Fixed time, owner and mode: the same clips, the same file.
        with (
            atomic_file(path) as file,
            TarWriter(file, encoder=False, mtime=0, user="tokenreel", group="tokenreel") as tar,
        ):
            for block, start in enumerate(range(0, len(indices), manifest.block)):
                clips = slice(start, start + manifest.block)
                npy, text = encode_block(indices[clips], records[clips], manifest)
                tar.write({"__key__": block_key(number, block), "npy": npy, "json": text})
    except FileNotFoundError:
        # Another process that shares the job finished this very shard and cleared what was left over.
        if not path.is_file():
            raise
    except OSError as error:
        raise OSError(
            f"cannot write {path}: {error.strerror or error}; shards before it are whole: make room, and run the same "
            "command again"
        ) from error
    return shard_entry(path, clips=len(indices))


def read_clips(path: Path, manifest: ShardManifest, clips: int) -> tuple[np.ndarray, list[Record]]:
    """Read a whole shard of ``clips`` clips, whether or not the manifest lists it already.

    Returns:
        indices uint16 or uint32 (clips, T', H', W') and their records.

    Raises:
        FileNotFoundError: If the file is missing.
        ValueError: If the file is damaged, hostile, or holds another number of clips.
    """
    with path.open("rb") as file:
        blocks = list(read_blocks(file, path, shard_number(path), manifest, clips))
    return np.concatenate([block.indices for block in blocks]), [record for b in blocks for record in b.records]


def shard_entry(path: Path, clips: int) -> ShardEntry:
    """The manifest's line for the shard at ``path``, which holds ``clips`` clips."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return ShardEntry(name=path.name, bytes=path.stat().st_size, sha256=digest, clips=clips)


def shard_number(path: Path) -> int:
    """12 for ``.../shard-000012.tar``.

    Raises:
        ValueError: If it is called otherwise.
    """
    match = _SHARD.fullmatch(path.name)
    if match is None:
        raise ValueError(f"got a shard called {path.name!r}, expected shard-000000.tar and so on")
    return int(match[1])


def missing_shard(path: Path | str) -> str:
    """What to say of a shard that the manifest lists and that is not there."""
    return (
        f"{path} is missing, expected by the manifest; run tools/tokenize_dataset.py again, or go on without it "
        "(--skip-bad)"
    )


def wrong_size(path: Path | str, size: int, entry: ShardEntry) -> str:
    """What to say of a shard of another size."""
    return f"{path} has {size} bytes, the manifest says {entry.bytes}; {REMEDY}"
