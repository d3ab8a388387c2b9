"""Trainings killed at any moment, in processes of their own: resumed, they are the training that was not killed."""

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

Fresh = Callable[[str], tuple[int, str]]

TINY = "--batch-size 3 --log-every 1 --evaluate-every 4 --checkpoint-every 2 --keep 2 --samples 1 --wandb disabled"
TINY += " --device cpu --precision fp32 --ema-decay 0.9"
# Everything that draws random numbers while training is on: k-means and dead codes, dropout, hidden labels.
TRAININGS = {
    "train_tokenizer": (
        f"--data world --cache clips --size 32 --clip-frames 8 {TINY} --model.width 16 --model.encoder-depth 1 "
        "--model.decoder-depth 1 --model.quantizer vq --model.vq-codebook-size 32 --model.vq-decay 0.2"
    ),
    "train_gpt": f"--shards tokens {TINY} --model.dim 64 --model.depth 1 --model.dropout 0.2 --condition-dropout 0.5",
}
both = pytest.mark.parametrize("tool", TRAININGS)

CALL = """
from tokenreel.tools import {tool} as tool
tool.main({arguments!r})
"""
KILLED = """
import os, random, signal, sys, threading
from tokenreel.training import checkpoints, step

chance = random.Random({seed})
def kill(*_):
    os.kill(os.getpid(), signal.SIGKILL)

def at_any_time():
    threading.Timer(chance.uniform(0, 0.06), kill).start()

def at_any_change_of_a_file():
    left = [chance.randint(1, 40)]
    def see(event, arguments):
        touches = event in ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate")
        touches = touches or (event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR))
        if touches:
            left[0] -= 1
            if not left[0]:
                kill()
    sys.addaudithook(see)

def half_way(write):
    def writing(content, path):
        write(content, path)
        whole = path.stat().st_size
        os.truncate(path, chance.randrange(whole))
        kill()
    return writing

def in_the_middle_of_the_weights():
    checkpoints.save_file = half_way(checkpoints.save_file)

def in_the_middle_of_the_state():
    checkpoints.torch.save = half_way(checkpoints.torch.save)

def between_two_names():
    replace = os.replace
    def replacing(source, target):
        if "checkpoints" in str(source) and chance.random() < 0.5:
            kill()
        replace(source, target)
        if "checkpoints" in str(source):
            kill()
    checkpoints.os.replace = replacing

moments = [
    at_any_time, at_any_change_of_a_file, in_the_middle_of_the_weights, in_the_middle_of_the_state, between_two_names
]
steps, take = [chance.randint(1, 3)], step.Stepper.take
def taking(self, *arguments):
    steps[0] -= 1
    if steps[0] == 0:
        moments[{seed} % len(moments)]()
    return take(self, *arguments)
step.Stepper.take = taking
"""


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, fresh_process: Fresh) -> Path:
    """A folder with a little world and its token shards."""
    home = tmp_path_factory.mktemp("killed")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        for tool, arguments in (
            ("make_world", "balls --out world --count 4 --val-count 2 --size 32 --frames 16"),
            ("train_tokenizer", f"{TRAININGS['train_tokenizer']} --run first --steps 2"),
            ("tokenize_dataset", "--tokenizer first --out tokens --cache clips --clip-frames 12"),
        ):
            status, said = fresh_process(CALL.format(tool=tool, arguments=arguments.split()))
            assert status == 0, said
    return home


@pytest.fixture(autouse=True)
def there(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(prepared)


def code(tool: str, run: Path, steps: int, *more: str) -> str:
    arguments = [*TRAININGS[tool].split(), "--run", str(run), "--steps", str(steps), *more]
    return CALL.format(tool=tool, arguments=arguments)


def equal(one: Any, other: Any) -> bool:
    """Whether nested dicts and lists of tensors and numbers are the same, bit for bit."""
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[name], other[name]) for name in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(equal, one, other))
    return bool(one == other)


def log(run: Path) -> list[dict[str, Any]]:
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [{name: v for name, v in line.items() if not name.startswith(("speed/", "memory/"))} for line in lines]


def assert_same_run(straight: Path, broken: Path, steps: int) -> None:
    """Weights, optimizer, average, random states, what else has a memory; models; every line of the log, once."""
    assert log(broken) == log(straight)
    assert [line["step"] for line in log(broken) if "optim/lr" in line] == list(range(1, steps + 1))
    found = [sorted(path.name for path in (run / "checkpoints").iterdir()) for run in (straight, broken)]
    assert found[0] == found[1] and f"step_{steps:06d}" in found[0]
    for name in found[0]:
        folders = [run / "checkpoints" / name for run in (straight, broken)]
        states = [torch.load(folder / "state.pt", weights_only=True) for folder in folders]
        for part in states[0]:
            assert equal(states[0][part], states[1][part]), f"{part} of {name}"
        assert equal(*(load_file(folder / "weights.safetensors") for folder in folders)), name
    for model in ("model", "best"):
        assert equal(*(load_file(run / model / "model.safetensors") for run in (straight, broken))), model
    assert not [path for path in broken.rglob("*") if "tmp" in path.name or ".old-" in path.name]


def kill_again_and_again(fresh: Fresh, tool: str, folder: Path, kills: int, steps: int, workers: int) -> None:
    straight, broken = folder / "straight", folder / "broken"
    if not straight.exists():
        status, said = fresh(code(tool, straight, steps))
        assert status == 0, said
    for seed in range(kills):
        more = code(tool, broken, steps, "--workers", str(workers), "--resume")
        status, said = fresh(KILLED.format(seed=seed) + more)
        assert status == -signal.SIGKILL, f"kill {seed}: {status} {said}"
    status, said = fresh(code(tool, broken, steps, "--workers", str(workers), "--resume"))
    assert status == 0, said
    assert_same_run(straight, broken, steps)


@both
def test_a_killed_run_goes_on_as_if_nothing_had_happened(tool: str, tmp_path: Path, fresh_process: Fresh) -> None:
    kill_again_and_again(fresh_process, tool, tmp_path, kills=5, steps=20, workers=2)


@pytest.mark.slow
@both
def test_killed_at_twenty_moments(tool: str, tmp_path: Path, fresh_process: Fresh) -> None:
    for workers in (0, 2):
        kill_again_and_again(fresh_process, tool, tmp_path, kills=20, steps=100, workers=workers)
        (tmp_path / "broken").rename(tmp_path / f"broken with {workers}")


@both
def test_asked_to_stop_a_run_is_saved_and_tells_how_to_go_on(tool: str, tmp_path: Path, fresh_process: Fresh) -> None:
    signalled = """
import os, signal
from tokenreel.training import step
steps, take = [0], step.Stepper.take
def taking(self, *arguments):
    steps[0] += 1
    for _ in range({times} if steps[0] == 3 else 0):
        os.kill(os.getpid(), signal.{name})
    return take(self, *arguments)
step.Stepper.take = taking
"""
    straight = tmp_path / "straight"
    status, said = fresh_process(code(tool, straight, 8))
    assert status == 0, said
    for name, status in (("SIGTERM", 143), ("SIGINT", 130)):
        run = tmp_path / name
        got, said = fresh_process(signalled.format(name=name, times=1) + code(tool, run, 8, "--workers", "2"))
        assert got == status, said
        assert f"{name}: finishing the step and saving; once more stops at once" in said
        assert "stopped at step 3 of 8 and saved; go on with: " in said
        again = said.split("go on with: ")[1].splitlines()[0]
        assert again.endswith(f"--run {run} --steps 8 --workers 2 --resume")
        assert (run / "checkpoints" / "step_000003").is_dir() and log(run)[-1]["step"] == 3
        status, said = fresh_process(code(tool, run, 8, "--resume"))
        assert status == 0 and "resumed at step 3 of 8" in said
        assert_same_run(straight, run, 8)
    run = tmp_path / "twice"
    got, said = fresh_process(signalled.format(name="SIGTERM", times=2) + code(tool, run, 8))
    assert got == 130 and "saved; go on" not in said and not (run / "checkpoints" / "step_000003").exists()
