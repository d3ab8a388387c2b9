"""Videos in one file of arrays: found, labelled, brought to size and rate as videos in files are; damage told."""

import io
import json
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tokenreel.datasets.array_source import ArraySource
from tokenreel.datasets.array_stream import ArrayStream
from tokenreel.datasets.clip_cache import open_or_ingest
from tokenreel.datasets.clip_store import ClipStore
from tokenreel.datasets.curation import CurationRules
from tokenreel.datasets.found_video import VideoPlace
from tokenreel.datasets.ingest import IngestSettings
from tokenreel.datasets.video_source import video_source
from tokenreel.datasets.video_writer import write_video


def moving(count: int, frames: int, size: tuple[int, int] = (16, 24), seed: int = 0) -> np.ndarray:
    """Videos of noise, uint8 (N, T, H, W, 3)."""
    return np.random.default_rng(seed).integers(0, 256, (count, frames, *size, 3), np.uint8)


def stored(path: Path, cache: Path, **more: Any) -> ClipStore:
    settings = IngestSettings(**{"height": 16, "width": 24, "fps": None, "workers": 1, **more})
    return open_or_ingest(path, settings, cache, progress=False)


def rejections(store: ClipStore) -> dict[str, str]:
    lines = (store.path / "rejected.jsonl").read_text().splitlines()
    return {entry["file"]: entry["reason"] for entry in map(json.loads, lines)}


def test_npz_with_splits_labels_actions_and_rate(tmp_path: Path) -> None:
    train, val = moving(3, 70), moving(2, 12, seed=1)
    told = {
        "train_label": np.array([2, 0, 1]),
        "train_actions": np.arange(3 * 70 * 2).reshape(3, 70, 2) / 4,
        "val_caption": np.array(["one", "zwei ü"]),
        "fps": np.array(24.0),
        "games": np.array(["a", "b"]),
    }
    np.savez_compressed(tmp_path / "my set.npz", train=train, val=val, **told)
    store = stored(tmp_path / "my set.npz", tmp_path / "clips")
    assert [(r.key, r.split, r.frames, r.fps, r.label) for r in store.records] == [
        ("train__000000", "train", 70, 24.0, "2"),
        ("train__000001", "train", 70, 24.0, "0"),
        ("train__000002", "train", 70, 24.0, "1"),
        ("val__000000", "val", 12, 24.0, None),
        ("val__000001", "val", 12, 24.0, None),
    ]
    for record, frames in zip(store.records, [*train, *val], strict=True):
        assert np.array_equal(store.frames(record), frames)
    assert store.records[1].actions == told["train_actions"][1].tolist()
    assert store.records[4].caption == "zwei ü" and store.records[4].flags == {}
    assert store.info["kind"] == "npz file with frames in train, val" and rejections(store) == {}
    only = open_or_ingest(
        tmp_path / "my set.npz", IngestSettings(16, 24, fps=None, workers=1), tmp_path / "clips", False, part="val"
    )
    assert len({record.file for record in only.records}) == 2 and only.path != store.path
    with pytest.raises(ValueError, match=r"part 'val' of .*, which is a clip store; give the data"):
        open_or_ingest(only.path, IngestSettings(16, 24, fps=None), tmp_path / "clips", False, part="val")
    with pytest.raises(ValueError, match=r"no frames named 'test' in .*; expected train, val"):
        video_source(tmp_path / "my set.npz", "test")


def test_npy_of_grey_videos_of_one_video_and_of_transparent_ones(tmp_path: Path) -> None:
    grey = moving(2, 5)[..., 0]
    np.save(tmp_path / "grey.npy", grey)
    store = stored(tmp_path / "grey.npy", tmp_path / "clips")
    assert [record.key for record in store.records] == ["frames__000000", "frames__000001"]
    assert np.array_equal(store.frames(store.records[1]), np.repeat(grey[1][..., None], 3, axis=3))
    np.save(tmp_path / "one.npy", moving(1, 7)[0])
    one = stored(tmp_path / "one.npy", tmp_path / "clips")
    assert {record.file for record in one.records} == {"frames/000000"} and sum(r.frames for r in one.records) == 7
    clear = np.zeros((1, 2, 16, 24, 4), np.uint8)
    np.save(tmp_path / "clear.npy", clear)
    white = stored(tmp_path / "clear.npy", tmp_path / "clips")
    assert white.frames(white.records[0]).min() == 255 and white.records[0].flags["alpha"]


def test_size_and_rate_are_those_of_a_video_file(tmp_path: Path) -> None:
    frames = np.kron(moving(1, 30, (6, 8))[0], np.ones((1, 8, 8, 1), np.uint8))
    np.savez(tmp_path / "set.npz", frames=frames[None], fps=np.array(30.0), frames_actions=np.arange(30)[None])
    write_video(tmp_path / "videos/a.mkv", frames, 30)
    (tmp_path / "videos/a.json").write_text(json.dumps({"actions": list(range(30))}))
    stores = [
        stored(path, tmp_path / "clips", height=12, width=12, fps=10.0)
        for path in (tmp_path / "set.npz", tmp_path / "videos")
    ]
    arrays, files = ([s.frames(r) for r in s.records] for s in stores)
    assert [len(part) for part in arrays] == [len(part) for part in files] == [9, 1]
    for ours, theirs in zip(arrays, files, strict=True):
        assert np.array_equal(ours, theirs)
    assert (
        [r.actions for r in stores[0].records] == [r.actions for r in stores[1].records] == [[*range(0, 27, 3)], [27]]
    )
    assert stores[0].records[0].flags == stores[1].records[0].flags


def test_without_a_rate_they_have_the_wanted_one(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", moving(2, 6))
    for fps, rate in ((7.0, 7.0), (None, 10.0)):
        store = stored(tmp_path / "a.npy", tmp_path / "clips", fps=fps)
        assert [(r.frames, r.fps, r.source_fps) for r in store.records] == [(6, rate, rate)] * 2


def test_same_frames_are_copies_and_others_are_not(tmp_path: Path) -> None:
    """The checksum of the file would call all of its videos copies."""
    videos = moving(4, 6)
    videos[2] = videos[0]
    np.save(tmp_path / "a.npy", videos)
    store = stored(tmp_path / "a.npy", tmp_path / "clips")
    flags = [record.flags.get("duplicate_of") for record in store.records]
    assert flags == [None, None, "frames__000000", None]


@pytest.mark.parametrize(
    ("arrays", "complaint"),
    [
        (
            {"x": np.zeros((2, 4, 8, 8, 3), np.float32)},
            r"no frames in .*: found x float32 \(2, 4, 8, 8, 3\); exp.*; store colours as whole numbers",
        ),
        ({"x": np.zeros((2, 4, 8, 8, 2), np.uint8)}, r"no frames in"),
        ({"x": np.zeros((0, 4, 8, 8, 3), np.uint8)}, r"no frames in"),
        ({"a_x": moving(2, 4), "a_label": np.arange(3)}, r"3 entries of label for a_x, expected 2; .* each video"),
        (
            {"a_x": moving(1, 4)[0], "a_actions": np.arange(3)},
            r"3 entries of actions for a_x, expected 4; .* frame",
        ),
        ({"a_x": moving(1, 4)[0], "a_idx": np.array([0, 9])}, r"idx of a_x must be increasing .* 0 to 3"),
        ({"a_x": moving(1, 4)[0], "a_idx": np.array([2, 1])}, r"idx of a_x must be increasing"),
        ({"a_x": moving(1, 4)[0], "a_idx": np.array([0.0])}, r"idx of a_x must be"),
        ({"a_x": moving(2, 4), "a_label": np.array([0.5, 1])}, r"a_x 0: label is 0.5, expected text"),
        ({"x": moving(2, 4), "fps": np.array(0)}, r"fps is 0.0, expected more than 0"),
    ],
)
def test_what_does_not_fit_is_told(tmp_path: Path, arrays: dict[str, np.ndarray], complaint: str) -> None:
    np.savez(tmp_path / "a.npz", **arrays)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=complaint):
        video_source(tmp_path / "a.npz").describe()


class Bomb:
    def __reduce__(self) -> Any:
        return sys.exit, ("executed",)


def test_pickles_are_never_loaded(tmp_path: Path) -> None:
    bombs = np.array([[[[Bomb()]]]], dtype=object)
    np.save(tmp_path / "a.npy", bombs, allow_pickle=True)
    np.savez(tmp_path / "b.npz", train=moving(1, 4), train_label=np.array([Bomb()], dtype=object))
    (tmp_path / "c.pkl").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(ValueError, match=r"no frames in .*object"):
        video_source(tmp_path / "a.npy")
    with pytest.raises(ValueError, match="allow_pickle=False"):
        video_source(tmp_path / "b.npz").describe()
    with pytest.raises(ValueError, match=r"c\.pkl is a pickle, which executes what is in it; store"):
        video_source(tmp_path / "c.pkl")


def test_damaged_files_are_told(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", moving(2, 40))
    whole = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "a.npy").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"not one of the 2 videos .* can be used \(frames/000000: .*"):
        stored(tmp_path / "a.npy", tmp_path / "clips")
    for name, content in (("b.npy", b""), ("c.npz", b"PK no zip"), ("d.npy", b"\x93NUMPY\x01\x00\xff\xff{")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=rf"cannot read .*{name} \(.*\); download or convert it again"):
            video_source(tmp_path / name)
    # One bit in the middle of a compressed array: the checksum of the zip finds it.
    np.savez_compressed(tmp_path / "e.npz", train=moving(2, 40))
    content = bytearray((tmp_path / "e.npz").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "e.npz").write_bytes(content)
    with pytest.raises(ValueError, match=r"Bad CRC|Error -3"):
        stored(tmp_path / "e.npz", tmp_path / "clips")


def test_an_array_larger_than_the_file_is_no_bomb(tmp_path: Path) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|u1", "fortran_order": False, "shape": (1, 10**9, 64, 64, 3)}
    )
    (tmp_path / "a.npy").write_bytes(header.getvalue() + bytes(100))
    with zipfile.ZipFile(tmp_path / "b.npz", "w") as archive:
        archive.writestr("x.npy", header.getvalue() + bytes(100))
    for name in ("a.npy", "b.npz"):
        with pytest.raises(ValueError, match="not one of the 1 videos"):
            stored(tmp_path / name, tmp_path / "clips")


def test_bars_are_not_looked_for_in_arrays(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", moving(2, 4))
    with pytest.raises(ValueError, match=r"curation\.letterbox looks for bars in video files, .*a\.npy has arrays"):
        stored(tmp_path / "a.npy", tmp_path / "clips", curation=CurationRules(letterbox=True))
    assert list((tmp_path / "clips").iterdir()) == []


def test_moving_mnist_is_known(tmp_path: Path) -> None:
    np.lib.format.open_memmap(tmp_path / "mnist_test_seq.npy", "w+", np.uint8, (20, 10_000, 64, 64)).flush()
    with pytest.raises(ValueError, match=r"first axis is time; run make_dataset\.py moving-mnist"):
        ArraySource.open(tmp_path / "mnist_test_seq.npy", "")


def test_stream_stops_at_the_end_and_counts(tmp_path: Path) -> None:
    frames = moving(1, 10)[0]
    np.save(tmp_path / "a.npy", frames)
    place = VideoPlace(str(tmp_path / "a.npy"), "array", "frames", start=2, stop=6, rate=5.0)
    stream = ArrayStream(place, 16, 24, None)
    got = list(stream)
    assert [frame.source_index for frame in got] == [0, 1, 2, 3]
    assert [frame.time for frame in got] == pytest.approx([0, 0.2, 0.4, 0.6])
    assert np.array_equal(np.stack([frame.image for frame in got]), frames[2:6])
    facts = stream.facts
    assert (facts.source_frames, facts.source_fps, facts.source_height, facts.source_width) == (4, 5.0, 16, 24)


def test_shared_arrays(shared_data: Path, tmp_path: Path) -> None:
    source = video_source(shared_data / "bench/atari_64x64x16.npz")
    videos, rejected = source.describe()
    splits = [video.split for video in videos]
    assert (splits.count("train"), splits.count("val"), rejected) == (512, 64, [])
    assert {video.metadata.label for video in videos} == {str(number) for number in range(8)}


class TestHDF5:
    """The layout of VideoGPT; h5py is an extra."""

    def file(self, path: Path, **arrays: Any) -> Path:
        h5py = pytest.importorskip("h5py", reason="needs h5py (tokenreel[hdf5])")
        with h5py.File(path, "w") as file:
            for name, value in arrays.items():
                file[name] = value
        return path

    def test_layout_of_videogpt(self, tmp_path: Path) -> None:
        train, test = moving(1, 100)[0], moving(1, 30, seed=1)[0]
        starts = np.array([0, 30, 70])
        path = self.file(
            tmp_path / "bair.h5",
            train_data=train,
            train_idx=starts,
            train_actions=np.arange(100.0)[:, None],
            train_label=["a", "b", "c"],
            test_data=test,
            test_idx=np.array([0, 16]),
        )
        store = stored(path, tmp_path / "clips")
        found = {record.file: record for record in store.records}
        assert [(r.file, r.frames) for r in store.records] == [
            ("test_data/000000", 16),
            ("test_data/000001", 14),
            ("train_data/000000", 30),
            ("train_data/000001", 40),
            ("train_data/000002", 30),
        ]
        assert {r.split for r in store.records if r.file.startswith("test")} == {"test"}
        assert sorted(r.split for r in store.records if r.file.startswith("train")) == ["train", "train", "val"]
        assert np.array_equal(store.frames(found["train_data/000001"]), train[30:70])
        assert found["train_data/000001"].actions == [[float(n)] for n in range(30, 70)]
        assert found["train_data/000002"].label == "c"
        assert np.array_equal(store.frames(found["test_data/000001"]), test[16:])
        assert store.info["kind"] == "HDF5 file with frames in test_data, train_data"

    def test_other_files_are_not_reached(self, tmp_path: Path) -> None:
        h5py = pytest.importorskip("h5py", reason="needs h5py (tokenreel[hdf5])")
        secret = tmp_path / "secret"
        secret.write_bytes(bytes(range(192)) * 4)
        with h5py.File(tmp_path / "raw.h5", "w") as file:
            file.create_dataset("x", (4, 8, 8, 3), "u1", external=[(str(secret), 0, 768)])
        self.file(tmp_path / "other.h5", x=moving(2, 4))
        with h5py.File(tmp_path / "link.h5", "w") as file:
            file["y"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "x")
        layout = h5py.VirtualLayout((2, 4, 16, 24, 3), "u1")
        layout[:] = h5py.VirtualSource(tmp_path / "other.h5", "x", (2, 4, 16, 24, 3))
        with h5py.File(tmp_path / "virtual.h5", "w") as file:
            file.create_virtual_dataset("x", layout)
        with h5py.File(tmp_path / "circle.h5", "w") as file:
            file["a/b"] = file["/"]
        for name, complaint in (
            ("raw.h5", "keeps its numbers in other files"),
            ("link.h5", "y is a link, which is not followed"),
            ("virtual.h5", "keeps its numbers in other files"),
            ("circle.h5", "more than 16 deep"),
        ):
            with pytest.raises(ValueError, match=complaint):
                video_source(tmp_path / name)

    def test_damage_costs_what_is_damaged(self, tmp_path: Path) -> None:
        h5py = pytest.importorskip("h5py", reason="needs h5py (tokenreel[hdf5])")
        frames = moving(4, 10)
        with h5py.File(tmp_path / "a.h5", "w") as file:
            kept = file.create_dataset("x", data=frames, chunks=(1, *frames.shape[1:]), fletcher32=True)
            offset = kept.id.get_chunk_info(2).byte_offset
        content = bytearray((tmp_path / "a.h5").read_bytes())
        content[offset + 1000] ^= 1
        (tmp_path / "a.h5").write_bytes(content)
        store = stored(tmp_path / "a.h5", tmp_path / "clips")
        assert [record.file for record in store.records] == ["x/000000", "x/000001", "x/000003"]
        assert list(rejections(store)) == ["x/000002"]
        (tmp_path / "b.h5").write_bytes(content[:500])
        with pytest.raises(ValueError, match=r"cannot read .*b\.h5 \(.*\); download or convert"):
            video_source(tmp_path / "b.h5")


def test_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.h5").touch()
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ValueError, match=r"needs the package h5py; pip install 'tokenreel\[hdf5\]'"):
        video_source(tmp_path / "a.h5")
