"""A user's mistake ends in one line that says what was got, what was expected and what to do, and exit status 2."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from tokenreel.datasets.video_writer import write_video
from tokenreel.tools import evaluate, make_world, sample, tokenize_dataset, train_gpt, train_tokenizer
from tokenreel.training import checkpoints

TOOLS = {
    "make_world": make_world,
    "train_tokenizer": train_tokenizer,
    "tokenize_dataset": tokenize_dataset,
    "train_gpt": train_gpt,
    "sample": sample,
    "evaluate": evaluate,
}
SHORT = "--batch-size 2 --wandb disabled --device cpu --precision fp32"
TINY = "--model.width 16 --model.encoder-depth 1 --model.decoder-depth 1 --model.levels 5 5"
TOKENIZER = f"train_tokenizer --cache clips --size 32 {SHORT} {TINY}"
TOKENIZE = "tokenize_dataset --cache clips"
GPT = f"train_gpt {SHORT} --model.dim 64 --model.depth 1"
SAMPLE = "sample --model gpt --cache clips --num-samples 1"


def call(command: str) -> None:
    name, *arguments = command.split()
    AcceleratorState._reset_state(True)  # it is kept per process, and a command is a process of its own
    TOOLS[name].main(arguments)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything that can be right, so that one thing at a time can be wrong."""
    home = tmp_path_factory.mktemp("bad")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        call("make_world balls --out world --count 3 --val-count 1 --size 32 --frames 16")
        call(f"{TOKENIZER} --data world --run tok --steps 1")
        call(f"{TOKENIZER} --data world --run other --steps 1 --seed 1")
        call(f"{TOKENIZE} --tokenizer tok --out tokens")
        call(f"{GPT} --shards tokens --run gpt --steps 1")
        call("make_world balls --out world2 --count 3 --val-count 1 --size 32 --frames 16 --seed 1")
        call(f"{TOKENIZE} --tokenizer tok --out tokens2 --hop 2")
        shutil.copytree(
            "tokens", "stopped", ignore=lambda here, _: {"manifest.json"} if here.endswith("val") else set()
        )
        shutil.copytree("gpt", "damaged")
        weights = Path("damaged/model/model.safetensors")
        weights.write_bytes(weights.read_bytes()[:1000])
        shutil.copytree("gpt", "swapped")
        shutil.rmtree("swapped/model/tokenizer")
        shutil.copytree("other/model", "swapped/model/tokenizer")
        shutil.copytree("gpt", "nan")
        weights = Path("nan/model/model.safetensors")
        state = load_file(weights)
        save_file({name: torch.full_like(each, torch.nan) for name, each in state.items()}, weights)
        Path("empty").mkdir()
        Path("texts").mkdir()
        for name in ("a.txt", "b.txt", "c.md"):
            Path("texts", name).write_text("no video")
        Path("pretended").mkdir()
        Path("pretended", "film.mp4").write_text("no video either")
        Path("file").write_text("")
        Path("actions.json").write_text("[0, 0, 0, 0]")
        Path("bad.jsonl").write_text('{"promt": "a red ball"}')
        shutil.copytree("tok", "unfinished", ignore=shutil.ignore_patterns("model", "checkpoints"))
        shutil.copytree("tokens", "cut")
        shard = Path("cut/train/shard-000000.tar")
        shard.write_bytes(shard.read_bytes()[:3000])
        write_video(Path("short.mp4"), np.zeros((2, 32, 32, 3), np.uint8), 10.0)
    return home


@pytest.fixture(autouse=True)
def there(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(prepared)
    yield
    shutil.rmtree("new", ignore_errors=True)  # one case that fails should not hide another


def files() -> dict[str, int]:
    """Files and their sizes, without the finished clip stores that are kept for the next run."""
    found = [p for p in Path().rglob("*") if p.is_file() and (p.parts[0] != "clips" or "tmp" in str(p))]
    return {str(p): p.stat().st_size for p in found}


CASES = {
    # the videos
    "no videos": (
        f"{TOKENIZER} --data empty --run new",
        "no videos in empty: found nothing, expected files named",
    ),
    "text files": (
        f"{TOKENIZER} --data texts --run new",
        "no videos in texts: found 2 .txt files, 1 .md file,",
    ),
    "no real videos": (f"{TOKENIZER} --data pretended --run new", "not one of the 1 videos in pretended can be used"),
    "no folder": (f"{TOKENIZER} --data nowhere --run new", "data folder nowhere does not exist; give a folder"),
    "short clips": (
        f"{TOKENIZER} --data world --clip-frames 32 --run new",
        "longest video of split 'train' has 16 frames at 10 fps, expected at least 32; use --clip-frames 16",
    ),
    "short clips for shards": (
        f"{TOKENIZE} --tokenizer tok --clip-frames 32 --out new",
        "has 16 frames at 10 fps, expected at least 32; use --clip-frames 16",
    ),
    # sizes and the stride
    "size": (
        f"{TOKENIZER} --data world --size 36 --run new",
        "height 36 is not a multiple of the tokenizer's stride 8; use 32 or 40",
    ),
    "width": (f"{TOKENIZER} --data world --width 20 --run new", "width 20 is not a multiple .*; use 16 or 24"),
    "window": (f"{TOKENIZER} --data world --clip-frames 14 --run new", "frames 14 is not a multiple .*; use 12 or 16"),
    "window of shards": (f"{TOKENIZE} --tokenizer tok --clip-frames 6 --out new", "frames 6 is not .*; use 4 or 8"),
    "prompt": (
        f"{SAMPLE} --prompt-frames 5 --out new",
        "prompt_frames 5 is not a multiple of the temporal stride 4; use 4 or 8",
    ),
    "prompt of evaluation": ("evaluate --model gpt --prompt-frames 5 --out new", "prompt_frames 5 .*; use 4 or 8"),
    "long prompt": (f"{SAMPLE} --prompt-frames 20 --out new", "prompt_frames 20 exceed the window of 16 frames"),
    "all overlap": (f"{SAMPLE} --frames 16 --overlap 4 --out new", "overlap 4 of a window of 4 latent frames"),
    # tokenizers, shards and models
    "other tokenizer": (
        f"{GPT} --shards tokens --tokenizer other --run new",
        r"shards in tokens were made by tokenizer \w{12}, got other/model with \w{12}; tokenize with this",
    ),
    "shards of another tokenizer": (
        f"{TOKENIZE} --tokenizer other --out tokens",
        r"tokens holds shards of tokenizer \w{12}, got \w{12}; choose another --out",
    ),
    "no weights": (
        f"{TOKENIZE} --tokenizer unfinished --out new",
        "unfinished holds no tokenizer weights .* finish it with --resume",
    ),
    "no tokenizer": (f"{TOKENIZE} --tokenizer nowhere --out new", "no tokenizer folder nowhere; train one with"),
    "a GPT as tokenizer": (f"{TOKENIZE} --tokenizer gpt --out new", "is not a tokenreel video tokenizer"),
    "no shards": (f"{GPT} --shards nowhere --run new", "no token shards in nowhere/train .*; run tools/tokenize_data"),
    "cut shard": (f"{GPT} --shards cut --run new", "cut/train/shard-000000.tar.* 3000"),
    "no GPT": (f"{SAMPLE} --model nowhere --out new", "no GPT folder nowhere; train one with"),
    "no such video": (f"{SAMPLE} --input nowhere.mp4 --out new", "nowhere.mp4"),
    "text as video": (f"{SAMPLE} --input texts/a.txt --out new", "texts/a.txt"),
    "another tokenizer in the GPT's folder": (
        f"{SAMPLE} --model swapped --out new",
        r"swapped/model/tokenizer has fingerprint \w{12}, expected \w{12}, the tokenizer this GPT was trained",
    ),
    "weights that are no numbers": (
        f"{SAMPLE} --model nan --out new",
        "logits are not finite at index 31; the model's weights are damaged, train it again",
    ),
    "short video": (f"{SAMPLE} --input short.mp4 --out new", "short.mp4 has 2 frames at 10 fps, expected at least 4"),
    "label": (f"{SAMPLE} --label bird --out new", "label 'bird' is unknown to this model; it knows: "),
    # conditions
    "caption": (f"{SAMPLE} --prompt {'many+words+' * 99} --out new", r"has \d+ words, expected at most"),
    "guidance without a condition": (
        f"{SAMPLE} --prompt-frames 0 --guidance 2 --out new",
        "guidance 2.0 needs a condition to strengthen, got none; this model takes labels or captions",
    ),
    "guidance": (f"{SAMPLE} --guidance -1 --out new", "guidance -1.0: expected 0"),
    "actions for a model without": (
        f"{SAMPLE} --actions actions.json --frames 4 --out new",
        "got actions, but this model was trained without any",
    ),
    "too few actions": (f"{SAMPLE} --actions actions.json --frames 8 --out new", "got 4 actions for 8 new frames"),
    "no actions": (f"{SAMPLE} --actions nowhere.json --out new", "there is no file nowhere.json"),
    "a request": (f"{SAMPLE} --prompts bad.jsonl --out new", "bad.jsonl, line 1: got .* expected a JSON object with"),
    "a kind of condition": (f"{GPT} --shards tokens --conditions colours --run new", "colours"),
    "a condition that the data lacks": (
        f"{GPT} --shards tokens --conditions actions --run new",
        "conditions actions: the shards have no actions; leave that out",
    ),
    "a text encoder for nothing": (
        f"{SAMPLE} --text-encoder some/encoder --out new",
        "text encoder some/encoder: this model was trained without one",
    ),
    "context noise": (
        f"{GPT} --shards tokens --context-noise 1 --run new",
        r"context_noise 1.0: expected a share in \[0, 1\)",
    ),
    "condition dropout": (
        f"{GPT} --shards tokens --condition-dropout 2 --run new",
        "condition dropout 2.0: expected a share",
    ),
    # numbers
    "no samples": (f"{SAMPLE} --num-samples 0 --out new", "num_samples 0: expected at least 1"),
    "a seed": (f"{SAMPLE} --seed -1 --out new", "seed -1: expected a whole number, 0 or more"),
    "top-k": (f"{SAMPLE} --top-k 26 --out new", "top_k 26 exceeds the codebook of 25 codes"),
    "temperature": (f"{SAMPLE} --temperature -1 --out new", "temperature -1.0: expected 0"),
    "steps": (f"{GPT} --steps 0 --run new", "steps 0: expected at least 1"),
    "hop": (f"{TOKENIZE} --tokenizer tok --hop 0 --out new", "hop 0: expected at least 1"),
    "world size": ("make_world balls --size 31 --out new", "size is 31; expected an even number"),
    "world in a full folder": ("make_world balls --out texts", "texts is not empty and holds no world"),
    # losses
    "a negative weight": (f"{TOKENIZER} --data world --loss.l2=-1 --run new", "loss.l2 -1.0: expected a weight of 0"),
    "no loss": (
        f"{TOKENIZER} --data world --loss.l2 0 --loss.log-l2 0 --run new",
        "are all 0, expected one above; set --loss.l2 1",
    ),
    "no VGG": (
        f"{TOKENIZER} --data world --loss.perceptual 1 --loss.perceptual-weights nowhere.pth --run new",
        "no file nowhere.pth, expected weights; check --loss.perceptual-weights",
    ),
    "another file as VGG": (
        f"{TOKENIZER} --data world --loss.perceptual 1 --loss.perceptual-weights texts/a.txt --run new",
        "texts/a.txt cannot be read as weights",
    ),
    "frames too small for VGG": (
        f"{TOKENIZER} --data world --size 8 --loss.perceptual 1 --run new",
        r"frames of \(8, 8\) are too small for the perceptual loss, expected at least 16",
    ),
    "an adversary that no validation starts": (
        f"{TOKENIZER} --data world --loss.adversarial 1 --steps 250 --run new",
        "evaluate_every 250: expected a validation between 50% and the end of 250 steps, .* --evaluate-every 12",
    ),
    # names
    "preset": (f"{GPT} --preset huge --run new", "preset 'huge' is unknown; expected one of tiny, small, base"),
    "option": (f"{GPT} --stepz 3 --run new", "Unrecognized options: --stepz, 3; did you mean --steps"),
    "option of sample": (f"{SAMPLE} --prompt-framez 4 --out new", "did you mean --prompt-frames"),
    "format": (f"{SAMPLE} --format mpeg --out new", "'mpeg'.*mp4"),
    "world": ("make_world squares --out new", "squares"),
    "quantizer": (f"{TOKENIZER} --model.quantizer rvq --run new", "'rvq'.*'?fsq'?.*'?vq'?"),
    "stride": (f"{TOKENIZER} --model.stride 3 8 8 --run new", r"stride \(3, 8, 8\): expected three powers of two"),
    # places
    "run below a file": (f"{TOKENIZER} --data world --run file/run", "cannot write to file/run: .*; choose another"),
    "shards below a file": (f"{TOKENIZE} --tokenizer tok --out file/new", "cannot write to file/new"),
    "samples below a file": (f"{SAMPLE} --out file/new", "cannot write to file/new"),
    "evaluation below a file": ("evaluate --model gpt --cache clips --out file/new", "cannot write to file/new"),
    "cache below a file": (f"{TOKENIZER} --data world --cache file/x --run new", "file/x"),
    "an existing run": (f"{GPT} --shards tokens --run gpt --steps 2", "gpt already holds a run; add --resume"),
    "other videos": (
        f"{TOKENIZER} --data world2 --run tok --steps 2 --resume",
        "tok was trained with videos=.*, got .*; resume with the same setting",
    ),
    "other shards": (
        f"{GPT} --shards tokens2 --run gpt --steps 2 --resume",
        'gpt was trained with made_of=.*"hop": 4.*, got .*"hop": 2',
    ),
    "unfinished validation shards": (f"{GPT} --shards stopped --run new", "stopped/val are unfinished; run"),
    "no cuda": (f"{TOKENIZER} --data world --run new --device cuda", "torch finds none; use --device cpu"),
    "no clips to judge": ("evaluate --model gpt --cache clips --clips 0 --out new", "clips 0, seed 0: expected"),
    "a seed too large": (f"{SAMPLE} --seed 18446744073709551616 --out new", "expected a whole number, 0 or more"),
    "weights cut short": ("sample --model damaged --out new", "damaged/model is damaged .*; copy it again"),
    "other settings": (
        f"{TOKENIZER} --data world --run tok --steps 2 --resume --seed 7",
        "tok was trained with seed=0, got 7; resume with the same setting",
    ),
}


def expect_one_line(command: str, message: str, capfd: pytest.CaptureFixture[str]) -> None:
    capfd.readouterr()
    with pytest.raises(SystemExit) as end:
        call(command)
    said = capfd.readouterr().err
    assert end.value.code == 2
    assert said.startswith("error: ") and said.endswith("\n") and said.count("\n") == 1, said
    assert re.search(message, said), said


@pytest.mark.parametrize("case", CASES)
def test_a_mistake_is_one_line_and_leaves_nothing_behind(case: str, capfd: pytest.CaptureFixture[str]) -> None:
    before = files()
    expect_one_line(*CASES[case], capfd)
    assert files() == before


def test_a_disk_that_fills_up_leaves_the_earlier_checkpoint_and_model_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    run, saves = tmp_path / "run", []
    command = f"{GPT} --shards tokens --run {run} --steps 4 --checkpoint-every 2 --log-every 1 --decay-share 0"
    write = checkpoints.save_file

    def full_disk(weights: dict[str, Any], path: Path) -> None:
        saves.append(path)
        if len(saves) == 2:
            path.write_bytes(b"half of it")
            raise SafetensorError("I/O error: No space left on device")  # as the library reports it
        write(weights, path)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "save_file", full_disk)
        expect_one_line(command, "cannot write the checkpoint .*step_000004: .*No space left.*--resume", capfd)
    assert [p.name for p in (run / "checkpoints").iterdir()] == ["step_000002"]
    assert not list(run.rglob("*tmp*"))
    assert json.loads((run / "model" / "provenance.json").read_text())["step"] == 4, (
        "the model came first, and is whole"
    )
    call(f"{command} --resume")
    assert json.loads((run / "model" / "provenance.json").read_text())["step"] == 4


def test_several_processes_that_cannot_meet_are_refused(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    expect_one_line(
        f"{GPT} --shards tokens --run new",
        "WORLD_SIZE is 2, expected RANK, LOCAL_RANK.* accelerate launch or torchrun",
        capfd,
    )


def test_a_damaged_checkpoint_is_named(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    shutil.copytree("gpt", run)
    for name in ("weights.safetensors", "state.pt", "meta.json"):
        path = run / "checkpoints" / "step_000001" / name
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])
        command = f"{GPT} --shards tokens --run {run} --steps 1 --resume"
        expect_one_line(command, "step_000001 is damaged .*delete this folder", capfd)
        path.write_bytes(content)


def test_weights_that_are_no_numbers_are_not_saved(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    command = f"{TOKENIZER} --data world --run {run} --steps 40 --log-every 40 --checkpoint-every 5 --warmup 0"
    with pytest.MonkeyPatch.context() as patch:
        batch = train_tokenizer.TokenizerStage.batch

        def broken(stage: Any, step: int) -> dict[str, Any]:
            if step in (7, 9):  # the first time the weights go back to those of step 5
                torch.nn.init.constant_(stage.model.tokenizer.decoder.unembed.bias, float("nan"))
            return batch(stage, step)

        patch.setattr(train_tokenizer.TokenizerStage, "batch", broken)
        expect_one_line(
            command,
            r"weights, \S+ the first, are no longer finite: it happened after step 9 and before step 10, by",
            capfd,
        )
    assert [p.name for p in (run / "checkpoints").iterdir()] == ["step_000005"]
    assert json.loads((run / "model" / "provenance.json").read_text())["step"] == 5
