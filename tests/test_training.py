"""What both trainings share: optimizer, schedule, weight average, checkpoints, run folder, log, command line."""

import json
import os
import shutil
import sys
from copy import deepcopy
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from tokenreel.training.checkpoints import latest_checkpoint, load_checkpoint, save_checkpoint
from tokenreel.training.command_line import parse, run_tool
from tokenreel.training.ema import WeightAverage
from tokenreel.training.loop import TrainingSettings
from tokenreel.training.optimizer import BETAS, EPS, MuonAdamW, build_optimizer, orthogonalize
from tokenreel.training.run_folder import check_writable, open_run
from tokenreel.training.run_log import RunLog
from tokenreel.training.schedule import warmup_stable_decay


class Net(nn.Module):
    adamw_layers = ("head",)

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, width)
        self.mixer = nn.Conv1d(width, width, 3, padding=1, groups=width)
        self.norm = nn.RMSNorm(width)
        self.up, self.twin, self.down = nn.Linear(width, 16), nn.Linear(width, 16), nn.Linear(16, width)
        self.gate = nn.Linear(width, 1)
        self.head = nn.Linear(width, 5)

    def forward(self, indices: Tensor) -> Tensor:
        x = self.embedding(indices)
        x = x + self.mixer(x.mT).mT
        x = x + self.down(torch.relu(self.up(self.norm(x))) * self.twin(x)) * self.gate(x)
        return self.head(x)


def train_a_bit(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
    for _ in range(steps):
        indices = torch.randint(5, (4, 6))
        nn.functional.cross_entropy(model(indices).flatten(0, 1), indices.roll(1, 1).flatten()).backward()
        optimizer.step()
        optimizer.zero_grad()


# optimizer


@pytest.mark.parametrize("shape", [(3, 16, 16), (2, 48, 16), (2, 16, 48), (1, 7, 33)])
def test_singular_values_are_pressed_to_about_one(shape: tuple[int, int, int]) -> None:
    matrices = torch.randn(shape) * torch.logspace(-3, 3, shape[0])[:, None, None]
    values = torch.linalg.svdvals(orthogonalize(matrices))
    assert values.min() > 0.3 and values.max() < 1.3
    assert 0.7 < values.mean() < 1.15
    left, _, right = torch.linalg.svd(matrices, full_matrices=False)
    alignment = (orthogonalize(matrices) * (left @ right)).sum((1, 2)) / min(shape[1:])
    assert alignment.min() > 0.7, "not the nearest orthogonal matrix"


def test_matrices_go_to_muon_and_everything_else_to_adamw() -> None:
    model = Net()
    groups = {group["muon"]: group for group in build_optimizer(model, 1e-3, weight_decay=0.1).param_groups}
    names = {id(p): name for name, p in model.named_parameters()}
    assert {names[id(p)] for p in groups[True]["params"]} == {"up.weight", "twin.weight", "down.weight"}
    assert {names[id(p)] for p in groups[False]["params"]} == set(names.values()) - {
        "up.weight",
        "twin.weight",
        "down.weight",
    }
    assert groups[True]["weight_decay"] == 0.1 and groups[False]["weight_decay"] == 0.0
    only = build_optimizer(nn.Linear(4, 4, bias=False), 1e-3, 0.0)
    assert [group["muon"] for group in only.param_groups] == [True]


def test_the_adamw_part_is_torchs() -> None:
    ours, theirs = nn.Parameter(torch.randn(3, 5)), nn.Parameter(torch.empty(3, 5))
    theirs.data.copy_(ours.data)
    optimizers = (
        MuonAdamW([], [ours], lr=0.01),
        torch.optim.AdamW([theirs], lr=0.01, betas=BETAS, eps=EPS, weight_decay=0.0),
    )
    for step in range(8):
        gradient = torch.randn(3, 5) * 10 ** (step - 4)
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        for optimizer in optimizers:
            optimizer.param_groups[0]["lr"] = 0.01 / (step + 1)
            optimizer.step()
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7)


def test_a_muon_step_is_orthogonal_of_adamws_size_and_decays_matrices() -> None:
    parameter = nn.Parameter(torch.ones(32, 64))
    optimizer = MuonAdamW([parameter], [], lr=0.01, weight_decay=0.5)
    parameter.grad = torch.randn(32, 64)
    optimizer.step()
    update = parameter.detach() - 0.995
    values = torch.linalg.svdvals(update) / (0.01 * 0.2 * 64**0.5)
    assert values.min() > 0.3 and values.max() < 1.3
    assert 0.1 < update.square().mean().sqrt() / 0.01 < 0.3
    assert (update * parameter.grad).sum() < 0


def test_matrices_of_one_shape_stepped_together_are_as_if_alone() -> None:
    together, alone = [nn.Parameter(torch.randn(8, 4)) for _ in range(3)], []
    for parameter in together:
        parameter.grad = torch.randn(8, 4)
        copy = nn.Parameter(parameter.detach().clone())
        copy.grad = parameter.grad.clone()
        MuonAdamW([copy], [], lr=0.1).step()
        alone.append(copy)
    MuonAdamW(together, [], lr=0.1).step()
    for one, other in zip(together, alone, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_an_optimizer_restored_from_its_state_goes_on_alike() -> None:
    model, copy = Net(), Net()
    optimizer = build_optimizer(model, 0.01, 0.1)
    train_a_bit(model, optimizer, 3)
    restored = build_optimizer(copy, 0.5, 0.0)
    copy.load_state_dict(model.state_dict())
    restored.load_state_dict(deepcopy(optimizer.state_dict()))
    for net, its in ((model, optimizer), (copy, restored)):
        torch.manual_seed(1)
        train_a_bit(net, its, 3)
    for one, other in zip(model.parameters(), copy.parameters(), strict=True):
        assert torch.equal(one, other)


# schedule and weight average


def test_the_rate_rises_stays_and_falls() -> None:
    rates = [warmup_stable_decay(step, steps=100, warmup=10, decay_share=0.4, floor=0.02) for step in range(100)]
    assert rates[0] == pytest.approx(0.1) and rates[4] == pytest.approx(0.5)
    assert rates[9:60] == [1.0] * 51
    assert rates[80] == pytest.approx(0.02 + 0.98 * 20 / 40)
    assert rates[99] == pytest.approx(0.02 + 0.98 / 40)
    assert all(0 < later <= earlier for earlier, later in pairwise(rates[60:]))
    assert warmup_stable_decay(0, steps=1, warmup=0, decay_share=0.0) == 1.0


def test_the_weight_average() -> None:
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    average = WeightAverage(model, decay=0.5)
    expected = 0.0
    for step in range(1, 30):
        nn.init.constant_(model.weight, float(step))
        average.update(model)
        decay = min(0.5, step / (step + 9))
        expected = decay * expected + (1 - decay) * step
    assert average.average["weight"].item() == pytest.approx(expected)
    with pytest.raises(RuntimeError, match="stop"), average.applied_to(model):
        assert model.weight.item() == pytest.approx(expected)
        raise RuntimeError("stop")
    assert model.weight.item() == 29.0
    with pytest.raises(ValueError, match=r"ema_decay 1.0: expected 0 \(off\) or a value below 1"):
        WeightAverage(model, 1.0)


# checkpoints


def parts(run: Path) -> tuple[Net, MuonAdamW, WeightAverage]:
    model = Net()
    return model, build_optimizer(model, 0.01, 0.0), WeightAverage(model, 0.9)


def saved_names(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "checkpoints").iterdir())


def test_a_checkpoint_restores_everything(tmp_path: Path) -> None:
    model, optimizer, average = parts(tmp_path)
    train_a_bit(model, optimizer, 2)
    average.update(model)
    save_checkpoint(tmp_path, 2, model, optimizer, average)
    drawn = torch.rand(3), np.random.rand(3)
    other, its_optimizer, its_average = parts(tmp_path)
    folder = latest_checkpoint(tmp_path)
    assert folder is not None and folder.name == "step_000002"
    assert load_checkpoint(folder, other, its_optimizer, its_average) == 2
    assert torch.equal(torch.rand(3), drawn[0]) and np.array_equal(np.random.rand(3), drawn[1])
    for one, same in zip(model.state_dict().values(), other.state_dict().values(), strict=True):
        assert torch.equal(one, same)
    assert its_average.steps == 1
    for name, tensor in average.average.items():
        assert torch.equal(its_average.average[name], tensor)
    for net, stepper in ((model, optimizer), (other, its_optimizer)):
        torch.manual_seed(1)
        train_a_bit(net, stepper, 1)
    assert torch.equal(model.up.weight, other.up.weight) and torch.equal(model.norm.weight, other.norm.weight)


def test_the_last_two_checkpoints_are_kept(tmp_path: Path) -> None:
    assert latest_checkpoint(tmp_path) is None
    for step in (9, 999_999, 1_000_000):
        save_checkpoint(tmp_path, step, *parts(tmp_path))
    assert saved_names(tmp_path) == ["step_1000000", "step_999999"]
    newest = latest_checkpoint(tmp_path)
    assert newest is not None and newest.name == "step_1000000"


@pytest.mark.parametrize("failing", ["save_file", "torch.save", "os.replace"])
def test_a_failed_checkpoint_leaves_the_earlier_one_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    model, optimizer, average = parts(tmp_path)
    save_checkpoint(tmp_path, 1, model, optimizer, average)
    before = {name: p.clone() for name, p in model.named_parameters()}
    train_a_bit(model, optimizer, 1)

    def full_disk(*arguments: Any, **_: Any) -> None:
        if isinstance(arguments[-1], Path) and failing != "os.replace":
            arguments[-1].write_bytes(b"half")
        # As torch reports it, and as everything else does.
        raise RuntimeError("unexpected pos 64 vs 0") if failing == "torch.save" else OSError(28, "No space left")

    monkeypatch.setattr(f"tokenreel.training.checkpoints.{failing}", full_disk)
    with pytest.raises(OSError, match=r"cannot write the checkpoint .*step_000002: .*; free space .* --resume"):
        save_checkpoint(tmp_path, 2, model, optimizer, average)
    monkeypatch.undo()
    assert saved_names(tmp_path) == ["step_000001"]
    folder = latest_checkpoint(tmp_path)
    assert folder is not None and load_checkpoint(folder, model, optimizer, average) == 1
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())


def test_an_unfinished_checkpoint_is_not_seen(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 1, *parts(tmp_path))
    finished = tmp_path / "checkpoints" / "step_000001"
    shutil.copytree(finished, finished.with_name("step_000002.tmp-123"))
    shutil.copytree(finished, finished.with_name("step_000003"))
    (finished.with_name("step_000003") / "meta.json").unlink()
    assert latest_checkpoint(tmp_path) == finished


def test_checkpoints_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    folder = save_checkpoint(tmp_path, 1, *parts(tmp_path))
    model = Net(width=12)
    with pytest.raises(ValueError, match=r"step_000001 does not fit this model at \S+; resume with the model settings"):
        load_checkpoint(folder, model, build_optimizer(model, 0.01, 0.0), None)
    (folder / "meta.json").write_text('{"format_version": 99, "step": 1}')
    with pytest.raises(ValueError, match="has format 99, expected 1"):
        load_checkpoint(folder, *parts(tmp_path))


# run folder


def test_an_existing_run_is_not_overwritten_and_fixed_settings_stay(tmp_path: Path) -> None:
    run, config = tmp_path / "run", {"seed": 0, "steps": 10, "model": {"width": 8}, "data": Path("x")}
    fixed = {"seed", "model"}
    open_run(run, config, resume=False, fixed=fixed)
    open_run(run, config, resume=False, fixed=fixed)  # nothing was saved yet
    save_checkpoint(run, 5, *parts(run))
    with pytest.raises(ValueError, match="run already holds a run; add --resume"):
        open_run(run, config, resume=False, fixed=fixed)
    with pytest.raises(ValueError, match=r'was trained with model=\{"width": 8\}, got \{"width": 9\}; resume with'):
        open_run(run, {**config, "model": {"width": 9}}, resume=True, fixed=fixed)
    with pytest.raises(ValueError, match="was trained with seed=0, got 1"):
        open_run(run, {**config, "seed": 1}, resume=True, fixed=fixed)
    assert json.loads((run / "config.json").read_text())["seed"] == 0
    open_run(run, {**config, "steps": 20}, resume=True, fixed=fixed)
    assert json.loads((run / "config.json").read_text()) == {**config, "steps": 20, "data": "x"}
    assert sorted(p.name for p in run.iterdir()) == ["checkpoints", "config.json"]


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"cannot write to .*file/run: .*; choose another folder"):
        check_writable(tmp_path / "file" / "run")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(2**30, 2**30, 2**20))  # type: ignore[attr-defined]
    with pytest.raises(OSError, match=r"the disk of .* has 1 MiB free, expected at least 200; free some"):
        check_writable(tmp_path)


# run log


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
    assert len(list((run / "wandb").glob(f"offline-run-*-{identity}"))) == 2
    assert len(list((run / "wandb").rglob("media/images/samples/*.png"))) == 2
    assert capfd.readouterr().err == ""


# settings and command line


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"steps": 0}, "steps 0: expected at least 1"),
        ({"batch_size": -1}, "batch_size -1"),
        ({"checkpoint_every": 0}, "checkpoint_every 0"),
        ({"lr": 0.0}, "lr 0.0: expected a learning rate"),
        ({"ema_decay": 1.0}, "ema_decay 1.0"),
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
    assert said.startswith("error: no space" if code == 2 else "interrupted; the same command with --resume")


def test_a_fault_of_ours_keeps_its_trace() -> None:
    with pytest.raises(ValueError, match="cannot reshape"):  # raised in a library, not by a check of ours
        run_tool(lambda _: np.zeros(3).reshape(2, 2), Settings, [])
    with pytest.raises(TypeError):
        run_tool(lambda _: len(3), Settings, [])  # type: ignore[arg-type]
