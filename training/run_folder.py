"""Opening a run folder: a new one, or one that is resumed under the same settings."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

from tokenreel.training.checkpoints import latest_checkpoint

FREE_BYTES_NEEDED = 200 * 2**20


def check_writable(folder: Path) -> None:
    """Make a folder and try a file in it.

    Raises:
        OSError: If it cannot be made or written, or its disk is nearly full.
    """
    probe = folder / f".probe-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"x")
        probe.unlink()
    except OSError as error:
        raise OSError(f"cannot write to {folder}: {error.strerror or error}; choose another folder") from error
    free = shutil.disk_usage(folder).free
    if free < FREE_BYTES_NEEDED:
        raise OSError(
            f"the disk of {folder} has {free / 2**20:.0f} MiB free, expected at least "
            f"{FREE_BYTES_NEEDED / 2**20:.0f}; free some or choose another folder"
        )


def refuse_existing(run: Path, resume: bool) -> None:
    """Nothing, or an error if the folder holds a run that is not to be gone on with.

    Raises:
        ValueError: If so.
    """
    if not resume and latest_checkpoint(run) is not None:
        raise ValueError(
            f"{run} already holds a run; add --resume to go on from its last checkpoint, "
            "or choose another --run, or delete the folder"
        )


def open_run(run: Path, config: dict[str, Any], resume: bool, fixed: set[str]) -> None:
    """Make the run folder, or check that an existing one may be continued with these settings.

    Args:
        run: Folder of the run.
        config: Resolved configuration; its JSON form is written to ``config.json``.
        resume: Whether to go on from the run's last checkpoint.
        fixed: Top-level names in ``config`` that may not change between the parts of a run.

    Raises:
        ValueError: If the folder holds a run and ``resume`` is off, or a fixed setting differs.
        OSError: If it cannot be written.
    """
    check_writable(run)
    refuse_existing(run, resume)
    for pattern in ("*.tmp-*", "*.old-*", "checkpoints/*.tmp-*", "checkpoints/*.old-*"):  # of killed runs
        for leftover in run.glob(pattern):
            if leftover.is_dir():
                shutil.rmtree(leftover, ignore_errors=True)
            else:
                leftover.unlink(missing_ok=True)
    resolved = json.loads(json.dumps(config, default=str))
    if latest_checkpoint(run) is not None:
        before = json.loads((run / "config.json").read_text())
        for name in (name for name in resolved if name in fixed):  # what somebody chose, then what follows from it
            if name in before and before[name] != resolved.get(name):  # an older version's run may lack a name
                raise ValueError(
                    f"{run} was trained with {name}={_short(before.get(name))}, got {_short(resolved.get(name))}; "
                    "resume with the same setting, or choose another --run"
                )
    temporary = run / f"config.json.tmp-{os.getpid()}"
    temporary.write_text(json.dumps(resolved, indent=2) + "\n")
    os.replace(temporary, run / "config.json")


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 300 else text[:300] + "…"
