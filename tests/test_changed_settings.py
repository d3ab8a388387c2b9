"""A resumed run with other settings: those that may change do, the others are refused by name, each has a side."""

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState

from tokenreel.tools import make_world, tokenize_dataset, train_gpt, train_tokenizer

TINY = "--batch-size 2 --wandb disabled --device cpu --precision fp32 --log-every 1 --checkpoint-every 1"
COMMANDS: dict[str, tuple[Any, str]] = {
    "train_tokenizer": (
        train_tokenizer,
        f"--data world --cache clips --size 32 --clip-frames 8 {TINY} "
        "--model.width 16 --model.encoder-depth 1 --model.decoder-depth 1",
    ),
    "train_gpt": (train_gpt, f"--shards tokens {TINY} --model.dim 64 --model.depth 1"),
}
both = pytest.mark.parametrize("name", COMMANDS)

# What may change between the parts of a run, with another value than the first part had.
MAY_CHANGE = {
    "steps": "4", "accumulate": "2", "lr": "0.001", "warmup": "7", "decay_share": "0.2", "weight_decay": "0.1",
    "clip_norm": "0.5", "ema_decay": "0.9", "device": "auto", "compile": "off", "log_every": "2", "evaluate_every": "3",
    "samples": "1", "checkpoint_every": "2", "keep": "1", "patience": "9", "workers": "1", "wandb": "disabled",
}  # fmt: skip
ALSO = {
    "train_tokenizer": {"data": "again", "decoder": "pyav", "cache": "elsewhere"},
    "train_gpt": {
        "shards": "copy",
        "tokenizer": "tok",
        "checkpoint_activations": "",
        "shard_model": "",
        "verify": "",
        "skip_bad": "",
        "cache": "elsewhere",
        "cache_gib": "1.0",
    },
}
NO_CHANGE = {"run", "resume"}
# Data is told by what is in it, not by where it lies or how it was chosen.
TOLD_BY_DATA = {"train_tokenizer": {"curation", "part"}, "train_gpt": set()}
FIXED: dict[str, dict[str, str]] = {
    "train_tokenizer": {
        "model": "--model.width 32",
        "loss": "--loss.l1 0.5",
        "size": "--size 64",
        "more_sizes": "--more-sizes 32x64",
        "shorter_clips": "--shorter-clips 4",
        "width": "--width 64",
        "fps": "--fps 5",
        "clip_frames": "--clip-frames 4",
        "augment": "--augment flip",
        "seed": "--seed 1",
        "batch_size": "--batch-size 4",
        "precision": "--precision bf16",
        "train": "--train decoder --init-from tok",
        "init_from": "--init-from tok",
    },
    "train_gpt": {
        "model": "--model.depth 2",
        "factors": "--factors 2",
        "seed": "--seed 1",
        "batch_size": "--batch-size 4",
        "precision": "--precision bf16",
        "conditions": "--conditions labels",
        "condition_dropout": "--condition-dropout 0.3",
        "context_noise": "--context-noise 0.1",
        "decoding": "--decoding frame",
        "infilling": "--infilling 0.5",
        "z_loss": "--z-loss 0.1",
        "init_from": "--init-from run_train_gpt",
    },
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tokenizers of one world, shards, and a run of each training that took two steps."""
    home = tmp_path_factory.mktemp("settings")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        torch.manual_seed(0)
        make_world.main(
            ["balls", "--out", "world", "--count", "4", "--val-count", "2", "--size", "32", "--frames", "16"]
        )
        call("train_tokenizer", "--run tok --steps 1")
        tokenize_dataset.main(["--tokenizer", "tok", "--out", "tokens", "--cache", "clips", "--clip-frames", "12"])
        for link, to in (("again", "world"), ("copy", "tokens")):
            Path(link).symlink_to(to)
        for name in COMMANDS:
            call(name, f"--run run_{name} --steps 2 --decay-share 0.1")
    return home


@pytest.fixture(autouse=True)
def there(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)


def call(name: str, more: str) -> None:
    tool, command = COMMANDS[name]
    AcceleratorState._reset_state(True)  # it is kept per process, and a command is a process of its own
    tool.main([*command.split(), *more.split()])


@both
def test_every_option_is_on_one_side(name: str) -> None:
    tool = COMMANDS[name][0]
    options = {field.name for field in fields(tool.Config)}
    may = {*MAY_CHANGE, *ALSO[name], *NO_CHANGE, *TOLD_BY_DATA[name]}
    assert options - tool.FIXED - may == set(), "new options: may a resumed run change them?"
    assert not tool.FIXED & may and tool.FIXED - options == {"videos", "made_of", "clips_per_step"} & tool.FIXED
    assert tool.FIXED & options == FIXED[name].keys()


@pytest.mark.parametrize(("name", "option"), [(name, option) for name in FIXED for option in FIXED[name]])
def test_what_is_fixed_is_refused_by_name(name: str, option: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = (Path(f"run_{name}") / "config.json").read_text()
    with pytest.raises(SystemExit) as end:
        call(name, f"--run run_{name} --steps 3 --resume {FIXED[name][option]}")
    said = capsys.readouterr().err
    assert end.value.code == 2 and f"run_{name} was trained with " in said and "resume with the same" in said
    assert f" {option}=" in said or f'"{option}": ' in said or (name, option) == ("train_tokenizer", "train"), said
    assert (Path(f"run_{name}") / "config.json").read_text() == before


@both
def test_what_may_change_does(name: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    call(name, f"--run {run} --steps 2 --decay-share 0.1 --accumulate 1")
    changed = {**MAY_CHANGE, **ALSO[name]}
    call(name, f"--run {run} --resume " + " ".join(f"--{o.replace('_', '-')} {v}" for o, v in changed.items()))
    config = json.loads((run / "config.json").read_text())
    for option, value in changed.items():
        assert str(config[option]) == (value or "True"), option
    state = torch.load(run / "checkpoints" / "step_000004" / "state.pt", weights_only=True)
    muon = next(group for group in state["optimizer"]["param_groups"] if group["muon"])
    assert muon["weight_decay"] == 0.1, "of the new settings, not of the checkpoint"
    assert state["average"]["steps"] <= 2
    assert [path.name for path in (run / "checkpoints").iterdir()].count("step_000004") == 1
