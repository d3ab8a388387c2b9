"""One sample of a token shard: a block of clips as the bytes of a ``.npy`` and a ``.json``, and back."""

import io
import json
from collections.abc import Sequence
from tokenize import TokenError
from typing import Any

import numpy as np

from tokenreel.datasets.shard_manifest import ShardManifest

Record = dict[str, Any]


def encode_block(indices: np.ndarray, records: Sequence[Record], manifest: ShardManifest) -> tuple[bytes, bytes]:
    """The bytes of a block; the same clips give the same bytes.

    Args:
        indices: Integers (N, T', H', W') in [0, K), N at least 1.
        records: One JSON object per clip; ``record["video"]`` names the video it was cut from.
        manifest: Says grid and K.

    Returns:
        Contents of the ``.npy`` and of the ``.json``.

    Raises:
        ValueError: If indices or records are not what the manifest says.
    """
    if indices.ndim != 4 or indices.shape[1:] != manifest.grid or not len(indices):
        raise ValueError(f"got indices {indices.shape}, expected (N, {', '.join(map(str, manifest.grid))})")
    if indices.dtype.kind not in "iu":
        raise ValueError(f"got indices of type {indices.dtype}, expected integers")
    _check_range(indices, manifest)
    _check_records(list(records), len(indices))
    file = io.BytesIO()
    np.save(file, indices.astype(manifest.dtype, order="C"), allow_pickle=False)
    try:
        # ASCII with escapes also carries file names that are no valid UTF-8.
        text = json.dumps(list(records), allow_nan=False, sort_keys=True, separators=(",", ":"))
    except TypeError as error:
        raise ValueError(f"a clip record is not plain JSON: {error}") from error
    return file.getvalue(), text.encode()


def decode_block(npy: bytes, text: bytes, clips: int, manifest: ShardManifest) -> tuple[np.ndarray, list[Record]]:
    """The clips of a block; nothing in the bytes is believed before it is checked, nothing is executed.

    Args:
        npy: Contents of the ``.npy``.
        text: Contents of the ``.json``.
        clips: N, the number of clips that the block must hold.
        manifest: Says grid and K.

    Returns:
        indices uint16 or uint32 (N, T', H', W') in [0, K), and N records.

    Raises:
        ValueError: If type, shape, range or number of records are wrong.
    """
    shape, dtype = _npy_header(npy)  # first, since numpy allocates whatever it claims
    if shape != (clips, *manifest.grid) or dtype != manifest.dtype:
        raise ValueError(f"got {dtype} {shape}, expected {manifest.dtype} {(clips, *manifest.grid)}")
    indices = np.load(io.BytesIO(npy), allow_pickle=False)
    _check_range(indices, manifest)
    try:
        records = json.loads(text)
    except RecursionError as error:
        raise ValueError("the records are nested too deeply") from error
    _check_records(records, clips)
    return indices, records


def _npy_header(npy: bytes) -> tuple[tuple[int, ...], np.dtype]:
    file = io.BytesIO(npy)
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError("got another .npy version than 1.0")
    try:
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    except (SyntaxError, TokenError) as error:  # numpy tries to repair a damaged header as Python 2 source
        raise ValueError(f"the .npy header is damaged ({error})") from error
    return shape, dtype


def _check_range(indices: np.ndarray, manifest: ShardManifest) -> None:
    low, high = int(indices.min()), int(indices.max())
    if low < 0 or high >= manifest.codebook_size:
        raise ValueError(f"got indices {low}..{high}, expected 0..{manifest.codebook_size - 1}")


def _check_records(records: Any, clips: int) -> None:
    if not isinstance(records, list) or len(records) != clips:
        got = len(records) if isinstance(records, list) else "no list of"
        raise ValueError(f"got {got} records for {clips} clips, expected one per clip")
    for record in records:
        if not isinstance(record, dict) or not isinstance(record.get("video"), str):
            raise ValueError(f"got the record {str(record)[:80]}, expected an object with a string 'video'")
