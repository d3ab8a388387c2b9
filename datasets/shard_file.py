"""One token shard: a WebDataset tar whose samples are blocks of clips.

Sample ``000012-00003`` (shard 12, block 3) has two members: ``.npy`` holds the indices ``(N, T', H', W')``,
``.json`` the list of their N clip records. Plain WebDataset reads these files. We read them ourselves, since
WebDataset's decoders execute code from pickles.
"""

import hashlib
import re
import tarfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tokenreel.datasets.atomic_file import atomic_file
from tokenreel.datasets.shard_block import Record, decode_block, encode_block
from tokenreel.datasets.shard_manifest import ShardEntry, ShardManifest

_SHARD = re.compile(r"shard-(\d{6})\.tar")
_REMEDY = "delete the shard and run tools/tokenize_dataset.py again"

Span = tuple[int, int]  # where a member's bytes lie in the tar: offset, length
Location = tuple[Span, Span]  # of a block's .npy and of its .json


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
    number = _shard_number(path)
    try:
        # encoder=False: bytes go in as they are. Fixed time, owner and mode: the same clips, the same file.
        with (
            atomic_file(path) as file,
            TarWriter(file, encoder=False, mtime=0, user="tokenreel", group="tokenreel") as tar,
        ):
            for block, start in enumerate(range(0, len(indices), manifest.block)):
                clips = slice(start, start + manifest.block)
                npy, text = encode_block(indices[clips], records[clips], manifest)
                tar.write({"__key__": _key(number, block), "npy": npy, "json": text})
    except FileNotFoundError:
        # Another process that shares the job finished this very shard and cleared what was left over.
        if not path.is_file():
            raise
    return shard_entry(path, clips=len(indices))


def read_shard(path: Path, manifest: ShardManifest, verify: bool = False) -> tuple[np.ndarray, list[Record]]:
    """Read a whole shard that the manifest lists.

    Args:
        path: The shard.
        manifest: Lists it under ``path.name``.
        verify: Also compare the file's sha256 with the manifest's.

    Returns:
        indices uint16 or uint32 (N, T', H', W') and their N records.

    Raises:
        FileNotFoundError: If the file is missing.
        ValueError: If the file is not what the manifest says, or has a member that no shard has.
    """
    entry = {shard.name: shard for shard in manifest.shards}.get(path.name)
    if entry is None:
        raise ValueError(f"{path} is not in the manifest of split {manifest.split!r}")
    check_shard(path, entry, verify)
    return read_clips(path, manifest, entry.clips)


def read_clips(path: Path, manifest: ShardManifest, clips: int) -> tuple[np.ndarray, list[Record]]:
    """Read a whole shard of ``clips`` clips, whether or not the manifest lists it already.

    Returns:
        indices uint16 or uint32 (clips, T', H', W') and their records.

    Raises:
        FileNotFoundError: If the file is missing.
        ValueError: If the file is damaged, hostile, or holds another number of clips.
    """
    locations = scan_shard(path, manifest, clips)
    parts = [read_block(path, locations, block, manifest, clips) for block in range(len(locations))]
    records = [record for _, block_records in parts for record in block_records]
    return np.concatenate([indices for indices, _ in parts]), records


def scan_shard(path: Path, manifest: ShardManifest, clips: int) -> list[Location]:
    """Find the blocks of a shard, reading headers only.

    Args:
        path: The shard.
        manifest: Says how many clips a block holds.
        clips: How many clips the shard must hold.

    Returns:
        For each block, where its ``.npy`` and its ``.json`` lie in the file.

    Raises:
        FileNotFoundError: If the file is missing.
        ValueError: If a member is anything but one of the expected blocks (a link, a path, a pickle), or if
            blocks are missing; names shard and member.
    """
    number = _shard_number(path)
    keys = [_key(number, block) for block in range(-(-clips // manifest.block))]
    spans = _member_spans(path, {f"{key}.{kind}" for key in keys for kind in ("npy", "json")})
    return [(spans[f"{key}.npy"], spans[f"{key}.json"]) for key in keys]


def read_block(
    path: Path, locations: Sequence[Location], block: int, manifest: ShardManifest, clips: int
) -> tuple[np.ndarray, list[Record]]:
    """Read one block of a scanned shard of ``clips`` clips.

    Returns:
        indices uint16 or uint32 (N, T', H', W') and their N records.

    Raises:
        ValueError: If type, shape, range or number of records are wrong; names shard and block.
    """
    npy, text = locations[block]
    expected = min(manifest.block, clips - block * manifest.block)
    try:
        return decode_block(_read_span(path, npy), _read_span(path, text), expected, manifest)
    except ValueError as error:
        raise ValueError(f"{path}: block {block}: {error}; {_REMEDY}") from error


def check_shard(path: Path, entry: ShardEntry, verify: bool = False) -> None:
    """Compare a shard with its line in the manifest: its size, and with ``verify`` its sha256.

    Raises:
        FileNotFoundError: If the file is missing.
        ValueError: If it is another file than the manifest's.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing, expected by the manifest; run tools/tokenize_dataset.py again")
    size = path.stat().st_size
    if size != entry.bytes:
        raise ValueError(f"{path} has {size} bytes, the manifest says {entry.bytes}; {_REMEDY}")
    if verify and (got := _sha256(path)) != entry.sha256:
        raise ValueError(f"{path} has sha256 {got[:12]}, the manifest says {entry.sha256[:12]}; {_REMEDY}")


def shard_entry(path: Path, clips: int) -> ShardEntry:
    """The manifest's line for the shard at ``path``, which holds ``clips`` clips."""
    return ShardEntry(name=path.name, bytes=path.stat().st_size, sha256=_sha256(path), clips=clips)


def _member_spans(path: Path, names: set[str]) -> dict[str, Span]:
    """Where each member lies; exactly ``names`` must be there, as regular files."""
    spans: dict[str, Span] = {}
    end = 0
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                regular = member.isreg() and not member.issparse()
                if member.name not in names or member.name in spans or not regular:
                    raise ValueError(
                        f"{path}: member {member.name!r} does not belong in a shard of {len(names)} members, "
                        f"nothing of it was read; {_REMEDY}"
                    )
                spans[member.name] = (member.offset_data, member.size)
                end = member.offset_data + member.size
    except tarfile.TarError as error:
        raise ValueError(f"{path}: not a readable tar ({error}); {_REMEDY}") from error
    # tarfile takes a truncated or damaged end for the end of the archive: compare with what a whole one has.
    end = -(-end // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE + 2 * tarfile.BLOCKSIZE
    size = -(-end // tarfile.RECORDSIZE) * tarfile.RECORDSIZE
    if len(spans) != len(names) or path.stat().st_size != size:
        raise ValueError(f"{path}: damaged, {len(spans)} of {len(names)} members found; {_REMEDY}")
    return spans


def _key(number: int, block: int) -> str:
    return f"{number:06d}-{block:05d}"  # no dots: WebDataset would merge samples


def _shard_number(path: Path) -> int:
    match = _SHARD.fullmatch(path.name)
    if match is None:
        raise ValueError(f"got a shard called {path.name!r}, expected shard-000000.tar and so on")
    return int(match[1])


def _read_span(path: Path, span: Span) -> bytes:
    offset, length = span
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(length)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
