"""The vectors of captions on disk: what goes in comes out, whole or not at all."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tokenreel.datasets.caption_table import CaptionTable, write_caption_table

CAPTIONS = ["two red balls", "", "caf\u00e9 \u6f22", "raw \udcff byte", 'quote " \n line']

PROBE = (0.5, -1.25)


def made(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(len(CAPTIONS), 3, 4)).astype(np.float16)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_caption_table(tmp_path / "captions", "models/small", PROBE, CAPTIONS, made())
    return tmp_path / "captions"


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}


def test_look_up_gives_what_was_written(folder: Path) -> None:
    table = CaptionTable.open(folder)
    assert (table.encoder, table.probe, table.words, table.dim, len(table)) == ("models/small", PROBE, 3, 4, 5)
    found = table.look_up([CAPTIONS[4], None, CAPTIONS[0], *CAPTIONS])
    assert found.dtype == np.float32 and found.shape == (8, 3, 4)
    assert (found[[0, 2]] == made()[[4, 0]]).all() and (found[3:] == made()).all() and not found[1].any()
    assert isinstance(table._vectors, np.memmap), "many captions would fill the memory"
    assert table.look_up([]).shape == (0, 3, 4)
    with pytest.raises(ValueError, match=r"caption 'two red bats' is not among the 5 in .*captions, expected one of"):
        table.look_up(["two red balls", "two red bats"])


def test_parts_are_written_as_they_come_and_give_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    asked = []

    def parts() -> Iterator[np.ndarray]:
        for begin, end in ((0, 2), (2, 3), (3, 5)):
            asked.append((tmp_path / "other").exists())
            yield made()[begin:end]

    write_caption_table(tmp_path / "other", "models/small", PROBE, CAPTIONS, parts())
    assert asked == [False] * 3, "it may appear only when it is whole"
    assert {name: data for name, (data, _) in contents(tmp_path / "other").items()} == {
        name: data for name, (data, _) in contents(folder).items()
    }


def test_the_same_table_is_left_alone_and_another_refused(folder: Path) -> None:
    before = contents(folder)

    def never() -> Iterator[np.ndarray]:
        raise AssertionError("the captions were encoded again")
        yield

    write_caption_table(folder, "models/small", PROBE, CAPTIONS, never())
    with pytest.raises(ValueError, match="vectors by the text encoder models/small, expected models/large; choose ano"):
        write_caption_table(folder, "models/large", PROBE, CAPTIONS, never())
    with pytest.raises(ValueError, match="holds 5 other captions, expected these 4; choose another --out"):
        write_caption_table(folder, "models/small", PROBE, CAPTIONS[1:], never())
    assert contents(folder) == before


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (made()[:4], "got 4 vectors, expected 5"),
        (made().repeat(2, axis=0), "got 10 vectors, expected 5"),
        ([made()[:2], made()[2:, :2]], r"from 2 on are float16 \(2, 4\), expected float16 \(3, 4\)"),
        (made().astype(np.float32), r"from 0 on are float32 .*, expected float16"),
        ([], "got 0 vectors, expected 5"),
    ],
)
def test_vectors_that_do_not_fit_leave_nothing(tmp_path: Path, vectors: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        write_caption_table(tmp_path / "captions", "models/small", PROBE, CAPTIONS, vectors)
    with pytest.raises(ValueError, match="got 2 captions, 1 of them distinct"):
        write_caption_table(tmp_path / "captions", "models/small", PROBE, ["a", "a"], made()[:2])
    assert list(tmp_path.iterdir()) == []


def spoiled_texts(**change: Any) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        path = folder / "captions.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **change}))

    return spoil


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "captions.npy").unlink(), r"captions\.npy cannot be read"),
        (lambda folder: (folder / "captions.npy").write_bytes(b""), r"captions\.npy cannot be read"),
        (
            lambda folder: (folder / "captions.npy").write_bytes((folder / "captions.npy").read_bytes()[:-2]),
            r"captions\.npy cannot be read",
        ),
        (
            lambda folder: np.save(folder / "captions.npy", np.array([{}] * 5), allow_pickle=True),
            r"captions\.npy cannot be read",
        ),
        (
            lambda folder: np.save(folder / "captions.npy", made()[1:]),
            r"holds float16 \(4, 3, 4\), expected float16 \(5",
        ),
        (lambda folder: np.save(folder / "captions.npy", made().astype(float)), r"holds float64 \(5, 3, 4\), expected"),
        (lambda folder: (folder / "captions.json").write_text("[]"), r"captions\.json: format version None"),
        (lambda folder: (folder / "captions.json").write_text("{"), r"captions\.json: Expecting"),
        (spoiled_texts(format_version=2), "format version 2, expected 1; delete the folder and run"),
        (spoiled_texts(encoder=None), "no text encoder and captions, expected names"),
        (spoiled_texts(probe=["a"]), "no text encoder and captions, expected names"),
        (spoiled_texts(captions=[1] * 5), "no text encoder and captions, expected names"),
    ],
)
def test_a_damaged_table_is_refused(folder: Path, spoil: Callable[[Path], None], message: str) -> None:
    spoil(folder)
    with pytest.raises(ValueError, match=message):
        CaptionTable.open(folder)


def test_no_table_is_said_so(tmp_path: Path) -> None:
    expected = re.escape(f"no caption vectors in {tmp_path}; run tools/tokenize_dataset.py with --text-encoder")
    with pytest.raises(FileNotFoundError, match=expected):
        CaptionTable.open(tmp_path)
