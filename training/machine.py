"""What a machine has left for a training: memory, and whether other programs are at work."""

import os
import re
from pathlib import Path

import torch

UNITS = {"": 1, "KB": 2**10, "MB": 2**20, "GB": 2**30, "TB": 2**40}


def read_memory(text: str) -> float:
    """Bytes of ``24GB``.

    Raises:
        ValueError: If it is none.
    """
    found = re.fullmatch(r"([0-9]*\.?[0-9]+) *([KMGT]?)i?B?", text.strip(), flags=re.IGNORECASE)
    if found is None or float(found[1]) <= 0:
        raise ValueError(f"memory {text!r}: expected a size such as 24GB or 800MB")
    unit = found[2].upper()
    return float(found[1]) * UNITS[unit + "B" if unit else ""]


def free_memory(device: torch.device) -> float:
    """Bytes of the GPU, or free in this machine."""
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[1])
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return float(next(line.split()[1] for line in lines if line.startswith("MemAvailable"))) * 2**10
    except (OSError, StopIteration):
        if hasattr(os, "sysconf"):
            return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
        raise ValueError("this system does not tell how much memory it has; say so, as in --memory 16GB") from None


def busy_words() -> str | None:
    """Said where other programs are at work, since then everything takes longer than it will."""
    cores, load = os.cpu_count() or 1, os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if load < cores / 2:
        return None
    return (
        f"note: other programs are at work (load {load:.1f} on {cores} cores): the plan is for a machine that stays as "
        "busy; for one that is not, plan again when it is quiet"
    )
