"""Recipes for known data sets: what is missing is said, official splits are kept, games are recorded with actions."""

import gzip
import json
import os
import re
import struct
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tokenreel.datasets.clip_cache import open_or_ingest
from tokenreel.datasets.decoding import load_video
from tokenreel.datasets.gameplay import GameplaySettings, play
from tokenreel.datasets.ingest import IngestSettings
from tokenreel.datasets.recipe_bair import BairSettings, make_bair
from tokenreel.datasets.recipe_moving_mnist import MovingMnistSettings, bouncing, make_moving_mnist
from tokenreel.datasets.recipe_ucf101 import Ucf101Settings, make_ucf101
from tokenreel.datasets.tfrecord import _masked_crc, read_examples
from tokenreel.datasets.video_folder import VideoFolder
from tokenreel.datasets.video_writer import write_video
from tokenreel.tools import make_dataset


def silent(done: int, total: int) -> None:
    assert 0 < done <= total


def found(out: Path) -> dict[str, Any]:
    videos, rejected = VideoFolder.scan(out).describe()
    assert rejected == []
    return {video.name: video for video in videos}


class TestUcf101:
    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        """Two classes, three groups of two clips each; the third group is for testing."""
        root = tmp_path / "UCF101"
        lists: dict[str, list[str]] = {"train": [], "test": []}
        for number, (folder, name) in enumerate((("Archery", "Archery"), ("HandstandPushups", "HandStandPushups"))):
            for group in (1, 2, 3):
                for clip in (1, 2):
                    video = f"{folder}/v_{name}_g{group:02d}_c{clip:02d}.avi"
                    write_video(root / "UCF-101" / video, np.full((4, 24, 32, 3), 40 * group + clip, np.uint8), 25)
                    lists["test" if group == 3 else "train"].append(video)
            assert number < 2
        (root / "ucfTrainTestlist").mkdir()
        (root / "ucfTrainTestlist/trainlist01.txt").write_text("".join(f"{name} 1\r\n" for name in lists["train"]))
        (root / "ucfTrainTestlist/testlist01.txt").write_text("".join(f"{name}\n" for name in lists["test"]))
        return root

    def test_official_splits_and_groups(self, root: Path, tmp_path: Path) -> None:
        out = tmp_path / "out"
        assert make_ucf101(Ucf101Settings(root), out, silent)
        videos = found(out)
        assert len(videos) == 12
        one = videos["train/HandstandPushups/v_HandStandPushups_g02_c01.avi"]
        assert (one.split, one.metadata.label, one.metadata.group) == (
            "train",
            "HandstandPushups",
            "HandStandPushups 02",
        )
        assert "UCF-101" in one.metadata.source and one.metadata.licence
        assert {name for name, video in videos.items() if video.split == "test"} == {
            name for name in videos if "_g03_" in name
        }
        original = root / "UCF-101/Archery/v_Archery_g01_c01.avi"
        assert os.path.samefile(out / "train/Archery/v_Archery_g01_c01.avi", original), "a link, and no copy"
        assert not make_ucf101(Ucf101Settings(root), out, silent), "all is there"
        (root / "ucfTrainTestlist/trainlist02.txt").write_text("Archery/v_Archery_g01_c01.avi 1\n")
        (root / "ucfTrainTestlist/testlist02.txt").write_text("Archery/v_Archery_g01_c02.avi\n")
        with pytest.raises(ValueError, match="holds another dataset: fold is 1 there, expected 2"):
            make_ucf101(Ucf101Settings(root, fold=2), out, silent)

    def test_validation_takes_whole_groups(self, root: Path, tmp_path: Path) -> None:
        make_ucf101(Ucf101Settings(root), tmp_path / "out", silent)
        store = open_or_ingest(tmp_path / "out", IngestSettings(8, 8, workers=1), tmp_path / "clips", False)
        sides: dict[str | None, set[str]] = {}
        for record in store.records:
            sides.setdefault(record.group, set()).add(record.split)
        assert len(sides) == 6 and all(len(side) == 1 for side in sides.values())
        assert {split for side in sides.values() for split in side} == {"train", "val", "test"}

    def test_symbolic_links_where_hard_ones_do_not_work(
        self, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*_: object) -> None:
            raise OSError(18, "Invalid cross-device link")

        monkeypatch.setattr(os, "link", refuse)
        make_ucf101(Ucf101Settings(root), tmp_path / "out", silent)
        link = tmp_path / "out/train/Archery/v_Archery_g01_c01.avi"
        assert link.is_symlink() and link.is_file() and len(found(tmp_path / "out")) == 12
        monkeypatch.setattr(os, "symlink", refuse)
        make_ucf101(Ucf101Settings(root), tmp_path / "copies", silent)
        assert not (tmp_path / "copies/train/Archery/v_Archery_g01_c01.avi").is_symlink()
        assert len(found(tmp_path / "copies")) == 12

    def test_what_is_missing_is_said(self, root: Path, tmp_path: Path) -> None:
        new = tmp_path / "new"
        with pytest.raises(FileNotFoundError) as caught:
            make_ucf101(Ucf101Settings(new), tmp_path / "out", silent)
        said = str(caught.value)
        assert "the videos and the lists of split 1 are missing" in said
        assert f"UCF101.rar (6.5 GB) into {new}, then run: unrar x {new / 'UCF101.rar'}" in said
        assert f"unzip {new / 'UCF101TrainTestSplits-RecognitionTask.zip'} -d {new}" in said
        new.mkdir()
        (new / "UCF101.rar").touch()
        (root / "ucfTrainTestlist").rename(new / "ucfTrainTestlist")
        with pytest.raises(FileNotFoundError, match=r"the videos are missing; run: unrar x [^;]*$"):
            make_ucf101(Ucf101Settings(new), tmp_path / "out", silent)
        with pytest.raises(FileNotFoundError, match=r"the lists of split 3 are missing; download .*Task\.zip"):
            make_ucf101(Ucf101Settings(root, fold=3), tmp_path / "out", silent)
        assert not (tmp_path / "out").exists()

    def test_missing_videos_and_broken_lists(self, root: Path, tmp_path: Path) -> None:
        (root / "UCF-101/Archery/v_Archery_g01_c02.avi").unlink()
        with pytest.raises(FileNotFoundError, match=r"1 of the 12 videos .* such as Archery/v_Archery_g01_c02\.avi"):
            make_ucf101(Ucf101Settings(root), tmp_path / "out", silent)
        assert make_ucf101(Ucf101Settings(root, allow_missing=True), tmp_path / "out", silent)
        assert len(found(tmp_path / "out")) == 11
        lists = root / "ucfTrainTestlist"
        for text, complaint in (
            ("../../etc/v_etc_g01_c01.avi 1\n", r"trainlist01\.txt, line 1: .*expected CLASS/v_CLASS"),
            ("<html>not found</html>\n", "line 1: .*download it again"),
            ("\n", "names no video"),
            ("Archery/v_Archery_g03_c01.avi 1\n", r"Archery/v_Archery_g03_c01\.avi is in both lists"),
        ):
            (lists / "trainlist01.txt").write_text(text)
            with pytest.raises(ValueError, match=complaint):
                make_ucf101(Ucf101Settings(root), tmp_path / "other", silent)


class TestMovingMnist:
    def published(self, root: Path, count: int = 12) -> np.ndarray:
        sequences = np.random.default_rng(0).integers(0, 256, (20, count, 64, 64), np.uint8)
        root.mkdir(exist_ok=True)
        np.save(root / "mnist_test_seq.npy", sequences)
        return sequences

    def digits(self, root: Path, count: int = 60) -> np.ndarray:
        """Images that differ in every place, so that it can be told which one is shown; packed as MNIST's are."""
        root.mkdir(exist_ok=True)
        images = np.zeros((count, 28, 28), np.uint8)
        images[:] = np.arange(count)[:, None, None] + 100
        labels = (np.arange(count) % 10).astype(np.uint8)
        for name, array, kind in (("images", images, 3), ("labels", labels, 1)):
            head = struct.pack(f">{kind + 1}I", 0x800 + kind, *array.shape)
            (root / f"train-{name}-idx{kind}-ubyte.gz").write_bytes(gzip.compress(head + array.tobytes()))
        return images

    def test_published_sequences_alone(self, tmp_path: Path) -> None:
        sequences = self.published(tmp_path / "root")
        settings = MovingMnistSettings(tmp_path / "root", val_count=3)
        assert make_moving_mnist(settings, tmp_path / "out", silent)
        videos = found(tmp_path / "out")
        assert [video.split for video in videos.values()] == ["train"] * 9 + ["val"] * 3
        for name, number in (("train/00008.mkv", 8), ("val/00000.mkv", 9), ("val/00002.mkv", 11)):
            frames = load_video(tmp_path / "out" / name, 64, 64).frames
            assert np.array_equal(frames, np.repeat(sequences[:, number, ..., None], 3, axis=3))
        with pytest.raises(ValueError, match="val_count 12 leaves nothing of 12 sequences"):
            make_moving_mnist(replace(settings, val_count=12), tmp_path / "no", silent)

    def test_sequences_of_digits(self, tmp_path: Path) -> None:
        self.digits(tmp_path / "root")
        self.published(tmp_path / "root")
        settings = MovingMnistSettings(tmp_path / "root", count=5, val_count=2)
        assert make_moving_mnist(settings, tmp_path / "out", silent)
        videos = found(tmp_path / "out")
        assert [video.split for video in videos.values()].count("test") == 12
        shown: dict[str, set[int]] = {"train": set(), "val": set()}
        for name, video in videos.items():
            if video.split == "test":
                continue
            frames = load_video(tmp_path / "out" / name, 64, 64).frames
            assert frames.shape == (20, 64, 64, 3)
            levels = set(np.unique(frames[..., 0]).tolist()) - {0}
            shown[str(video.split)] |= {level - 100 for level in levels}
            named = [int(word) for word in video.metadata.caption.split(" and ")]
            assert {level % 10 for level in levels} <= set(named), "the caption names other digits"
        assert shown["train"] and max(shown["train"]) < 50 <= min(shown["val"]), "validation shows digits of training"
        first = (tmp_path / "out/train/00003.mkv").read_bytes()
        (tmp_path / "out/train/00003.json").unlink()
        (tmp_path / "out/dataset.json").rename(tmp_path / "out/dataset.json.partial")
        assert make_moving_mnist(settings, tmp_path / "out", silent), "goes on where it was stopped"
        assert (tmp_path / "out/train/00003.mkv").read_bytes() == first

    def test_digits_move_straight_and_bounce(self) -> None:
        square = np.full((1, 28, 28), 255, np.uint8)
        for seed in range(20):
            frames = bouncing(square, np.random.default_rng(seed))
            lit = frames > 0
            assert (lit.sum((1, 2)) == 28 * 28).all(), "it left the picture"
            tops, lefts = lit.any(2).argmax(1), lit.any(1).argmax(1)
            steps = np.hypot(np.diff(tops), np.diff(lefts))
            assert np.median(steps) == pytest.approx(3.6, abs=0.7)
        turns = [np.sign(np.diff(bouncing(square, np.random.default_rng(s)).any(2).argmax(1))) for s in range(20)]
        assert any(1 in turn and -1 in turn for turn in turns), "none bounced"

    def test_what_is_missing_or_wrong_is_said(self, tmp_path: Path) -> None:
        root = tmp_path / "root"
        settings = MovingMnistSettings(root)
        with pytest.raises(FileNotFoundError, match=r"nothing is there; download .*mnist_test_seq\.npy .* into .*root"):
            make_moving_mnist(settings, tmp_path / "out", silent)
        root.mkdir()
        np.save(root / "mnist_test_seq.npy", np.zeros((10, 20, 64, 64), np.uint8))
        with pytest.raises(ValueError, match=r"is uint8 \(10, 20, 64, 64\), expected uint8 \(20, N, 64, 64\)"):
            make_moving_mnist(settings, tmp_path / "out", silent)
        (root / "mnist_test_seq.npy").unlink()
        for content in (b"", b"\0\0\x08\x03\0\0\0\x05", b"<html>"):
            (root / "train-images-idx3-ubyte").write_bytes(content)
            with pytest.raises(ValueError, match=r"train-images-idx3-ubyte is no file of MNIST \(.*download it again"):
                make_moving_mnist(settings, tmp_path / "out", silent)
        assert not (tmp_path / "out").exists()


def field(number: int, content: bytes) -> bytes:
    """A field of a protocol buffer."""
    size, head = len(content), b""
    while size > 127:
        head, size = head + bytes([size & 127 | 128]), size >> 7
    return bytes([number << 3 | 2]) + head + bytes([size]) + content


def example(**features: bytes | list[float]) -> bytes:
    """A tf.train.Example, written by hand."""
    entries = b""
    for name, value in features.items():
        if isinstance(value, bytes):
            feature = field(1, field(1, value))
        else:
            feature = field(2, field(1, struct.pack(f"<{len(value)}f", *value)))
        entries += field(1, field(1, name.replace("__", "/").lstrip("f").encode()) + field(2, feature))
    return field(1, entries)


def records(*messages: bytes) -> bytes:
    written = b""
    for message in messages:
        length = len(message).to_bytes(8, "little")
        written += length + _masked_crc(length).to_bytes(4, "little") + message + bytes(4)
    return written


class TestBair:
    def trajectory(self, seed: int, frames: int = 5) -> tuple[np.ndarray, np.ndarray, bytes]:
        rng = np.random.default_rng(seed)
        seen = rng.integers(0, 256, (frames, 64, 64, 3), np.uint8)
        actions = rng.normal(size=(frames, 4)).astype(np.float32)
        features: dict[str, Any] = {}
        for t in range(frames):
            features |= {f"f{t}__image_aux1__encoded": seen[t].tobytes(), f"f{t}__action": actions[t].tolist()}
            features |= {f"f{t}__image_main__encoded": (255 - seen[t]).tobytes()}
        return seen, actions, example(**features)

    def make(self, root: Path) -> dict[str, tuple[np.ndarray, np.ndarray, bytes]]:
        made = {"train": [self.trajectory(seed) for seed in (1, 2)], "test": [self.trajectory(3)]}
        for split, trajectories in made.items():
            path = root / f"softmotion30_44k/{split}/traj_0_to_255.tfrecords"
            path.parent.mkdir(parents=True)
            path.write_bytes(records(*[message for *_, message in trajectories]))
        return {f"{split}/traj_0_to_255_{n:03d}.mkv": t for split in made for n, t in enumerate(made[split])}

    def test_trajectories(self, tmp_path: Path) -> None:
        made = self.make(tmp_path / "root")
        assert make_bair(BairSettings(tmp_path / "root"), tmp_path / "out", silent)
        videos = found(tmp_path / "out")
        assert videos.keys() == made.keys()
        for name, (seen, actions, _) in made.items():
            assert np.array_equal(load_video(tmp_path / "out" / name, 64, 64).frames, seen)
            assert np.array_equal(np.float32(videos[name].metadata.actions), actions)
            assert videos[name].split == name.split("/")[0] and "BAIR" in videos[name].metadata.source
        assert not make_bair(BairSettings(tmp_path / "root"), tmp_path / "out", silent)
        make_bair(BairSettings(tmp_path / "root/softmotion30_44k", "main"), tmp_path / "main", silent)
        name = "test/traj_0_to_255_000.mkv"
        assert np.array_equal(load_video(tmp_path / "main" / name, 64, 64).frames, 255 - made[name][0])

    def test_what_is_missing_is_said(self, tmp_path: Path) -> None:
        root, archive = tmp_path / "root", "bair_robot_pushing_dataset_v0.tar"
        with pytest.raises(FileNotFoundError, match=rf"missing; download .*{archive} \(30 GB\) into .*run: tar -xf"):
            make_bair(BairSettings(root), tmp_path / "out", silent)
        root.mkdir()
        (root / archive).touch()
        with pytest.raises(FileNotFoundError, match=r"are missing; run: tar -xf .*root/bair.* -C .*root"):
            make_bair(BairSettings(root), tmp_path / "out", silent)
        (root / "softmotion30_44k/train").mkdir(parents=True)
        (root / "softmotion30_44k/train/traj_0.tfrecords").touch()
        with pytest.raises(FileNotFoundError, match=r"no test/\*\.tfrecords; unpack"):
            make_bair(BairSettings(root), tmp_path / "out", silent)

    def test_damage_is_named(self, tmp_path: Path) -> None:
        path = tmp_path / "a.tfrecords"
        whole = records(example(fa=b"x", fb=[1.5, -2.0]), example(fa=b"y"))
        path.write_bytes(whole)
        first, second = read_examples(path)
        assert first["a"] == [b"x"] and list(first["b"]) == [1.5, -2.0] and second == {"a": [b"y"]}
        for content, complaint in (
            (whole[:-3], "ends in the middle of record 1"),
            (whole[:5], "record 0 is damaged"),
            (b"\x01" + whole[1:], "record 0 is damaged"),
            (records(b"\x0a\xff"), "record 0 is no example"),
            (records(b"\x0a\x7f"), "record 0 is no example"),
            (records(b"\x0b\x01"), "record 0 is no example"),
            (records(field(1, field(1, field(1, b"\xff")))), "record 0 is no example"),
        ):
            path.write_bytes(content)
            with pytest.raises(ValueError, match=rf"a\.tfrecords.*{complaint}.*download it again"):
                list(read_examples(path))
        # As published for the CRC-32C of nothing and of these nine digits.
        crcs = [(_masked_crc(data) - 0xA282EAD8) & 0xFFFFFFFF for data in (b"", b"123456789")]
        assert [(crc << 15 | crc >> 17) & 0xFFFFFFFF for crc in crcs] == [0, 0xE3069283]

    def test_hdf5_of_videogpt_needs_no_conversion(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        h5py = pytest.importorskip("h5py", reason="needs h5py (tokenreel[hdf5])")
        with h5py.File(tmp_path / "bair.hdf5", "w") as file:
            for split in ("train", "test"):
                file[f"{split}_data"] = np.zeros((20, 64, 64, 3), np.uint8)
                file[f"{split}_idx"] = np.array([0, 10])
        make_dataset.main(["bair", "--root", str(tmp_path / "bair.hdf5"), "--out", str(tmp_path / "out")])
        printed = capsys.readouterr().out
        assert "HDF5 file with frames in test_data, train_data; it needs no conversion" in printed
        assert f"--data {tmp_path / 'bair.hdf5'}" in printed and not (tmp_path / "out").exists()


class Counting:  # a gameplay.Game
    """A game that shows how often each action was done; over after ten."""

    action_names = ("a", "b", "c")
    fps = 5.0

    def start(self, seed: int) -> np.ndarray:
        self.seed, self.done = seed, [0, 0, 0]
        return self.picture()

    def picture(self) -> np.ndarray:
        return np.broadcast_to(np.uint8([10 * n for n in self.done]), (16, 20, 3))

    def act(self, action: int) -> tuple[np.ndarray | None, float]:
        self.done[action] += 1
        return (self.picture() if sum(self.done) < 10 else None), 1.0

    def wish(self, aside: float) -> int | None:
        return None


def test_actions_lead_to_the_next_frame() -> None:
    game: Any = Counting()
    for policy in ("held", "random"):
        episode = play(game, policy, 3, GameplaySettings(frames=8, warm_up=0))
        assert len(episode.frames) == len(episode.actions) == len(episode.rewards) == 8
        steps = np.diff(episode.frames[:, 0, 0].astype(int), axis=0)
        assert steps.argmax(1).tolist() == episode.actions[:-1] and (steps.sum(1) == 10).all()
    ended = play(game, "random", 3, GameplaySettings(frames=100, warm_up=0))
    assert len(ended.frames) == 10 and len(ended.actions) == 10, "the last action ends the game"
    late = [play(game, "random", seed, GameplaySettings(frames=3, warm_up=30)) for seed in range(100)]
    begun = {int(episode.frames[0, 0, 0].sum()) // 10 for episode in late}
    assert len(begun) > 4 and max(begun) < 10 and 0 in begun, "a game that ended in the warm-up begins anew"
    small = play(game, "random", 3, GameplaySettings(frames=2, size=8, warm_up=0))
    assert small.frames.shape == (2, 8, 8, 3)
    with pytest.raises(ValueError, match="nobody knows how to follow in this game"):
        play(game, "follow", 3, GameplaySettings())


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["atari", "--games", "nonesuch"], "ale-py has no game 'nonesuch'; expected one of .*breakout"),
        (["atari", "--games"], "games names none|expected|argument"),
        (["atari", "--sticky", "1"], "sticky is 1.0, expected a probability"),
        (["atari", "--frames", "0"], "frames is 0, expected at least 1"),
        (["vizdoom", "--scenarios", "nonesuch"], "ViZDoom has no scenario 'nonesuch'; expected one of .*take_cover"),
        (["vizdoom", "--policy", "follow"], "invalid choice|follow"),
        (["nonesuch"], "recipe 'nonesuch' is unknown; expected one of ucf101, bair"),
        (["ucf101", "--size", "3"], "--size"),
    ],
)
def test_mistakes_are_one_line(
    options: list[str], complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if "nonesuch" in options and len(options) > 1:
        name = {"atari": "ale_py", "vizdoom": "vizdoom"}[options[0]]
        pytest.importorskip(name, reason=f"needs {name} (tokenreel[{options[0]}])")
    with pytest.raises(SystemExit) as ended:
        make_dataset.main([*options, *(["--out", str(tmp_path / "out")] if len(options) > 1 else [])])
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and re.search(complaint, error), error
    assert not (tmp_path / "out").exists()


def test_missing_packages_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, module in (("atari", "ale_py"), ("vizdoom", "vizdoom")):
        monkeypatch.setitem(sys.modules, module, None)
        monkeypatch.setitem(sys.modules, f"{module}.roms", None)
        with pytest.raises(SystemExit):
            make_dataset.main([name, "--out", str(tmp_path / "out")])
        assert f"pip install 'tokenreel[{name}]'" in capsys.readouterr().err


def test_recipes_are_listed_without_a_name(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        make_dataset.main([])
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    assert all(f"\n  {name} " in printed for name in make_dataset.RECIPES)


@pytest.mark.parametrize(
    ("name", "module", "options", "label"),
    [
        ("atari", "ale_py", ["--games", "pong", "breakout", "--policy", "follow", "--size", "32"], "breakout"),
        ("vizdoom", "vizdoom", ["--scenarios", "take_cover", "--size", "32"], "take_cover"),
    ],
)
def test_games_are_recorded(
    name: str,
    module: str,
    options: list[str],
    label: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip(module, reason=f"needs {module} (tokenreel[{name}])")
    monkeypatch.chdir(tmp_path)
    amount = ["--episodes", "2", "--val-episodes", "1", "--frames", "12", "--warm-up", "20"]
    for out in ("first", "second"):
        make_dataset.main([name, *options, *amount, "--out", str(tmp_path / out)])
    assert {path.name for path in tmp_path.iterdir()} == {"first", "second"}, "something else was left behind"
    games = 2 if name == "atari" else 1
    assert f"{2 * games} train, {games} val videos in {games} classes" in capsys.readouterr().out
    videos = found(tmp_path / "first")
    for file, video in videos.items():
        told = video.metadata
        again = (tmp_path / "second" / file).read_bytes()
        assert (tmp_path / "first" / file).read_bytes() == again, "not the same again"
        assert len(told.actions) == 12 and max(told.actions) < len(told.action_names)
        assert told.source.startswith(("ale-py", "vizdoom")) and told.licence
        assert load_video(tmp_path / "first" / file, 32, 32).frames.shape == (12, 32, 32, 3)
    assert len({(tmp_path / "first" / file).read_bytes() for file in videos}) == len(videos), "two are the same"
    assert {video.metadata.label for video in videos.values()} >= {label}
    sidecar = json.loads((tmp_path / "first" / next(iter(videos))).with_suffix(".json").read_text())
    assert len(sidecar["rewards"]) == 12 and sidecar["seed"] >= 0


def test_the_paddle_obeys(tmp_path: Path) -> None:
    """What an action does is to be seen in the next frame, not in this one and not in the one after."""
    ale = pytest.importorskip("ale_py", reason="needs ale-py (tokenreel[atari])")
    pytest.importorskip("ale_py.roms")
    from tokenreel.datasets.recipe_atari import AtariGame, AtariSettings

    game = AtariGame(ale, "breakout", AtariSettings())
    game.start(0)
    names = game.action_names

    def paddle(image: np.ndarray | None) -> float:
        assert image is not None
        return float(np.flatnonzero((image[191, 8:152] == (200, 72, 72)).all(1)).mean())

    places = [paddle(game.act(names.index(name))[0]) for name in ("NOOP", "LEFT", "LEFT", "LEFT", "RIGHT", "RIGHT")]
    moved = np.diff(places)
    assert (moved[1:3] < 0).all() and (moved[4:] > 0).all(), moved
