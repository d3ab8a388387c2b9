"""The files in which people say things about videos: ``metadata.jsonl``, ``metadata.csv``, a JSON file beside each.

``metadata.jsonl`` and ``metadata.csv`` follow the VideoFolder convention of Hugging Face: one JSON object per line, or
one row, whose ``file_name`` is relative to the folder of the file. A sidecar ``name.json`` beside ``name.mp4`` has the
same keys for that video. ``video_metadata`` says which keys are understood.
"""

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tokenreel.datasets.video_metadata import VideoMetadata, metadata_of

METADATA_FILES = ("metadata.csv", "metadata.jsonl")
"""Where both are, the second one is believed first."""
SEPARATORS = ",;\t"
LONGEST_CELL = 2**31 - 1


def read_sidecar(path: Path) -> VideoMetadata:
    """Reads the JSON file beside a video.

    Raises:
        ValueError: If it is not a JSON object with keys of the right types.
    """
    return metadata_of(_parsed(path.read_bytes(), str(path)), str(path))


def read_metadata_file(path: Path) -> dict[str, tuple[int, VideoMetadata]]:
    """Reads a ``metadata.jsonl`` or ``metadata.csv``.

    Returns:
        By ``file_name`` (with ``/``, relative to the folder of the file): line number and metadata.

    Raises:
        ValueError: If a line has no ``file_name``, the same one as an earlier line, keys of the wrong types, or is
            broken.
    """
    entries: dict[str, tuple[int, VideoMetadata]] = {}
    for number, data in _rows(path) if path.suffix == ".csv" else _lines(path):
        where = f"{path}, line {number}"
        name = data.get("file_name")
        if not isinstance(name, str) or not name:
            raise ValueError(f"{where}: file_name is {name!r}, expected the path of a video beside this file")
        name = name.replace("\\", "/").removeprefix("./")
        if name in entries:
            raise ValueError(f"{where}: file_name {name!r} comes a second time; keep one of the lines")
        entries[name] = (number, metadata_of(data, where))
    return entries


def _lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        if line.strip():
            yield number, _parsed(line, f"{path}, line {number}")


def _parsed(text: bytes, where: str) -> dict[str, Any]:
    try:
        data = json.loads(text.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where}: not valid JSON ({error}); correct or remove it") from error
    if not isinstance(data, dict):
        raise ValueError(f'{where}: got {type(data).__name__}, expected a JSON object such as {{"label": "run"}}')
    return data


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of a table with a header; empty cells say nothing."""
    text = _decoded(path)
    csv.field_size_limit(LONGEST_CELL)  # the actions of a long video are one cell
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=_separator(text), strict=True)
    try:
        names = [name.strip() for name in next(rows, [])]
        if "file_name" not in names or len(set(names)) < len(names):
            raise ValueError(
                f"{path}: the columns are {', '.join(names) or 'missing'}; expected a first line that names each "
                "column once, one of them file_name"
            )
        for cells in rows:
            if not any(cell.strip() for cell in cells):
                continue
            where = f"{path}, line {rows.line_num}"
            if len(cells) != len(names):
                raise ValueError(
                    f"{where}: {len(cells)} cells, expected {len(names)} as in the first line; put texts with commas "
                    "in quotes"
                )
            said = {name: cell for name, cell in zip(names, cells, strict=True) if name and cell.strip()}
            for name in said.keys() & {"actions", "action_names"}:
                said[name] = _list(said[name], f"{where}: {name}")
            yield rows.line_num, said
    except csv.Error as error:
        raise ValueError(f"{path}, line {rows.line_num}: no valid CSV ({error}); correct it") from error


def _decoded(path: Path) -> str:
    content = path.read_bytes()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        byte = content[error.start]
        raise ValueError(f"{path}, line {line}: byte {byte:#x} is not UTF-8; save the file as UTF-8") from error


def _separator(text: str) -> str:
    """What parts the columns: the one of the usual three by which there is a column ``file_name``."""
    header = text.partition("\n")[0]
    found = (mark for mark in SEPARATORS if "file_name" in [cell.strip(' "\r') for cell in header.split(mark)])
    return next(found, ",")


def _list(cell: str, where: str) -> Any:
    """A list in a cell: in JSON, or parted by spaces."""
    if cell.lstrip().startswith("["):
        try:
            return json.loads(cell)
        except ValueError as error:
            raise ValueError(f"{where}: not valid JSON ({error}); write a list as [0, 1, 2] or 0 1 2") from error
    words = cell.split()
    if where.endswith("action_names"):
        return words
    try:
        return [float(word) if set(word) & set(".eE") else int(word) for word in words]
    except ValueError as error:
        raise ValueError(f"{where}: {error}; write a list as [0, 1, 2] or 0 1 2") from error
