"""The report of an ingest: it says what happened to every frame, stands alone, and names what trains on it."""

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest

from tokenreel.datasets.clip_cache import open_or_ingest
from tokenreel.datasets.data_source import DataSettings, open_data
from tokenreel.datasets.ingest_page import ingest_page
from tokenreel.datasets.ingest_report import _histogram, ingest_report
from tokenreel.datasets.video_writer import write_video
from tokenreel.tools import prepare_dataset


def pan(frames: int, seed: int, size: tuple[int, int] = (48, 96)) -> np.ndarray:
    """A textured picture of (height, width), panned over one pixel a frame."""
    coarse = np.random.default_rng(seed).integers(0, 256, (size[0] // 8, (size[1] + frames) // 8 + 2, 3))
    wide = np.kron(coarse, np.ones((8, 8, 1))).astype(np.uint8)
    return np.stack([wide[:, t : t + size[1]] for t in range(frames)])


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with train/ and val/, one video in both, a cut, a still, black, a text; prepared."""
    home = tmp_path_factory.mktemp("home")
    root = home / "my <videos> & more"
    write_video(root / "train/run/cut.mkv", np.concatenate([pan(30, 1), pan(20, 2)]), 10)
    write_video(root / "train/run/still.mkv", np.repeat(pan(1, 3), 20, axis=0), 10)
    write_video(root / "train/jump/dark.mkv", np.concatenate([np.zeros((10, 48, 96, 3), np.uint8), pan(30, 4)]), 10)
    write_video(root / "val/run/again.mp4", pan(30, 1)[4:28], 10, crf=25)
    write_video(root / "val/jump/other.mkv", pan(30, 5), 10)
    (root / "train/broken <b>.mp4").write_text("no video")
    (root / "notes.txt").write_text("notes")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        prepare_dataset.main(["--data", str(root), "--size", "32", "--out", "out", "--cache", "clips"])
    return home


def test_json_says_what_happened_to_every_frame(home: Path) -> None:
    report = json.loads((home / "out/ingest.json").read_text())
    totals = report["totals"]
    assert (totals["videos"], totals["videos_kept"], totals["videos_rejected"], totals["shots"]) == (6, 4, 2, 5)
    assert report["left_out"] == {"static": {"stretches": 1, "frames": 20}, "black": {"stretches": 1, "frames": 10}}
    left_out = sum(counts["frames"] for counts in report["left_out"].values())
    assert totals["frames"] == totals["frames_kept"] + left_out == 50 + 20 + 40 + 24 + 30
    assert totals["seconds_kept"] == pytest.approx(totals["frames_kept"] / 10)
    assert report["splits"] == {
        "train": {"videos": 2, "shots": 3, "frames": 80},
        "val": {"videos": 2, "shots": 2, "frames": 54},
    }
    assert report["labels"] == {"run": 3, "jump": 2} and report["ignored"] == {".txt": 1}
    assert {entry["file"] for entry in report["rejected"]} == {"train/broken <b>.mp4", "train/run/still.mkv"}
    assert report["histograms"]["resolution"] == {"96x48": 5}
    assert report["histograms"]["seconds"] == {"2 to 4": 5}
    for source in report["videos"]:
        stretches = source["stretches"]
        assert [s["start"] for s in stretches] == [0, *[s["stop"] for s in stretches[:-1]]]
        assert stretches[-1]["stop"] == source["frames"] and "picture" not in stretches[0]


def test_leaks_and_lost_picture_are_told_in_words(home: Path) -> None:
    report = json.loads((home / "out/ingest.json").read_text())
    leak, cut_off = report["warnings"]
    assert "put 1 copies or videos of one group on both sides" in leak
    assert "val/run/again.mp4 (val) and train/run/cut.mkv (train)" in leak
    assert "loses 50% of the picture" in cut_off
    assert report["copies"] == [
        {"key": "val__run__again", "file": "val/run/again.mp4", "of": "train__run__cut-shot001", "same_bytes": False}
    ]


def test_page_stands_alone_and_escapes_names(home: Path) -> None:
    page = (home / "out/ingest.html").read_text(encoding="utf-8")
    assert not re.findall(r'(?:src|href)="(?!data:image/jpeg;base64,)', page) and "@import" not in page
    assert "my &lt;videos&gt; &amp; more" in page and "<b>.mp4" not in page and "<videos>" not in page
    # Three frames of five shots, one of each part left out, two of the copy.
    assert page.count("<img") == 3 * 5 + 2 + 2
    assert "Left out, static" in page and "Left out, black" in page and "train/run/still.mkv, 0.0 to 2.0 s" in page
    assert "broken &lt;b&gt;.mp4" in page and "Invalid data" in page


def test_training_finds_the_store(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(home)
    root = next(path for path in home.iterdir() if path.name.startswith("my"))
    prepare_dataset.main(["--data", str(root), "--size", "32", "--out", "again", "--cache", "clips"])
    printed = capsys.readouterr().out
    assert "4 of 6 videos kept, 5 shots, 134 of 164 frames" in printed and "left out, black: 10 frames" in printed
    assert "kept 4 videos" not in printed, "nothing was decoded a second time"
    (store,) = (home / "clips").iterdir()
    assert f"--data {store.relative_to(home)} --size 32" in printed
    same = open_data(DataSettings(root, size=32, cache=Path("clips")))
    assert same.path.resolve() == store.resolve()
    assert open_data(DataSettings(store, size=32)).fingerprint == same.fingerprint
    first = json.loads((home / "out/ingest.json").read_text())
    assert json.loads((home / "again/ingest.json").read_text()) == first


def lying(path: Path) -> None:
    """Writes into an mp4 file that it is to be shown turned by a quarter."""
    one = 1 << 16
    data = bytearray(path.read_bytes())
    start = data.index(b"tkhd") + 4 + 40
    data[start : start + 36] = np.array([0, one, 0, -one, 0, 0, 0, 0, 1 << 30], ">i4").tobytes()
    path.write_bytes(data)


def test_videos_are_told_upright_and_beside_the_size_that_each_was_brought_to(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, cache = tmp_path / "set", str(tmp_path / "clips")
    for split, seed in (("train", 1), ("val", 2)):
        write_video(root / split / "square.mkv", pan(20, seed, (48, 48)), 10)
        write_video(root / split / "lying.mp4", pan(20, seed + 2, (48, 96)), 10)
        lying(root / split / "lying.mp4")
    sizes = ["--size", "32", "--more-sizes", "32x16"]
    prepare_dataset.main(["--data", str(root), *sizes, "--out", str(tmp_path / "out"), "--cache", cache])
    report = json.loads((tmp_path / "out/ingest.json").read_text())
    assert report["histograms"]["resolution"] == {"48x96": 2, "48x48": 2}
    assert report["warnings"] == [], "nothing is enlarged, nothing cut off"
    (store,) = Path(cache).iterdir()
    assert f"--data {store} --size 32 --more-sizes 32x16\n" in capsys.readouterr().out
    same = open_data(DataSettings(store, size=32, more_sizes=("32x16",)))
    assert {record.size for record in same.records} == {(32, 32), (32, 16)}
    prepare_dataset.main(["--data", str(root), *sizes[:2], "--out", str(tmp_path / "one"), "--cache", cache])
    (cut_off,) = json.loads((tmp_path / "one/ingest.json").read_text())["warnings"]
    assert cut_off.startswith("the centre cut to 32x32 loses 25% of the picture on average")


def test_names_that_are_no_text_are_printed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "set"
    for split in ("train", "val"):
        write_video(root / split / "a.mkv", pan(20, 1), 10)
        try:
            os.rename(root / split / "a.mkv", os.fsencode(root / split) + b"/\xff.mkv")
        except OSError:
            pytest.skip("this file system takes only valid text as names")
    prepare_dataset.main(["--data", str(root), "--size", "32", "--out", str(tmp_path), "--cache", str(tmp_path / "c")])
    assert "such as val/\\udcff.mkv (val) and train/\\udcff.mkv (train)" in capfd.readouterr().out


def test_a_store_from_before_says_what_to_do(home: Path, tmp_path: Path) -> None:
    settings = DataSettings(size=32).ingest_settings()
    (path,) = (home / "clips").iterdir()
    store = open_or_ingest(path, settings)
    store.path = tmp_path
    for refused in (ingest_report, ingest_page):
        with pytest.raises(ValueError, match="does not say what it was made from; give the videos"):
            refused(store)  # type: ignore[operator]


def test_histogram() -> None:
    assert _histogram([0.5, 1.0, 1.5, 4.0, 99], (0, 1, 2, 3)) == {
        "0 to 1": 1,
        "1 to 2": 2,
        "2 to 3": 0,
        "3 and more": 2,
    }
    assert _histogram([], (0, 1)) == {}
