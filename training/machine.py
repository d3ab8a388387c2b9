"""What a machine has left for a training: memory, and whether other programs are at work."""

import os
import re
from pathlib import Path

import torch

UNITS = {"M": 2**20, "G": 2**30, "T": 2**40}
LEAST, MOST = 2**20, 2**50
"""Bytes that anybody may mean who names a machine's memory."""


def read_memory(text: str) -> float:
    """Bytes of ``24GB``, ``24 GiB``, ``24g`` or ``24``: a number alone counts gigabytes.

    Raises:
        ValueError: If it is none of these, or what no machine has.
    """
    found = re.fullmatch(r"([0-9]+\.?[0-9]*|\.[0-9]+) *(?:([MGT])(?:i?B)?)?", text.strip(), flags=re.IGNORECASE)
    size = float(found[1]) * UNITS[(found[2] or "G").upper()] if found else 0.0
    if not LEAST <= size <= MOST:
        raise ValueError(f"memory {text!r}: expected a size such as 24GB or 800MB; a number alone counts gigabytes")
    return size


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
