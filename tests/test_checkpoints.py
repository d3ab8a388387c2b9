"""Checkpoints are complete and whole, and a run folder is not overwritten by mistake."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tokenreel.training.checkpoints import checkpoint_for, latest_checkpoint, load_checkpoint, save_checkpoint
from tokenreel.training.ema import WeightAverage
from tokenreel.training.optimizer import MuonAdamW, build_optimizer
from tokenreel.training.run_folder import check_writable, open_run
from tokenreel.training.schedule import Schedule


class Net(nn.Module):
    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.embedding, self.norm, self.head = nn.Embedding(5, width), nn.RMSNorm(width), nn.Linear(width, 5)

    def forward(self, indices: Tensor) -> Tensor:
        return self.head(self.norm(self.embedding(indices)))


def train_a_bit(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
    for _ in range(steps):
        indices = torch.randint(5, (4, 6))
        nn.functional.cross_entropy(model(indices).flatten(0, 1), indices.roll(1, 1).flatten()).backward()
        optimizer.step()
        optimizer.zero_grad()


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
    assert torch.equal(model.head.weight, other.head.weight) and torch.equal(model.norm.weight, other.norm.weight)


def test_as_many_checkpoints_are_kept_as_were_asked_for(tmp_path: Path) -> None:
    assert latest_checkpoint(tmp_path) is None
    for step in (9, 999_999, 1_000_000):
        save_checkpoint(tmp_path, step, *parts(tmp_path), keep=2)
    assert saved_names(tmp_path) == ["step_1000000", "step_999999"]
    newest = latest_checkpoint(tmp_path)
    assert newest is not None and newest.name == "step_1000000"


def test_a_prolonged_run_drops_what_the_shorter_one_did_while_its_rate_fell(tmp_path: Path) -> None:
    short, long = Schedule(8, 0, 0.5), Schedule(40, 0, 0.5)
    for step in (2, 4, 5, 6, 8):
        save_checkpoint(tmp_path, step, *parts(tmp_path), schedule=short, keep=2)
    assert saved_names(tmp_path) == ["step_000005", "step_000006", "step_000008"]
    assert checkpoint_for(tmp_path, short) == tmp_path / "checkpoints" / "step_000008"
    assert checkpoint_for(tmp_path, long) == tmp_path / "checkpoints" / "step_000005"
    save_checkpoint(tmp_path, 7, *parts(tmp_path), schedule=long, keep=2)
    assert saved_names(tmp_path) == ["step_000005", "step_000007"]
    (tmp_path / "checkpoints" / "step_000005" / "meta.json").write_text('{"format_version": 1, "step": 5}')
    assert checkpoint_for(tmp_path, Schedule(4, 0, 0.0)) == tmp_path / "checkpoints" / "step_000005", (
        "of older versions"
    )


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
    open_run(run, {**config, "new": 1}, resume=True, fixed={*fixed, "new"})  # the run is of an older version
    with pytest.raises(ValueError, match="was trained with new=1, got 2"):
        open_run(run, {**config, "new": 2}, resume=True, fixed={*fixed, "new"})
    assert sorted(p.name for p in run.iterdir()) == ["checkpoints", "config.json"]


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"cannot write to .*file/run: .*; choose another folder"):
        check_writable(tmp_path / "file" / "run")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(2**30, 2**30, 2**20))  # type: ignore[attr-defined]
    with pytest.raises(OSError, match=r"the disk of .* has 1 MiB free, expected at least 200; free some"):
        check_writable(tmp_path)
