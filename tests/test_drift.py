"""Drift of long clips: what is spoiled late is what drifts, and the horizon lies where it must."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from tokenreel.datasets.worlds import simulate
from tokenreel.evaluation.drift_curves import deviation, doubling_horizon, drift_figures
from tokenreel.evaluation.tally import Tally

FRAMES, HALF = 48, 24


@pytest.fixture(scope="module")
def real() -> np.ndarray:
    return np.stack([simulate("balls", seed, 32, FRAMES).frames for seed in range(6)])


def spoiled(real: np.ndarray, how: str) -> np.ndarray:
    """The same clips, of which something is wrong from the middle on."""
    clips = real.copy()
    late = clips[:, HALF:]
    if how == "blurred":
        for clip in late:
            clip[:] = [np.asarray(Image.fromarray(frame).filter(ImageFilter.GaussianBlur(2))) for frame in clip]
    elif how == "frozen":
        late[:] = clips[:, HALF - 1 : HALF]
    elif how == "another colour":
        late[:] = late[..., [1, 2, 0]]
    return clips


@pytest.mark.parametrize(
    ("how", "metric"), [("blurred", "sharpness"), ("frozen", "motion"), ("another colour", "colour error")]
)
def test_what_is_spoiled_is_what_drifts(real: np.ndarray, how: str, metric: str) -> None:
    right, wrong = drift_figures(real, real), drift_figures(spoiled(real, how), real)
    assert list(right) == ["colour error", "sharpness", "motion"]
    for tally in right.values():
        assert tally.curve.shape == (FRAMES,)
    assert right["motion"].value == pytest.approx(1), "a first frame is no clip that stands still"
    np.testing.assert_array_equal(right[metric].curve[:HALF], wrong[metric].curve[:HALF])
    before, after = (float(wrong[metric].curve[part].mean()) for part in (slice(1, HALF), slice(HALF, None)))
    assert after > 2 * before if metric == "colour error" else after < 0.75 * before
    error = wrong[metric] if metric == "colour error" else deviation(wrong[metric])
    frame, (low, high) = doubling_horizon(error, 4, 8, least=0.2 if metric != "colour error" else 0.0)
    assert HALF < frame <= HALF + 8 and low <= frame <= high
    assert doubling_horizon(right["colour error"], 4, 8)[0] == np.inf


def test_the_horizon_is_the_frame_by_which_a_window_is_twice_the_first() -> None:
    curve = np.concatenate([np.zeros(4), np.full(16, 1.0), np.full(30, 2.1)])
    clips = Tally.of(np.tile(curve, (5, 1)), "px")
    assert doubling_horizon(clips, 4, 8) == (28, (28, 28)), "the first window that lies wholly in the worse part"
    every = Tally.of(np.tile(curve[1::2], (5, 1)), "px")
    assert doubling_horizon(every, 4, 8, every=2)[0] == 28
    assert doubling_horizon(clips, 4, 8, least=3.0) == (np.inf, (np.inf, np.inf))
    level = Tally.of(np.ones((5, 50)), "px")
    assert doubling_horizon(level, 4, 8)[0] == np.inf
    mixed = Tally.of(np.concatenate([np.tile(curve, (2, 1)), np.ones((2, 50))]), "px")
    frame, (low, high) = doubling_horizon(mixed, 4, 8)
    assert frame == np.inf and low == 28 and high == np.inf, "half of the clips never get there"
    with pytest.raises(ValueError, match="two windows"):
        doubling_horizon(level, 4, 24)


def test_drift_is_measured_for_several_overlaps(tmp_path: Path, tiny_chain: Path) -> None:
    script = Path(__file__).resolve().parents[1] / "benchmarks" / "drift.py"
    out = tmp_path / "drift.json"
    options = ["--model", tiny_chain / "gpt", "--frames", 32, "--clips", 2, "--prompt-frames", 4, "--overlap", 1, 2]
    done = subprocess.run(
        [sys.executable, str(script), *map(str, options), "--out", str(out)],
        capture_output=True,
        text=True,
        cwd=script.parents[1],
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = json.loads(out.read_text())["rows"]
    cases = {row["case"] for row in rows}
    assert cases == {
        f"overlap {n}, {what}" for n in (1, 2) for what in ("frame 4", "frame 8", "frame 16", "frame 32", "horizon")
    }
    assert {row["metric"] for row in rows if row["case"] == "overlap 1, frame 32"} == {
        *("position error", "exactly the right balls", "colour error", "sharpness", "motion")
    }
    assert all(len(row["interval"]) == 2 for row in rows)
    assert (tmp_path / "drift.png").stat().st_size > 1000 and (tmp_path / "drift_sharpness.png").is_file()


@pytest.fixture
def tiny_chain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a GPT that hardly trained."""
    from accelerate.state import AcceleratorState

    from tokenreel.tools import make_world, tokenize_dataset, train_gpt, train_tokenizer

    monkeypatch.chdir(tmp_path)
    common = "--steps 1 --batch-size 2 --wandb disabled --device cpu --samples 0"
    for tool, command in (
        (make_world, "balls --out world --count 4 --val-count 2 --size 32 --frames 16"),
        (train_tokenizer, f"--data world --size 32 --run tokenizer {common}"),
        (tokenize_dataset, "--tokenizer tokenizer --out tokens --clip-frames 12"),
        (train_gpt, f"--shards tokens --model.dim 64 --model.depth 1 --run gpt {common}"),
    ):
        AcceleratorState._reset_state(True)
        tool.main(command.split())
    return tmp_path
