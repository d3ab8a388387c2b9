"""Videos of different shapes and lengths in one run, from the folder to samples."""

import json
import shutil
import uuid
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from accelerate.state import AcceleratorState

from tokenreel.datasets.clip_shapes import check_lengths, parse_size, windows_by_shape
from tokenreel.datasets.clip_store import ClipStore
from tokenreel.datasets.clip_windows import ClipWindows
from tokenreel.datasets.decoding import load_video
from tokenreel.datasets.frame_fit import Bars, FrameFit
from tokenreel.datasets.token_shards import TokenShards, splits
from tokenreel.datasets.video_writer import write_video
from tokenreel.evaluation.card import Card
from tokenreel.generation import VideoModel
from tokenreel.tools import evaluate, inspect_shards, sample, tokenize_dataset, train_gpt, train_tokenizer

TOOLS = {
    "evaluate": evaluate, "inspect_shards": inspect_shards, "sample": sample,
    "train_tokenizer": train_tokenizer, "tokenize_dataset": tokenize_dataset, "train_gpt": train_gpt,
}  # fmt: skip
SHAPES = [(40, 40, 16)] * 4 + [(30, 60, 16)] * 3 + [(60, 30, 8)] * 3 + [(32, 32, 8)] * 2 + [(32, 32, 3)]
"""Height, width and frames of the videos."""
SHORT = "--batch-size 2 --log-every 1 --evaluate-every 3 --wandb disabled --device cpu --precision fp32 --samples 1"
SIZES = "--size 32 --more-sizes 16x32 32x16 --fps 10 --curation.no-static"
TOKENIZER = f"train_tokenizer --data videos --cache clips {SIZES} --shorter-clips 8 {SHORT} --steps 6 --run tok"
GPT = f"train_gpt --shards tokens {SHORT} --model.dim 64 --model.depth 1"
MODEL = "--model.width 16 --model.encoder-depth 1 --model.decoder-depth 1 --model.levels 5 5"


def call(command: str) -> None:
    name, *arguments = command.split()
    AcceleratorState._reset_state(True)
    TOOLS[name].main(arguments)


def moving(height: int, width: int, frames: int, seed: int) -> np.ndarray:
    """A bright block that wanders over a ground of its own."""
    random = np.random.default_rng(seed)
    clip = np.full((frames, height, width, 3), random.integers(0, 90, 3), np.uint8)
    place, step = random.integers(0, 12, 2), random.integers(1, 3, 2)
    for t in range(frames):
        row, column = (place + t * step) % (np.array([height, width]) - 8)
        clip[t, row : row + 8, column : column + 8] = 230
    return clip


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with videos of all shapes, and a model trained on them."""
    folder = tmp_path_factory.mktemp("shapes")
    for number, (height, width, frames) in enumerate(SHAPES):
        split = "val" if number in (0, 4) else "train"
        (folder / "videos" / split).mkdir(parents=True, exist_ok=True)
        write_video(folder / "videos" / split / f"{number:02}.mp4", moving(height, width, frames, number), 10.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        call(f"{TOKENIZER} {MODEL}")
        said = StringIO()
        with redirect_stdout(said):
            call("tokenize_dataset --tokenizer tok --cache clips --out tokens --hop 8 --device cpu")
        assert "\ntrain-8x32x16: 3 clips, 48 tokens" in said.getvalue(), "each shape by its name"
        call(f"{GPT} --run gpt --steps 6")
    return folder


@pytest.fixture(autouse=True)
def there(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "home" in request.fixturenames:
        monkeypatch.chdir(request.getfixturevalue("home"))


def test_every_video_is_brought_to_the_size_nearest_its_shape(home: Path) -> None:
    store = ClipStore.open(next((home / "clips").glob("*/store.json")).parent)
    found = {int(record.file[-6:-4]): (record.height, record.width, record.frames) for record in store.records}
    nearest = {(40, 40): (32, 32), (30, 60): (16, 32), (60, 30): (32, 16), (32, 32): (32, 32)}
    assert found == {number: (*nearest[(h, w)], frames) for number, (h, w, frames) in enumerate(SHAPES)}
    for record in store.records:
        number = int(record.file[-6:-4])
        frames = store.frames(record)
        assert frames.shape == (record.frames, *record.size, 3)
        assert np.abs(frames.mean((1, 2)) - moving(*SHAPES[number], number).mean((1, 2))).max() < 12, (
            "the whole picture"
        )
    groups = windows_by_shape(store, "train", [16, 8])
    assert [(part.clip_frames, part.size, part.num_videos) for part in groups] == [
        (16, (32, 32), 3), (8, (32, 32), 2), (16, (16, 32), 2), (8, (32, 16), 3),
    ]  # fmt: skip
    assert ClipWindows(store, "train", 16).size == (32, 32), "by default those of the first size"


def test_one_model_is_trained_on_all_of_them(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert splits("tokens") == ["train", "train-16x16x32", "train-8x32x16", "train-8x32x32", "val", "val-16x16x32"]
    grids = [TokenShards.open("tokens", name).manifest.grid for name in splits("tokens")[:4]]
    assert grids == [(4, 4, 4), (4, 2, 4), (2, 4, 2), (2, 4, 4)]
    config = json.loads((home / "gpt" / "model" / "config.json").read_text())
    assert config["grid"] == [4, 4, 4] and config["frames"] == [[4, 4], [2, 4], [4, 2]]
    for run in ("tok", "gpt"):
        lines = [json.loads(line) for line in (home / run / "metrics.jsonl").read_text().splitlines()]
        last = next(line for line in reversed(lines) if "data/exposures_per_clip" in line)
        assert last["data/exposures_per_clip_max"] - last["data/exposures_per_clip_min"] <= 2
        assert all(np.isfinite(value) for line in lines for value in line.values() if isinstance(value, float))
    before = (home / "gpt" / "model" / "model.safetensors").read_bytes()
    call(f"train_gpt --shards tokens --run whole {SHORT} --steps 6 --model.dim 64 --model.depth 1")
    assert (home / "whole" / "model" / "model.safetensors").read_bytes() == before
    again = f"train_gpt --shards tokens {SHORT} --decay-share 0 --model.dim 64 --model.depth 1"
    for options in ("part --steps 4", "part --steps 6 --resume", "straight --steps 6"):
        call(f"{again} --run {options}")
    resumed, straight = ((home / run / "model" / "model.safetensors").read_bytes() for run in ("part", "straight"))
    assert resumed == straight, "a run goes on in the middle of a round"


@pytest.mark.parametrize("run", ["tok", "gpt"])
def test_a_run_whose_steps_would_have_other_sizes_does_not_go_on(
    run: str, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # As with other --accumulate or on more processes: the sizes of steps are multiples of both.
    shutil.copytree(home / run, tmp_path / run)
    config = json.loads((tmp_path / run / "config.json").read_text())
    assert config["clips_per_step"][0] == 2 and len(config["clips_per_step"]) == 4
    config["clips_per_step"][1] += 1
    (tmp_path / run / "config.json").write_text(json.dumps(config))
    command = f"{TOKENIZER} {MODEL}" if run == "tok" else f"{GPT} --steps 6"
    with pytest.raises(SystemExit, match="2"):
        call(f"{command} --run {tmp_path / run} --resume")
    assert "was trained with clips_per_step=" in capsys.readouterr().err


def test_validation_clips_of_shapes_that_training_lacks_are_left_out(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(home / "tokens", tmp_path / "tokens")
    for name, kept in (("train", ["train", "train-8x32x16"]), ("val", ["val", "val-16x16x32"])):
        manifest = tmp_path / "tokens" / name / "manifest.json"
        content = json.loads(manifest.read_text())
        content["source"]["shapes"] = kept
        manifest.write_text(json.dumps(content))
    call(f"{GPT} --shards {tmp_path / 'tokens'} --run {tmp_path / 'gpt'} --steps 1")
    assert "1 validation clips are left out: no training clip has 16 frames of 16x32" in capsys.readouterr().out
    assert (tmp_path / "gpt" / "model").is_dir()


def test_it_continues_any_shape(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = VideoModel.from_pretrained("gpt")
    assert model.frame_sizes == [(32, 32), (16, 32), (32, 16)]
    for height, width in model.frame_sizes:
        clip = model.continue_clip(moving(height, width, 4, 0), num_frames=4)
        assert clip.shape == (8, height, width, 3)
    with pytest.raises(ValueError, match=r"\(B, P, 32, 32, 3\) or \(B, P, 16, 32, 3\) or \(B, P, 32, 16, 3\)"):
        model.continue_clip(np.zeros((4, 24, 24, 3), np.uint8), num_frames=4)
    call("sample --model gpt --input videos/train/05.mp4 --out wide --num-samples 1 --device cpu --cache clips")
    call("sample --model gpt --out square --num-samples 1 --device cpu --cache clips")
    call(
        "sample --model gpt --prompt-frames 0 --frame-size 32x16 --out high --num-samples 1 --device cpu --cache clips"
    )
    for folder, size in (("wide", (16, 32)), ("square", (32, 32)), ("high", (32, 16))):
        video = next(path for path in (home / folder).glob("*.mp4") if path.name != "grid.mp4")
        assert load_video(video, *size, others=model.frame_sizes).frames.shape[1:3] == size
    with pytest.raises(SystemExit, match="2"):
        call("sample --model gpt --prompt-frames 0 --frame-size 24x24 --out no --device cpu")
    assert "frame_size 24x24: expected 32x32 or 16x32 or 32x16" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        call("sample --model gpt --frame-size 32x16 --out no --device cpu --cache clips")
    assert "frame_size 32x16: it is of clips from nothing" in capsys.readouterr().err


def test_a_card_is_of_the_size_that_is_asked_for(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = "--model gpt --clips 2 --best-of 1 --further memorization --device cpu --cache clips"
    for asked, size, other in (("", [32, 32], "16x32"), ("--frame-size 16x32", [16, 32], "32x32")):
        call(f"evaluate {options} {asked} --out judged")
        card = Card.read(home / "judged")
        assert card.protocol["frame_size"] == size and card.protocol["split"] == "val"
        height, width = size
        assert card.notes[0] == (
            f"judged are clips of 16 frames of {height}x{width} from 1 videos of split 'val'; left out are 1 of {other}"
        )
        assert sum("times as far from their nearest training clip" in note for note in card.notes) == 2
    with pytest.raises(SystemExit, match="2"):
        call(f"evaluate {options} --frame-size 24x24 --out no")
    assert "frame_size 24x24: expected 32x32 or 16x32 or 32x16" in capsys.readouterr().err


def test_all_shapes_in_a_store_are_inspected(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fsspec = pytest.importorskip("fsspec", reason="fsspec is not installed: pip install tokenreel[remote]")
    name = uuid.uuid4().hex
    fsspec.filesystem("memory").put("tokens", f"/{name}", recursive=True)
    where = f"--cache {tmp_path}/copies --out {tmp_path}/seen --device cpu --verify --clips 1"
    call(f"inspect_shards memory://{name} {where}")
    assert [line.split(":")[0] for line in capsys.readouterr().out.splitlines() if " clips of " in line] == (
        splits("tokens")
    )


def test_mistakes_are_told(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for options, said in (
        ("--more-sizes 16", "frame size '16', expected HEIGHTxWIDTH"),
        ("--more-sizes 32x32", "expected each once"),
        ("--more-sizes 20x32", "20"),
        ("--shorter-clips 16", "shorter_clips (16,): expected different numbers of frames below 16"),
        ("--shorter-clips 6", "6"),
    ):
        with pytest.raises(SystemExit, match="2"):
            call(f"train_tokenizer --data videos --cache clips --size 32 {options} --run new {SHORT} --steps 1")
        assert said in capsys.readouterr().err
    assert parse_size("48x80") == (48, 80) and check_lengths(16, (4, 8)) == [16, 8, 4]


def test_bars_do_not_count_in_the_choice_of_a_size() -> None:
    sizes = [(32, 32), (16, 32)]
    assert FrameFit.of((90, 120), sizes).height == 32
    assert FrameFit.of((90, 120), sizes, bars=Bars(0.17, 0.17, 0, 0)).height == 16
    assert FrameFit.of((60, 30), sizes, rotation=90.0).height == 16, "as it is meant to be seen"
