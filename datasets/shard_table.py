"""Where every clip of a shard lies in its file, found while the whole shard is checked.

A shard is read once from end to end, before the first of its clips is used: checksum, members, types, shapes, range
of the indices, records. After that a clip is two short reads.
"""

import hashlib
import json
import os
import re
import tarfile
from collections.abc import Iterator
from io import BufferedReader, FileIO
from pathlib import Path
from threading import Lock
from typing import NamedTuple

import numpy as np

from tokenreel.datasets.shard_block import Record, decode_block
from tokenreel.datasets.shard_manifest import ShardManifest

REMEDY = "delete the shard and run tools/tokenize_dataset.py again, or go on without it (--skip-bad)"
_ONE_READER = Lock()
_SPACE = re.compile(r"[ \t\r\n,]*")

File = FileIO | BufferedReader
Span = tuple[int, int]  # where a member's bytes lie in the tar: offset, length
Location = tuple[Span, Span]  # of a block's .npy and of its .json


class ShardTable(NamedTuple):
    """Places in the file of one shard, in bytes; small, since there is one for every shard.

    Attributes:
        blocks: int64 (blocks,): the first index of each block.
        starts: uint32, or int64 in shards beyond 4 GiB, (clips,): each clip's record.
        ends: int64 (blocks,): the byte after the records of each block.
        inode: Which file it was, as the system counts them.
    """

    blocks: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    inode: int

    def record(self, file: FileIO, place: int, block: int, last: bool) -> Record:
        """Read the record of the clip at ``place`` in the shard, which lies in ``block``, perhaps as its last."""
        begin = int(self.starts[place])
        end = int(self.ends[block] if last or place + 1 == len(self.starts) else self.starts[place + 1])
        text = bytearray(end - begin)
        read_into(file, memoryview(text), begin)
        return json.loads(text.rstrip(b", ]\t\r\n").decode())


class Block(NamedTuple):
    """One block as read.

    Attributes:
        indices: uint16 or uint32 (N, T', H', W').
        records: N.
        location: Where it lies in the file.
        text: The bytes of the records.
    """

    indices: np.ndarray
    records: list[Record]
    location: Location
    text: bytes


def read_table(file: File, path: Path, number: int, manifest: ShardManifest, clips: int) -> ShardTable:
    """Check a whole shard and find its clips.

    Args:
        file: The shard, opened for reading.
        path: What to call it in errors.
        number: Which shard it is.
        manifest: Says grid, K and block.
        clips: How many clips it must hold.

    Raises:
        ValueError: If anything in it is not what the manifest says; names shard and block or member.
    """
    row_bytes = int(np.prod(manifest.grid)) * manifest.dtype.itemsize
    blocks, starts, ends = [], [], []
    for found in read_blocks(file, path, number, manifest, clips):
        (npy_at, npy_length), (text_at, text_length) = found.location
        blocks.append(npy_at + npy_length - len(found.records) * row_bytes)
        starts += [text_at + start for start in _record_starts(found.text)]
        ends.append(text_at + text_length)
    kind = np.uint32 if ends[-1] < 2**32 else np.int64
    return ShardTable(np.array(blocks), np.array(starts, kind), np.array(ends), os.fstat(file.fileno()).st_ino)


def read_blocks(file: File, path: Path, number: int, manifest: ShardManifest, clips: int) -> Iterator[Block]:
    """Read and check a whole shard, block by block; arguments and errors as of `read_table`."""
    for block, location in enumerate(scan_shard(file, path, number, manifest, clips)):
        expected = min(manifest.block, clips - block * manifest.block)
        npy, text = (_read(file, *span) for span in location)
        try:
            yield Block(*decode_block(npy, text, expected, manifest), location, text)
        except ValueError as error:
            raise ValueError(f"{path}: block {block}: {error}; {REMEDY}") from error


def scan_shard(file: File, path: Path, number: int, manifest: ShardManifest, clips: int) -> list[Location]:
    """Find the blocks of a shard, reading headers only.

    Args:
        file: The shard, opened for reading.
        path: What to call it in errors.
        number: Which shard it is.
        manifest: Says how many clips a block holds.
        clips: How many clips the shard must hold.

    Returns:
        For each block, where its ``.npy`` and its ``.json`` lie in the file.

    Raises:
        ValueError: If a member is anything but one of the expected blocks (a link, a path, a pickle), or if
            blocks are missing; names shard and member.
    """
    keys = [block_key(number, block) for block in range(-(-clips // manifest.block))]
    spans = _member_spans(file, path, {f"{key}.{kind}" for key in keys for kind in ("npy", "json")})
    return [(spans[f"{key}.npy"], spans[f"{key}.json"]) for key in keys]


def read_into(file: FileIO, target: memoryview, offset: int) -> None:
    """Fill ``target`` with what stands at ``offset``, whatever other threads and forked processes read.

    Raises:
        ValueError: If the file ends before.
    """
    if hasattr(os, "preadv"):
        count = os.preadv(file.fileno(), [target], offset)
    else:
        with _ONE_READER:
            file.seek(offset)
            count = file.readinto(target)
    if count != len(target):
        raise ValueError(f"{file.name} became shorter than {offset + len(target)} bytes while it was in use; {REMEDY}")


def block_key(number: int, block: int) -> str:
    """WebDataset's name of a sample, e.g. ``000012-00003``; without dots, which would merge samples."""
    return f"{number:06d}-{block:05d}"


def check_sha256(file: File, path: Path, expected: str) -> None:
    """Compare the checksum of a whole file.

    Raises:
        ValueError: If it is another one; names the file.
    """
    file.seek(0)
    got = hashlib.file_digest(file, "sha256").hexdigest()
    if got != expected:
        raise ValueError(f"{path} has sha256 {got[:12]}, the manifest says {expected[:12]}; {REMEDY}")


def _record_starts(text: bytes) -> list[int]:
    """Where each record of a checked block begins in its JSON."""
    # One byte, one character: what is no ASCII stands inside of strings, where it does not matter here.
    letters, decoder = text.decode("latin-1"), json.JSONDecoder()
    at, starts = _SPACE.match(letters, letters.index("[") + 1).end(), []  # type: ignore[union-attr]
    while letters[at] != "]":
        starts.append(at)
        at = _SPACE.match(letters, decoder.raw_decode(letters, at)[1]).end()  # type: ignore[union-attr]
    return starts


def _member_spans(file: File, path: Path, names: set[str]) -> dict[str, Span]:
    """Where each member lies; exactly ``names`` must be there, as regular files."""
    spans: dict[str, Span] = {}
    end = 0
    file.seek(0)
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                regular = member.isreg() and not member.issparse()
                if member.name not in names or member.name in spans or not regular:
                    raise ValueError(
                        f"{path}: member {member.name!r} does not belong in a shard of {len(names)} members, "
                        f"nothing of it was read; {REMEDY}"
                    )
                spans[member.name] = (member.offset_data, member.size)
                end = member.offset_data + member.size
    except tarfile.TarError as error:
        raise ValueError(f"{path}: not a readable tar ({error}); {REMEDY}") from error
    # tarfile takes a truncated or damaged end for the end of the archive: compare with what a whole one has.
    end = -(-end // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE + 2 * tarfile.BLOCKSIZE
    size = -(-end // tarfile.RECORDSIZE) * tarfile.RECORDSIZE
    if len(spans) != len(names) or file.seek(0, 2) != size:
        raise ValueError(f"{path}: damaged, {len(spans)} of {len(names)} members found; {REMEDY}")
    return spans


def _read(file: File, offset: int, length: int) -> bytes:
    file.seek(offset)
    return file.read(length)
