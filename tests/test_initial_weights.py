"""Runs that start from the weights of another: what fits, what is refused, and a decoder trained alone."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file

from tokenreel.generation import VideoModel
from tokenreel.tokenizer import VideoTokenizer, fingerprint
from tokenreel.tokenizer.pretrained import encoding_fingerprint
from tokenreel.tools import make_world, sample, tokenize_dataset, train_gpt, train_tokenizer
from tokenreel.transformer.pretrained import fingerprint as gpt_fingerprint

TINY = "--batch-size 2 --wandb disabled --device cpu --precision fp32 --log-every 1"
TOKENIZER = (
    f"train_tokenizer --data world --cache clips --size 32 --clip-frames 8 {TINY} "
    "--model.width 16 --model.encoder-depth 1 --model.decoder-depth 1"
)
GPT = f"train_gpt --shards tokens {TINY} --model.dim 64 --model.depth 1"
TOOLS = {
    "make_world": make_world,
    "train_tokenizer": train_tokenizer,
    "tokenize_dataset": tokenize_dataset,
    "train_gpt": train_gpt,
    "sample": sample,
}


def call(command: str) -> None:
    AcceleratorState._reset_state(True)  # it is kept per process, and a command is a process of its own
    name, *arguments = command.split()
    TOOLS[name].main(arguments)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tokenizers, the shards of the first, and a GPT."""
    home = tmp_path_factory.mktemp("parents")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        torch.manual_seed(0)
        call("make_world balls --out world --count 4 --val-count 2 --size 32 --frames 16")
        for name, seed in (("tok", 0), ("other", 1)):
            call(f"{TOKENIZER} --run {name} --steps 2 --seed {seed} --model.quantizer vq --model.vq-codebook-size 32")
        call("tokenize_dataset --tokenizer tok --out tokens --cache clips --clip-frames 12")
        call(f"{GPT} --run gpt --steps 2")
    return home


@pytest.fixture(autouse=True)
def there(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)


def weights(folder: Path | str) -> dict[str, torch.Tensor]:
    return load_file(Path(folder) / "model" / "model.safetensors")


def origin(run: Path) -> dict[str, Any]:
    return json.loads((run / "model" / "provenance.json").read_text())


VQ = "--model.quantizer vq --model.vq-codebook-size 32"


def test_a_decoder_trained_alone_leaves_indices_shards_and_gpts_valid(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "finer"
    call(f"{TOKENIZER} {VQ} --run {run} --steps 4 --init-from tok --train decoder --ema-decay 0.9")
    before, after = weights("tok"), weights(run)
    changed = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"decoder"}
    assert fingerprint(run) != fingerprint(Path("tok")) and encoding_fingerprint(run) == encoding_fingerprint(
        Path("tok")
    )
    assert encoding_fingerprint(Path("other")) != encoding_fingerprint(Path("tok"))
    clip = torch.rand(1, 3, 8, 32, 32) * 2 - 1
    one, other = (VideoTokenizer.from_pretrained(folder) for folder in ("tok", run))
    assert torch.equal(one.encode(clip), other.encode(clip))
    assert not torch.equal(one.reconstruct(clip), other.reconstruct(clip))
    assert origin(run)["init_from"]["fingerprint"] == origin(run)["same_indices_as"] == fingerprint(Path("tok"))

    capsys.readouterr()
    call(f"{GPT} --run {tmp_path}/gpt --steps 2 --tokenizer {run} --init-from gpt")
    assert "another decoder than the tokenizer of the shards; its indices are the same" in capsys.readouterr().out
    assert VideoModel.from_pretrained(tmp_path / "gpt").gpt.config.tokenizer == fingerprint(run)
    call(f"sample --model gpt --tokenizer {run} --out {tmp_path}/clips --num-samples 1 --cache clips --seed 3")
    sampled = VideoModel.from_pretrained("gpt", tokenizer=run).tokenizer
    assert torch.equal(sampled.state_dict()["decoder.unembed.bias"], after["decoder.unembed.bias"])
    with pytest.raises(ValueError, match="other has another encoder or codebook than the tokenizer this GPT was"):
        VideoModel.from_pretrained("gpt", tokenizer="other")


def test_a_run_starts_from_the_weights_of_another_and_names_it(tmp_path: Path) -> None:
    run, still = tmp_path / "run", "--steps 1 --lr 1e-12 --warmup 0"
    call(f"{GPT} --run {run} {still} --init-from gpt")
    assert all(torch.allclose(tensor, weights("gpt")[name], atol=1e-6) for name, tensor in weights(run).items())
    assert origin(run)["init_from"] == {"folder": "gpt", "fingerprint": gpt_fingerprint(Path("gpt"))}
    state = torch.load(run / "checkpoints" / "step_000001" / "state.pt", weights_only=True)["optimizer"]["state"]
    assert all(float(each["step"]) == 1 for each in state.values() if "step" in each), "a new optimizer"
    scratch = tmp_path / "scratch"
    call(f"{GPT} --run {scratch} {still}")
    assert not all(torch.allclose(t, weights("gpt")[name], atol=1e-6) for name, t in weights(scratch).items())
    assert origin(scratch)["init_from"] is None


def test_a_resumed_run_needs_its_parent_no_more_but_its_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parent, run = tmp_path / "parent", tmp_path / "run"
    shutil.copytree("gpt", parent)
    mark = gpt_fingerprint(parent)
    call(f"{GPT} --run {run} --steps 2 --init-from {parent} --checkpoint-every 1")
    shutil.rmtree(parent)
    call(f"{GPT} --run {run} --steps 4 --init-from {parent} --resume")
    assert origin(run)["step"] == 4 and origin(run)["init_from"]["fingerprint"] == mark
    with pytest.raises(SystemExit):
        call(f"{GPT} --run {run} --steps 5 --resume")
    assert f'was trained with init_from="{parent}", got null' in capsys.readouterr().err


REFUSED = {
    "width": (
        f"{TOKENIZER} {VQ} --model.width 32 --init-from tok",
        r"tok/model has model.width 16 \(got 32\), expected",
    ),
    "codebook": (
        f"{TOKENIZER} --init-from tok",
        r"has model.quantizer vq \(got fsq\), model.vq_codebook_size 32 \(got 1024\)",
    ),
    "depth": (f"{GPT} --model.depth 2 --init-from gpt", r"gpt/model has model.depth 1 \(got 2\), expected the same"),
    "other tokenizer": (
        f"{GPT.replace('--shards tokens', '--shards others')} --init-from gpt",
        r"was trained on indices of tokenizer \w{12}, got shards of \w{12}; tokenize with gpt/model/tokenizer",
    ),
    "a tensor": (f"{GPT} --context-noise 0.2 --init-from gpt", r"do not fit at noise_embedding.weight: got shape None"),
    "nothing there": (f"{GPT} --init-from nowhere", "no GPT folder nowhere"),
    "decoder of nothing": (f"{TOKENIZER} --train decoder", "train 'decoder' without --init-from: expected a tokenizer"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused_by_name(case: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    if case == "other tokenizer" and not Path("others").exists():
        call("tokenize_dataset --tokenizer other --out others --cache clips --clip-frames 12")
    command, message = REFUSED[case]
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        call(f"{command} --run {tmp_path}/run --steps 2")
    assert end.value.code == 2
    said = capsys.readouterr().err
    assert re.search(message, said), said
    assert not (tmp_path / "run").exists()
