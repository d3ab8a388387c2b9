"""The commands, one after another as a user runs them, on a world of a few small clips."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from accelerate.state import AcceleratorState
from PIL import Image

from tokenreel.datasets.clip_groups import ClipGroups
from tokenreel.datasets.decoding import FrameStream, load_video
from tokenreel.datasets.token_shards import TokenShards
from tokenreel.datasets.video_writer import write_video
from tokenreel.evaluation.card import Card
from tokenreel.tokenizer import TokenizerConfig, VideoTokenizer, fingerprint
from tokenreel.tools import evaluate, make_world, sample, tokenize_dataset, tokenizer_stage, train_gpt, train_tokenizer
from tokenreel.transformer import ConditionConfig, GPTConfig, GPTSize, VideoGPT

TOOLS = {
    "make_world": make_world,
    "train_tokenizer": train_tokenizer,
    "tokenize_dataset": tokenize_dataset,
    "train_gpt": train_gpt,
    "sample": sample,
    "evaluate": evaluate,
}
SHORT = "--batch-size 3 --log-every 1 --wandb disabled --device cpu --precision fp32"
TINY = "--model.width 16 --model.encoder-depth 1 --model.decoder-depth 1"
TOKENIZER = f"train_tokenizer --data world --cache clips --size 32 {SHORT} {TINY} --model.levels 5 5"
GPT = f"train_gpt --shards tokens {SHORT} --model.dim 64 --model.depth 1"
SAMPLE = "sample --model gpt --cache clips --device cpu"
EVALUATE = "evaluate --model gpt --cache clips --device cpu"


def call(command: str) -> None:
    name, *arguments = command.split()
    AcceleratorState._reset_state(True)  # it is kept per process, and a command is a process of its own
    TOOLS[name].main(arguments)


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the four commands of the training were run: world, tokenizer, shards, GPT."""
    home = tmp_path_factory.mktemp("chain")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        call("make_world balls --out world --count 6 --val-count 2 --size 32 --frames 24")
        call(f"{TOKENIZER} --run tok --steps 8 --checkpoint-every 3 --evaluate-every 4")
        call("tokenize_dataset --tokenizer tok --out tokens --cache clips --clips-per-shard 10")
        call(f"{GPT} --run gpt --steps 8 --checkpoint-every 3 --evaluate-every 4")
    return home


@pytest.fixture(autouse=True)
def there(chain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run in that folder, as a user would in theirs."""
    monkeypatch.chdir(chain)


def shape_of(video: Path | str) -> tuple[int, ...]:
    """(T, H, W, 3) of a video file, by decoding it."""
    return load_video(Path(video), 32, 32, None).frames.shape


# the chain


@pytest.mark.parametrize("run", ["tok", "gpt"])
def test_a_run_folder_holds_what_the_design_says(run: str) -> None:
    config = json.loads(Path(run, "config.json").read_text())
    assert config["steps"] == 8 and config["run"] == run and config["resume"] is False
    lines = [json.loads(line) for line in Path(run, "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 4, 5, 6, 7, 8, 8]
    assert all(math.isfinite(value) for line in lines for value in line.values())
    assert [p.name for p in sorted(Path(run, "checkpoints").iterdir())] == [
        "step_000005",  # from where the run could be prolonged
        "step_000006",
        "step_000008",
    ]
    made = json.loads(Path(run, "model", "provenance.json").read_text())
    assert made["step"] == 8 and made["versions"]["torch"] and made["data"]["clip_store"].startswith("clips/world-")
    assert made["exposures_per_video"] == pytest.approx(8 * 3 / 6)
    assert (
        made["exposures_per_video_min"] <= made["exposures_per_video_median"] <= made["exposures_per_video_max"] <= 24
    )
    told = json.loads(Path(run, "checkpoints", "step_000008", "meta.json").read_text())["exposures"]
    assert {f"exposures_{name}": value for name, value in told.items()}.items() <= made.items()
    assert lines[-1]["data/exposures_through_median"] == told["through_median"] > 0
    shown = {"tok": "reconstruction", "gpt": "continuation"}[run]
    expected = {f"{shown}_{step:06d}.{kind}" for step in (4, 8) for kind in ("png", "mp4")}
    assert {path.name for path in Path(run, "samples").iterdir()} == expected
    assert not Path(run, "wandb").exists() and not list(Path().rglob("*tmp*"))


def test_metrics_have_the_names_that_are_asked_for() -> None:
    names = {run: set(json.loads(Path(run, "metrics.jsonl").read_text().splitlines()[0])) for run in ("tok", "gpt")}
    lasts = {run: set(json.loads(Path(run, "metrics.jsonl").read_text().splitlines()[-1])) for run in ("tok", "gpt")}
    both = {"optim/lr", "optim/grad_norm", "speed/data_wait_share", "memory/peak_mb"}
    assert both | {"train/loss", "train/l2", "train/psnr"} <= names["tok"]
    assert {"codebook/perplexity", "codebook/dead_codes", "speed/clips_per_s"} <= names["tok"]
    assert {"data/min", "data/max", "data/static_share", "data/repeated_share"} <= names["tok"]
    assert {"val/psnr", "val/motion_kept", "val/perplexity", "data/exposures_per_video"} <= lasts["tok"]
    assert both | {"train/bits_per_token", "speed/tokens_per_s"} <= names["gpt"]
    assert {"val/bits_per_token", "val/bits_per_pixel", "data/exposures_per_video"} <= lasts["gpt"]
    assert {"data/static_share", "data/repeated_share"} <= names["gpt"]
    assert {"tokenizer/psnr", "tokenizer/motion_kept"} <= lasts["gpt"], "as the tokenizer's last validation found"


def test_an_alarm_about_the_codebook_is_said_and_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tokenizer_stage, "codebook_alarm", lambda config, usage, step: f"[{step}] codebook collapsed")
    call(f"{TOKENIZER} --run {tmp_path}/run --steps 2")
    assert "step 2  alarm: [2] codebook collapsed" in capfd.readouterr().out
    line = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    assert line["alarm"] == "[2] codebook collapsed" and line["val/psnr"] > 0


def test_shards_and_gpt_name_their_tokenizer_and_carry_it() -> None:
    right = fingerprint(Path("tok"))
    assert fingerprint(Path("tokens/tokenizer")) == fingerprint(Path("gpt/model/tokenizer")) == right
    for split, clips in (("train", 18), ("val", 6)):
        shards = TokenShards.open(Path("tokens"), split, tokenizer=right, verify=True)
        assert len(shards) == clips and shards.manifest.grid == (4, 4, 4) and shards.manifest.codebook_size == 25
    _, record = TokenShards.open(Path("tokens"), "train").clip(0)
    assert record["label"].endswith("balls") or record["label"] == "one ball"
    assert "ball" in record["caption"]
    config = VideoGPT.from_pretrained("gpt").config
    assert config.tokenizer == right and config.grid == (4, 4, 4) and config.fps == 10.0
    assert config.conditions.labels and all("ball" in label for label in config.conditions.labels)


def test_finished_work_is_not_done_again(capsys: pytest.CaptureFixture[str]) -> None:
    files = [p for folder in ("tokens", "world", "clips") for p in sorted(Path(folder).rglob("*")) if p.is_file()]
    before = {p: p.stat().st_mtime_ns for p in files if p.name != "manifest.json"}
    call("make_world balls --out world --count 6 --val-count 2 --size 32 --frames 24")
    assert "already there" in capsys.readouterr().out
    call("tokenize_dataset --tokenizer tok --out tokens --cache clips --clips-per-shard 10")
    assert {p: p.stat().st_mtime_ns for p in before} == before


def test_a_missing_shard_alone_is_written_again(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    shutil.copytree("tokens", tokens)
    lost, kept = tokens / "train" / "shard-000001.tar", tokens / "train" / "shard-000000.tar"
    content, time = lost.read_bytes(), kept.stat().st_mtime_ns
    lost.unlink()
    call(f"tokenize_dataset --tokenizer tok --out {tokens} --cache clips --clips-per-shard 10")
    assert lost.read_bytes() == content and kept.stat().st_mtime_ns == time


# sampling


def test_sampling_writes_each_clip_and_the_comparison_and_prints_where(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call(f"{SAMPLE} --out {tmp_path}/s --num-samples 3 --prompt-frames 4")
    said = capsys.readouterr().out.split()
    assert set(said) == {str(path) for path in (tmp_path / "s").iterdir()}
    assert len(said) == 5
    for number in range(3):
        assert shape_of(tmp_path / "s" / f"sample_{number:03d}.mp4") == (16, 32, 32, 3)
    assert shape_of(tmp_path / "s" / "grid.mp4")[0] == 16
    picture = np.asarray(Image.open(tmp_path / "s" / "grid.png"))
    colours = {tuple(color) for color in picture.reshape(-1, 3).tolist()}
    assert {(46, 160, 67), (207, 106, 0)} <= colours, "prompt and new frames are not marked"


def test_sample_i_is_the_same_however_many_are_made(tmp_path: Path) -> None:
    for number in (1, 3):
        call(f"{SAMPLE} --out {tmp_path}/{number} --num-samples {number}")
    assert (tmp_path / "1/sample_000.mp4").read_bytes() == (tmp_path / "3/sample_000.mp4").read_bytes()


def test_a_gpt_of_other_videos_than_its_tokenizers_says_so(tmp_path: Path) -> None:
    call(f"make_world paddle --out {tmp_path}/paddle --count 3 --val-count 1 --size 32 --frames 16")
    call(f"tokenize_dataset --tokenizer tok --data {tmp_path}/paddle --out {tmp_path}/tokens --cache clips")
    call(f"{GPT.replace('--shards tokens', '')} --shards {tmp_path}/tokens --run {tmp_path}/gpt --steps 1")
    made = json.loads((tmp_path / "gpt/model/provenance.json").read_text())
    assert made["data"]["folder"] == f"{tmp_path}/paddle"
    call(f"evaluate --model {tmp_path}/gpt --cache clips --out {tmp_path}/judged")
    judged = json.loads((tmp_path / "judged/evaluation.json").read_text())
    assert judged["clips"] == 1 and judged["split"] == "val" and "position_error_px" not in judged


@pytest.mark.parametrize("ending", ["mp4", "webm", "gif", "avi"])
def test_every_format_can_be_read_again(ending: str, tmp_path: Path) -> None:
    call(f"{SAMPLE} --out {tmp_path} --num-samples 1 --prompt-frames 8 --frames 4 --format {ending}")
    assert shape_of(tmp_path / f"sample_000.{ending}")[0] == shape_of(tmp_path / f"grid.{ending}")[0] == 12


def test_clips_from_nothing(tmp_path: Path) -> None:
    call(f"{SAMPLE} --out {tmp_path} --num-samples 2 --prompt-frames 0")
    assert shape_of(tmp_path / "sample_001.mp4")[0] == 16


def test_a_video_of_any_size_and_rate_is_continued(tmp_path: Path) -> None:
    steps = np.linspace(0, 255, 60).astype(np.uint8)[:, None, None, None]
    write_video(tmp_path / "my film.mkv", np.broadcast_to(steps, (60, 48, 80, 3)).copy(), 30.0)
    command = [*SAMPLE.split()[1:], "--input", str(tmp_path / "my film.mkv"), "--keep-prompt", "--temperature", "0.9"]
    for name, count in (("one", 1), ("three", 3)):
        options = ["--num-samples", str(count), "--out", str(tmp_path / name), "--format", "avi"]
        sample.main([*command, *options])
    first = [(tmp_path / name / "sample_000.avi").read_bytes() for name in ("one", "three")]
    assert first[0] == first[1], "a sample depends on how many are made"
    assert first[0] != (tmp_path / "three" / "sample_001.avi").read_bytes()
    shown = load_video(tmp_path / "one" / "sample_000.avi", 32, 32, None).frames
    # 30 fps brought to 10: every third of the greys; --keep-prompt shows them and not a reconstruction.
    assert np.abs(shown[:4, 8:24, 8:24].mean(axis=(1, 2, 3)) - steps[:12:3, 0, 0, 0]).max() < 6


def test_clips_grow_beyond_the_window(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = [*SAMPLE.split()[1:], "--prompt-frames", "4", "--num-samples", "2", "--out"]
    sample.main([*common, str(tmp_path / "long"), "--frames", "40", "--format", "avi"])
    assert "the comparison shows one frame in 3" in capsys.readouterr().out
    sample.main([*common, str(tmp_path / "short"), "--frames", "12", "--format", "avi"])
    long, short = (load_video(tmp_path / name / "sample_001.avi", 32, 32, None).frames for name in ("long", "short"))
    assert (len(long), len(short)) == (44, 16)
    assert np.abs(long[:16].astype(int) - short).mean() < 2  # the same frames, after a lossy codec
    assert shape_of(tmp_path / "long" / "grid.avi")[0] == 15
    sample.main([*common, str(tmp_path / "own"), "--frames", "40", "--keep-prompt", "--overlap", "1"])
    assert shape_of(tmp_path / "own" / "sample_000.mp4")[0] == 44
    with pytest.raises(SystemExit, match="2"):
        sample.main([*common, str(tmp_path / "none"), "--frames", "40", "--overlap", "4"])
    assert "overlap 4 of a window of 4 latent frames, expected 1 to 3" in capsys.readouterr().err
    assert not list((tmp_path / "none").glob("*"))


def test_labels_condition_samples(tmp_path: Path) -> None:
    label = VideoGPT.from_pretrained("gpt").config.conditions.labels[0]
    command = [*SAMPLE.split()[1:], "--prompt-frames", "0", "--num-samples", "1", "--out", str(tmp_path)]
    sample.main([*command, "--label", label])
    assert shape_of(tmp_path / "sample_000.mp4")[0] == 16


def test_captions_and_requests_condition_samples(tmp_path: Path) -> None:
    config = VideoGPT.from_pretrained("gpt").config.conditions
    assert config.kinds == ("labels", "captions") and config.caption_words >= 3
    sample.main([*SAMPLE.split()[1:], "--prompt", "a red ball", "--num-samples", "2", "--out", str(tmp_path / "one")])
    assert shape_of(tmp_path / "one/sample_001.mp4")[0] == 16, "a caption alone makes clips from nothing"
    requests = [{"prompt": "a blue ball", "frames": 8, "format": "gif"}, {"label": config.labels[0], "seed": 5}]
    path = tmp_path / "prompts.jsonl"
    path.write_text("\n".join(map(json.dumps, requests)))
    call(f"{SAMPLE} --prompts {path} --out {tmp_path}/many --guidance 1.5")
    assert shape_of(tmp_path / "many/sample_000.gif")[0] == 8
    assert shape_of(tmp_path / "many/sample_001.mp4")[0] == 16


def test_what_the_shards_say_of_a_clip_is_told_in_training() -> None:
    shards = TokenShards.open(Path("tokens"), "train")
    groups = ClipGroups([shards])
    stage = train_gpt.GPTStage(train_gpt.Config(shards="tokens", batch_size=3), groups, Path("tok/model"))
    batch = stage.batch(0)
    records = [shards.clip(number)[1] for number in stage.order.batch(0)]
    labels = stage.model.config.conditions.labels
    assert [labels[i - 1] for i in batch["labels"]] == [record["label"] for record in records]
    assert [int((row > 0).any(-1).sum()) for row in batch["captions"]] == [len(r["caption"].split()) for r in records]


def test_captions_may_be_cut_and_labels_of_validation_alone_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call(f"make_world balls --out {tmp_path}/w --count 3 --val-count 2 --size 32 --frames 16")
    for path in (tmp_path / "w").glob("*/*.json"):
        told = {"caption": "one two three four five six seven eight nine"}
        told |= {"label": "many"} if path.parent.name == "val" else {}
        path.write_text(json.dumps({**json.loads(path.read_text()), **told}))
    call(
        f"tokenize_dataset --data {tmp_path}/w --tokenizer tok --out {tmp_path}/tokens --cache {tmp_path}/clips "
        "--caption-words 8"
    )
    assert (
        "2 videos outside of train have labels that no training video has, such as 'many' of" in capsys.readouterr().out
    )
    shards = TokenShards.open(tmp_path / "tokens", "train")
    known = ConditionConfig.of_data(shards.manifest.source, ["captions"], 4, 0.0)
    told = known.of_record(shards.clip(0)[1])
    assert (known.caption_words, told.caption) == (8, "one two three four five six seven eight")
    assert known.tensors([told], 1).captions is not None
    with pytest.raises(ValueError, match=r"caption_words 7: expected 0 .* or at least 8"):
        tokenize_dataset.Config(caption_words=7)


def test_actions_are_learnt_and_said(tmp_path: Path) -> None:
    call(f"make_world paddle --out {tmp_path}/w --count 3 --val-count 1 --size 32 --frames 16")
    call(f"tokenize_dataset --data {tmp_path}/w --tokenizer tok --out {tmp_path}/tokens --cache {tmp_path}/clips")
    call(f"{GPT.replace('tokens', f'{tmp_path}/tokens')} --run {tmp_path}/gpt --steps 2 --conditions actions")
    config = VideoGPT.from_pretrained(tmp_path / "gpt").config.conditions
    assert config.kinds == ("actions",) and config.action_names == ("stay", "left", "right")
    (tmp_path / "actions.json").write_text(json.dumps(["left"] * 9))
    command = f"{SAMPLE} --model {tmp_path}/gpt --num-samples 1 --cache {tmp_path}/clips"
    for name, said in (("own", ""), ("left", f"--actions {tmp_path}/actions.json --frames 8")):
        call(f"{command} {said} --out {tmp_path}/{name}")
        assert shape_of(tmp_path / name / "sample_000.mp4")[0] == (12 if said else 16)
    call(f"{command} --actions {tmp_path}/actions.json --out {tmp_path}/as-many")
    assert shape_of(tmp_path / "as-many/sample_000.mp4")[0] == 12, "as many new frames as the actions allow"


def test_a_gpt_of_two_factors_is_trained_resumed_judged_and_sampled(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call(f"{GPT} --run {tmp_path}/gpt --steps 1 --factors 2")
    call(f"{GPT} --run {tmp_path}/gpt --steps 2 --factors 2 --resume")
    assert VideoGPT.from_pretrained(tmp_path / "gpt").config.head_sizes == (5, 5)
    assert VideoGPT.from_pretrained("gpt").config.head_sizes == (25,)
    call(f"{EVALUATE} --model {tmp_path}/gpt --out {tmp_path} --top-k 5")
    assert json.loads((tmp_path / "evaluation.json").read_text())["bits_per_token"] <= math.log2(25) + 1
    call(f"{SAMPLE} --model {tmp_path}/gpt --out {tmp_path}/s --num-samples 1 --top-k 5")
    for command, said in (
        (f"{SAMPLE} --model {tmp_path}/gpt --out {tmp_path}/s --top-k 6", "top_k 6 exceeds both factors of an index"),
        (f"{GPT} --run {tmp_path}/gpt --steps 3 --factors 1 --resume", 'was trained with factors="2", got "1"'),
    ):
        with pytest.raises(SystemExit):
            call(command)
        assert said in capsys.readouterr().err


def test_a_gpt_that_makes_whole_frames_and_fills_in_is_trained_judged_and_sampled(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call(f"{GPT} --run {tmp_path}/gpt --steps 2 --decoding frame --infilling 0.5")
    config = VideoGPT.from_pretrained(tmp_path / "gpt").config
    assert (config.decoding, config.infilling) == ("frame", 0.5)
    call(f"{EVALUATE} --model {tmp_path}/gpt --out {tmp_path} --passes 2")
    assert json.loads((tmp_path / "evaluation.json").read_text())["bits_per_token"] <= math.log2(25) + 1
    ours = f"{SAMPLE} --model {tmp_path}/gpt --out {tmp_path}/s --num-samples 2 --passes 2 --precision bf16"
    call(f"{ours} --prompt-frames 4 --last-frames 4")
    assert shape_of(tmp_path / "s/sample_001.mp4")[0] == 16
    call(f"{ours} --prompt-frames 0 --last-frames 8 --frames 4 --input world/val/00000.mp4")
    assert shape_of(tmp_path / "s/sample_001.mp4")[0] == 12
    for command, said in (
        (f"{ours} --last-frames 4 --frames 12", "exceed the window of 16 frames"),
        (f"{SAMPLE} --out {tmp_path}/s --last-frames 4", "was not trained to fill in"),
        (f"{GPT} --run {tmp_path}/gpt --steps 3 --infilling 0.5 --resume", 'was trained with decoding="frame"'),
    ):
        with pytest.raises(SystemExit):
            call(command)
        assert said in capsys.readouterr().err


def test_given_frames_themselves_stand_at_both_ends_if_asked_for() -> None:
    parts = [np.full((1, 4, 2, 2, 3), n, np.uint8) for n in range(4)]
    first, last = np.full_like(parts[0], 8), np.full_like(parts[0], 9)
    for given, expected in (((first, last), [8, 1, 2, 9]), ((first, None), [8, 1, 2, 3]), ((None, last), [0, 1, 2, 9])):
        assert [int(part.max()) for part in sample._with_given(iter(parts), *given)] == expected


# evaluation


def test_evaluation_reports_every_figure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call(f"{EVALUATE} --out {tmp_path}")
    result = json.loads((tmp_path / "evaluation.json").read_text())
    assert result["clips"] == 2
    assert 0 < result["tokenizer_psnr_db"] < 100
    assert result["bits_per_token"] <= math.log2(25) + 1
    assert result["bits_per_pixel"] == pytest.approx(result["bits_per_token"] * 64 / (16 * 32 * 32))
    assert result["sampling_tokens_per_s"] > 0
    assert all(0 < megabytes < 4096 for megabytes in result["peak_memory_mb"].values())
    errors = result["position_error_px"]
    names = {"model", "tokenizer_alone", "copy_last_frame", "repeat_last_motion"}
    assert errors.keys() == result["psnr_db"].keys() == names
    assert result["model"] == "gpt" and all(len(values) == 12 for values in result["psnr_db"].values())
    assert all(len(values) == 12 for values in errors.values())
    sidecars = [json.loads(path.read_text()) for path in sorted(Path("world/val").glob("*.json"))]
    places = [np.array(sidecar["states"]["positions"]) for sidecar in sidecars]
    drift = np.mean([np.abs(truth[4:16] - truth[3]).mean(axis=(1, 2)) for truth in places], axis=0)
    np.testing.assert_allclose(errors["copy_last_frame"], drift, atol=0.5)
    said = capsys.readouterr().out
    assert "sampling tokens/s" in said and "mean of first 4" in said and "evaluation.json" in said
    card = Card.read(tmp_path)
    figures = {(figure.group, figure.name): figure for figure in card.figures}
    groups = {"fidelity", "prediction", "distribution", "motion", "memorization", "drift"}
    assert {group for group, _ in figures} == groups | {"world: balls", "world: captions"}
    assert figures["fidelity", "PSNR"].value == pytest.approx(result["tokenizer_psnr_db"], rel=1e-4)
    assert figures["prediction", "PSNR"].by_frame["model"] == pytest.approx(result["psnr_db"]["model"], abs=1e-3)
    best = figures["prediction", "PSNR, best of 4"]
    assert best.value >= figures["prediction", "PSNR"].value
    yardsticks = {"tokenizer alone", "copy of the last frame", "last motion repeated", "real clips"}
    assert figures["distribution", "Fréchet distance, builtin-1"].floors.keys() == yardsticks
    assert figures["motion", "flicker, real clips are 1"].floors["copy of the last frame"] == 0
    for nearness in ("pixels", "tokens"):
        near = figures["memorization", f"distance to training clips by {nearness}, held-out clips are 1"]
        assert (
            0 < near.value < 10
            and near.protocol == f"nearest-1[{nearness}]: training clips every 4 frames"
            and f"(by {nearness})" in " ".join(card.notes)
        )
    page = (tmp_path / "evaluation.html").read_text()
    assert card.protocol_id in page and page.count("data:image/png;base64") == 4 and "<svg" in page


def test_cards_are_compared_only_if_they_were_made_alike(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    once = f"{EVALUATE} --best-of 1 --further memorization"
    for name, options in (("a", ""), ("b", "--seed 5 --temperature 0.5"), ("c", "--prompt-frames 8")):
        call(f"{once} {options} --out {tmp_path}/{name}")
    capsys.readouterr()
    call(f"evaluate --compare {tmp_path}/a {tmp_path}/b/card.json")
    said = capsys.readouterr().out
    assert "first: " in said and "prediction" in said and "PSNR (dB) ↑" in said
    with pytest.raises(SystemExit):
        call(f"evaluate --compare {tmp_path}/a {tmp_path}/c")
    assert "unlike protocols: prompt_frames is 4 and 8" in capsys.readouterr().err


def test_videos_that_anything_made_are_judged_by_real_ones(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = f"evaluate --cache clips --device cpu --size 32 --out {tmp_path} --frames world/val --against world/train"
    call(f"{command} --clip-frames 8 --clips 6 --paired")
    card = Card.read(tmp_path)
    assert card.protocol["clips"] == 6 and card.protocol["reference_clips"] == 6
    assert {figure.group for figure in card.figures} == {"fidelity", "distribution", "motion"}
    real = {figure.name: figure.floors.get("real clips") for figure in card.figures}
    assert real["Fréchet distance, builtin-1"] is not None
    for options, said in (
        ("--clip-frames 32", "the longest video of world/val has 24 frames, expected 32; lower --clip-frames"),
        ("--clip-frames 24 --clips 1", "1 clips in world/val and 2 in world/train, expected at least 2 and 4"),
        ("--features nothing.pt", "no file nothing.pt, expected a TorchScript file"),
    ):
        with pytest.raises(SystemExit):
            call(f"{command} {options}")
        assert said in capsys.readouterr().err
    with pytest.raises(SystemExit):
        call("evaluate --frames world/val")
    assert "--frames and --against: expected both or neither" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        call("evaluate --frames world/val --against world/train --frame-size 32x32")
    assert "--frame-size choose clips of a model's data, expected neither" in capsys.readouterr().err


# the user's own videos


def test_a_flat_folder_with_classes_and_frames_that_are_not_square(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for number in range(4):
        folder = tmp_path / "mine" / ("cats" if number % 2 else "dogs")
        folder.mkdir(parents=True, exist_ok=True)
        color = random.integers(0, 256, (1, 1, 1, 3), dtype=np.uint8)
        frames = np.broadcast_to(color, (20, 40, 64, 3)).copy()
        frames[:, :, ::8] = np.arange(20, dtype=np.uint8)[:, None, None, None] * 12
        write_video(folder / f"{number}.mp4", frames, 10.0)
    mine = f"--data {tmp_path}/mine --cache {tmp_path}/clips --width 48"
    call(f"{TOKENIZER} --run {tmp_path}/tok --steps 2 {mine}")
    call(f"tokenize_dataset --tokenizer {tmp_path}/tok --out {tmp_path}/tokens --cache {tmp_path}/clips")
    call(f"{GPT} --shards {tmp_path}/tokens --run {tmp_path}/gpt --steps 2")
    config = VideoGPT.from_pretrained(tmp_path / "gpt").config
    assert config.conditions.labels == ("cats", "dogs") and config.grid == (4, 4, 6)
    call(f"{SAMPLE} --model {tmp_path}/gpt --out {tmp_path}/samples --num-samples 2 --label cats")
    stream = FrameStream(tmp_path / "samples" / "sample_000.mp4", 32, 48)
    assert len(list(stream)) == 16
    assert (stream.facts.source_height, stream.facts.source_width) == (32, 48)
    call(f"{EVALUATE} --model {tmp_path}/gpt --out {tmp_path}/evaluation")
    assert "position_error_px" not in json.loads((tmp_path / "evaluation" / "evaluation.json").read_text())


def test_clips_from_nothing_need_the_model_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gpt = Path("gpt").resolve()
    monkeypatch.chdir(tmp_path)
    call(f"sample --model {gpt} --prompt-frames 0 --num-samples 2 --out s --device cpu")
    assert shape_of("s/sample_001.mp4") == (16, 32, 32, 3)
    assert sorted(p.name for p in Path().iterdir()) == ["s"]


def test_odd_sizes_are_padded_where_the_format_needs_it_and_said_to_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    tokenizer = VideoTokenizer(TokenizerConfig((4, 1, 1), 16, 1, 1, levels=(5, 5)))
    made_by = tokenizer.save_pretrained("tokenizer")
    # Of two sizes: the first is even.
    config = GPTConfig(25, (2, 3, 5), GPTSize(64, 1), tokenizer=made_by, frames=((2, 2), (3, 5)))
    VideoGPT(config).save_pretrained("gpt", tokenizer="tokenizer")
    said, heard = "odd frame sizes are padded to even ones, as the format needs; gif keeps them", {}
    for ending, size in (("mp4", "3x5"), ("gif", "3x5"), ("mp4", "2x2")):
        out = f"{ending}-{size}"
        call(f"sample --model gpt --prompt-frames 0 --frame-size {size} --num-samples 1 --format {ending} --out {out}")
        stream = FrameStream(Path(out, f"sample_000.{ending}"), 8, 8)
        list(stream)
        heard[out] = said in capsys.readouterr().out, stream.facts.source_height, stream.facts.source_width
    assert heard == {"mp4-3x5": (True, 4, 6), "gif-3x5": (False, 3, 5), "mp4-2x2": (False, 2, 2)}
