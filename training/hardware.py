"""What this machine offers: device, precision, memory."""

import ctypes
import os
import platform
import shutil
import sys
from typing import Literal

import torch
from torch import nn

DeviceName = Literal["auto", "cpu", "cuda"]
Precision = Literal["auto", "fp32", "bf16"]

Compile = Literal["auto", "on", "off"]
WORTH_COMPILING = 300


def pick_device(name: DeviceName) -> torch.device:
    """The device to train or sample on; "auto" takes CUDA if there is one.

    Raises:
        ValueError: If CUDA is asked for and absent.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            "device 'cuda' asked for, but torch finds none; use --device cpu or install a CUDA build of torch"
        )
    return torch.device(name)


def pick_precision(name: Precision, device: torch.device) -> Literal["fp32", "bf16"]:
    """bf16 where the hardware multiplies in it, fp32 elsewhere; or what was asked for."""
    if name != "auto":
        return name
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if torch.cpu._is_avx512_bf16_supported() else "fp32"


def compiles(choice: Compile, steps: int, model: nn.Module) -> bool:
    """Whether to compile a model for a run of so many steps.

    "auto" asks for a run long enough to earn it back, a compiler, and a model that gains (``gains_from_compile``).
    It looks at the run's whole length, so that a resumed run computes as it began.
    """
    if choice != "auto":
        return choice == "on"
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
    return steps >= WORTH_COMPILING and bool(compiler) and bool(getattr(model, "gains_from_compile", False))


def keep_freed_memory() -> None:
    """Let the process keep large blocks that it freed, for its next tensors, where glibc manages its memory.

    By default glibc gives every freed block of some megabytes back, and the next tensor pays for fresh pages.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mmap_threshold, trim_threshold = -3, -1  # names of malloc.h
        # Only both together: the second alone would freeze the first at its small default.
        if mallopt(mmap_threshold, 2**30):
            mallopt(trim_threshold, 2**30)


def peak_memory_mb(device: torch.device) -> float:
    """Peak memory in MiB: of the process, or of the GPU's allocator on CUDA."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    if sys.platform == "win32":
        import psutil

        return psutil.Process().memory_info().peak_wset / 2**20
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def describe_hardware(device: torch.device) -> str:
    """One line naming the processor a figure was measured on."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads"
