"""From measured seconds to a plan: exact, whatever machine the tests run on."""

import json
import math
import os
import shlex
import signal
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from tokenreel.datasets.clip_cache import open_or_ingest
from tokenreel.datasets.data_source import DataSettings
from tokenreel.datasets.store_sample import write_store_sample
from tokenreel.datasets.video_writer import write_video
from tokenreel.tools import plan as plan_tool
from tokenreel.tools import plan_rehearsal, plan_survey, sample, tokenize_dataset, train_gpt, train_tokenizer
from tokenreel.tools.plan_rehearsal import typical_step
from tokenreel.tools.plan_survey import Found, Survey, survey
from tokenreel.tools.plan_words import MEASURED_BITS, commands, expected_bits, gpt_config, report, what_for_more
from tokenreel.training.command_line import parse
from tokenreel.training.machine import read_memory
from tokenreel.training.own_process import _death, _told, in_own_process
from tokenreel.training.plan_choice import choose, hop_for
from tokenreel.training.plan_costs import GPTOption, StageCost, TokenizerOption, VideoFacts, parts_needed
from tokenreel.training.planning import (
    DROPOUT,
    MOST_EXPOSURES,
    MOST_STEPS,
    TOKENIZER_SHARE,
    Plan,
    plan_lengths,
    rounded,
    window,
)
from tokenreel.training.stage import Evaluation
from tokenreel.transformer import GPTSize

COARSE, FINE = (4, 8, 8), (4, 4, 4)
MANY = VideoFacts((200,) * 1000, (200,) * 50, 64, 64, 10.0, 200 * 1000 * 64 * 64 * 3)
FEW = VideoFacts((40,) * 10, (), 64, 64, 10.0, 40 * 10 * 64 * 64 * 3)
GIB = 2.0**30


def tokenizer(preset: str = "tiny", stride: tuple[int, int, int] = COARSE, seconds: float = 0.5) -> TokenizerOption:
    size = {"tiny": 1, "small": 8}[preset]
    return TokenizerOption(preset, stride, size * 10**6, 16, seconds * size, (1 + size) * GIB, GIB)


def gpt(dim: int = 128, stride: tuple[int, int, int] = COARSE, seconds: float = 0.2) -> GPTOption:
    tokens = 256 if stride == COARSE else 1024
    return GPTOption(dim, 4, stride, tokens, dim * 10**4, 2048 // tokens, seconds * dim / 128, 2 * GIB, GIB)


ALL = [tokenizer(), tokenizer("small"), tokenizer(stride=FINE), tokenizer("small", FINE)]
GPT_OPTIONS = [gpt(dim, stride) for stride in (COARSE, FINE) for dim in (128, 256, 512)]


def chosen(facts: VideoFacts, hours: float, memory: float = 100 * GIB) -> tuple[str, tuple[int, int, int], int, float]:
    choice = choose(facts, ALL, GPT_OPTIONS, 16, hours, memory)
    return choice.tokenizer.preset, choice.tokenizer.stride, choice.gpt.dim, choice.dropout


def made(facts: VideoFacts, hours: float, pause: float = 0.0) -> Plan:
    choice = choose(facts, ALL, GPT_OPTIONS, 16, hours, 100 * GIB)
    first = StageCost(choice.tokenizer.seconds_per_step, 10.0, 5.0, pause, pause / 2, GIB)
    second = StageCost(choice.gpt.seconds_per_step, 10.0, 60.0, pause, pause / 2, 2 * GIB)
    return plan_lengths(facts, choice, first, second, 0.01, hours)


# What is chosen


def test_more_hours_are_worth_a_finer_grid_and_larger_models() -> None:
    # 200,000 frames of 16 tokens: 3.2 M different ones on the coarse grid; 2048 tokens in .2 s are 10,240 a second.
    # In 0.9 · 60 % of an hour the GPT of 128 sees 20 M, enough for 1.28 M parameters, the one of 256 10 M, too few for
    # 2.56 M; the tokenizer gets 1,944 steps, too few for the fine grid.
    assert chosen(MANY, 1) == ("tiny", COARSE, 128, 0.0)
    # 6 hours: 60 M for 256 (25.6 M needed), 30 M for 512 (51 M needed); 11,664 steps are enough for the fine grid.
    assert chosen(MANY, 6) == ("tiny", FINE, 256, 0.0)
    assert chosen(MANY, 24)[0] == "small"
    assert chosen(MANY, 24)[2] == 512


def test_few_videos_get_the_smallest_gpt_and_dropout_however_many_hours() -> None:
    assert chosen(FEW, 24)[2:] == (128, DROPOUT)


def test_what_does_not_fit_into_memory_is_not_chosen_or_cut_into_parts() -> None:
    plenty, little = choose(MANY, ALL, GPT_OPTIONS, 16, 24, 100 * GIB), choose(MANY, ALL, GPT_OPTIONS, 16, 24, 4 * GIB)
    assert (plenty.tokenizer_parts, plenty.gpt_parts) == (1, 1)
    # 0.9 · 4 GiB hold the fixed one and 2.6 of the 8 that grow with the batch: a quarter.
    assert (little.tokenizer.preset, little.tokenizer_parts, little.gpt_parts) == ("small", 4, 1)
    with pytest.raises(ValueError, match=r"memory 1GB: the smallest models need .* expected .* GB or more; use"):
        choose(MANY, ALL, GPT_OPTIONS, 16, 24, GIB)


def test_parts_divide_the_batch() -> None:
    option = replace(tokenizer(), batch_size=6, peak_bytes=7 * GIB, fixed_bytes=GIB)
    assert [parts_needed(option, n * GIB) for n in (7, 6, 4, 3, 2.5, 1.9)] == [1, 2, 2, 3, 6, None]


def test_too_few_hours_are_refused_with_how_many_would_do() -> None:
    with pytest.raises(ValueError, match=r"hours 0.01: 100 steps .* use --hours (\S+),") as error:
        choose(MANY, ALL, GPT_OPTIONS, 16, 0.01, 100 * GIB)
    enough = float(str(error.value).split("use --hours ")[1].split(",")[0])
    assert enough == 0.052  # 100 steps of half a second in 30 % of 90 % of the time
    assert choose(MANY, ALL, GPT_OPTIONS, 16, enough, 100 * GIB)


def test_windows_are_shorter_for_short_videos() -> None:
    def lengths(*frames: int) -> VideoFacts:
        return replace(FEW, lengths=frames)

    assert window(lengths(40, 40), 4, 16) == 16
    assert window(lengths(14, 40), 4, 16) == 12, "14 of 54 frames would be lost"
    assert window(lengths(9, *[100] * 9), 4, 16) == 16, "9 of 909 frames may be lost"
    with pytest.raises(ValueError, match="has 7 frames, expected at least 8"):
        window(lengths(7, 5), 4, 16)


def test_clips_are_as_many_as_are_drawn_at_most() -> None:
    # 10 videos of 40 frames: 70 clips at hop 4, 40 at hop 8, 20 at hop 16, 10 at hop 32.
    assert [hop_for(FEW, 16, drawn) for drawn in (70, 69, 40, 20, 19, 1)] == [4, 8, 8, 16, 32, 64]


# How long it takes


def test_the_hours_are_used_and_not_exceeded() -> None:
    plan = made(MANY, 6, pause=20.0)
    assert 0.95 * 6 * 3600 < plan.seconds <= 6 * 3600
    for stage, cost in ((plan.tokenizer, 0.5), (plan.gpt, plan.choice.gpt.seconds_per_step)):
        pauses = -(-stage.steps // stage.every)
        overhead = 15.0 if stage is plan.tokenizer else 70.0
        assert stage.seconds == pytest.approx(overhead + stage.steps * cost + pauses * 20.0 + 10.0)
        assert pauses <= 20
    assert plan.tokenizer.seconds <= TOKENIZER_SHARE * 6 * 3600
    assert plan.clips == 1000 * 47 + 50 * 47 and plan.choice.hop == 4
    assert plan.tokenizing_seconds == pytest.approx(10 + 0.01 * plan.clips)


def test_long_validations_are_fewer() -> None:
    plan = made(MANY, 6, pause=300.0)
    assert -(-plan.gpt.steps // plan.gpt.every) < 6 and plan.seconds <= 6 * 3600


def test_training_ends_when_videos_were_seen_often_enough() -> None:
    plan = made(FEW, 6)
    assert plan.gpt.steps == MOST_EXPOSURES * 400 / (plan.choice.gpt.batch_size * 16)
    assert plan.gpt.through == pytest.approx(MOST_EXPOSURES)
    # 100 steps at the least; each draws 16 clips of 16 of the 400 frames.
    assert plan.tokenizer.steps == 100 and plan.tokenizer.through == pytest.approx(100 * 16 * 16 / 400)
    assert plan.tokenizer.per_video == pytest.approx(160) and plan.tokenizer.per_clip == pytest.approx(1600 / 250)
    assert made(MANY, 100).tokenizer.steps == MOST_STEPS
    assert made(MANY, 100).gpt.through <= MOST_EXPOSURES


def test_a_training_without_time_is_refused() -> None:
    choice = choose(MANY, ALL, GPT_OPTIONS, 16, 1, 100 * GIB)
    slow = StageCost(60.0)
    with pytest.raises(
        ValueError, match=r"take 100 minutes, and 18 are left for them, expected more; use --hours 5.9,"
    ):
        plan_lengths(MANY, choice, slow, slow, 0.01, 1)


@pytest.mark.parametrize("hours", [0.2, 6])
def test_memory_counts_videos_that_are_mapped_into_it(hours: float) -> None:
    choice = choose(MANY, ALL, GPT_OPTIONS, 16, hours, 100 * GIB)
    costs = [StageCost(option.seconds_per_step, peak_bytes=GIB) for option in (choice.tokenizer, choice.gpt)]
    mapped = plan_lengths(MANY, choice, *costs, 0.0, hours, MANY.bytes)
    assert (mapped.tokenizer.through < 1) == (hours == 0.2)
    assert mapped.tokenizer.peak_bytes == GIB + MANY.bytes * min(1, mapped.tokenizer.through)
    assert mapped.gpt.peak_bytes == GIB


def test_a_rehearsal_takes_its_second_validation_for_the_usual_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]

    class Stage:
        model = torch.nn.Linear(1, 1)

        def batch(self, step: int) -> dict[str, Any]:
            return {}

        def evaluate(self, step: int, folder: Path) -> Evaluation:
            now[0] += 7.0 if step == 2 else 1.0
            return Evaluation({}, self.show)

        def show(self) -> list[Path]:
            now[0] += 0.5
            return []

        def export(self, folder: Path, step: int) -> None:
            now[0] += 0.25

    class Timed(plan_rehearsal._Timed, Stage):
        pass

    def train(stage: Timed, *rest: Any) -> None:
        now[0] += 3.0
        for step in (1, 2, 3, 4):
            stage.batch(step)
            now[0] += 2.0
            if step % 2 == 0:
                stage.evaluate(step, tmp_path).show()
                stage.export(tmp_path, step)
                now[0] += 0.5  # the checkpoint
        lines = [json.dumps({"speed/clips_per_s": 2.0})] * 4
        (tmp_path / "metrics.jsonl").write_text("\n".join(lines))

    monkeypatch.setattr(plan_rehearsal, "train", train)
    monkeypatch.setattr(plan_rehearsal.time, "time", lambda: now[0])
    config = SimpleNamespace(run=tmp_path, batch_size=4)
    cost = plan_rehearsal._rehearsed(Timed(), config, plan_rehearsal._Clock(100.0), "speed/clips_per_s", 1)
    assert (cost.seconds_per_step, cost.start_seconds) == (2.0, 3.0)
    assert cost.pause_seconds == 1.5 + 0.75 and cost.saving_seconds == 0.75
    assert cost.first_seconds == 6.0, "what the first validation took beyond the second"


def test_small_arithmetic() -> None:
    assert [rounded(n) for n in (0, 7, 999, 1234, 98765)] == [0, 7, 999, 1230, 98700]
    cost = StageCost(2.0, 10.0, 5.0, 3.0, 1.0)
    assert cost.seconds(100, 4) == 10 + 5 + 200 + 4 * 3 + 1, "it saves once more than it validates"
    assert cost.steps_in(cost.seconds(100, 4), 4) == 100 and cost.steps_in(1.0, 4) == 0
    assert typical_step(np.array([1.0] * 9 + [50.0])) == 1.0, "one accident does not count"
    assert typical_step(np.array([1.0, 2.0])) == 1.5


@pytest.mark.parametrize(("seconds", "expected"), [(10.0, ["tiny"]), (10.0**9, ["tiny", "small"])])
def test_a_survey_tries_what_the_hours_may_be_worth(
    seconds: float, expected: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[GPTSize] = []

    def tokenizer_of(bench: object, preset: str, *rest: object) -> TokenizerOption:
        return tokenizer(preset)

    def gpt_of(bench: object, size: GPTSize, *rest: object) -> GPTOption:
        tried.append(size)
        return gpt(size.dim)

    monkeypatch.setattr(plan_survey._Bench, "tokenizer", tokenizer_of)
    monkeypatch.setattr(plan_survey._Bench, "gpt", gpt_of)
    noise = np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3), dtype=np.uint8)
    write_video(tmp_path / "videos/train/a.mkv", noise, 10)
    settings = DataSettings(tmp_path / "videos", 16).ingest_settings()
    store = open_or_ingest(tmp_path / "videos", settings, tmp_path / "clips", progress=False)
    sizes = tuple(GPTSize(dim, 1) for dim in (64, 128, 192, 256))
    job = Survey(store.path, 8, (COARSE,), "cpu", seconds, seconds, 5000, 100.0, ("tiny", "small"), sizes)
    assert [option.preset for option in survey(job).tokenizers] == expected
    assert len(tried) == (2 if seconds == 10 else 4), "the two smallest are always measured"
    late = survey(replace(job, seconds=-1.0))
    assert len(late.tokenizers) == 1 and len(late.gpts) == 2
    assert late.left_out == ("tokenizer small at stride (4, 8, 8)", "GPT 192 x 1 at stride (4, 8, 8)")


# What is said


@pytest.fixture
def asked(tmp_path: Path) -> plan_tool.Config:
    return plan_tool.Config(out=tmp_path / "my plan", size=64, fps=8.0, device="cpu", hours=6.0)


class _Store:
    path = Path("clips of mine")


@pytest.mark.parametrize("facts", [MANY, FEW])
def test_the_commands_are_those_of_the_plan(facts: VideoFacts, asked: plan_tool.Config) -> None:
    plan = made(facts, 6)
    lines = [shlex.split(line) for line in commands(plan, asked, _Store())]  # type: ignore[arg-type]
    rest = [line[line.index(next(word for word in line if word.startswith("--"))) :] for line in lines]
    first = parse(train_tokenizer.Config, rest[0], presets=train_tokenizer.TOOL_PRESETS)
    assert (first.data, first.fps, first.run) == (Path("clips of mine"), 8.0, asked.out / "tokenizer")
    assert (first.steps, first.model.stride, first.clip_frames) == (
        plan.tokenizer.steps,
        plan.choice.tokenizer.stride,
        16,
    )
    second = parse(tokenize_dataset.Config, rest[1])
    assert (second.hop, second.out) == (plan.choice.hop, str(asked.out / "tokens"))
    assert parse(train_gpt.Config, rest[2], presets=train_gpt.TOOL_PRESETS) == gpt_config(plan, asked)
    assert parse(sample.Config, rest[3]).model == asked.out / "gpt"


def test_bits_are_told_as_what_is_known(asked: plan_tool.Config) -> None:
    results = Path(__file__).resolve().parents[1] / "benchmarks/results"
    found = [json.loads((results / "demo.json").read_text())["bits_per_token"]]
    found += [
        row["bits_per_token"]
        for row in json.loads((results / "compare_tokenizers_atari.json").read_text())["tokenizers"]
    ]
    paddle = json.loads((results / "gpt_ablations_positions_paddle.json").read_text())["rows"]
    found += [row["ours"] for row in paddle if row["metric"] == "val_bits_per_token" and row["case"] == "as it is"]
    assert (round(min(found), 1), round(max(found), 1)) == MEASURED_BITS
    assert "log2 K = 9.3 per token (0.036 per pixel)" in expected_bits(made(MANY, 1), MANY)


def test_what_limits_a_plan_is_said(asked: plan_tool.Config, capsys: pytest.CaptureFixture[str]) -> None:
    found = Found(tuple(ALL), tuple(GPT_OPTIONS), ("GPT 768 x 12",))
    few = what_for_more(FEW, found, made(FEW, 6), 6, 100 * GIB)
    assert few[0].startswith("videos are what is missing") and few[-1].endswith("GPT 768 x 12")
    many = what_for_more(MANY, found, made(MANY, 1), 1, 100 * GIB)
    assert many[0].startswith("hours are what is missing") and many[1] == (
        "--hours 4 would be worth stride 4 4 4, a GPT of dim 256 and depth 4"
    )
    told = report(asked, _Store(), MANY, made(MANY, 6), 3.0, many)  # type: ignore[arg-type]
    printed = capsys.readouterr().out
    assert all(line in printed for line in [*told["commands"], *many, told["expected_bits"]])


# The tool's own


def test_memory_is_read_as_people_write_it() -> None:
    assert {read_memory(text) for text in ("24", "24.0", "24GB", "24g", "24 G", "24 GiB")} == {24 * GIB}
    assert [read_memory(text) for text in ("1.5 GiB", "800MB", ".5T")] == [1.5 * GIB, 800 * 2**20, 512 * GIB]
    for wrong in ("much", "-3GB", "0GB", "12XB", "24B", "24000000000", "0.0001MB"):
        with pytest.raises(ValueError, match="expected a size such as 24GB"):
            plan_tool.Config(memory=wrong)
    with pytest.raises(ValueError, match=r"hours -1: expected more than 0"):
        plan_tool.Config(hours=-1)


def test_a_plan_is_for_frames_of_one_size() -> None:
    with pytest.raises(ValueError, match=r"more_sizes 48x80 80x48: a plan is for frames of one size"):
        plan_tool.Config(more_sizes=("48x80", "80x48"))


def test_a_survey_that_dies_of_too_little_memory_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(*_: object) -> None:
        raise MemoryError("killed")

    monkeypatch.setattr(plan_tool, "in_own_process", die)
    with pytest.raises(ValueError, match=r"measuring ended for want of memory \(killed\), expected"):
        plan_tool._surveyed(plan_tool.Config(device="cpu"), tmp_path, (COARSE,), 16)


def test_what_fits_no_gpu_is_said_and_is_no_number_in_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    large = replace(gpt(512), seconds_per_step=math.inf, peak_bytes=math.inf)
    found = Found((tokenizer(),), (gpt(), large), ())
    monkeypatch.setattr(plan_tool, "in_own_process", lambda *_: found)
    plan_tool._surveyed(plan_tool.Config(device="cpu"), tmp_path, (COARSE,), 16)
    assert "GPT 512 x 4 at stride (4, 8, 8): not one clip fits" in capsys.readouterr().out
    told = what_for_more(MANY, found, made(MANY, 1), 1, 100 * GIB)[-1]
    assert told == "too large for the memory of this device, even clip by clip: GPT 512 x 4 at stride (4, 8, 8)"
    written = json.dumps(plan_tool._finite({"survey": asdict(found), "more": [math.nan, 1.5]}), allow_nan=False)
    read = json.loads(written)
    assert read["survey"]["gpts"][1]["peak_bytes"] is None and read["more"] == [None, 1.5]
    with pytest.raises(ValueError, match=r"memory 100GB: the smallest models need more than this device has"):
        choose(MANY, [tokenizer()], [large], 16, 6, 100 * GIB)


def test_a_rehearsal_that_died_of_memory_is_told_from_one_that_crashed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert in_own_process(tmp_path / "log", math.hypot, 3.0, 4.0) == 5.0
    with pytest.raises(MemoryError, match="killed by SIGKILL, as systems do with one that takes too much memory"):
        in_own_process(tmp_path / "log", signal.raise_signal, signal.SIGKILL)
    (tmp_path / "log").write_text("std::bad_alloc\n")  # of the one before
    with pytest.raises(ChildProcessError, match=r"ended by exit status 3, which is no want of .* last: nothing"):
        in_own_process(tmp_path / "log", os._exit, 3)

    (tmp_path / "said").write_text("step 1\nterminate called after throwing std::bad_alloc\n\n")
    assert isinstance(_death(-signal.SIGABRT, tmp_path / "said"), MemoryError)
    (tmp_path / "said").write_text("step 1\nSegmentation fault\n")
    assert str(_death(-signal.SIGSEGV, tmp_path / "said")) == (
        "a process that measures ended by SIGSEGV, which is no want of memory, expected a result; it said last: "
        "Segmentation fault"
    )
    assert "ended by signal 37, which" in str(_death(-37, tmp_path / "said")), "a signal of no name"
    assert isinstance(_told(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried")), MemoryError)
    assert isinstance(_told(torch.OutOfMemoryError("CUDA out of memory. Tried to")), MemoryError)
    assert isinstance(_told(RuntimeError("shapes do not match")), RuntimeError)

    def die(*_: object) -> None:
        raise ending

    monkeypatch.setattr(plan_tool, "in_own_process", die)
    ending: Exception = MemoryError("killed")
    assert plan_tool._cost(tmp_path, None) is None
    assert "a rehearsal ended for want of memory (killed): again, with" in capsys.readouterr().out
    ending = ChildProcessError("ended by SIGSEGV")
    with pytest.raises(ChildProcessError, match="SIGSEGV"):
        plan_tool._cost(tmp_path, None)


def test_grids_fit_the_frames() -> None:
    assert plan_tool.usual_strides(64, 64) == ((4, 8, 8), (4, 4, 4))
    assert plan_tool.usual_strides(128, 256) == ((4, 16, 16), (4, 8, 8))
    assert plan_tool.usual_strides(72, 104) == ((4, 8, 8), (4, 4, 4))
    assert plan_tool.usual_strides(36, 36) == ((4, 4, 4), (4, 2, 2))


def test_a_sample_of_a_store_is_one(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (4, 30, 32, 32, 3), dtype=np.uint8)
    rows = []
    for number, frames in enumerate(noise):
        name = f"{'val' if number == 3 else 'train'}/{number}.mkv"
        write_video(tmp_path / "videos" / name, frames[: 30 if number else 12], 10)
        rows.append({"file_name": name, "caption": "word " * (9 if number == 2 else 1)})
    (tmp_path / "videos/metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = DataSettings(tmp_path / "videos", 16, cache=tmp_path / "clips").ingest_settings()
    store = open_or_ingest(tmp_path / "videos", settings, tmp_path / "clips", progress=False)
    sample_store = write_store_sample(store, tmp_path / "sample", frames=20, at_once=24, clip_frames=16)
    assert [(r.split, r.frames) for r in sample_store.records] == [("train", 24), ("val", 24)]
    assert "word word" in str(sample_store.records[0].caption), "the one with the longest caption"
    for record in sample_store.records:
        own = next(r for r in store.records if r.key == record.key)
        assert (sample_store.frames(record) == store.frames(own, 0, 24)).all()
    everything = write_store_sample(store, tmp_path / "all", frames=10**6, at_once=10**6, clip_frames=8)
    assert [r.frames for r in everything.records] == [r.frames for r in store.records]
