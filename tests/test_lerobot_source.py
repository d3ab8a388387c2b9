"""LeRobot datasets of version 2 and 3: the same episodes, tasks and actions, whatever the files look like."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tokenreel.datasets.clip_cache import open_or_ingest
from tokenreel.datasets.clip_store import ClipStore
from tokenreel.datasets.ingest import IngestSettings
from tokenreel.datasets.lerobot_source import LeRobotSource
from tokenreel.datasets.video_source import video_source
from tokenreel.datasets.video_writer import write_video

LENGTHS = (12, 20, 8, 16)
TOP, WRIST = "observation.images.top", "observation.images.wrist"
PATHS = {
    "v2.1": {
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
    },
    "v3.0": {
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
    },
}


def pictures(episode: int, camera: str) -> np.ndarray:
    """Frames of one grey each, 10 levels apart in time, so that mp4 keeps them apart."""
    first = 30 + 5 * episode + (60 if camera == WRIST else 0)
    levels = first + 6 * np.arange(LENGTHS[episode])
    return np.broadcast_to(levels[:, None, None, None].astype(np.uint8), (len(levels), 32, 32, 3))


def action(episode: int, frame: int) -> list[float]:
    return [episode + 0.5, frame / 4]


def write_table(path: Path, rows: list[dict[str, Any]]) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="needs pyarrow (tokenreel[lerobot])")
    parquet = pytest.importorskip("pyarrow.parquet")
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pyarrow.Table.from_pylist(rows), path)


def frames_table(episodes: list[int]) -> list[dict[str, Any]]:
    return [
        {"action": action(episode, frame), "timestamp": frame / 10, "frame_index": frame, "episode_index": episode}
        for episode in episodes
        for frame in range(LENGTHS[episode])
    ]


def make(root: Path, version: str, cameras: tuple[str, ...] = (TOP,), **more: Any) -> Path:
    """A dataset of four episodes; in version 3 two in each file, the first two in the second file."""
    features: dict[str, Any] = {camera: {"dtype": "video", "shape": [3, 32, 32]} for camera in cameras}
    features |= {"action": {"dtype": "float32", "shape": [2]}, "observation.state": {"dtype": "float32", "shape": [2]}}
    info = {"codebase_version": version, "fps": 10, "chunks_size": 3, "robot_type": "so100", "features": features}
    (root / "meta").mkdir(parents=True)
    (root / "meta/info.json").write_text(json.dumps({**info, **PATHS[version], "splits": {"train": "0:4"}, **more}))
    (root / "README.md").write_text("---\ntags:\n- x\nlicense: apache-2.0\n---\n\nlicense: none\n")
    tasks = [["push"], ["pull", "turn"], [], ["push"]]
    if version == "v2.1":
        lines = [json.dumps({"episode_index": n, "tasks": tasks[n], "length": LENGTHS[n]}) for n in range(4)]
        (root / "meta/episodes.jsonl").write_text("\n".join(lines) + "\n")
        for n in range(4):
            write_table(root / f"data/chunk-{n // 3:03d}/episode_{n:06d}.parquet", frames_table([n]))
            for camera in cameras:
                name = f"videos/chunk-{n // 3:03d}/{camera}/episode_{n:06d}.mp4"
                write_video(root / name, pictures(n, camera), 10, crf=2)
        return root
    files = {0: [2, 3], 1: [0, 1]}
    rows = []
    for file, episodes in files.items():
        write_table(root / f"data/chunk-000/file-{file:03d}.parquet", frames_table(episodes))
        for camera in cameras:
            name = f"videos/{camera}/chunk-000/file-{file:03d}.mp4"
            write_video(root / name, np.concatenate([pictures(n, camera) for n in episodes]), 10, crf=2)
        begin = 0.0
        for n in episodes:
            row = {"episode_index": n, "tasks": tasks[n], "length": LENGTHS[n], "stats/action/mean": [0.0, 0.0]}
            row |= {"data/chunk_index": 0, "data/file_index": file}
            for camera in cameras:
                place = {"chunk_index": 0, "file_index": file, "from_timestamp": begin}
                place["to_timestamp"] = begin + LENGTHS[n] / 10
                row |= {f"videos/{camera}/{name}": value for name, value in place.items()}
            rows.append(row)
            begin += LENGTHS[n] / 10
    write_table(root / "meta/episodes/chunk-000/file-000.parquet", sorted(rows, key=lambda row: row["episode_index"]))
    return root


def stored(root: Path, cache: Path, fps: float | None = None, part: str = "") -> ClipStore:
    return open_or_ingest(root, IngestSettings(16, 16, fps=fps, workers=1), cache, progress=False, part=part)


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
def test_episodes_tasks_and_actions(tmp_path: Path, version: str) -> None:
    root = make(tmp_path / "robot", version)
    store = stored(root, tmp_path / "clips")
    assert [record.frames for record in store.records] == list(LENGTHS)
    assert [record.caption for record in store.records] == ["push", "pull; turn", None, "push"]
    for number, record in enumerate(store.records):
        seen = store.frames(record)[:, 8, 8, 1].astype(int)
        expected = pictures(number, TOP)[:, 0, 0, 1].astype(int)
        assert np.abs(seen - expected).max() <= 2, "frames of another episode, or moved by one"
        assert record.actions == [action(number, frame) for frame in range(LENGTHS[number])]
        assert (record.licence, record.source, record.group) == ("apache-2.0", "robot", None)
        assert record.extra == {"episode": number, "camera": TOP, "robot_type": "so100"}
        assert record.source_frames == LENGTHS[number] and record.flags == {}
    assert sorted({record.split for record in store.records}) == ["train", "val"], "all train says nothing"
    assert store.info["kind"] == f"LeRobot dataset ({version}) with {TOP}"
    slower = stored(root, tmp_path / "clips", fps=5.0)
    assert slower.records[1].actions == [action(1, frame) for frame in range(0, 20, 2)]


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
def test_cameras_of_an_episode_stay_together(tmp_path: Path, version: str) -> None:
    root = make(tmp_path / "robot", version, (TOP, WRIST))
    store = stored(root, tmp_path / "clips")
    sides: dict[str | None, set[str]] = {}
    for record in store.records:
        sides.setdefault(record.group, set()).add(record.split)
    assert len(store.records) == 8 and len(sides) == 4 and all(len(side) == 1 for side in sides.values())
    for part in ("wrist", WRIST):
        one = stored(root, tmp_path / "clips", part=part)
        assert {record.extra["camera"] for record in one.records} == {WRIST} and len(one.records) == 4
    with pytest.raises(ValueError, match=rf"camera 'side' of .*: expected one of {TOP}, {WRIST}"):
        video_source(root, "side")


def test_given_splits_hold(tmp_path: Path) -> None:
    root = make(tmp_path / "robot", "v2.1", splits={"train": "0:2", "validation": "2:3", "test": "3:4"})
    found = video_source(root).describe()[0]
    assert [video.split for video in found] == ["train", "train", "val", "test"]


def test_discrete_actions_are_numbers(tmp_path: Path) -> None:
    root = make(tmp_path / "robot", "v2.1")
    info = json.loads((root / "meta/info.json").read_text())
    info["features"]["action"] = {"dtype": "int64", "shape": [1]}
    (root / "meta/info.json").write_text(json.dumps(info))
    for n in range(4):
        rows = [{**row, "action": [row["frame_index"] % 3]} for row in frames_table([n])]
        write_table(root / f"data/chunk-{n // 3:03d}/episode_{n:06d}.parquet", rows)
    assert video_source(root).describe()[0][0].metadata.actions == [frame % 3 for frame in range(12)]


def test_what_is_missing_is_told(tmp_path: Path) -> None:
    root = make(tmp_path / "robot", "v2.1")
    (root / f"videos/chunk-000/{TOP}/episode_000001.mp4").unlink()
    videos, rejected = video_source(root).describe()
    assert len(videos) == 3
    assert [entry.reason for entry in rejected] == [f"there is no file videos/chunk-000/{TOP}/episode_000001.mp4"]
    (root / "data/chunk-001/episode_000003.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match=r"cannot read .*episode_000003\.parquet"):
        video_source(root).describe()
    (root / "data/chunk-001/episode_000003.parquet").unlink()
    with pytest.raises(ValueError, match=r"episode_000003\.parquet is missing; it holds the actions"):
        video_source(root).describe()
    (root / "meta/episodes.jsonl").write_text('{"episode": 1}\n')
    with pytest.raises(ValueError, match=r"the episodes in .*meta cannot be read"):
        video_source(root).describe()
    (root / "meta/episodes.jsonl").unlink()
    with pytest.raises(ValueError, match="no episodes"):
        video_source(root).describe()


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"codebase_version": "v1.6"}, "has version v1.6, expected v2 or v3"),
        ({"features": {"observation.image": {"dtype": "image"}}}, r"has no videos: observation.image \(image\)"),
        ({"features": ["x"]}, "cannot be read"),
        ({"splits": {"fold": "0:4"}}, "split 'fold' is '0:4', expected one of train"),
        ({"splits": {"train": "all"}}, "split 'train' is 'all', expected"),
        ({"video_path": "../../{video_key}.mp4"}, "video_path is '../../{video_key}.mp4', expected one as LeRobot"),
        ({"video_path": "/etc/{video_key}"}, "expected one as LeRobot writes it"),
        ({"video_path": "{video_key.__class__}.mp4"}, "expected one as LeRobot writes it"),
        ({"video_path": "{episode_index:0999999999d}"}, "expected one as LeRobot writes it"),
        ({"video_path": None}, "video_path is None, expected one as LeRobot writes it"),
        (
            {"video_path": "videos/{video_key}/file-{file_index:03d}.mp4"},
            "but the episodes say no file_index, only episode_chunk, episode_index, video_key; download",
        ),
        ({"data_path": "data/{video_key}.parquet"}, "data_path is .* but the episodes say no video_key"),
        ({"chunks_size": 0}, "cannot be read .*chunks_size"),
    ],
)
def test_strange_descriptions_are_refused(tmp_path: Path, changed: dict[str, Any], complaint: str) -> None:
    root = make(tmp_path / "robot", "v2.1", **changed)
    with pytest.raises(ValueError, match=complaint):
        video_source(root).describe()


def test_an_episode_that_says_too_little_is_named(tmp_path: Path) -> None:
    root = make(tmp_path / "robot", "v3.0")
    table = root / "meta/episodes/chunk-000/file-000.parquet"
    rows = pytest.importorskip("pyarrow.parquet").read_table(table).to_pylist()
    for column in (f"videos/{TOP}/from_timestamp", f"videos/{TOP}/chunk_index", "data/chunk_index"):
        write_table(table, [{name: value for name, value in row.items() if name != column} for row in rows])
        with pytest.raises(ValueError, match=rf"lack '{column}' of episode 0; download"):
            video_source(root).describe()


def test_new_files_change_the_fingerprint_and_a_missing_package_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make(tmp_path / "robot", "v2.1", (TOP, WRIST))
    first = video_source(root).fingerprint()
    assert video_source(root).fingerprint() == first != video_source(root, "top").fingerprint()
    (root / "videos/new.mp4").touch()
    assert video_source(root).fingerprint() != first
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(ValueError, match=r"needs the package pyarrow; pip install 'tokenreel\[lerobot\]'"):
        LeRobotSource.open(root, "").describe()
