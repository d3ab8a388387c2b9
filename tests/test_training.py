"""What both trainings share besides optimizer and checkpoints: log, hardware, settings, command line."""

import json
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from tokenreel.training import command_line, hardware
from tokenreel.training.command_line import parse, run_tool
from tokenreel.training.hardware import WORTH_COMPILING, compiles, peak_memory_mb, pick_device, pick_precision
from tokenreel.training.interruption import Stopped
from tokenreel.training.meter import Meter
from tokenreel.training.run_log import RunLog, _cost, _within
from tokenreel.training.settings import TrainingSettings
from tokenreel.training.silent_log import SilentLog


def logged(run: Path) -> list[int]:
    return [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_a_resumed_log_has_each_step_once(tmp_path: Path) -> None:
    log = RunLog(tmp_path, {}, 0, 10, "disabled")
    for step in (2, 4, 6):
        log.log(step, {"train/loss": 0.5})
    log.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 7, "tra')  # killed while writing
    RunLog(tmp_path, {}, 4, 10, "disabled").close()
    assert logged(tmp_path) == [2, 4]
    RunLog(tmp_path, {}, 0, 10, "disabled").close()
    assert logged(tmp_path) == []


def test_ranks_that_do_not_write_are_silent_whatever_they_are_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = SilentLog(tmp_path)
    log.log(1, {"train/loss": 0.5, "note": "words"}, important=True)
    log.media(1, "samples/x", tmp_path / "x.png")
    log.say("words")
    log.sync()
    log.close()
    public = {name for name, found in vars(RunLog).items() if callable(found) and not name.startswith("_")}
    assert public == {name for name, found in vars(SilentLog).items() if callable(found) and not name.startswith("_")}
    assert not list(tmp_path.iterdir()) and capsys.readouterr() == ("", "")


def test_wandb_disabled_leaves_no_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    before = dict(os.environ)
    monkeypatch.setitem(sys.modules, "wandb", None)  # importing it would fail
    log = RunLog(tmp_path, {}, 0, 1, "disabled")
    log.log(1, {"train/loss": 0.5}, important=True)
    log.media(1, "picture", tmp_path / "x.png")
    log.close()
    assert dict(os.environ) == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["metrics.jsonl", "samples"]
    assert json.loads((tmp_path / "metrics.jsonl").read_text()) == {"step": 1, "train/loss": 0.5}


def test_wandb_is_offline_for_who_is_not_logged_in_and_resumes_its_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("WANDB_SILENT", "true")  # the log sets it; here, so that it is set back
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    run = tmp_path / "run"
    run.mkdir()
    for first in (0, 4):
        log = RunLog(run, {"seed": 0, "data": Path("x")}, first, 8, "auto")
        log.log(first + 1, {"train/loss": 0.5})
        Image.new("RGB", (4, 4)).save(run / "samples" / "picture.png")
        log.media(first + 1, "samples/picture", run / "samples" / "picture.png")
        log.close()
    identity = (run / "wandb_id").read_text()
    assert len(list((run / "wandb").glob(f"offline-run-*-{identity}*"))) == 2
    assert len(list((run / "wandb").rglob("media/images/samples/*.png"))) == 2
    assert capfd.readouterr().err == ""


def test_the_progress_bar_shows_results_and_costs() -> None:
    numbers = {"data/min": -1.0, "train/loss": 0.5, "train/psnr": 31.25, "speed/clips_per_s": 52.3, "optim/lr": 0.003}
    assert _within(numbers, 60) == "loss 0.5  psnr 31.25"
    assert _within(numbers, 10) == "loss 0.5", "whole ones or none"
    assert _cost({**numbers, "memory/peak_mb": 1536.0}) == "52.3 clips/s  1.5 GiB"
    assert _cost({"val/psnr": 30.0}) == ""


# waiting for data


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time in seconds, set by hand."""
    now = [0.0]
    monkeypatch.setattr("tokenreel.training.meter.time.perf_counter", lambda: now[0])
    return now


def test_on_a_cpu_the_time_of_a_batch_is_time_waited(clock: list[float]) -> None:
    meter = Meter(4, torch.device("cpu"))
    for _ in range(2):
        with meter.waiting():
            clock[0] += 1.0
        clock[0] += 3.0
        with meter.paused():
            clock[0] += 100.0
    assert meter.take(6) == (2, 8.0, 0.25)
    clock[0] += 1.0
    assert meter.take(7) == (1, 1.0, 0.0)


def test_on_a_gpu_only_the_time_without_work_is_time_waited(
    clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    busy_until = [0.0]

    class Event:
        """As CUDA's: passed when all that was queued before it is done."""

        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing

        def record(self) -> None:
            self.passed = max(clock[0], busy_until[0])

        def elapsed_time(self, other: "Event") -> float:
            return 1000 * (other.passed - self.passed)

    monkeypatch.setattr(torch.cuda, "Event", Event)
    shares = []
    for work in (5.0, 0.5):  # seconds of the GPU per step; a batch takes one
        meter = Meter(0, torch.device("cuda"))
        for _ in range(3):
            with meter.waiting():
                clock[0] += 1.0
            busy_until[0] = max(clock[0], busy_until[0]) + work
        clock[0] = busy_until[0]  # the loss is read
        shares.append(meter.take(3)[2])
    assert shares[0] == pytest.approx(1 / 16), "but for the first batch the GPU had work all the time"
    assert shares[1] == pytest.approx((1 + 2 * 0.5) / 3.5), "it waits for half a second of each later batch"


# hardware


@pytest.mark.parametrize(("accepts", "expected"), [(1, [(-3, 2**30), (-1, 2**30)]), (0, [(-3, 2**30)])])
def test_memory_is_kept_by_both_settings_or_none(
    accepts: int, expected: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, int]] = []

    class Libc:
        @staticmethod
        def mallopt(name: int, value: int) -> int:
            asked.append((name, value))
            return accepts

    monkeypatch.setattr(hardware.sys, "platform", "linux")
    monkeypatch.setattr(hardware.ctypes, "CDLL", lambda name: Libc)
    hardware.keep_freed_memory()
    assert asked == expected
    monkeypatch.setattr(hardware.ctypes, "CDLL", lambda name: object())  # another library than glibc
    hardware.keep_freed_memory()


def test_devices_and_precisions_are_taken_as_named() -> None:
    cpu = torch.device("cpu")
    assert pick_device("cpu") == cpu
    assert pick_precision("bf16", cpu) == "bf16" and pick_precision("fp32", cpu) == "fp32"
    assert pick_precision("auto", cpu) in ("fp32", "bf16")
    assert 10 < peak_memory_mb(cpu) < 100_000
    if torch.cuda.is_available():
        assert pick_device("auto").type == "cuda"
    else:
        assert pick_device("auto") == cpu
        with pytest.raises(ValueError, match="device 'cuda' asked for, but torch finds none; use --device cpu"):
            pick_device("cuda")


def test_only_long_runs_of_models_that_gain_are_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, gaining = nn.Linear(1, 1), nn.Linear(1, 1)
    gaining.gains_from_compile = True  # type: ignore[assignment]
    monkeypatch.setenv("CXX", "c++")
    assert compiles("auto", WORTH_COMPILING, gaining)
    assert not compiles("auto", WORTH_COMPILING - 1, gaining)
    assert not compiles("auto", WORTH_COMPILING, plain)
    assert compiles("on", 1, plain) and not compiles("off", WORTH_COMPILING, gaining)
    monkeypatch.delenv("CXX")
    monkeypatch.setenv("PATH", "")
    assert not compiles("auto", WORTH_COMPILING, gaining)


# settings and command line


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"steps": 0}, "steps 0: expected at least 1"),
        ({"batch_size": -1}, "batch_size -1"),
        ({"checkpoint_every": 0}, "checkpoint_every 0"),
        ({"samples": -1}, "samples -1: expected 0 for none"),
        ({"lr": 0.0}, "lr 0.0: expected a learning rate"),
        ({"ema_decay": 1.0}, "ema_decay 1.0"),
        ({"accumulate": 0}, "accumulate 0: expected at least 1"),
        ({"batch_size": 6, "accumulate": 4}, "accumulate 4 does not divide batch_size 6, .*; use --accumulate 3"),
    ],
)
def test_training_settings_out_of_range(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainingSettings(run=Path("run"), **values)


@dataclass(frozen=True)
class Part:
    width: int = 1
    depth: int = 1


@dataclass(frozen=True)
class Settings:
    steps: int = 1
    lr: float = 0.1
    name: str = "x"
    part: Part = field(default_factory=Part)

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"steps {self.steps}: expected at least 1")


PRESETS = {"tiny": Settings(steps=2, part=Part(2)), "big": Settings(steps=3, part=Part(3), name="big")}


def test_defaults_give_way_to_presets_and_presets_to_the_command_line() -> None:
    assert parse(Settings, ["--lr", "0.5"]) == Settings(lr=0.5)
    assert parse(Settings, [], presets=PRESETS) == PRESETS["tiny"]
    for given in (["--preset", "big"], ["--preset=big"]):
        for arguments in ([*given, "--part.depth", "9", "--lr", "1"], ["--part.depth", "9", "--lr", "1", *given]):
            assert parse(Settings, arguments, presets=PRESETS) == Settings(3, 1.0, "big", Part(3, 9))
    assert parse(Settings, ["--preset", "big", "--part.width", "7"], presets=PRESETS).part == Part(7)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--preset", "huge"], "preset 'huge' is unknown; expected one of tiny, big"),
        (["--preset"], "--preset needs a name"),
        (["--stepz", "3"], "--stepz, 3; did you mean --steps?"),
        (["--part.widht", "3"], "did you mean --part.width"),
        (["--nonsense"], "Unrecognized options: --nonsense; see --help"),
        (["--steps", "many"], "'many'"),
        (["--steps", "0"], "steps 0: expected at least 1"),
        (["--steps"], "--steps"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_exit_status_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        run_tool(lambda _: print("ran"), Settings, arguments, presets=PRESETS)
    said = capsys.readouterr()
    assert end.value.code == 2 and said.out == ""
    assert said.err.count("\n") == 1 and said.err.startswith("error: ") and message in said.err


def test_help_names_options_and_presets(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        run_tool(lambda _: print("ran"), Settings, ["--help"], presets=PRESETS)
    said = capsys.readouterr()
    assert end.value.code == 0 and "--part.depth" in said.out and "{tiny,big}" in said.out


@pytest.mark.parametrize(("fault", "code"), [(OSError("no space"), 2), (KeyboardInterrupt(), 130)])
def test_a_full_disk_and_an_interruption_end_in_one_line(
    fault: BaseException, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    def main(_: Settings) -> None:
        raise fault

    with pytest.raises(SystemExit) as end:
        run_tool(main, Settings, [])
    assert end.value.code == code
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said.startswith("error: no space" if code == 2 else "interrupted; run the same command again")


@pytest.mark.parametrize(
    ("parent", "expected"),
    [
        ("/v/python3 /v/accelerate launch --num_processes 2 t.py --run x", "accelerate launch --num_processes 2"),
        ("/v/python3 /v/torchrun --nproc_per_node 2 -- t.py --run x", "torchrun --nproc_per_node 2 --"),
        (
            "/v/python3 -m torch.distributed.run --nproc_per_node 2 t.py",
            "python -m torch.distributed.run --nproc_per_node 2",
        ),
        ("slurmstepd", "torchrun --nproc_per_node {here} --"),
        ("", "torchrun --nproc_per_node {here} --"),
    ],
)
def test_ranks_that_are_asked_to_stop_tell_the_launcher_too_and_once(
    parent: str, expected: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(_: Settings) -> None:
        raise Stopped("stopped at step 3 of 8 and saved", signal.SIGTERM)

    monkeypatch.setattr(sys, "argv", ["t.py"])
    monkeypatch.setattr(command_line, "world_size", lambda: 2)
    monkeypatch.setattr(command_line, "_parent_command", lambda: parent.split())
    for local, first, also in (("2", True, ""), ("1", True, " (and so on every machine, as before)"), ("2", False, "")):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", local)
        monkeypatch.setattr(command_line, "is_first", lambda: first)  # noqa: B023
        with pytest.raises(SystemExit) as end:
            run_tool(stop, Settings, ["--name", "my run"])
        assert end.value.code == 143
        again = f"go on with: {expected.format(here=local)} t.py --name 'my run' --resume{also}\n"
        assert capsys.readouterr().err == (f"stopped at step 3 of 8 and saved; {again}" if first else "")


def test_commands_that_are_told_can_be_typed() -> None:
    assert command_line.quoted(Path("my runs/gpt")) == "'my runs/gpt'"
    assert command_line.quoted("runs/gpt") == "runs/gpt"


def test_the_command_of_the_parent_is_known(fresh_process: Callable[[str], tuple[int, str]]) -> None:
    if not Path("/proc/self/cmdline").exists():
        pytest.skip("this system does not tell commands of processes")
    code = "from tokenreel.training.command_line import _parent_command as p; print(p())"
    status, said = fresh_process(code)
    assert status == 0 and "import json, os, random" in said, "the nursery's"


def test_a_fault_of_ours_keeps_its_trace() -> None:
    with pytest.raises(ValueError, match="cannot reshape"):  # raised in a library, not by a check of ours
        run_tool(lambda _: np.zeros(3).reshape(2, 2), Settings, [])
    with pytest.raises(TypeError):
        run_tool(lambda _: len(3), Settings, [])  # type: ignore[arg-type]
