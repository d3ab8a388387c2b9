"""The work of tools/tokenize_dataset.py: the shards of every split, cut into shares of processes."""

import os
import shutil
import sys
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

import numpy as np
import torch
from rich.progress import track

from tokenreel.datasets.atomic_folder import atomic_folder
from tokenreel.datasets.clip_passes import ClipPasses
from tokenreel.datasets.place import LocalPlace, Place
from tokenreel.datasets.shard_job import ShardPlan, finish, finished_shard, put_shard, unfinished
from tokenreel.datasets.shard_share import Share
from tokenreel.tokenizer import VideoTokenizer, fingerprint
from tokenreel.tokenizer.frames import to_video
from tokenreel.training.hardware import DeviceName, pick_device

MODEL_FILES = ("provenance.json", "model.safetensors", "config.json")
"""Of a tokenizer's folder; the one that says it is there comes last."""


@dataclass(frozen=True)
class SplitJob:
    """The clips of a split that have one shape: their folder's name, what will be written of them, and where."""

    name: str
    clips: ClipPasses
    plan: ShardPlan
    place: Place


class Work(Protocol):
    """What a process needs to know of the tool's settings."""

    @property
    def batch_size(self) -> int:
        """Clips encoded at once."""
        ...

    @property
    def device(self) -> DeviceName:
        """Where to encode."""
        ...


def write_share(tokenizer: VideoTokenizer, jobs: list[SplitJob], share: Share, work: Work) -> None:
    """Write the shards of one process that are missing or damaged.

    Raises:
        OSError: If a shard cannot be written; those before it are whole.
    """
    for job, number in share.of(units(jobs)):
        if (parent := parent_process()) and not parent.is_alive():
            return  # killed; whoever starts again goes on from here
        if finished_shard(job.place, job.plan, number) is not None:  # asked anew: another process may share the job
            continue
        start, stop = job.plan.ranges[number]
        title = f"{job.name} clips {start} to {stop - 1}"
        begins = range(start, stop, work.batch_size)
        shown = track(begins, title, transient=True, disable=share.rank > 0 or not sys.stdout.isatty())
        parts = [_encode(tokenizer, job, range(at, min(at + work.batch_size, stop))) for at in shown]
        records = [job.clips.record(clip) for clip in range(start, stop)]
        put_shard(job.place, job.plan, number, np.concatenate(parts), records)


def units(jobs: list[SplitJob]) -> list[tuple[SplitJob, int]]:
    """Every shard of every split: what --shard-range counts."""
    return [(job, number) for job in jobs for number in range(len(job.plan.ranges))]


def conclude(jobs: list[SplitJob], share: Share) -> bool:
    """Write the manifests of the splits whose shards are all there, and say what is.

    Returns:
        Whether all splits are finished.
    """
    done = True
    for job in jobs:
        total = len(job.plan.ranges)
        missing = unfinished(job.place, job.plan)
        if missing and not share.whole(len(units(jobs))):
            print(
                f"{job.name}: {total - len(missing)} of {total} shards are there; the process that writes the last "
                "one, or any that is run again, finishes the split"
            )
            done = False
            continue
        manifest = finish(job.place, job.plan)
        tokens = manifest.num_clips * int(np.prod(manifest.grid))
        print(f"{job.name}: {manifest.num_clips} clips, {tokens} tokens in {total} shards")
    return done


def run_processes(count: int, target: object, config: object) -> None:
    """Call ``target(config, rank)`` in processes of their own and wait for them.

    Raises:
        OSError: If one did not end well; the others finish their shares first.
    """
    context = get_context("spawn")  # a fork would copy threads and GPUs that cannot be copied
    processes = [context.Process(target=target, args=(config, rank), daemon=True) for rank in range(count)]  # type: ignore[arg-type]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    if bad := [(rank, process.exitcode) for rank, process in enumerate(processes) if process.exitcode]:
        rank, status = bad[0]
        ended = f"was killed by signal {-status}" if status < 0 else "failed"
        raise OSError(
            f"process {rank} of {count} {ended}; run the same command again, which goes on with the shards that are "
            "missing (fewer --processes need less memory)"
        )


def own_device(name: DeviceName, rank: int, processes: int) -> torch.device:
    """The device of one of several processes on a machine: GPUs in turn, or its share of the processor's cores."""
    device = pick_device(name)
    if device.type == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", rank)) % torch.cuda.device_count())
    elif processes > 1 and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, torch.get_num_threads() // processes))
    return device


def carry_tokenizer(home: Path, place: Place) -> None:
    """Put a copy of the tokenizer beside its shards, so that they can be decoded wherever they go.

    Raises:
        ValueError: If shards of another tokenizer are there already.
    """
    expected, target = fingerprint(home), place.child("tokenizer")
    if target.exists("config.json"):
        with TemporaryDirectory() as folder:
            for name in MODEL_FILES[1:]:
                target.receive(name, Path(folder) / name)
            found = fingerprint(Path(folder))
        if found != expected:
            raise ValueError(
                f"{place} holds shards of tokenizer {found[:12]}, got {expected[:12]}; choose another --out or delete "
                "the folder"
            )
    elif isinstance(target, LocalPlace):
        with atomic_folder(target.folder) as building:
            shutil.copytree(home, building, dirs_exist_ok=True)
    else:
        for name in MODEL_FILES:
            target.send(home / name, name)


@torch.no_grad()
def _encode(tokenizer: VideoTokenizer, job: SplitJob, clips: range) -> np.ndarray:
    device = next(tokenizer.parameters()).device
    frames = to_video(job.clips.batch(clips)).to(device)
    return tokenizer.encode(frames).cpu().numpy().astype(job.plan.manifest.dtype)
