"""The form of every benchmark's result: hardware, versions, rows; as a table and as JSON."""

import json
import os
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

COLUMNS = ("case", "metric", "unit", "ours", "alternative", "limit")
PACKAGES = ("torch", "x-transformers", "vector-quantize-pytorch", "numpy")


def row(
    case: str, metric: str, unit: str, ours: float, alternative: float | None = None, limit: float | None = None
) -> dict[str, Any]:
    """One figure in the form of ``COLUMNS``."""
    return dict(zip(COLUMNS, (case, metric, unit, ours, alternative, limit), strict=True))


def hardware() -> dict[str, Any]:
    """Processor, cores and threads, and the GPU if there is one."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {"cpu": model, "cores": os.cpu_count(), "threads": torch.get_num_threads(), "gpu": gpu}


def save(rows: Sequence[dict[str, Any]], out: Path, note: str) -> None:
    """Write rows with hardware and versions; see :func:`report`."""
    versions = {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}
    out.parent.mkdir(parents=True, exist_ok=True)
    content = {"hardware": hardware(), "versions": versions, "note": note, "rows": list(rows)}
    out.write_text(json.dumps(content, indent=2) + "\n")


def report(rows: Sequence[dict[str, Any]], out: Path, note: str) -> None:
    """Print the rows as a table and write them with hardware and versions.

    Args:
        rows: One dictionary per figure with the keys of ``COLUMNS``; ``None`` where there is none.
        out: JSON file.
        note: What the alternative and the limit are.
    """
    save(rows, out, note)
    table = Table(*COLUMNS, title=note, title_justify="left")
    for row in rows:
        table.add_row(*("" if (value := row[name]) is None else _text(value) for name in COLUMNS))
    Console().print(table)
    print(f"written to {out}")


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
