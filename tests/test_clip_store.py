"""Clip store and windows: the right frames for every number, and clear words when there are none."""

import json
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tokenreel.datasets.clip_record import FORMAT_VERSION, ClipRecord
from tokenreel.datasets.clip_store import ClipStore
from tokenreel.datasets.clip_windows import ClipWindows

LENGTHS = {"a": 9, "b": 3, "c": 16, "d": 4, "v": 7}


@pytest.fixture
def store(tmp_path: Path) -> ClipStore:
    """Five videos of 2x3 pixels, ``v`` in val; frame k of video number n is filled with 20 n + k."""
    records, parts, offset = [], [], 0
    for number, (key, length) in enumerate(LENGTHS.items()):
        frames = np.empty((length, 2, 3, 3), np.uint8)
        frames[:] = (20 * number + np.arange(length))[:, None, None, None]
        split = "val" if key == "v" else "train"
        sha256 = f"{number:064d}"
        records.append(ClipRecord(key, f"{key}.mp4", split, offset, length, 2, 3, 10.0, 30.0, 99, "1/30", 0, sha256))
        parts.append(frames.tobytes())
        offset += frames.nbytes
    (tmp_path / "frames.u8").write_bytes(b"".join(parts))
    (tmp_path / "clips.jsonl").write_text("".join(record.to_json() + "\n" for record in records))
    settings = {"height": 2, "width": 3, "fps": 10.0, "decoder": "pyav"}
    info = {"format_version": FORMAT_VERSION, "settings": settings, "fingerprint": "f" * 64, "rejected": 0}
    (tmp_path / "store.json").write_text(json.dumps(info))
    return ClipStore.open(tmp_path)


def test_frames(store: ClipStore) -> None:
    record = store.records[2]
    frames = store.frames(record, 5, 8)
    assert frames.dtype == np.uint8 and frames.shape == (3, 2, 3, 3)
    assert frames[:, 0, 0, 0].tolist() == [45, 46, 47]
    assert (store.frames(record)[:, 1, 2, 2] == 40 + np.arange(16)).all()
    frames[:] = 0
    assert store.frames(record, 5, 6).max() == 45
    assert [r.key for r in store.split("train")] == ["a", "b", "c", "d"]
    assert store.split("test") == []
    with pytest.raises(IndexError, match="frames 0:17 of c, which has 16 frames"):
        store.frames(record, 0, 17)


@pytest.mark.parametrize("hop", [1, 2, 5, 100])
@pytest.mark.parametrize("length", [1, 3, 4, 9, 16])
def test_windows_are_all_there_once(store: ClipStore, length: int, hop: int) -> None:
    expected = [
        [20 * number + start + k for k in range(length)]
        for number, (key, frames) in enumerate(LENGTHS.items())
        if key != "v"
        for start in range(0, frames - length + 1, hop)
    ]
    windows = ClipWindows(store, "train", length, hop)
    assert [windows[k][:, 0, 0, 0].tolist() for k in range(len(windows))] == expected
    assert [r.key for r in windows.records] == [k for k, n in LENGTHS.items() if n >= length and k != "v"]
    ids = np.random.default_rng(0).integers(0, len(windows), 7)
    batch = windows.batch(ids)
    assert batch.shape == (7, length, 2, 3, 3) and batch.dtype == np.uint8
    assert batch[:, :, 1, 2, 0].tolist() == [expected[k] for k in ids]
    for wrong in (-1, len(windows)):
        with pytest.raises(IndexError, match="expected 0 to"):
            windows[wrong]


def test_location(store: ClipStore) -> None:
    windows = ClipWindows(store, "train", 4, hop=3)
    places = [(record.key, start) for record, start in map(windows.location, range(len(windows)))]
    assert places == [("a", 0), ("a", 3), *[("c", 3 * k) for k in range(5)], ("d", 0)]


def test_windows_that_do_not_exist(store: ClipStore) -> None:
    complaint = "the longest video of split 'val' has 7 frames at 10 fps, expected at least 16; use --clip-frames 4"
    with pytest.raises(ValueError, match=complaint):
        ClipWindows(store, "val", 16)
    with pytest.raises(ValueError, match=r"no videos in split 'test' of .*, expected one of train, val"):
        ClipWindows(store, "test", 4)
    with pytest.raises(ValueError, match="expected at least 1 each"):
        ClipWindows(store, "train", 4, hop=0)


def test_pickled_windows_are_small_and_read_the_same(store: ClipStore) -> None:
    windows = ClipWindows(store, "train", 4)
    unused = pickle.dumps(windows)
    before = windows[7]
    pickled = pickle.dumps(windows)
    assert pickled == unused
    assert np.array_equal(pickle.loads(pickled)[7], before)


def test_store_that_is_not_whole_is_refused(store: ClipStore) -> None:
    path = store.path

    def refused(message: str) -> None:
        with pytest.raises(ValueError, match=message):
            ClipStore.open(path)

    info = (path / "store.json").read_text()
    (path / "store.json").write_text(info.replace('"format_version": 1', '"format_version": 99'))
    refused("format version 99, expected 1; delete the folder and ingest")
    (path / "store.json").write_text("{")
    refused("store.json cannot be read")
    (path / "store.json").write_text(info)
    frames = (path / "frames.u8").read_bytes()
    (path / "frames.u8").write_bytes(frames[:-1])
    refused(f"has {len(frames) - 1} bytes, expected {len(frames)}; delete")
    (path / "frames.u8").write_bytes(frames)
    clips = (path / "clips.jsonl").read_text()
    (path / "clips.jsonl").write_text(clips + '{"key": "half')
    refused("clips.jsonl, line 6: .*; delete")
    (path / "clips.jsonl").write_text(clips)
    assert ClipStore.open(path).records == store.records
    (path / "store.json").unlink()
    with pytest.raises(FileNotFoundError, match="no clip store in"):
        ClipStore.open(path)


def test_record_round_trip() -> None:
    record = ClipRecord("k", "k.mp4", "train", 5, 9, 2, 3, 10.0, 29.97, 27, "1/30000", 270, "a" * 64)
    full = replace(record, flags={"damaged": "cut"}, label="x", caption="é", actions=[1, [0.5]], action_names=["up"])
    for one in (record, full):
        assert ClipRecord.from_json(one.to_json()) == one
    assert ClipRecord.from_json(record.to_json()[:-1] + ', "cuts": [3]}') == record
    for broken in ("[]", "{}", "{"):
        with pytest.raises(ValueError):
            ClipRecord.from_json(broken)
