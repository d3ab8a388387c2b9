"""The run doctor: failing runs, provoked for real wherever that takes seconds, are named; healthy ones hear nothing."""

import json
import math
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from torch import Tensor

from tokenreel.datasets.clip_windows import ClipWindows
from tokenreel.datasets.video_writer import write_video
from tokenreel.tools import doctor, evaluate, make_world, tokenize_dataset, train_gpt, train_tokenizer
from tokenreel.training.batch_facts import batch_facts
from tokenreel.training.diagnosis import Diagnosis, History
from tokenreel.training.doctor import DIAGNOSES, Doctor, diagnose
from tokenreel.training.run_records import RunRecords

TOOLS = {
    "make_world": make_world,
    "train_tokenizer": train_tokenizer,
    "tokenize_dataset": tokenize_dataset,
    "train_gpt": train_gpt,
    "evaluate": evaluate,
    "doctor": doctor,
}
SHORT = "--batch-size 3 --log-every 1 --wandb disabled --device cpu --precision fp32 --samples 0"
TINY = "--model.width 16 --model.encoder-depth 1 --model.decoder-depth 1 --model.levels 5 5"
TOKENIZER = f"train_tokenizer --cache clips --size 32 {SHORT} {TINY}"
GPT = f"train_gpt --shards tokens {SHORT} --model.dim 64 --model.depth 2"
AS_IT_IS = "--curation.no-static --curation.frozen 0 --curation.black 0"
# Logs of real trainings, rounded; the file's "about" says of what.
REAL = json.loads(Path(__file__).with_name("run_logs.json").read_text())["runs"]
ILL = {
    "gpt_paddle_few": "overfitting",
    "gpt_real_few": "overfitting",
    "tokenizer_atari_weak": "weak tokenizer",
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a world, a tokenizer that hardly trained, and its token shards."""
    home = tmp_path_factory.mktemp("doctor")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        call("make_world balls --out world --count 6 --val-count 2 --size 32 --frames 24")
        call(f"{TOKENIZER} --data world --run tok --steps 20 --lr 1e-2 --warmup 5")
        call("tokenize_dataset --tokenizer tok --out tokens --cache clips")
    return home


@pytest.fixture(autouse=True)
def there(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)


def call(command: str) -> None:
    name, *arguments = command.split()
    AcceleratorState._reset_state(True)  # it is kept per process, and a command is a process of its own
    TOOLS[name].main(arguments)


def told(run: Path | str) -> dict[str, str]:
    """Sentences by the name of what is wrong, as tools/doctor.py finds them."""
    records = RunRecords.open(Path(run))
    found = diagnose(History(records.records, records.config, records.evaluation))
    return {diagnosis.name: diagnosis.sentence for diagnosis in found}


def live(records: Iterable[Mapping[str, Any]], config: Mapping[str, Any]) -> list[Diagnosis]:
    """What a training would have said as its log grew."""
    follows = Doctor([], config)
    return [diagnosis for record in records for diagnosis in follows.see(record)]


# steps


def test_a_learning_rate_of_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    call(f"{TOKENIZER} --data world --run {tmp_path}/run --steps 60 --lr 1e-9")
    name = "learning rate effectively zero"
    assert "1.0e-09 at its highest" not in told(tmp_path / "run")[name]  # it fell before the warm-up was over
    assert "raise --lr (now 1e-09)" in told(tmp_path / "run")[name]
    assert capfd.readouterr().out.count(f"doctor: {name}") == 1


def test_a_warm_up_longer_than_the_run(tmp_path: Path) -> None:
    call(f"{TOKENIZER} --data world --run {tmp_path}/run --steps 50 --warmup 1000000")
    assert "lower --warmup (now 1000000)" in told(tmp_path / "run")["learning rate effectively zero"]
    rising = [{"step": step, "optim/lr": 1e-3 * step / 20_000, "train/loss": 1.0} for step in range(10, 200, 10)]
    config = {"lr": 1e-3, "warmup": 20_000, "steps": 100_000}
    assert not diagnose(History(rising, config)), "a long warm-up of a long run is none"


def test_too_high_a_rate_explodes(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    call(f"{TOKENIZER} --data world --run {tmp_path}/run --steps 60 --lr 0.9 --warmup 0")
    found = told(tmp_path / "run")
    assert "lower --lr (now 0.9) or raise --warmup (now 0)" in found["exploding loss"]
    assert capfd.readouterr().out.count("doctor: exploding loss: the training error grew to ") == 1
    call(f"{GPT} --run {tmp_path}/gpt --steps 30 --lr 0.99 --warmup 0")
    assert "bits per token from step" in told(tmp_path / "gpt")["exploding loss"]


def test_too_high_a_rate_from_the_beginning_learns_nothing_and_more_steps_are_not_the_remedy() -> None:
    config = {"lr": 0.9, "warmup": 0, "steps": 60}
    records = [{"step": step, "train/psnr": 9.0, "optim/lr": 0.9} for step in range(5, 65, 5)]
    judged = {"step": 60, "val/psnr": 9.2}
    (found,) = diagnose(History([*records, judged], config))
    assert found.name == "learning rate too high" and "(9.0 dB) after 60 steps" in found.sentence
    assert "up to 0.9, is far above the usual 0.003; lower --lr (now 0.9) or raise --warmup (now 0)" in found.sentence
    assert [each.name for each in diagnose(History(records[:6], config))] == [], "too soon"
    usual = [{**record, "optim/lr": 0.003} for record in records]
    assert [each.name for each in diagnose(History([*usual, judged], config))] == ["weak tokenizer"]
    bits = [{"step": step, "train/bits_per_token": 9.3, "optim/lr": 0.1} for step in range(5, 65, 5)]
    assert [each.name for each in diagnose(History(bits, config))] == ["learning rate too high"]
    both = [each.name for each in diagnose(History([*bits, {"step": 60, "tokenizer/psnr": 9.2}], config))]
    assert both == ["learning rate too high", "weak tokenizer"], "its GPT's rate is not to blame"
    assert not diagnose(History([*bits, *({**line, "train/bits_per_token": 2.0} for line in bits)], config)), "it works"


def test_an_explosion_that_passed_is_named_afterwards() -> None:
    errors = [30.0] * 20 + [5.0] * 5 + [30.0] * 20
    records = [{"step": step, "train/psnr": psnr} for step, psnr in enumerate(errors, start=1)]
    (found,) = diagnose(History(records))
    assert (found.name, found.step) == ("exploding loss", 21) and "(5.0 dB)" in found.sentence
    assert "and has fallen since" in found.sentence and "no loss" not in found.sentence
    assert "fallen" not in diagnose(History(records[:25]))[0].sentence


def test_a_bad_clip_that_is_no_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = train_tokenizer.TokenizerStage.batch

    def batch(self: Any, step: int) -> dict[str, Tensor]:
        return {"video": right(self, step)["video"] * (math.nan if step == 11 else 1)}

    monkeypatch.setattr(train_tokenizer.TokenizerStage, "batch", batch)
    with pytest.raises(SystemExit):
        call(f"{TOKENIZER} --data world --run {tmp_path}/run --steps 20")
    sentence = told(tmp_path / "run")["no finite numbers"]
    assert "no longer finite at step 12 (the training stopped)" in sentence
    assert "as usual" in sentence and "look at the clips of that step" in sentence and "--precision fp32" in sentence


def test_a_gradient_that_grew_before_the_numbers_went() -> None:
    norms = [1.0] * 20 + [40.0, 900.0, math.inf]
    records = [{"step": 10 * n, "optim/grad_norm": norm, "optim/lr": 0.003} for n, norm in enumerate(norms, start=1)]
    (found,) = diagnose(History(records, {"lr": 0.003, "warmup": 50}))
    assert found.name == "no finite numbers" and found.step == 230
    assert "optim/grad_norm is inf" in found.sentence and "had risen from 1 to 900" in found.sentence
    assert "lower --lr (now 0.003) or raise --warmup (now 50)" in found.sentence


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
            "--accumulate (now 1), or lower --batch-size (now 3)",
        ),
        (ValueError("the shards are gone"), "the training stopped at step 3: the shards are gone"),
    ],
)
def test_what_else_ends_a_run(error: Exception, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def observe(self: Any, output: Any) -> None:
        self.steps = getattr(self, "steps", 0) + 1
        if self.steps == 3:
            raise error

    monkeypatch.setattr(train_tokenizer.TokenizerStage, "observe", observe)
    with pytest.raises((SystemExit, type(error))):
        call(f"{TOKENIZER} --data world --run {tmp_path}/run --steps 5")
    assert sentence in told(tmp_path / "run")["stopped"]


def test_slow_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right, now, slept = ClipWindows.batch, time.perf_counter, [0.0]

    def batch(self: ClipWindows, clips: Any) -> np.ndarray:
        slept[0] += 1000.0  # as if; a real wait would have to be long beside what other programs cost
        return right(self, clips)

    monkeypatch.setattr(ClipWindows, "batch", batch)
    monkeypatch.setattr("tokenreel.training.meter.time.perf_counter", lambda: now() + slept[0])
    call(f"{TOKENIZER} --data world --run {tmp_path}/run --steps 8")
    sentence = told(tmp_path / "run")["idle on data"]
    assert "expected a few per cent: raise --workers (now 0), put the decoded videos (--cache) on a local" in sentence


# data


def videos(folder: Path, clips: list[np.ndarray]) -> Path:
    folder.mkdir()
    for number, clip in enumerate(clips):
        write_video(folder / f"{number}.mp4", clip, 10.0)
    return folder


def noise(seed: int, frames: int) -> np.ndarray:
    """Coarse coloured noise, other in every frame: uint8 (frames, 32, 32, 3)."""
    small = np.random.default_rng(seed).integers(0, 256, (frames, 4, 4, 3), dtype=np.uint8)
    return small.repeat(8, axis=1).repeat(8, axis=2)


def test_floats_written_as_bytes_leave_few_codes(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    data = videos(tmp_path / "data", [noise(seed, 16) // 255 for seed in range(4)])
    wide = TOKENIZER.replace("levels 5 5", "levels 8 5 5 5")
    call(f"{wide} --data {data} --run {tmp_path}/run --steps 100 {AS_IT_IS}")
    found = told(tmp_path / "run")
    assert "all pixel values lie in [-1.00, -" in found["value range"]
    assert "multiply them by 255" in found["value range"]
    assert "of 1000 codes used" in found["codebook collapse"] and "lower --lr" in found["codebook collapse"]
    said = capfd.readouterr().out
    assert said.count("codebook collapsed: ") == 1, "what the alarm says is not said twice"
    assert said.count("doctor: value range") == 1


@pytest.mark.filterwarnings("ignore:video values lie between")
def test_another_scale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = train_tokenizer.TokenizerStage.batch

    def scaled(factor: float) -> None:
        def batch(self: Any, step: int) -> dict[str, Tensor]:
            return {"video": (right(self, step)["video"] + 1) * factor}

        monkeypatch.setattr(train_tokenizer.TokenizerStage, "batch", batch)

    scaled(0.5)
    call(f"{TOKENIZER} --data world --run {tmp_path}/one --steps 4")
    sentence = told(tmp_path / "one")["value range"]
    assert sentence.startswith("all pixel values lie in [0.00, ") and "values of [0, 1] taken for" in sentence
    scaled(127.5)
    with pytest.raises(SystemExit):
        call(f"{TOKENIZER} --data world --run {tmp_path}/bytes --steps 4")
    assert "they look like 0..255: use video / 127.5 - 1" in told(tmp_path / "bytes")["value range"]
    other_model = [{"step": step, "data/min": 0.0, "data/max": 255.0} for step in (10, 20, 30)]
    assert "lie in [0.00, 255.00], expected [-1, 1]: scale" in diagnose(History(other_model))[0].sentence


def test_still_videos(tmp_path: Path) -> None:
    data = videos(tmp_path / "data", [noise(seed, 1).repeat(16, axis=0) for seed in range(6)])
    call(f"{TOKENIZER} --data {data} --run {tmp_path}/run --steps 4 --batch-size 2 {AS_IT_IS}")
    found = told(tmp_path / "run")
    assert "nothing moves in 100% of the training clips" in found["static data"]
    assert "--clip-frames (now 16)" in found["static data"] and "repeated data" not in found
    call(f"tokenize_dataset --tokenizer {tmp_path}/run --out {tmp_path}/tokens --cache clips")
    call(f"{GPT} --shards {tmp_path}/tokens --run {tmp_path}/gpt --steps 4 --batch-size 2")
    assert "static data" in told(tmp_path / "gpt")


def test_copies_of_one_video(tmp_path: Path) -> None:
    data = videos(tmp_path / "data", [noise(0, 16)] * 6)
    call(f"{TOKENIZER} --data {data} --run {tmp_path}/run --steps 4")
    found = told(tmp_path / "run")
    assert "67% of the clips stand a second time in their own batch" in found["repeated data"]
    assert "static data" not in found
    few = [{"step": 100, "data/duplicate_videos_share": 0.4}]
    assert "40% of the training videos are copies" in diagnose(History(few))[0].sentence


def test_a_gpt_that_learns_two_clips_by_heart(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    call(f"{GPT} --run {tmp_path}/run --steps 120 --evaluate-every 40 --lr 1e-2 --warmup 5")
    sentence = told(tmp_path / "run")["overfitting"]
    assert "validation rose from" in sentence and "set --steps (now 120) to about 40" in sentence
    assert "60.0 clips drawn from each video" in sentence and "--model.dropout (now 0.0)" in sentence
    assert capfd.readouterr().out.count("doctor: overfitting") == 1


def test_a_tokenizer_that_learns_clips_by_heart() -> None:
    def records(trained: tuple[float, ...], judged: tuple[float, ...]) -> list[dict[str, float]]:
        lines: list[dict[str, float]] = []
        for begin, train, val in zip((0, 100, 200), trained, judged, strict=False):
            lines += [{"step": begin + step, "train/psnr": train} for step in range(10, 101, 10)]
            lines.append({"step": begin + 100, "val/psnr": val})
        return lines

    config = {"steps": 1000, "model": {"width": 64}}
    (found,) = diagnose(History(records((22.0, 24.0, 26.0), (24.0, 25.0, 24.2)), config))
    assert "validation fell from 25.00 dB (step 200) to 24.20, while training rose to 26.00" in found.sentence
    assert "--model.width (now 64)" in found.sentence
    assert not diagnose(History(records((22.0, 24.0, 26.0), (24.0, 25.0, 25.2)), config))
    assert not diagnose(History(records((22.0, 24.0, 23.0), (24.0, 25.0, 24.2)), config)), "as adversarial terms do"
    (found,) = diagnose(History(records((28.0, 36.0), (24.0, 25.0)), config))
    assert "validation is at 25.00 dB, training at 36.00" in found.sentence


# results


def test_a_weak_tokenizer_is_named_at_its_end_and_to_its_gpt(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert "raise --steps (now 20), take a finer --model.stride (now 4 8 8)" in told("tok")["weak tokenizer"]
    half = [record for record in RunRecords.open(Path("tok")).records if record["step"] < 20]
    assert not diagnose(History(half, {"steps": 20})), "a tokenizer in training is not yet weak"
    call(f"{GPT} --run {tmp_path}/run --steps 3")
    assert "train another one (tools/train_tokenizer.py)" in told(tmp_path / "run")["weak tokenizer"]
    assert not [*Path("tok/samples").iterdir(), *(tmp_path / "run" / "samples").iterdir()], "--samples 0"
    with pytest.raises(SystemExit) as end:
        call(f"doctor {tmp_path}/run")
    assert end.value.code == 1 and "WEAK TOKENIZER" in capfd.readouterr().out


def test_37_db_without_what_moves_is_weak() -> None:
    # As FSQ at stride (4, 4, 4) was after 200 steps on Atari games: the ground right, the ball missing.
    (found,) = diagnose(History([{"step": 200, "val/psnr": 37.5, "val/motion_kept": 0.005}], {"steps": 200}))
    assert "37.5 dB" in found.sentence and "keep 0% of what moves" in found.sentence
    assert not diagnose(History([{"step": 200, "val/psnr": 31.9, "val/motion_kept": 0.63}], {"steps": 200}))


def test_continuations_worse_than_a_still_picture(tmp_path: Path) -> None:
    call(f"{GPT} --run {tmp_path}/gpt --steps 1")
    call(f"evaluate --model {tmp_path}/gpt --cache clips --device cpu --out {tmp_path}/evaluation")
    assert "px off the truth over 12 new frames" in told(tmp_path / "gpt")["worse than copying"]
    found = RunRecords.open(tmp_path / "gpt").evaluation
    by_pixels = {name: value for name, value in found.items() if name != "position_error_px"}
    names = {diagnosis.name: diagnosis.sentence for diagnosis in diagnose(History([], {}, by_pixels))}
    assert "dB close to the truth" in names["worse than copying"]
    other = tmp_path / "other"  # a run beside it, of which the evaluation is not
    other.mkdir()
    (other / "metrics.jsonl").write_text("")
    assert RunRecords.open(other).evaluation == {}


def test_the_drift_horizon() -> None:
    copy = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]

    def found(model: list[float]) -> list[Diagnosis]:
        return diagnose(History([], {}, {"position_error_px": {"model": model, "copy_last_frame": copy}}))

    (drifts,) = found([0.5, 0.5, 3.1, 4.1, 5.1, 6.1])
    assert drifts.name == "drift" and "the drift horizon is 2 of 6 new frames" in drifts.sentence
    assert not found([1.5, 1.0, 2.0, 2.0, 3.0, 4.0]), "behind at first, and better to the end"
    assert [diagnosis.name for diagnosis in found([2.0, 3.0, 4.0, 5.0, 6.0, 7.0])] == ["worse than copying"]
    assert not found([math.nan] * 6)


# healthy runs, and the doctor as a whole


@pytest.mark.parametrize("name", [name for name in REAL if name not in ILL])
def test_real_healthy_runs_hear_nothing(name: str) -> None:
    run = REAL[name]
    assert len(run["records"]) > 10
    assert diagnose(History(run["records"], run["config"], run.get("evaluation"))) == []
    assert live(run["records"], run["config"]) == []


@pytest.mark.parametrize("name", ILL)
def test_what_is_wrong_with_real_runs_is_said_once(name: str) -> None:
    run = REAL[name]
    assert [found.name for found in diagnose(History(run["records"], run["config"]))] == [ILL[name]]
    assert [found.name for found in live(run["records"], run["config"])] == [ILL[name]]


def test_a_resumed_run_does_not_hear_again_what_it_heard() -> None:
    run = REAL["gpt_paddle_few"]
    follows = Doctor(run["records"], run["config"])
    assert follows.see({**run["records"][-1], "step": run["records"][-1]["step"] + 10}) == []


def test_the_doctor_looks_at_once_where_it_matters_and_seldom_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[int] = []

    def look(history: History) -> list[Diagnosis]:
        looks.append(history.step)
        return []

    follows = Doctor([], {})
    monkeypatch.setattr("tokenreel.training.doctor.diagnose", look)
    for step in range(1, 2001):
        follows.see({"step": step, "train/loss": 1.0})
    assert looks[:99] == list(range(1, 100)) and len(looks) < 500
    follows.see({"step": 2001, "val/psnr": 30.0})
    follows.see({"step": 2002, "error": "in words"})
    assert looks[-2:] == [2001, 2002]


def test_nothing_is_said_of_nothing() -> None:
    assert all(examine(History()) is None for examine in DIAGNOSES)
    assert diagnose(History([{"step": 1, "train/loss": 1.0, "note": "a word"}])) == []


# what the log tells of batches


def test_facts_of_a_batch() -> None:
    video = torch.rand(4, 3, 8, 6, 6) * 2 - 1
    video[1] = video[1, :, :1] + 0.01 * torch.rand(8, 1, 1)  # still but for coding noise
    video[3] = video[0]
    facts = batch_facts({"video": video})
    assert facts["data/static_share"] == 0.25 and facts["data/repeated_share"] == 0.25
    assert facts["data/min"] == pytest.approx(float(video.min())) and facts["data/max"] == pytest.approx(
        float(video.max())
    )
    video[3, 0, 5, 2, 2] += 0.2
    assert batch_facts({"video": video})["data/repeated_share"] == 0.0, "one pixel differs"
    indices = torch.randint(1000, (4, 4, 2, 2))
    indices[2, 2:] = indices[2, 1]  # still: only the first latent frame, which has no past, differs
    assert batch_facts({"indices": indices}) == {"data/static_share": 0.25, "data/repeated_share": 0.0}
    assert batch_facts({"indices": indices[:, :1]}) == {"data/repeated_share": 0.0}
    assert batch_facts({"x": indices}) == {}
