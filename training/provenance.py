"""Where a model comes from: data, length of training, versions, commit."""

import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("tokenreel", "torch", "x-transformers", "vector-quantize-pytorch", "av")


def provenance(**facts: Any) -> dict[str, Any]:
    """Facts about a training, with the time, the versions and the git commit of the code that ran."""
    return {
        **facts,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": _versions(),
        "commit": _commit(),
    }


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _commit() -> str | None:
    """The checkout's commit; None when tokenreel runs from an installed wheel."""
    folder = Path(__file__).resolve().parent
    if not (folder.parent / ".git").exists():
        return None
    command = ["git", "-C", str(folder), "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
