"""Ingest: every video ends in the store or in rejected.jsonl with its reason, whatever happens to the decoder."""

import json
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tokenreel.datasets import atomic_folder, clip_cache, ingest_pool
from tokenreel.datasets.clip_cache import open_or_ingest
from tokenreel.datasets.clip_record import ClipRecord
from tokenreel.datasets.clip_splits import with_duplicates, with_splits
from tokenreel.datasets.clip_store import ClipStore
from tokenreel.datasets.found_video import unique_keys
from tokenreel.datasets.ingest import IngestSettings
from tokenreel.datasets.video_folder import VideoFolder
from tokenreel.datasets.video_metadata import aligned_actions
from tokenreel.datasets.video_writer import write_video

SMALL = IngestSettings(height=8, width=8, fps=10.0, workers=2)

MISBEHAVING_WORKER = """
import os, time
from tokenreel.datasets import ingest_worker
decode = ingest_worker.decode
def misbehave(job):
    answer, name = decode(job), os.path.basename(job["path"])
    if name == "sleep.mkv": time.sleep(600)
    if name == "crash.mkv": os.abort()
    if name == "leave.mkv": raise RuntimeError("left in anger")
    if name == "full.mkv": raise OSError(28, "No space left on device")
    return answer
ingest_worker.decode = misbehave
ingest_worker.main()
"""


def numbered(count: int, shift: int = 0) -> np.ndarray:
    """Frames of one colour each; the red channel is the number of the frame plus ``shift``."""
    frames = np.empty((count, 8, 8, 3), np.uint8)
    frames[:] = (np.arange(count) + shift)[:, None, None, None] * np.array([1, 3, 5])
    return frames


def make(root: Path, *names: str, count: int = 12, fps: float = 10) -> None:
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        write_video(root / name, numbered(count, 20 * number), fps)


def stored(root: Path, cache: Path, settings: IngestSettings = SMALL) -> ClipStore:
    return open_or_ingest(root, settings, cache, progress=False)


def by_file(store: ClipStore) -> dict[str, ClipRecord]:
    return {record.file: record for record in store.records}


def rejections(store: ClipStore) -> dict[str, str]:
    lines = (store.path / "rejected.jsonl").read_text().splitlines()
    return {entry["file"]: entry["reason"] for entry in map(json.loads, lines)}


@pytest.fixture
def misbehaving(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest_pool, "WORKER_COMMAND", (sys.executable, "-P", "-c", MISBEHAVING_WORKER))


def test_split_folders_classes_and_frames(tmp_path: Path) -> None:
    root = tmp_path / "set"
    make(root, "train/run/a.mkv", "train/run/b.mkv", "validation/jump/c.mkv", "test/deep/er/d.mkv", "train/e.mkv")
    make(root, "stray.mkv")
    shutil.copy(root / "train/run/a.mkv", root / "train/run/copy.mkv")
    store = stored(root, tmp_path / "cache")
    records = by_file(store)
    assert [(r.file, r.split, r.label) for r in store.records] == [
        ("test/deep/er/d.mkv", "test", "deep"),
        ("train/e.mkv", "train", None),
        ("train/run/a.mkv", "train", "run"),
        ("train/run/b.mkv", "train", "run"),
        ("train/run/copy.mkv", "train", "run"),
        ("validation/jump/c.mkv", "val", "jump"),
    ]
    assert "outside the split folders" in rejections(store)["stray.mkv"]
    for shift, name in ((0, "train/run/a.mkv"), (40, "validation/jump/c.mkv"), (80, "train/e.mkv")):
        assert np.array_equal(store.frames(records[name]), numbered(12, shift))
    record = records["train/run/b.mkv"]
    assert (record.key, record.height, record.width, record.fps) == ("train__run__b", 8, 8, 10.0)
    assert (record.source_fps, record.source_frames, record.flags) == (10.0, 12, {})
    assert records["train/run/copy.mkv"].flags == {"duplicate_of": "train__run__a"}
    assert store.path.parent == tmp_path / "cache" and store.path.name.startswith("set-8x8-10fps-")
    assert store.info["videos"] == {"test": 1, "train": 4, "val": 1} and store.info["source"] == "set"


def test_second_run_opens_the_store_until_something_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "set"
    make(root, "a.mkv", "b.mkv")
    first = stored(root, tmp_path / "cache")
    with monkeypatch.context() as patch:
        patch.setattr(clip_cache, "ingest", lambda *_: pytest.fail("decoded again"))
        assert stored(root, tmp_path / "cache").fingerprint == first.fingerprint
        again = replace(SMALL, workers=1, time_limit=5)
        assert stored(root, tmp_path / "cache", again).path == first.path
        # A store may itself be given as the data, unless it holds something else.
        assert stored(first.path, tmp_path / "cache").records == first.records
        with pytest.raises(ValueError, match=r"has fps 10\.0, expected 5\.0; give"):
            stored(first.path, tmp_path / "cache", replace(SMALL, fps=5.0))
    (root / "b.json").write_text('{"label": "x"}')
    changed = stored(root, tmp_path / "cache")
    assert changed.path != first.path and by_file(changed)["b.mkv"].label == "x"
    assert stored(root, tmp_path / "cache", replace(SMALL, fps=5.0)).path not in (first.path, changed.path)
    make(root, "a.mkv", count=13)
    assert by_file(stored(root, tmp_path / "cache"))["a.mkv"].frames == 13


def test_flat_folder_is_split_the_same_way_every_time(tmp_path: Path) -> None:
    def split(keys: list[str], **given: str | None) -> dict[str, str]:
        records = [record(key, sha256=key) for key in keys]
        return {r.key: r.split for r in with_splits(records, {key: given.get(key) for key in keys})}

    keys = [f"video{k}" for k in range(400)]
    whole = split(keys)
    assert 20 <= list(whole.values()).count("val") <= 60
    # Adding videos moves none of the others.
    assert split(keys[:200]) == {key: whole[key] for key in keys[:200]}
    for count in range(2, 12):
        assert set(split(keys[:count]).values()) == {"train", "val"}
    # Folders decide; train alone is split.
    assert set(split(keys, **{key: "test" for key in keys}).values()) == {"test"}
    assert split(["a", "b"], a="train", b="val") == {"a": "train", "b": "val"}
    assert set(split(keys, **{key: "train" for key in keys}).values()) == {"train", "val"}


def record(key: str, frames: int = 10, sha256: str = "", **more: Any) -> ClipRecord:
    return ClipRecord(key, key, "train", 0, frames, 8, 8, 10.0, 10.0, frames, "1/10", 0, sha256, **more)


def test_copies_are_flagged_and_stay_on_one_side() -> None:
    for count in range(3, 30):
        originals = [record(f"v{k}", sha256=f"{k}") for k in range(count)]
        copies = [record(f"copy{k}", sha256=f"{k}") for k in range(count)]
        records = with_duplicates([*originals, *copies])
        split = {r.key: r.split for r in with_splits(records, {r.key: None for r in records})}
        assert all(split[f"v{k}"] == split[f"copy{k}"] for k in range(count))
        assert [r.flags for r in records[count:]] == [{"duplicate_of": f"v{k}"} for k in range(count)]


def test_single_video_gives_its_last_tenth_to_validation(tmp_path: Path) -> None:
    make(tmp_path / "one", "long.mkv", count=35)
    (tmp_path / "one/long.json").write_text(json.dumps({"actions": list(range(35))}))
    store = stored(tmp_path / "one", tmp_path / "cache")
    head, tail = store.records
    assert (head.key, head.split, tail.key, tail.split) == ("long", "train", "long-tail", "val")
    assert np.array_equal(store.frames(head), numbered(32)) and head.actions == list(range(32))
    assert np.array_equal(store.frames(tail), numbered(3, 32)) and tail.actions == [32, 33, 34]


def test_sidecar_beats_metadata_file_beats_folder(tmp_path: Path) -> None:
    root = tmp_path / "set"
    make(root, "train/run/a.mkv", "train/run/b.mkv", "val/run/c.mkv")
    lines = [
        {"file_name": "run/a.mkv", "label": "from jsonl", "caption": "jsonl a", "actions": [1] * 12},
        {"file_name": "./run/b.mkv", "caption": "jsonl b", "label": 7},
        {"file_name": "run/gone.mkv", "caption": "nobody"},
    ]
    (root / "train/metadata.jsonl").write_text("\n\n".join(map(json.dumps, lines)) + "\n")
    (root / "metadata.jsonl").write_text('{"file_name": "val/run/c.mkv", "caption": "root c"}')
    sidecar = {"caption": "side a", "actions": [2] * 12, "action_names": ["x"], "states": [[1, 2]]}
    (root / "train/run/a.json").write_text(json.dumps(sidecar))
    store = stored(root, tmp_path / "cache")
    a, b, c = (by_file(store)[name] for name in ("train/run/a.mkv", "train/run/b.mkv", "val/run/c.mkv"))
    assert (a.label, a.caption, a.actions, a.action_names) == ("from jsonl", "side a", [2] * 12, ["x"])
    assert (b.label, b.caption, b.actions) == ("7", "jsonl b", None)
    assert (c.label, c.caption) == ("run", "root c")
    assert "line 5, but no such video" in rejections(store)["train/run/gone.mkv"]


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("{oops", "not valid JSON"),
        ("[1]", "got list, expected a JSON object"),
        ('{"caption": "x"}', "file_name is None, expected"),
        ('{"file_name": "b.mkv", "label": [1]}', "label is .1., expected text"),
        ('{"file_name": "b.mkv", "actions": "up"}', "actions must be one number"),
        ('{"file_name": "a.mkv"}', "a second time"),
    ],
)
def test_broken_metadata_names_file_and_line(tmp_path: Path, line: str, complaint: str) -> None:
    make(tmp_path / "set", "a.mkv")
    (tmp_path / "set/metadata.jsonl").write_text('{"file_name": "a.mkv"}\n' + line + "\n")
    with pytest.raises(ValueError, match=rf"metadata\.jsonl, line 2: .*{complaint}"):
        stored(tmp_path / "set", tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_actions_follow_the_frames_that_are_kept(tmp_path: Path) -> None:
    root = tmp_path / "set"
    make(root, "a.mkv", "b.mkv", "c.mkv", count=30, fps=30)
    for name, count in (("a", 30), ("b", 29), ("c", 20)):
        (root / f"{name}.json").write_text(json.dumps({"actions": list(range(count))}))
    store = stored(root, tmp_path / "cache")
    a, b, c = store.records
    frames = store.frames(a)[:, 0, 0, 0].tolist()
    assert a.actions == frames == [0, 3, 6, 9, 12, 15, 18, 21, 24, 27]
    assert a.flags == {"actions_resampled": "10 of 30 actions kept, those of the frames kept"}
    assert b.actions == a.actions and b.flags["actions_length"] == "29 actions for 30 frames"
    assert c.actions is None and c.flags == {"actions_mismatch": "20 actions for 30 frames"}


def test_actions_one_too_few_or_many() -> None:
    facts = {"source_frames": 4, "damaged": None}
    assert aligned_actions([5, 6, 7, 8], facts, [0, 1, 2, 3]) == ([5, 6, 7, 8], {})
    picked, flags = aligned_actions([5, 6, 7], facts, [0, 3])
    assert picked == [5, 7] and flags["actions_length"] == "3 actions for 4 frames"
    assert "actions_resampled" in aligned_actions([5, 6, 7, 8], facts, [0, 0, 1, 1, 2, 2, 3, 3])[1]
    assert aligned_actions([5, 6, 7, 8, 9], facts, [3])[0] == [8]
    assert aligned_actions([5, 6, 7, 8, 9, 0], facts, [3])[0] is None
    # Of a damaged file the actions of the missing frames are left over.
    assert aligned_actions([5, 6, 7, 8, 9, 0], {**facts, "damaged": "cut"}, [3])[0] == [8]
    assert aligned_actions([], {"source_frames": 1, "damaged": None}, [0])[0] is None


@pytest.mark.usefixtures("misbehaving")
def test_hangs_and_crashes_cost_one_file_each(tmp_path: Path) -> None:
    root = tmp_path / "set"
    make(root, "a.mkv", "crash.mkv", "leave.mkv", "sleep.mkv", "z1.mkv", "z2.mkv")
    (root / "text.mp4").write_text("no video")
    store = stored(root, tmp_path / "cache", replace(SMALL, time_limit=5))
    assert [r.file for r in store.records] == ["a.mkv", "z1.mkv", "z2.mkv"]
    assert rejections(store) == {
        "crash.mkv": "the decoder crashed (SIGABRT)",
        "leave.mkv": "the decoder crashed (exit status 1: RuntimeError: left in anger)",
        "sleep.mkv": "decoding took longer than 5 s",
        "text.mp4": "Invalid data found when processing input",
    }
    for shift, record in zip((0, 80, 100), store.records, strict=True):
        assert np.array_equal(store.frames(record), numbered(12, shift))
    assert {item.name for item in store.path.iterdir()} == {
        *("frames.u8", "clips.jsonl", "rejected.jsonl", "sources.jsonl", "store.json")
    }


@pytest.mark.usefixtures("misbehaving")
def test_full_disk_leaves_no_half_store(tmp_path: Path) -> None:
    make(tmp_path / "set", "a.mkv", "full.mkv", "z.mkv")
    with pytest.raises(OSError, match=r"cannot write in .* No space left on device; free space"):
        stored(tmp_path / "set", tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_faster_process_wins_and_the_dead_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path / "set", "a.mkv", "b.mkv")
    cache = tmp_path / "cache"
    original = stored(tmp_path / "set", cache)
    aside = shutil.move(original.path, tmp_path / "aside")
    host = atomic_folder.host_name()
    dead, alive, elsewhere = (cache / f"x.tmp-{n}" for n in (f"999999999-{host}", f"1-{host}", "999999999-far"))
    for folder in (dead, alive, elsewhere):
        folder.mkdir()
    real = clip_cache.ingest

    def slow(*arguments: Any) -> None:
        real(*arguments)
        shutil.copytree(aside, original.path)
        (original.path / "winner").touch()

    monkeypatch.setattr(clip_cache, "ingest", slow)
    assert stored(tmp_path / "set", cache).records == original.records
    assert (original.path / "winner").exists()
    assert {item.name for item in cache.iterdir()} == {original.path.name, alive.name, elsewhere.name}


def test_folders_without_videos_say_what_was_found(tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    for name in ("a.txt", "b.txt", "c.md", ".hidden.mp4", "d.mp4.tmp-1"):
        (tmp_path / "texts" / name).write_text("text")
    with pytest.raises(ValueError, match=r"no videos in .*texts: found 2 \.txt files, 1 \.md file, expected.*\.mp4"):
        stored(tmp_path / "texts", tmp_path / "cache")
    (tmp_path / "texts/v.mp4").write_text("text")
    with pytest.raises(ValueError, match=r"not one of the 1 videos in .* \(v\.mp4: Invalid data.*\); give"):
        stored(tmp_path / "texts", tmp_path / "cache")
    with pytest.raises(FileNotFoundError, match=r"data folder .*absent does not exist; give"):
        stored(tmp_path / "absent", tmp_path / "cache")
    with pytest.raises(FileNotFoundError, match=r"data folder .*a\.txt is a file; give"):
        stored(tmp_path / "texts/a.txt", tmp_path / "cache")
    assert not (tmp_path / "cache").exists() or list((tmp_path / "cache").iterdir()) == []


def test_listing_follows_links_but_no_loops_and_skips_stores(tmp_path: Path) -> None:
    root = tmp_path / "set"
    for name in ("a/x.mp4", "outside/y.MP4", ".git/z.mp4", "w.tmp-3/z.mp4", "old/v.mp4", "old/store.json"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    shutil.move(root / "outside", tmp_path / "outside")
    (root / "a/loop").symlink_to(root)
    (root / "link").symlink_to(tmp_path / "outside")
    (root / "broken.mp4").symlink_to(tmp_path / "nothing")
    (root / "circle.mp4").symlink_to("circle.mp4")
    os.mkfifo(root / "pipe.mp4")
    folder = VideoFolder.scan(root)
    assert folder.videos == ["a/x.mp4", "link/y.MP4"]
    rejected = {entry.file: "leads nowhere, or in a circle" in entry.reason for entry in folder.describe()[1]}
    assert rejected == {"broken.mp4": True, "circle.mp4": True}


def test_keys_are_plain_and_unique() -> None:
    names = ["a.avi", "a.mp4", "a/b.mp4", "a__b.mp4", "v1.5.mp4", "x y.mp4", "x-y.mp4", "ü.mp4", "é.mp4"]
    keys = unique_keys(names)
    assert [keys[name] for name in names[:5]] == ["a", "a-2", "a__b", "a__b-2", "v1-5"]
    assert len(set(keys.values())) == len(names)
    assert all(key.isascii() and key.replace("-", "").replace("_", "").isalnum() for key in keys.values())


def test_names_that_are_no_text(tmp_path: Path) -> None:
    root = tmp_path / "set"
    make(root, "plain.mkv", "other.mkv")
    try:
        os.rename(root / "other.mkv", os.fsencode(root) + b"/\xff odd.name.mkv")
    except OSError:
        pytest.skip("this file system takes only valid text as names")
    store = stored(root, tmp_path / "cache")
    assert len(store.records) == 2 and rejections(store) == {}
    assert stored(root, tmp_path / "cache").records == store.records


def test_dull_videos_are_flagged(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    still = np.kron(rng.integers(0, 256, (1, 8, 8, 3), np.uint8), np.ones((30, 8, 8, 1), np.uint8))
    moving = np.repeat(still[:1], 30, axis=0)
    for k in range(30):
        moving[k, 10 + k, 20:22] = 255 - moving[k, 10 + k, 20:22].astype(int).mean() // 128 * 255
    write_video(tmp_path / "set/black.mp4", np.zeros((20, 64, 64, 3), np.uint8), 10)
    write_video(tmp_path / "set/still.mp4", still, 10, crf=23)
    write_video(tmp_path / "set/ball.mkv", moving, 10)
    write_video(tmp_path / "set/slow.mkv", numbered(4) * 50, 2)
    records = by_file(stored(tmp_path / "set", tmp_path / "cache", IngestSettings(workers=2)))
    assert records["black.mp4"].flags == {"static": True, "black": True}
    assert records["still.mp4"].flags == {"static": True}
    assert records["ball.mkv"].flags == {}
    assert records["slow.mkv"].flags == {"upsampled": True} and records["slow.mkv"].frames == 18


@pytest.mark.parametrize("wrong", [{"height": 0}, {"fps": -1.0}, {"decoder": "x"}, {"time_limit": 0}, {"workers": -1}])
def test_settings_are_checked(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected"):
        IngestSettings(**wrong)


@pytest.mark.data
@pytest.mark.slow
def test_shared_games_come_with_their_actions(shared_data: Path, tmp_path: Path) -> None:
    store = stored(shared_data / "atari", tmp_path, IngestSettings(64, 64, None))
    assert store.path.name.startswith("atari-64x64-nativefps-") and rejections(store) == {}
    assert len(store.records) == 40 and all(r.flags == {} and r.frames == 600 for r in store.records)
    for record in store.records:
        sidecar = json.loads((shared_data / "atari" / record.file).with_suffix(".json").read_text())
        assert record.actions == sidecar["actions"] and record.action_names == sidecar["action_names"]
