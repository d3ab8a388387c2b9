"""Batches made ahead of time by workers: the same ones, and clear words when a worker dies."""

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tokenreel.training.prefetch import AHEAD, Batches

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork processes")


def numbered(step: int) -> dict[str, Tensor]:
    """A batch that tells its step and who made it."""
    return {"step": torch.tensor([step]), "maker": torch.tensor([os.getpid()]), "video": torch.full((2, 9), step / 2)}


def gone(process: int, seconds: float = 10.0) -> bool:
    """Whether a process ends within some seconds."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            state = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except FileNotFoundError:
            return True
        if state == "Z":
            return True
        time.sleep(0.02)
    return False


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_batches_come_in_order_whoever_makes_them(workers: int) -> None:
    before = torch.get_rng_state()
    with Batches(numbered, 5, 15, workers) as batches:
        found = [batches.take(step) for step in range(5, 15)]
    assert [int(batch["step"]) for batch in found] == list(range(5, 15))
    assert all(torch.equal(batch["video"], numbered(step)["video"]) for step, batch in enumerate(found, start=5))
    makers = {int(batch["maker"]) for batch in found}
    assert (makers == {os.getpid()}) == (workers == 0) and len(makers) <= max(1, workers)
    assert torch.equal(torch.get_rng_state(), before), "the training draws the same numbers with and without"


def test_workers_are_ahead_but_not_beyond_the_end(tmp_path: Path) -> None:
    def noted(step: int) -> dict[str, Tensor]:
        (tmp_path / str(step)).touch()
        return numbered(step)

    def made() -> set[int]:
        return {int(path.name) for path in tmp_path.iterdir()}

    with Batches(noted, 0, 20, 1) as batches:
        batches.take(0)
        end = time.monotonic() + 10
        while made() != set(range(1 + AHEAD)) and time.monotonic() < end:
            time.sleep(0.01)
        assert made() == set(range(1 + AHEAD))
    with Batches(noted, 18, 20, 2) as batches:
        batches.take(18), batches.take(19)
    assert max(made()) == 19


def test_a_worker_that_dies_is_told() -> None:
    with Batches(numbered, 0, 100_000, 2) as batches:
        os.kill(int(batches.take(0)["maker"]), signal.SIGKILL)
        with pytest.raises(ChildProcessError, match=r"died before step \d+, expected 2 to live: memory.*--workers"):
            for step in range(1, 3000):
                batches.take(step)
                time.sleep(0.01)


def test_workers_that_end_with_the_run_are_no_fault() -> None:
    end = time.monotonic() + 30
    with Batches(numbered, 0, 100_000, 2, lambda: True) as batches:
        batch, step = batches.take(0), 0
        os.kill(int(batch["maker"]), signal.SIGTERM)
        while int(batch["maker"]) != os.getpid() and time.monotonic() < end:
            step += 1
            batch = batches.take(step)
            assert int(batch["step"]) == step
            time.sleep(0.01)
        assert int(batch["maker"]) == os.getpid(), "from then on they are made here"
        assert int(batches.take(step + 1)["step"]) == step + 1


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("fault", [ValueError("shard 3 is damaged"), OSError("gone"), KeyError("a fault of ours")])
def test_what_goes_wrong_in_a_worker_is_told_as_if_it_had_been_here(workers: int, fault: Exception) -> None:
    def broken(step: int) -> dict[str, Tensor]:
        if step == 3:
            raise fault
        return numbered(step)

    with Batches(broken, 0, 10, workers) as batches:
        for step in range(3):
            batches.take(step)
        with pytest.raises(type(fault)) as told:
            batches.take(3)
    assert str(told.value) == str(fault)


def test_ctrl_c_leaves_workers_alone_and_no_worker_outlives_a_killed_training() -> None:
    reading, writing = os.pipe()
    training = os.fork()
    if not training:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # what runs in the background has none
        with suppress(ChildProcessError), Batches(numbered, 0, 100, 2) as batches:
            makers = {int(batches.take(step)["maker"]) for step in range(10)}
            for maker in makers:
                os.kill(maker, signal.SIGINT)
            makers |= {int(batches.take(step)["maker"]) for step in range(10, 20)}
            os.write(writing, " ".join(map(str, makers)).encode())
            time.sleep(60)
        os._exit(0)
    os.close(writing)
    makers = [int(number) for number in os.read(reading, 100).split()]
    os.kill(training, signal.SIGKILL)
    os.waitpid(training, 0)
    assert 1 <= len(makers) <= 2 and all(gone(maker) for maker in makers)


def test_a_system_without_forks_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("multiprocessing.get_all_start_methods", lambda: ["spawn"])
    with pytest.raises(ValueError, match="workers 2: this system cannot fork processes; use --workers 0"):
        Batches(numbered, 0, 1, 2)
