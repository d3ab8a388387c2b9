"""A run that was interrupted and resumed is the run that was not, bit for bit."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file

from tokenreel.tools import make_world, tokenize_dataset, train_gpt, train_tokenizer

TINY = "--batch-size 3 --log-every 1 --evaluate-every 2 --wandb disabled --device cpu --precision fp32 --ema-decay 0.9"
# Everything that draws random numbers while training is on: k-means and dead codes, dropout, hidden labels.
TOKENIZER = (
    f"train_tokenizer --data world --cache clips --size 32 --clip-frames 8 {TINY} "
    "--model.width 16 --model.encoder-depth 1 --model.decoder-depth 1 "
    "--model.quantizer vq --model.vq-codebook-size 32 --model.vq-decay 0.2"
)
GPT = f"train_gpt --shards tokens {TINY} --model.dim 64 --model.depth 1 --model.dropout 0.2 --condition-dropout 0.5"
TOOLS = {
    "make_world": make_world,
    "train_tokenizer": train_tokenizer,
    "tokenize_dataset": tokenize_dataset,
    "train_gpt": train_gpt,
}
STAGES = {"train_tokenizer": "TokenizerStage", "train_gpt": "GPTStage"}
both = pytest.mark.parametrize("command", [TOKENIZER, GPT], ids=["tokenizer", "gpt"])

NOT_REPEATED = ("speed/", "memory/")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a little world and its token shards."""
    home = tmp_path_factory.mktemp("resume")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        call("make_world balls --out world --count 4 --val-count 2 --size 32 --frames 16")
        torch.manual_seed(0)
        AcceleratorState._reset_state(True)
        call(f"{TOKENIZER} --run first --steps 2")
        call("tokenize_dataset --tokenizer first --out tokens --cache clips --clip-frames 12")
    return home


@pytest.fixture(autouse=True)
def there(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run in that folder; accelerate keeps its state per process, and a command is a process of its own."""
    monkeypatch.chdir(prepared)
    AcceleratorState._reset_state(True)


def call(command: str) -> None:
    """Run a tool in this process."""
    name, *arguments = command.split()
    TOOLS[name].main(arguments)


def interrupt(monkeypatch: pytest.MonkeyPatch, command: str, at_step: int) -> None:
    """Run a training and stop it in the middle of a step."""
    name = command.split()[0]
    stage, steps = getattr(TOOLS[name], STAGES[name]), []
    right = stage.observe

    def observe(self: Any, output: Any) -> None:
        right(self, output)
        steps.append(output)
        if len(steps) == at_step:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(stage, "observe", observe)
        with pytest.raises(SystemExit) as end:
            call(command)
    assert end.value.code == 130
    AcceleratorState._reset_state(True)


def disturb_random_numbers() -> None:
    """What a fresh process would have: other states than where the run stopped."""
    torch.manual_seed(99)
    np.random.seed(99)
    random.seed(99)


def trained(run: str) -> dict[str, torch.Tensor]:
    """Weights that train and their average, after the last step."""
    last = Path(run) / "checkpoints" / "step_000006"
    state = torch.load(last / "state.pt", weights_only=True)
    exported = load_file(Path(run) / "model" / "model.safetensors")
    average = {f"average.{name}": tensor for name, tensor in state["average"]["weights"].items()}
    return {**load_file(last / "weights.safetensors"), **average, **{f"model.{k}": v for k, v in exported.items()}}


def metrics(run: str) -> list[dict[str, float]]:
    lines = map(json.loads, (Path(run) / "metrics.jsonl").read_text().splitlines())
    return [{name: value for name, value in line.items() if not name.startswith(NOT_REPEATED)} for line in lines]


def assert_same_run(one: str, other: str) -> None:
    weights, others = trained(one), trained(other)
    assert weights.keys() == others.keys()
    different = [name for name in weights if not torch.equal(weights[name], others[name])]
    assert different == []


@both
def test_an_interrupted_and_resumed_run_is_the_uninterrupted_one(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight, broken = str(tmp_path / "straight"), str(tmp_path / "broken")
    call(f"{command} --run {straight} --steps 6 --checkpoint-every 3")
    AcceleratorState._reset_state(True)
    interrupt(monkeypatch, f"{command} --run {broken} --steps 6 --checkpoint-every 3", at_step=5)
    assert [line["step"] for line in metrics(broken)] == [1, 2, 2, 3, 4, 4], "steps after the checkpoint were logged"
    disturb_random_numbers()
    call(f"{command} --run {broken} --steps 6 --checkpoint-every 3 --resume")
    assert_same_run(straight, broken)
    assert metrics(broken) == metrics(straight)
    assert [line["step"] for line in metrics(broken)] == [1, 2, 2, 3, 4, 4, 5, 6, 6]


@both
def test_what_is_logged_validated_and_saved_does_not_change_what_is_learnt(command: str, tmp_path: Path) -> None:
    often, seldom = str(tmp_path / "often"), str(tmp_path / "seldom")
    call(f"{command} --run {often} --steps 6 --checkpoint-every 1")
    AcceleratorState._reset_state(True)
    call(f"{command} --run {seldom} --steps 6 --log-every 6 --evaluate-every 6 --checkpoint-every 6")
    assert_same_run(often, seldom)
    AcceleratorState._reset_state(True)
    other_seed = str(tmp_path / "other")
    call(f"{command} --run {other_seed} --steps 6 --seed 1")
    assert not torch.equal(*(next(iter(trained(run).values())) for run in (often, other_seed)))


def test_resume_without_a_checkpoint_starts_and_a_finished_run_is_left_alone(tmp_path: Path) -> None:
    run = str(tmp_path / "run")
    for _ in range(2):
        call(f"{GPT} --run {run} --steps 6 --resume")
        AcceleratorState._reset_state(True)
        assert [line["step"] for line in metrics(run)] == [1, 2, 2, 3, 4, 4, 5, 6, 6]
    assert not list(tmp_path.rglob("*tmp*"))


@both
def test_a_prolonged_run_is_the_long_one(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    straight, prolonged = str(tmp_path / "straight"), str(tmp_path / "prolonged")
    call(f"{command} --run {straight} --steps 6")
    for steps in (3, 4, 6):  # prolonged twice
        AcceleratorState._reset_state(True)
        disturb_random_numbers()
        call(f"{command} --run {prolonged} --steps {steps} --decay-share 0.5 --checkpoint-every 1 --resume")
        said = capsys.readouterr().out
        assert ("from before the learning rate fell" in said) == (steps > 3)
    assert "resumed at step 3 of 6" in said
    assert_same_run(straight, prolonged)
    assert [line["step"] for line in metrics(prolonged)] == [1, 2, 2, 3, 4, 4, 5, 6, 6]
    kept = sorted(path.name for path in (tmp_path / "prolonged" / "checkpoints").iterdir())
    assert kept == ["step_000004", "step_000005", "step_000006"]


def test_the_checkpoint_before_the_rate_falls_is_kept(tmp_path: Path) -> None:
    run = tmp_path / "run"
    call(f"{GPT} --run {run} --steps 8 --checkpoint-every 2")
    assert sorted(p.name for p in (run / "checkpoints").iterdir()) == [f"step_00000{n}" for n in (5, 6, 8)]


# a learned codebook begins with the features of the first part
NO_DRAWS = {"train_tokenizer": "--model.quantizer fsq", "train_gpt": "--model.dropout 0 --condition-dropout 0"}


@both
def test_a_run_in_parts_is_the_run_at_once(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = f"{command} {NO_DRAWS[command.split()[0]]} --batch-size 4 --steps 6"
    runs = {parts: str(tmp_path / str(parts)) for parts in (1, 4)}
    stage, entered = getattr(TOOLS[command.split()[0]], STAGES[command.split()[0]]), []
    entering = stage.accumulating

    def accumulating(self: Any) -> Any:
        entered.append(self)
        return entering(self)

    monkeypatch.setattr(stage, "accumulating", accumulating)
    for parts, run in runs.items():
        AcceleratorState._reset_state(True)
        assert entered == []
        call(f"{command} --run {run} --accumulate {parts}")
    assert len(entered) == 6 * 3
    whole, cut = (trained(run) for run in runs.values())
    for name, weights in whole.items():
        torch.testing.assert_close(cut[name], weights, rtol=0, atol=1e-5, msg=name)
    for one, other in zip(*(metrics(run) for run in runs.values()), strict=True):
        assert one == pytest.approx(other, rel=1e-4)


KILLED = """
import os, signal, sys
from tokenreel.tools import {tool} as tool
steps, right = [], tool.{stage}.observe
def observe(self, output):
    right(self, output)
    steps.append(output)
    if len(steps) == 5:
        os.kill(os.getpid(), signal.SIGKILL)
tool.{stage}.observe = observe
tool.main(sys.argv[1:])
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="there is no SIGKILL")
@both
def test_a_killed_run_goes_on_in_a_fresh_process(command: str, tmp_path: Path) -> None:
    tool, *arguments = command.split()
    arguments += ["--steps", "6", "--checkpoint-every", "3"]
    straight, broken = str(tmp_path / "straight"), str(tmp_path / "broken")
    call(" ".join([tool, *arguments, "--run", straight]))
    alone = {**os.environ, "OMP_NUM_THREADS": "1"}
    code = KILLED.format(tool=tool, stage=STAGES[tool])
    killed = subprocess.run([sys.executable, "-c", code, *arguments, "--run", broken], env=alone, check=False)
    assert killed.returncode == -signal.SIGKILL
    code = f"import sys; from tokenreel.tools.{tool} import main; main(sys.argv[1:])"
    subprocess.run([sys.executable, "-c", code, *arguments, "--run", broken, "--resume"], env=alone, check=True)
    assert_same_run(straight, broken)
    assert metrics(broken) == metrics(straight)


@pytest.mark.slow
@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="torch.compile needs a C++ compiler")
def test_compiled_training_learns_the_same(tmp_path: Path) -> None:
    without_dropout = GPT.replace("--model.dropout 0.2", "")  # its random numbers are drawn otherwise when compiled
    runs = {choice: str(tmp_path / choice) for choice in ("on", "off")}
    code = "import sys; from tokenreel.tools.train_gpt import main; main(sys.argv[1:])"
    for choice, run in runs.items():
        arguments = [*without_dropout.split()[1:], "--run", run, "--steps", "3", "--compile", choice]
        # A fresh process: the compiler trips over modules that other tests have imported.
        subprocess.run([sys.executable, "-c", code, *arguments], check=True)
    for one, other in zip(metrics(runs["on"]), metrics(runs["off"]), strict=True):
        assert one == pytest.approx(other, rel=1e-3)
