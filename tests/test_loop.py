"""The training loop under adverse conditions: full disks, numbers that are none, losses that run away."""

import errno
import json
import math
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tokenreel.training.best import Aim
from tokenreel.training.diagnosis import History
from tokenreel.training.doctor import diagnose
from tokenreel.training.loop import train
from tokenreel.training.run_records import RunRecords
from tokenreel.training.settings import TrainingSettings
from tokenreel.training.stage import Evaluation
from tokenreel.training.watch import LONG, MOST_IN_A_ROW, WINDOW, Level

resource = pytest.importorskip("resource", reason="a full disk is made with resource limits")


class Output(NamedTuple):
    loss: Tensor


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor, times: Tensor) -> Output:
        return Output(((self.layer(x) - x).square().mean(1) * times).mean())


class Stage:
    """Learns to copy; batches and judgements can be spoilt."""

    aim, level, in_parts = Aim("val/error", higher=False), Level(3.0, 0.0), False

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.model = Net()
        self.times: dict[int, float] = {}
        """What the loss of a step is multiplied by."""
        self.at: dict[int, Callable[[], object]] = {}
        """What happens while the batch of a step is made."""
        self.found: dict[int, float] = {}
        """What a validation after a step finds."""
        self.show: Callable[[], list[Path]] = list
        self.seen: list[int] = []

    def batch(self, step: int) -> dict[str, Tensor]:
        self.at.get(step + 1, int)()
        x = torch.randn(3, 4, generator=torch.Generator().manual_seed(step))
        return {"x": x, "times": torch.full((3,), self.times.get(step + 1, 1.0))}

    def accumulating(self) -> AbstractContextManager[None]:
        return nullcontext()

    def observe(self, output: Output) -> None:
        self.seen.append(1)

    def error(self, output: Output) -> float:
        return output.loss.item()

    def metrics(self, output: Output, steps: int, seconds: float) -> dict[str, float]:
        return {"train/loss": output.loss.item()}

    def evaluate(self, step: int, folder: Path) -> Evaluation:
        return Evaluation({"val/error": self.found.get(step, 1.0)}, self.show)

    def exposures(self, step: int) -> dict[str, float]:
        return {"per_clip": step / 2}

    def export(self, folder: Path, step: int) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        save_file(self.model.state_dict(), folder / "model.safetensors")
        (folder / "provenance.json").write_text(json.dumps({"step": step}))

    def state_dict(self) -> dict[str, Any]:
        return {"seen": len(self.seen)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.seen = [1] * state["seen"]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return tmp_path / "run"


def go(stage: Stage, run: Path, **settings: Any) -> None:
    AcceleratorState._reset_state(True)
    chosen = {"steps": 8, "log_every": 1, "evaluate_every": 100, "checkpoint_every": 2, "warmup": 0, "lr": 0.02}
    chosen |= {"device": "cpu", "precision": "fp32", "wandb": "disabled", **settings}
    train(stage, TrainingSettings(run=run, **chosen), {"lr": chosen["lr"]}, set())


def log(run: Path, name: str) -> dict[int, Any]:
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return {line["step"]: line[name] for line in lines if name in line}


def checkpoints(run: Path) -> list[int]:
    return sorted(int(path.name.removeprefix("step_")) for path in (run / "checkpoints").iterdir())


def weights(run: Path, folder: str = "model") -> Tensor:
    return load_file(run / folder / "model.safetensors")["layer.weight"]


def diagnoses(run: Path) -> dict[str, str]:
    found = RunRecords.open(run)
    return {each.name: each.sentence for each in diagnose(History(found.records, found.config))}


# numbers that are none


def test_steps_without_finite_numbers_are_not_taken_and_counted(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stage = Stage()
    stage.times = {3: math.nan, 6: math.inf}
    go(stage, run, steps=8, ema_decay=0.9)
    assert log(run, "optim/skipped_steps") == {3: 1, 4: 1, 5: 1, 6: 2, 7: 2, 8: 2}
    assert "step 3 was not taken, its loss is nan" in log(run, "skipped")[3]
    assert len(stage.seen) == 6, "what is counted over windows counts the steps that were taken"
    state = torch.load(run / "checkpoints" / "step_000008" / "state.pt", weights_only=True)
    assert state["average"]["steps"] == 6 and bool(weights(run).isfinite().all())
    assert diagnoses(run).keys() == {"skipped steps"}
    assert "2 of 8 steps had no finite loss or gradient" in diagnoses(run)["skipped steps"]
    assert capsys.readouterr().out.count("was not taken") == 2


def test_after_several_in_a_row_the_weights_go_back_once_and_then_it_ends(run: Path) -> None:
    stage, bad = Stage(), range(5, 5 + MOST_IN_A_ROW)
    stage.times = dict.fromkeys(bad, math.nan)
    go(stage, run, steps=20, checkpoint_every=4, decay_share=0.0)
    told = log(run, "went_back")
    assert told.keys() == {9} and f"{MOST_IN_A_ROW} steps in a row had no finite loss" in told[9]
    assert "go back to those of step_000004, and training goes on with the next clips at half the" in told[9]
    assert log(run, "optim/lr")[9] == log(run, "optim/lr")[20] == log(run, "optim/lr")[1] / 2
    assert {"went back", "skipped steps"} <= diagnoses(run).keys()

    stage.times |= dict.fromkeys(range(12, 12 + MOST_IN_A_ROW), math.nan)
    with pytest.raises(ValueError, match=r"the loss of step 16 is nan, .*; lower --lr or raise --warmup"):
        go(stage, run.with_name("again"), steps=20, checkpoint_every=4)
    assert "finite" in log(run.with_name("again"), "error")[16]
    assert checkpoints(run.with_name("again"))[-1] == 12, "nothing of it was saved"


def test_weights_that_are_no_numbers_go_back_at_once(run: Path) -> None:
    stage = Stage()
    stage.at = {6: lambda: nn.init.constant_(stage.model.layer.bias, math.nan)}
    go(stage, run, steps=8)
    assert (
        "layer.bias the first, are no longer finite: the weights go back to those of step_000005"
        in (log(run, "went_back")[6])
    )
    assert bool(weights(run).isfinite().all())


def test_without_a_checkpoint_there_is_nothing_to_go_back_to(run: Path) -> None:
    stage = Stage()
    stage.at = {2: lambda: nn.init.constant_(stage.model.layer.bias, math.nan)}
    with pytest.raises(ValueError, match=r"layer.bias the first, are no longer finite: it happened after step 1 and"):
        go(stage, run, checkpoint_every=4)


def test_a_loss_that_runs_away_goes_back_to_before_it_did(run: Path) -> None:
    stage, begin = Stage(), 61

    def spoil() -> None:
        nn.init.normal_(stage.model.layer.weight, std=30.0)

    stage.at = {begin: spoil}
    go(stage, run, steps=180, checkpoint_every=20, lr=1e-5, decay_share=0.0, keep=9)
    (step,) = log(run, "went_back")
    assert begin + LONG - 1 <= step <= begin + LONG + WINDOW
    assert "the training error was far above its best" in log(run, "went_back")[step]
    assert "those of step_000060" in log(run, "went_back")[step], "not to a later one, which is bad as well"
    assert log(run, "train/loss")[step + 1] < 5, "single batches differ"


def test_an_accident_brings_back_what_a_stage_may_go_back_to(run: Path) -> None:
    stage = Stage()
    verdicts = iter(["keep", "go back", "go on", "go back", "go on"])  # a second look follows each way back

    def evaluate(step: int, folder: Path) -> Evaluation:
        return Evaluation({"val/error": float(step)}, list, next(verdicts))  # type: ignore[arg-type]

    stage.evaluate = evaluate  # type: ignore[method-assign]
    stage.at = {5: lambda: nn.init.constant_(stage.model.layer.bias, math.nan)}
    go(stage, run, steps=6, evaluate_every=2, checkpoint_every=100, decay_share=0.0)
    assert "go back to those of step_000002" in log(run, "went_back")[5], "from when it had something to go back to"
    assert next(verdicts, None) is None


def test_a_way_back_leaves_settings_that_were_changed_on_the_way(run: Path) -> None:
    stage, verdicts = Stage(), {2: "keep", 6: "go back"}

    def evaluate(step: int, folder: Path) -> Evaluation:
        return Evaluation({"val/error": 1.0}, list, verdicts.pop(step, "go on"))  # type: ignore[arg-type]

    stage.evaluate = evaluate  # type: ignore[method-assign]
    go(stage, run, steps=4, evaluate_every=2, decay_share=0.0)
    go(stage, run, steps=6, evaluate_every=2, decay_share=0.0, weight_decay=0.5, resume=True)
    assert not verdicts
    state = torch.load(run / "checkpoints" / "step_000006" / "state.pt", weights_only=True)
    assert state["optimizer"]["param_groups"][0]["weight_decay"] == 0.5


def test_one_bad_batch_is_no_accident(run: Path) -> None:
    stage = Stage()
    stage.times = dict.fromkeys(range(60, 60 + WINDOW), 1000.0)
    go(stage, run, steps=150, checkpoint_every=50, lr=1e-5, log_every=50)
    assert not log(run, "went_back")


def test_a_run_resumed_around_its_accident_is_the_same(run: Path) -> None:
    def stage() -> Stage:
        made = Stage()
        made.times = {3: math.nan, **dict.fromkeys(range(5, 5 + MOST_IN_A_ROW), math.nan)}
        return made

    go(stage(), run, steps=14, checkpoint_every=1)
    for stopped in (4, 7, 9, 11):
        again = run.with_name(f"stopped_{stopped}")
        broken = stage()

        def stop() -> None:
            raise KeyboardInterrupt

        broken.at = {stopped + 1: stop}
        with pytest.raises(KeyboardInterrupt):
            go(broken, again, steps=14, checkpoint_every=1)
        go(stage(), again, steps=14, checkpoint_every=1, resume=True)
        assert torch.equal(weights(run), weights(again))
        assert log(again, "optim/lr") == log(run, "optim/lr")
        assert log(again, "optim/skipped_steps") == log(run, "optim/skipped_steps")


# full disks


@contextmanager
def small_files(most: int) -> Iterator[None]:
    """No file can grow beyond so many bytes: for whoever writes it is a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def limit(most: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def test_a_full_disk_does_not_end_the_training(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stage = Stage()
    with small_files(resource.RLIM_INFINITY):
        stage.at = {3: lambda: limit(3000), 7: lambda: limit(resource.RLIM_INFINITY)}
        go(stage, run, steps=10)
    told = log(run, "unsaved")
    assert told.keys() == {4, 6}
    assert "cannot write the checkpoint" in told[4] and "tries again at the next checkpoint" in told[4]
    assert checkpoints(run) == [2, 8, 10], "4 and 6 could not be written"
    assert list(log(run, "train/loss")) == list(range(1, 11))
    assert "step 4  unsaved: cannot write the checkpoint" in capsys.readouterr().out
    assert "cannot write the checkpoint" in diagnoses(run)["not saved"]
    straight = run.with_name("straight")
    go(Stage(), straight, steps=10)
    assert torch.equal(weights(run), weights(straight))


def test_while_the_disk_is_full_the_checkpoint_before_stays_whole(run: Path) -> None:
    stage = Stage()
    with (
        small_files(resource.RLIM_INFINITY),
        pytest.raises(OSError, match=r"cannot write the checkpoint .*step_000006"),
    ):
        stage.at = {3: lambda: limit(3000)}
        go(stage, run, steps=6, decay_share=0.0)
    assert checkpoints(run) == [2]
    go(Stage(), run, steps=6, decay_share=0.0, resume=True)
    go(Stage(), run.with_name("straight"), steps=6, decay_share=0.0)
    assert torch.equal(weights(run), weights(run.with_name("straight")))
    assert log(run, "train/loss") == log(run.with_name("straight"), "train/loss")


def test_pictures_and_lines_that_cannot_be_written_do_not_end_it_either(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stage = Stage()

    def show() -> list[Path]:
        raise OSError(errno.ENOSPC, "No space left on device")

    stage.show = show
    with small_files(resource.RLIM_INFINITY):
        stage.at = {3: lambda: limit(600), 5: lambda: limit(resource.RLIM_INFINITY)}
        go(stage, run, steps=6, evaluate_every=2, checkpoint_every=6, decay_share=0.0)
    assert "cannot write pictures of step 2" in log(run, "unsaved")[2]
    assert log(run, "val/error").keys() == {2, 4, 6} and list(log(run, "train/loss")) == list(range(1, 7))
    assert "metrics.jsonl" in capsys.readouterr().out


# the best model, and an early end


def test_the_best_model_is_kept_beside_the_newest(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stage = Stage()
    stage.found = {2: 0.9, 4: 0.5, 6: 0.7, 8: math.nan, 10: 0.6, 12: 0.5}
    go(stage, run, steps=12, evaluate_every=2, checkpoint_every=5, keep=1, decay_share=0.0)
    assert json.loads((run / "best" / "provenance.json").read_text())["step"] == 4
    assert checkpoints(run) == [4, 12]
    at_four = load_file(run / "checkpoints" / "step_000004" / "weights.safetensors")["layer.weight"]
    assert torch.equal(weights(run, "best"), at_four) and not torch.equal(weights(run, "best"), weights(run))
    said = " ".join(capsys.readouterr().out.split())
    assert f"best validation: val/error 0.5000 at step 4; that model is in {run / 'best'}" in said


def test_patience_ends_a_run_early_and_more_patience_goes_on(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stage = Stage()
    stage.found = {1: 0.5, 5: 0.4}
    go(stage, run, evaluate_every=1, patience=3, steps=20)
    said = capsys.readouterr().out
    assert "ended at step 4 of 20: 3 validations in a row brought nothing better" in said
    assert checkpoints(run)[-1] == 4
    go(stage, run, evaluate_every=1, patience=3, steps=20, resume=True)
    assert checkpoints(run)[-1] == 4 and "ended at step 4 of 20" in capsys.readouterr().out
    go(stage, run, evaluate_every=1, patience=4, steps=20, resume=True)
    assert "ended at step 9 of 20: 4 validations" in capsys.readouterr().out


def test_the_best_model_of_a_shorter_run_is_set_aside_when_it_is_prolonged(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stage = Stage()
    stage.found = {2: 0.9, 8: 0.5}
    go(stage, run, evaluate_every=2, steps=8, decay_share=0.5)
    stage.found = {2: 0.9}
    go(stage, run, evaluate_every=2, steps=12, decay_share=0.5, resume=True)
    kept = json.loads((run / "best_before_1" / "provenance.json").read_text())
    assert kept["step"] == 8
    said = " ".join(capsys.readouterr().out.split())
    # That of step 2 was overwritten by that of step 8, so that the first one after the way back is the best there is.
    assert f"best validation: val/error 1.0000 at step 6; that model is in {run / 'best'}" in said
    assert json.loads((run / "best" / "provenance.json").read_text())["step"] == 6
    stage.found = {4: 0.2, 8: 0.5}
    other = run.with_name("other")
    go(stage, other, evaluate_every=2, steps=8, decay_share=0.5)
    go(stage, other, evaluate_every=2, steps=12, decay_share=0.5, resume=True)
    assert not (other / "best_before_1").exists(), "it is of the part that both share"
    assert json.loads((other / "best" / "provenance.json").read_text())["step"] == 4


def test_a_best_model_that_an_ended_attempt_set_aside_is_followed_by_another(run: Path) -> None:
    stage = Stage()
    stage.found = {2: 0.9, 8: 0.5}
    go(stage, run, evaluate_every=2, steps=8, decay_share=0.5)
    (run / "best").rename(run / "best_before_1")  # as the attempt did, which saved nothing
    stage.found = {2: 0.9}
    go(stage, run, evaluate_every=2, steps=12, decay_share=0.5, resume=True)
    assert json.loads((run / "best" / "provenance.json").read_text())["step"] == 6
    assert not (run / "best_before_2").exists()


# the rest


def test_an_average_that_is_switched_on_later_begins_with_the_weights_of_then(run: Path) -> None:
    go(Stage(), run, steps=4)
    torch.manual_seed(99)
    go(Stage(), run, steps=5, ema_decay=0.999, lr=1e-12, resume=True, decay_share=0.0)
    trained = load_file(run / "checkpoints" / "step_000005" / "weights.safetensors")["layer.weight"]
    torch.testing.assert_close(weights(run), trained)


def test_a_clock_that_jumps_back_does_no_harm(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go(Stage(), run)
    times = iter(range(2_000_000_000, 0, -86_400))
    monkeypatch.setattr("time.time", lambda: float(next(times)))
    other = run.with_name("other")
    stage = Stage()
    go(stage, other, steps=4)
    go(stage, other, resume=True)
    assert checkpoints(other)[-1] == 8 and list(log(other, "train/loss")) == list(range(1, 9))
