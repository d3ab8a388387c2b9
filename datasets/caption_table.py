"""The vectors that a text encoder made of captions, each distinct caption once, beside the token shards.

write_caption_table(Path("runs/tokens/captions"), "models/minilm", probe, captions, vectors)
table = CaptionTable.open(Path("runs/tokens/captions"))
table.look_up(["two red balls", None])  # float32 (2, L, dim)
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tokenreel.datasets.atomic_file import atomic_file
from tokenreel.datasets.atomic_folder import atomic_folder
from tokenreel.datasets.shard_manifest import read_json, write_json

CAPTIONS = "captions"
"""Name of the table's folder, beside those of the splits."""
FORMAT_VERSION = 1
TEXTS_FILE = "captions.json"
VECTORS_FILE = "captions.npy"
TABLE_FILES = (VECTORS_FILE, TEXTS_FILE)
"""All of a table; the one that says it is there comes last."""
AGAIN = "delete the folder and run tools/tokenize_dataset.py again"


class CaptionTable:
    """Read access to the vectors of captions, mapped from the file; open it with `CaptionTable.open`.

    Attributes:
        encoder: Folder or hub id of the text encoder.
        probe: What it makes of a fixed sentence, to tell it from others.
        words: L, rows per caption: tokens of the text encoder.
        dim: Size of a vector.
    """

    def __init__(self, folder: Path, texts: "_Texts", vectors: np.ndarray) -> None:
        self.folder, self.encoder, self.probe = folder, texts.encoder, texts.probe
        self.words, self.dim = vectors.shape[1:]
        self._rows = {caption: row for row, caption in enumerate(texts.captions)}
        self._vectors = vectors

    @classmethod
    def open(cls, folder: Path) -> "CaptionTable":
        """Open a table and check that it is whole.

        Args:
            folder: Made by `write_caption_table`, e.g. ``runs/tokens/captions``.

        Raises:
            FileNotFoundError: If there is none.
            ValueError: If it is damaged, or of another version.
        """
        texts = _read_texts(folder)
        path = folder / VECTORS_FILE
        try:
            vectors = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise ValueError(f"{path} cannot be read ({error}); {AGAIN}") from None
        if vectors.dtype != np.float16 or vectors.ndim != 3 or len(vectors) != len(texts.captions):
            raise ValueError(
                f"{path} holds {vectors.dtype} {vectors.shape}, expected float16 "
                f"({len(texts.captions)}, L, dim); {AGAIN}"
            )
        return cls(folder, texts, vectors)

    def __len__(self) -> int:
        """Number of distinct captions."""
        return len(self._rows)

    def look_up(self, captions: Sequence[str | None]) -> np.ndarray:
        """The vectors of B captions.

        Args:
            captions: Any of the table's, in any order and as often as one likes; None for no caption.

        Returns:
            float32 (B, L, dim): zeros past the end of a caption, and for None.

        Raises:
            ValueError: If a caption is not in the table.
        """
        found = np.zeros((len(captions), self.words, self.dim), np.float32)
        for place, caption in enumerate(captions):
            if caption is None:
                continue
            if caption not in self._rows:
                raise ValueError(
                    f"caption {caption!r} is not among the {len(self)} in {self.folder}, expected one of those that "
                    "were tokenized; encode it with the text encoder, or tokenize the videos again"
                )
            found[place] = self._vectors[self._rows[caption]]
        return found


def write_caption_table(
    folder: Path, encoder: str, probe: Sequence[float], captions: Sequence[str], vectors: Iterable[np.ndarray]
) -> None:
    """Write a table, unless it is there already: its vectors are then not asked for.

    Args:
        folder: Where; appears when it is whole.
        encoder: Folder or hub id of the text encoder.
        probe: What it makes of a fixed sentence.
        captions: N distinct texts, at least one.
        vectors: float16 (N, L, dim), or the same cut along N into parts, one of which is in memory at a time.

    Raises:
        ValueError: If the folder holds the table of another encoder or of other captions, captions come twice, or
            the vectors are not N of one shape.
        OSError: If the folder cannot be written.
    """
    if not captions or len(set(captions)) != len(captions):
        raise ValueError(f"got {len(captions)} captions, {len(set(captions))} of them distinct, expected each once")
    if folder.exists():
        _check_same(folder, encoder, captions)
        return
    with atomic_folder(folder) as building:
        _write_vectors(building / VECTORS_FILE, len(captions), vectors)
        texts = _Texts(encoder, tuple(probe), list(captions))
        write_json(building / TEXTS_FILE, {"format_version": FORMAT_VERSION, **texts._asdict()})


def _write_vectors(path: Path, count: int, vectors: Iterable[np.ndarray]) -> None:
    shape: tuple[int, ...] = ()
    written = 0
    with atomic_file(path) as file:
        for part in vectors:
            rows = part.reshape(-1, *part.shape[-2:])  # a whole array gives its rows one by one
            if not shape:
                shape = rows.shape[1:]
                header = {"descr": "<f2", "fortran_order": False, "shape": (count, *shape)}
                np.lib.format.write_array_header_1_0(file, header)
            if rows.dtype != np.float16 or rows.shape[1:] != shape:
                raise ValueError(
                    f"vectors from {written} on are {rows.dtype} {rows.shape[1:]}, expected float16 {shape}; encode "
                    "all captions alike"
                )
            file.write(rows.astype("<f2", copy=False).tobytes())
            written += len(rows)
        if written != count:
            raise ValueError(f"got {written} vectors, expected {count}, one per caption; encode each once")


def _check_same(folder: Path, encoder: str, captions: Sequence[str]) -> None:
    before, _, known = _read_texts(folder)
    if before != encoder:
        raise ValueError(
            f"{folder} holds vectors by the text encoder {before}, expected {encoder}; choose another --out or delete "
            "the folder"
        )
    if known != list(captions):
        raise ValueError(
            f"{folder} holds {len(known)} other captions, expected these {len(captions)}; choose another --out or "
            "delete the folder"
        )


class _Texts(NamedTuple):
    """All of a table but its vectors."""

    encoder: str
    probe: tuple[float, ...]
    captions: list[str]


def _read_texts(folder: Path) -> _Texts:
    path = folder / TEXTS_FILE
    if not path.is_file():
        raise FileNotFoundError(f"no caption vectors in {folder}; run tools/tokenize_dataset.py with --text-encoder")
    return read_json(folder, TEXTS_FILE, _parse_texts)


def _parse_texts(texts: Any) -> _Texts:
    found = texts if isinstance(texts, dict) else {}
    version, encoder, probe, captions = (found.get(name) for name in ("format_version", *_Texts._fields))
    if version != FORMAT_VERSION:
        raise ValueError(f"format version {version}, expected {FORMAT_VERSION}; {AGAIN}")
    if not (
        isinstance(encoder, str)
        and (isinstance(probe, list) and all(isinstance(number, float) for number in probe))
        and (isinstance(captions, list) and all(isinstance(caption, str) for caption in captions))
    ):
        raise ValueError(f"no text encoder and captions, expected names and texts; {AGAIN}")
    return _Texts(encoder, tuple(probe), captions)
