"""Checkpoints: complete, written and synced under a temporary name, then renamed; loaded without running code.

``checkpoints/step_000500/`` holds ``weights.safetensors`` (what trains), ``state.pt`` (optimizer, weight
average, random states, the state to go back to, and what else has a memory) and ``meta.json`` (step, schedule,
exposures, format). A checkpoint under its final name is whole, whenever the process is killed.
"""

import json
import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from tokenreel.training import ranks, sharding
from tokenreel.training.ema import WeightAverage
from tokenreel.training.random_states import random_states, restore_random_states
from tokenreel.training.retreat import Retreat
from tokenreel.training.schedule import Schedule
from tokenreel.training.settings import KEEP

FORMAT_VERSION = 1


class Remembering(Protocol):
    """Something that a run needs beside its weights to go on as if it had not stopped."""

    def state_dict(self) -> dict[str, Any]:
        """Its memory: numbers, texts, tensors, lists and dicts of them."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what :meth:`state_dict` told."""


def save_checkpoint(
    run: Path,
    step: int,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    average: WeightAverage | None,
    retreat: Retreat | None = None,
    schedule: Schedule | None = None,
    others: Mapping[str, Remembering] | None = None,
    keep: int = KEEP,
    also: Iterable[int] = (),
    exposures: Mapping[str, float] | None = None,
) -> Path:
    """Save everything needed to go on after ``step`` steps, and remove older checkpoints; for all processes to call.

    The first process writes, whole tensors; others give it the parts of the model that they hold.

    The last ``keep`` stay, those of the steps ``also``, and the last one from before the learning rate falls: from
    there the run can be prolonged. Those of a run that was longer or shorter are removed if they took another way.

    Raises:
        OSError: If it cannot be written; the older checkpoints stay whole.
    """
    folder = run / "checkpoints" / f"step_{step:06d}"
    state = sharding.whole(
        {
            "weights": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "average": None if average is None else average.state_dict(),
        },
        keep=ranks.is_first(),
    )
    if not ranks.is_first():
        return folder
    state |= {
        "random": random_states(),
        "retreat": None if retreat is None else retreat.kept,
        "others": {name: other.state_dict() for name, other in (others or {}).items()},
    }
    followed = None if schedule is None else asdict(schedule)
    meta = {"format_version": FORMAT_VERSION, "step": step, "schedule": followed, "exposures": exposures}
    _write(folder, state, meta)
    for old in set(_finished(run)) - _worth_keeping(run, schedule, keep, also):
        _remove(old)
    return folder


def _write(folder: Path, state: dict[str, Any], meta: dict[str, Any]) -> None:
    building = folder.with_name(f"{folder.name}.tmp-{os.getpid()}")
    shutil.rmtree(building, ignore_errors=True)
    try:
        building.mkdir(parents=True)
        weights = {name: tensor.detach().cpu().contiguous() for name, tensor in state.pop("weights").items()}
        save_file(weights, building / "weights.safetensors")
        torch.save(state, building / "state.pt")
        (building / "meta.json").write_text(json.dumps(meta) + "\n")
        _sync(building)
        _remove(folder)
        os.replace(building, folder)
    except (OSError, RuntimeError, SafetensorError) as error:  # a full disk has three faces here
        raise OSError(
            f"cannot write the checkpoint {folder}: {error}; free space or make the folder writable, "
            "then the same command with --resume goes on from the checkpoint before"
        ) from error
    finally:
        shutil.rmtree(building, ignore_errors=True)


def latest_checkpoint(run: Path) -> Path | None:
    """The newest whole checkpoint of a run, if any."""
    finished = _finished(run)
    return finished[-1] if finished else None


def checkpoint_for(run: Path, schedule: Schedule) -> Path | None:
    """The newest whole checkpoint that a run of this schedule could have made; the newest of all if there is none."""
    shared = [folder for folder in _finished(run) if _shares(folder, schedule)]
    return shared[-1] if shared else latest_checkpoint(run)


def load_checkpoint(
    folder: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    average: WeightAverage | None,
    retreat: Retreat | None = None,
    others: Mapping[str, Remembering] | None = None,
) -> int:
    """Restore what :func:`save_checkpoint` saved; return the number of steps taken.

    Raises:
        ValueError: If the checkpoint is of another format or of a model of another shape.
    """
    step, state = _restore(folder, model, optimizer, average)
    if retreat is not None:
        retreat.kept = state.get("retreat")
    remembered = state.get("others", {})
    for name, other in (others or {}).items():
        if name in remembered:  # an older version's checkpoint may lack it
            other.load_state_dict(remembered[name])
    restore_random_states(state["random"])
    return step


def go_back_to(
    folder: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    average: WeightAverage | None,
    retreat: Retreat,
) -> None:
    """Restore what a model may do next: weights, optimizer, weight average and the state to go back to.

    For a run that goes on with them from where it is.

    Raises:
        ValueError: As :func:`load_checkpoint`.
    """
    _, state = _restore(folder, model, optimizer, average)
    retreat.kept = state.get("retreat")


def checkpoint_until(run: Path, step: int) -> Path | None:
    """The newest whole checkpoint of at most so many steps; the oldest of all if there is none, None without any."""
    found = _finished(run)
    early = [folder for folder in found if _step(folder) <= step]
    return early[-1] if early else next(iter(found), None)


def _restore(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, average: WeightAverage | None
) -> tuple[int, dict[str, Any]]:
    """Restore what the weights depend on; return the step and all else that ``state.pt`` holds."""
    try:
        meta = json.loads((folder / "meta.json").read_text())
        weights = load_file(folder / "weights.safetensors")
        state = torch.load(folder / "state.pt", map_location="cpu", weights_only=True)
    except (OSError, ValueError, RuntimeError, EOFError, SafetensorError) as error:
        raise ValueError(
            f"checkpoint {folder} is damaged ({error}), expected whole files; delete this folder, "
            "and --resume goes on from the checkpoint before"
        ) from None
    if meta.get("format_version") != FORMAT_VERSION:
        raise ValueError(
            f"checkpoint {folder} has format {meta.get('format_version')}, expected {FORMAT_VERSION}; "
            "resume it with the version of tokenreel that made it"
        )
    own = model.state_dict()
    for name in sorted(set(own) | set(weights)):
        if name not in own or name not in weights or own[name].shape != weights[name].shape:
            raise ValueError(
                f"checkpoint {folder} does not fit this model at {name}; "
                "resume with the model settings of its config.json, or start another --run"
            )
    sharding.load(model, optimizer, {**state, "weights": weights})
    if average is not None:
        if state["average"] is None:  # the run had none until now
            average.restart(model)
        else:
            average.load_state_dict(state["average"])
    return int(meta["step"]), state


def _finished(run: Path) -> list[Path]:
    """Whole checkpoints, oldest first."""
    folders = (run / "checkpoints").glob("step_*")
    named = (f for f in folders if f.name.removeprefix("step_").isdigit())
    return sorted((f for f in named if (f / "meta.json").is_file()), key=_step)


def _worth_keeping(run: Path, schedule: Schedule | None, keep: int, also: Iterable[int]) -> set[Path]:
    """Of a run's checkpoints: the last ones, those asked for, and the last one from before the learning rate falls."""
    if schedule is None:
        return set(_finished(run)[-keep:])
    shared = [folder for folder in _finished(run) if _shares(folder, schedule)]
    stable = [folder for folder in shared if _step(folder) <= schedule.stable_steps]
    wanted = {folder for folder in shared if _step(folder) in also}
    return {*shared[-keep:], *stable[-1:], *wanted}


def _shares(folder: Path, schedule: Schedule) -> bool:
    """Whether a checkpoint could be of a run of this schedule; one of an older version, which told none, could."""
    try:
        followed = json.loads((folder / "meta.json").read_text()).get("schedule")
    except ValueError:  # damaged, as whoever loads it will be told
        followed = None
    return followed is None or schedule.shares(_step(folder), Schedule(**followed))


def _step(folder: Path) -> int:
    return int(folder.name.removeprefix("step_"))


def _remove(folder: Path) -> None:
    """Remove a checkpoint so that half of it is never taken for one."""
    if folder.exists():
        retired = folder.with_name(f"{folder.name}.old-{os.getpid()}")
        os.replace(folder, retired)
        shutil.rmtree(retired, ignore_errors=True)


def _sync(folder: Path) -> None:
    """Bring a folder's files to the disk, so that a power cut after the rename finds them whole."""
    for path in folder.iterdir():
        with path.open("rb+") as file:
            os.fsync(file.fileno())
