"""What people say about their videos, as they write it: tables, numbers for classes, licences, splits, mistakes."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tokenreel.datasets.clip_cache import open_or_ingest
from tokenreel.datasets.clip_record import ClipRecord
from tokenreel.datasets.clip_splits import leaks, with_splits
from tokenreel.datasets.clip_store import ClipStore
from tokenreel.datasets.clip_windows import ClipWindows
from tokenreel.datasets.data_source import DataSettings
from tokenreel.datasets.ingest import IngestSettings
from tokenreel.datasets.metadata_files import read_metadata_file
from tokenreel.datasets.origins import origins
from tokenreel.datasets.video_folder import VideoFolder
from tokenreel.datasets.video_metadata import VideoMetadata, metadata_of
from tokenreel.datasets.video_writer import write_video


def folder(root: Path, *names: str) -> Path:
    """Empty files: a listing opens none of them."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def told(root: Path) -> dict[str, VideoMetadata]:
    return {video.name: video.metadata for video in VideoFolder.scan(root).describe()[0]}


def table(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.write_bytes(text.encode(encoding))
    return path


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_table_as_spreadsheets_write_it(tmp_path: Path, separator: str, encoding: str) -> None:
    lines = [
        ["file_name", " label", "text", "actions", "action_names", "licence", "mood", "take"],
        ["run/a.mp4", "3", '"a ""big"", red ball"', "0 1 2.5", "stay go", "CC0", "ü", "007"],
        [],
        [".\\b.mp4", "", "", '"[[1, 2], [3, 4]]"', "", "", "", ""],
    ]
    text = "\r\n".join(separator.join(cells) for cells in lines) + "\r\n"
    entries = read_metadata_file(table(tmp_path / "metadata.csv", text, encoding))
    (line_a, a), (line_b, b) = entries["run/a.mp4"], entries["b.mp4"]
    assert (line_a, line_b) == (2, 4)
    assert (a.label, a.caption, a.actions, a.licence) == ("3", 'a "big", red ball', [0, 1, 2.5], "CC0")
    assert a.action_names == ["stay", "go"] and a.extra == {"mood": "ü", "take": "007"}
    assert b == VideoMetadata(actions=[[1, 2], [3, 4]])
    unnamed = read_metadata_file(table(tmp_path / "metadata.csv", ",file_name,label\n0,a.mp4,x\n"))
    assert unnamed["a.mp4"][1] == VideoMetadata(label="x"), "pandas numbers the rows"


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", r"the columns are missing; expected a first line .* file_name"),
        (b"video,label\na.mp4,x\n", r"the columns are video, label; expected"),
        (b"file_name,label,label\na.mp4,x,y\n", r".*names each column once"),
        (b"file_name,label\na.mp4,x\na.mp4,y\n", r"line 3: file_name 'a.mp4' comes a second time"),
        (b"file_name,text\na.mp4,one, two\n", r"line 2: 3 cells, expected 2 .* in quotes"),
        (b"file_name,text\na.mp4\n", r"line 2: 1 cells, expected 2"),
        (b"file_name,text\n,x\n", r"line 2: file_name is None"),
        (b'file_name,text\na.mp4,"open\n', r"line 2: no valid CSV"),
        ("file_name,text\na.mp4,x\nb.mp4,é\n".encode("latin-1"), r"line 3: byte 0xe9 is not UTF-8; save"),
        ("file_name,text\n".encode("utf-16"), r"line 1: byte 0xff is not UTF-8"),
        (b"file_name,actions\na.mp4,left right\n", r"line 2: actions: .*left.*write a list as"),
        (b'file_name,actions\na.mp4,"[1, "\n', r"line 2: actions: not valid JSON"),
        (b"file_name,split\na.mp4,fold1\n", r"line 2: split is 'fold1', expected one of train, val"),
    ],
)
def test_broken_table_names_file_and_line(tmp_path: Path, content: bytes, complaint: str) -> None:
    folder(tmp_path, "a.mp4")
    (tmp_path / "metadata.csv").write_bytes(content)
    with pytest.raises(ValueError, match=rf"metadata\.csv(:|,) {complaint}"):
        VideoFolder.scan(tmp_path).describe()


def test_what_lies_nearer_is_believed_first_and_missing_files_are_listed(tmp_path: Path) -> None:
    folder(tmp_path, "run/deep/a.mp4", "b.mp4")
    table(tmp_path / "metadata.csv", "file_name,label,text,source\nrun/deep/a.mp4,x,far,web\nb.mp4,y,b,\nc.mp4,z,,\n")
    table(tmp_path / "metadata.jsonl", '{"file_name": "b.mp4", "caption": "json b"}\n')
    table(tmp_path / "run/deep/metadata.csv", "file_name,caption,license\na.mp4,near,MIT\n../../../out.mp4,x,\n")
    videos, rejected = VideoFolder.scan(tmp_path).describe()
    a, b = (video.metadata for video in sorted(videos, key=lambda video: video.name, reverse=True))
    assert (a.label, a.caption, a.source, a.licence) == ("x", "near", "web", "MIT")
    assert (b.label, b.caption) == ("y", "json b")
    assert {entry.file: "no such video" in entry.reason for entry in rejected} == {"c.mp4": True, "../out.mp4": True}


@pytest.mark.parametrize(
    ("label", "expected"), [(3, "3"), (3.0, "3"), ("003", "003"), (-1, "-1"), (None, None), ("", "")]
)
def test_classes_may_be_numbers(label: Any, expected: str | None) -> None:
    assert metadata_of({"label": label}, "here").label == expected


@pytest.mark.parametrize("label", [True, 2.5, float("nan"), float("inf"), ["a"], {"a": 1}])
def test_other_things_are_no_classes(label: Any) -> None:
    with pytest.raises(ValueError, match=r"here: label is .*, expected text"):
        metadata_of({"label": label}, "here")


def test_other_keys_are_kept_if_they_are_short() -> None:
    said = {"fps": 30, "tags": ["a", "b"], "camera": {"f": 2.8}, "states": list(range(1000)), "none": None}
    assert metadata_of(said, "here").extra == {"fps": 30, "tags": ["a", "b"], "camera": {"f": 2.8}}
    first, second = VideoMetadata(extra={"a": 1, "b": 1}), VideoMetadata(label="x", extra={"b": 2, "c": 2})
    assert first.over(second) == VideoMetadata(label="x", extra={"a": 1, "b": 1, "c": 2})
    assert metadata_of({"text": "t", "caption": "c"}, "here").caption == "c"


def test_splits_may_be_said(tmp_path: Path) -> None:
    folder(tmp_path, "a.mp4", "b.mp4", "c.mp4")
    table(tmp_path / "metadata.csv", "file_name,split\na.mp4,train\nb.mp4,validation\n")
    videos, rejected = VideoFolder.scan(tmp_path).describe()
    assert {video.name: video.split for video in videos} == {"a.mp4": "train", "b.mp4": "val"}
    assert [(entry.file, "has no split" in entry.reason) for entry in rejected] == [("c.mp4", True)]
    folder(tmp_path / "other", "train/a.mp4", "val/b.mp4")
    table(tmp_path / "other/metadata.csv", "file_name,split\ntrain/a.mp4,test\nval/b.mp4,valid\n")
    with pytest.raises(ValueError, match=r"train/a\.mp4: its metadata say split 'test', its folder says 'train'"):
        VideoFolder.scan(tmp_path / "other").describe()


def record(key: str, **more: Any) -> ClipRecord:
    return ClipRecord(key, f"{key}.mp4", "train", 0, 10, 8, 8, 10.0, 10.0, 10, "1/10", 0, key, **more)


def test_groups_stay_on_one_side() -> None:
    """As the 25 groups of a class in UCF-101, each cut out of one long video."""
    records = [record(f"v{number}", group=f"g{number // 4}") for number in range(80)]
    placed = with_splits(records, dict.fromkeys((r.key for r in records), None))
    sides = {r.group: {s.split for s in placed if s.group == r.group} for r in placed}
    assert all(len(side) == 1 for side in sides.values()) and {"train"} in sides.values() and {"val"} in sides.values()
    assert leaks(placed) == []
    torn = with_splits(records, {r.key: "val" if r.key in ("v0", "v1", "v9") else "train" for r in records})
    assert [(copy.key, of.key) for copy, of in leaks(torn)] == [("v2", "v0"), ("v9", "v8")]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ClipStore:
    root = tmp_path_factory.mktemp("data") / "set"
    rng = np.random.default_rng(0)
    for number, split in enumerate(("train", "train", "val")):
        write_video(root / split / f"{number}.mkv", rng.integers(0, 256, (12, 16, 16, 3), np.uint8), 10)
    lines = [
        {"file_name": "train/0.mkv", "licence": "CC0", "source": "web", "group": 7, "mood": "good", "actions": [1] * 5},
        {"file_name": "train/1.mkv", "licence": "CC0", "source": "web"},
        {"file_name": "val/2.mkv", "group": "7"},
    ]
    (root / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return open_or_ingest(root, IngestSettings(8, 8, workers=1), root.parent / "clips", progress=False)


def test_licence_and_source_go_to_the_records_the_clips_and_the_model(store: ClipStore) -> None:
    first, second, third = store.records
    assert (first.licence, first.source, first.group, first.extra) == ("CC0", "web", "7", {"mood": "good"})
    assert first.actions is None and first.flags["actions_mismatch"] == "5 actions for 12 frames"
    assert ClipRecord.from_json(first.to_json()) == first
    clip = ClipWindows(store, "train", 4).record(0)
    assert (clip["licence"], clip["source"]) == ("CC0", "web")
    assert "licence" not in ClipWindows(store, "val", 4).record(0)
    assert DataSettings().describe(store)["origins"] == [
        {"source": "web", "licence": "CC0", "videos": 2},
        {"source": None, "licence": None, "videos": 1},
    ]
    assert leaks(store.records) == [(third, first)] and second.group is None


def test_videos_are_counted_and_not_their_shots() -> None:
    shots = [record("a", source="web"), record("b")]
    shots.append(replace(shots[0], key="a-2", start=10))
    assert origins(shots) == [
        {"source": "web", "licence": None, "videos": 1},
        {"source": None, "licence": None, "videos": 1},
    ]


def test_given_splits_that_leak_are_told_at_ingest(
    store: ClipStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = store.path.parent.parent / "set"
    open_or_ingest(root, IngestSettings(8, 8, workers=1), tmp_path)
    printed = capsys.readouterr().out
    assert "set: folder of videos" in printed
    assert "note: the splits that were given put 1 copies or videos of one group on both sides" in printed
    assert "val/2.mkv (val) and train/0.mkv (train)" in printed
