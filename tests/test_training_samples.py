"""What a training's log says of its samples, and the signs to stop early that the doctor reads in it."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from accelerate.state import AcceleratorState

from tokenreel.datasets.worlds import simulate
from tokenreel.evaluation.continuations import continuation_figures
from tokenreel.tools import make_world, tokenize_dataset, train_gpt, train_tokenizer
from tokenreel.training.diagnosis import History
from tokenreel.training.doctor import diagnose

SHORT = "--batch-size 3 --log-every 1 --wandb disabled --device cpu --precision fp32"


def true_clips() -> np.ndarray:
    return np.stack([simulate("balls", seed, 32, 16).frames for seed in range(6)])


def test_figures_move_the_right_way() -> None:
    truth = true_clips()
    right = continuation_figures(truth, truth, 4)
    still = truth.copy()
    still[:, 4:] = truth[:, 3:4]
    noise = np.random.default_rng(0).normal(0, 20, truth.shape)
    noisy = np.clip(truth + noise, 0, 255).astype(np.uint8)
    noisy[:, :4] = truth[:, :4]
    drifting = truth.copy()
    drifting[:, 10:] = truth[::-1, 10:]
    assert right["ahead_of_copy_db"] > 20 and right["motion"] == right["sharpness"] == 1
    stands = continuation_figures(still, truth, 4)
    assert stands["ahead_of_copy_db"] == stands["motion"] == 0 and stands["sharpness"] == pytest.approx(1, abs=0.1)
    assert continuation_figures(noisy, truth, 4)["motion"] > 2
    soft = truth.copy()
    soft[:, 4:, 1:-1, 1:-1] = (
        sum(truth[:, 4:, i : i + 30, j : j + 30].astype(int) for i in range(3) for j in range(3)) // 9
    )
    assert continuation_figures(soft, truth, 4)["sharpness"] < 0.8
    late = continuation_figures(drifting, truth, 4)
    ahead = [late[f"parts/psnr_{n}"] - late[f"parts/psnr_of_copy_{n}"] for n in (1, 2, 3, 4)]
    assert min(ahead[:2]) > 20 and max(ahead[2:]) < 3
    assert len(continuation_figures(truth[:, :6], truth[:, :6], 4)) == 3 + 2 * 2, "two new frames have two parts"
    with pytest.raises(ValueError, match="a prompt shorter than T"):
        continuation_figures(truth, truth, 16)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("samples")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        tools = {"make_world": make_world, "train_tokenizer": train_tokenizer}
        tools |= {"tokenize_dataset": tokenize_dataset, "train_gpt": train_gpt}
        for command in (
            "make_world balls --out world --count 6 --val-count 2 --size 32 --frames 24",
            f"train_tokenizer --data world --cache clips --size 32 {SHORT} --model.width 16 --run tok --steps 20",
            "tokenize_dataset --tokenizer tok --out tokens --cache clips",
            f"train_gpt --shards tokens {SHORT} --model.dim 64 --model.depth 1 --run gpt --steps 4 --evaluate-every 2",
        ):
            AcceleratorState._reset_state(True)
            name, *arguments = command.split()
            tools[name].main(arguments)
    return home / "gpt"


def test_training_logs_its_samples_beside_a_still_picture(run: Path) -> None:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    judged = [line for line in lines if "val/bits_per_token" in line]
    assert [line["step"] for line in judged] == [2, 4]
    for line in judged:
        names = {name for name in line if name.startswith("sampled/")}
        assert {"sampled/ahead_of_copy_db", "sampled/motion", "sampled/sharpness", "sampled/parts/psnr_1"} <= names
        assert all(math.isfinite(line[name]) for name in names) and 0 < line["speed/sampling_share"] < 1
        assert (run / "samples" / f"continuation_{line['step']:06d}.png").is_file()
    gains = [
        line[f"sampled/parts/psnr_{n}"] - line[f"sampled/parts/psnr_of_copy_{n}"] for line in judged for n in (1, 4)
    ]
    assert all(math.isfinite(gain) for gain in gains)


# the doctor


def told(records: list[dict[str, Any]], **config: Any) -> dict[str, str]:
    return {found.name: found.sentence for found in diagnose(History(records, {"steps": 1000, **config}))}


def parts(step: int, behind: tuple[float, ...]) -> dict[str, Any]:
    """A validation whose samples are so many dB behind a still picture in each part."""
    record: dict[str, Any] = {"step": step, "val/bits_per_token": 1.0}
    for n, gap in enumerate(behind, start=1):
        record |= {f"sampled/parts/psnr_{n}": 20.0 - gap, f"sampled/parts/psnr_of_copy_{n}": 20.0}
    return record


def test_samples_worse_than_a_still_picture_are_told_when_training_is_over() -> None:
    bad = told([parts(1000, (2.0, 2.0, 3.0, 3.0))])
    assert "17.50 dB close to the truth over 4 equal parts of the new frames" in bad["worse than copying"]
    assert not told([parts(500, (2.0, 2.0, 3.0, 3.0))]), "it is not over"
    drifting = told([parts(1000, (-6.0, 2.0, 3.0, 3.0))])
    assert "drift horizon is 1 of 4 equal parts" in drifting["drift"]
    assert not told([parts(1000, (-4.0, -3.0, -1.0, 0.5))])


def test_samples_that_stand_still_or_flicker_are_told_twice_in_a_row() -> None:
    def moving(*motion: float) -> dict[str, str]:
        return told(
            [{"step": 500 + 100 * i, "val/bits_per_token": 1.0, "sampled/motion": m} for i, m in enumerate(motion)]
        )

    assert "move 10% as much" in moving(0.2, 0.1)["samples stand still"]
    assert "change 3.0 times as much" in moving(2.5, 3.0)["samples flicker"]
    assert not moving(0.1, 0.9) and not moving(3.0, 1.1) and not moving(0.1)
    assert not told([{"step": step, "sampled/motion": 0.0} for step in (100, 200, 300)]), "it has just begun"


def test_a_validation_that_no_longer_gets_better_says_when_to_stop() -> None:
    def judged(bits: list[float], every: int = 50, **config: Any) -> dict[str, str]:
        records = [{"step": every * (i + 1), "val/bits_per_token": b} for i, b in enumerate(bits)]
        return told(records, decay_share=0.4, **config)

    flat = [2.0, 1.5, 1.4, 1.399, 1.401, 1.4, 1.398, 1.4]
    stop = judged(flat)["no longer better"]
    assert "since step 150 (1.400), 5 validations ago" in stop and "--steps (now 1000) lowered to 667" in stop
    assert not judged(flat[:7]) and not judged([2.0 * 0.99**i for i in range(12)])
    assert "hardly help" in judged([1.5] * 18)["no longer better"], "not even as the rate fell"
    assert "no longer better" not in judged([*[1.5] * 14, 1.4, 1.3, 1.25]), "the falling rate brings it"
    assert not judged([1.5] * 20), "it is over"
