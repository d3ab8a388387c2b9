"""Several processes that train one model: who is who, who writes, who waits for whom.

A launcher (``accelerate launch``, ``torchrun``) starts every process, a rank, with the same command. Each computes on
its own cut of every batch; what they must agree on goes through a group of its own in main memory, in which waiting
has no end as long as all are alive: the first rank may take an hour over an evaluation. One process alone needs none
of this, and every function here then does nothing.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from datetime import timedelta
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from torch import distributed

from tokenreel.training.hardware import DeviceName, pick_device
from tokenreel.training.settings import TrainingSettings

PATIENCE = timedelta(minutes=30)
"""For a rank that is alive but does not answer within a step."""
WITHOUT_END = timedelta(days=365)
LARGEST, SMALLEST = ("data/max", "memory/peak_mb"), ("data/min",)
"""Metrics of which all ranks' extreme is told; of all others their mean."""
LOST = ("Connection closed by peer", "Connection reset by peer", "Timed out", "Broken pipe", "Connection refused")

OTHER_WAYS = {
    "ACCELERATE_USE_FSDP": "--use_fsdp",
    "ACCELERATE_USE_DEEPSPEED": "--use_deepspeed",
    "ACCELERATE_USE_MEGATRON_LM": "--use_megatron_lm",
    "ACCELERATE_USE_PARALLELISM_CONFIG": "--use_parallelism_config",
    "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "--gradient_accumulation_steps",
    "ACCELERATE_DYNAMO_BACKEND": "--dynamo_backend",
}
"""Settings of accelerate's own, by how it hands them to the processes, which would change what is trained unseen."""

ONE_OF_SEVERAL = {"ACCELERATE_MIXED_PRECISION", "MASTER_PORT"}
"""What it sets for several processes; where it starts a single one nonetheless, it does not count them."""

_group: distributed.ProcessGroup | None = None


def rank() -> int:
    """Of this process, from 0."""
    return distributed.get_rank() if _several() else 0


def world_size() -> int:
    """Number of processes."""
    return distributed.get_world_size() if _several() else 1


def is_first() -> bool:
    """Whether this is the process that writes, and speaks for all."""
    return rank() == 0


def join(settings: TrainingSettings) -> None:
    """Meet the other processes that a launcher started, and take the device that is this one's.

    Raises:
        ValueError: If they were started without saying where they meet or with settings that work otherwise here, the
            device is absent, or the batch cannot be cut into equal parts.
    """
    _refuse_other_ways()
    _meet(settings.device)
    share(settings.batch_size, settings.accumulate)


def _refuse_other_ways() -> None:
    for name, option in OTHER_WAYS.items():
        value = os.environ.get(name, "no")
        if value.lower() not in ("", "no", "false", "0", "1" if name.endswith("STEPS") else "no"):
            raise ValueError(
                f"accelerate was launched with {option} ({name}={value}), expected none of it: leave it out "
                "(accelerate config may have set it), and use this tool's own --accumulate, --compile and --precision; "
                "a GPT that is too large for one process is trained in parts (FSDP2) by train_gpt.py --shard-model"
            )


def _meet(device: DeviceName) -> None:
    global _group
    found = pick_device(device)
    if os.environ.keys() >= ONE_OF_SEVERAL and "WORLD_SIZE" not in os.environ:
        print(
            "note: accelerate launch was asked for several processes and started this one alone, as it does where it "
            "finds no GPUs; start several with accelerate launch --multi_gpu there as well, or with torchrun"
        )
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or _several():
        return
    missing = [name for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if missing:
        raise ValueError(
            f"WORLD_SIZE is {os.environ['WORLD_SIZE']}, expected {', '.join(missing)} beside it; start the tool with "
            "accelerate launch or torchrun, or alone without WORLD_SIZE"
        )
    PartialState(cpu=found.type == "cpu", timeout=PATIENCE)
    made: Any = distributed.new_group(backend="gloo", timeout=WITHOUT_END)  # torch's versions type it differently
    _group = made


def check_joined() -> None:
    """Refuse several processes where nothing made them meet.

    Raises:
        ValueError: If there are some.
    """
    launched = os.environ.get("WORLD_SIZE", "1")
    if int(launched) > 1 and not _several():
        raise ValueError(f"{launched} processes launched, expected one; start this tool with plain python")


def check_alike(what: str, number: float, remedy: str) -> None:
    """Refuse to go on where the ranks found different things.

    Raises:
        ValueError: If this number is not the same on all of them.
    """
    found = gathered([number])[:, 0]
    if (found != found[0]).any():
        raise ValueError(f"{what} is {found.tolist()} on the ranks, expected the same on all; {remedy}")


def leave() -> None:
    """Take leave of the others, after all is done."""
    global _group
    if _group is not None:
        wait_for_all()
        _group = None
        distributed.destroy_process_group()
        PartialState._reset_state()


def wait_for_all() -> None:
    """Go on when every rank has come here, however long that takes."""
    gathered([])


def gathered(numbers: list[float]) -> np.ndarray:
    """As many numbers of every rank: float64 (ranks, n)."""
    own = torch.tensor(numbers, dtype=torch.float64)
    if not _several():
        return own[None].numpy()
    # An empty tensor would be sent to nobody.
    padded = torch.cat([own, own.new_zeros(1)])
    rows = [torch.empty_like(padded) for _ in range(world_size())]
    distributed.all_gather(rows, padded, group=_group)
    return torch.stack(rows)[:, :-1].numpy()


def agreed(flag: bool) -> bool:
    """Whether any rank says so."""
    return flag if not _several() else bool(gathered([float(flag)]).any())


def means(*numbers: float) -> list[float]:
    """Of each number the mean over all ranks."""
    return gathered(list(numbers)).mean(0).tolist()


def together(metrics: Mapping[str, float | str]) -> dict[str, float | str]:
    """Every rank's metrics as those of all; words are those of this rank."""
    told = dict(metrics)
    names = [name for name, value in told.items() if not isinstance(value, str)]
    if _several() and names:
        rows = gathered([float(told[name]) for name in names])
        for name, column in zip(names, rows.T, strict=True):
            extreme = column.max if name in LARGEST else column.min if name in SMALLEST else column.mean
            told[name] = float(extreme())
    return told


@contextmanager
def first_alone() -> Iterator[None]:
    """Around work of the first rank, for whose end the others wait, having given what they have to give.

    If it fails, all end; the first one's error says why.
    """
    failed = False
    try:
        yield
    except Exception:
        failed = True
        raise
    finally:
        anyone = agreed(failed)
        if anyone and not failed:
            raise SystemExit(2)


@contextmanager
def held_by_first(held: AbstractContextManager[None]) -> Iterator[None]:
    """Hold something for the length of a ``with`` block, in the first rank alone; if it cannot be had, all end."""
    with ExitStack() as stack:
        with first_alone():
            if is_first():
                stack.enter_context(held)
        yield


@contextmanager
def first_of_machine_first() -> Iterator[None]:
    """Around work whose result lies on a disk: one rank of each machine does it, then the others find it done."""
    goes_first = int(os.environ.get("LOCAL_RANK", "0")) == 0
    if not goes_first:
        wait_for_all()
    yield
    if goes_first:
        wait_for_all()


def share(batch_size: int, accumulate: int) -> int:
    """Clips of a step that go through the model of one rank at once.

    Raises:
        ValueError: If the batch cannot be cut into so many equal parts.
    """
    cuts = world_size() * accumulate
    if batch_size % cuts:
        near = max(cuts, round(batch_size / cuts) * cuts)
        raise ValueError(
            f"batch_size {batch_size} is that of all {world_size()} processes together, each in {accumulate} parts: "
            f"expected a multiple of {cuts}; use --batch-size {near}, or another number of processes or --accumulate"
        )
    return batch_size // cuts


def seed_draws(seed: int, step: int) -> None:
    """Let torch draw, at this step, what depends on (seed, step, rank) alone; so no state of it has to be carried."""
    word = np.random.PCG64([seed, step, 2, rank()]).random_raw() >> 1
    torch.manual_seed(int(word))


def lost_rank(error: BaseException) -> str | None:
    """What to say of an error that comes from another process's end; None if it does not."""
    if not _several() or not isinstance(error, RuntimeError):
        return None
    if not isinstance(error, distributed.DistError) and not any(sign in str(error) for sign in LOST):
        return None
    return (
        f"rank {rank()} of {world_size()} got no answer from another process, which has ended or hangs: see what that "
        "one said last, and go on from the last checkpoint with --resume, on as many processes as there are"
    )


def own_cut(items: np.ndarray) -> np.ndarray:
    """Those of some items that fall to this rank; it may be none."""
    return np.array_split(items, world_size())[rank()]


def say(sentence: str) -> None:
    """Tell the user once, not once per rank."""
    if is_first():
        print(sentence)


def _several() -> bool:
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1
