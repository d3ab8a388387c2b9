"""Listing a folder of 100,000 files, which comes before anything is decoded, against asking the disk alone.

    python benchmarks/listing.py --out runs/benchmarks/listing.json        # makes 100,000 empty files, a minute

The alternative is what cannot be avoided: walking through the folders and asking for size and time of every file. Ours
also makes keys, splits, classes and a fingerprint. Both take turns; the clock is CPU time, the best of several counts.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from report import report, row

from tokenreel.datasets.video_source import video_source

NOTE = "CPU seconds of one process; alternative: os.walk and os.stat of every file"


def bare(root: Path) -> None:
    """Size and time of every file."""
    for here, _, names in os.walk(root):
        for name in names:
            os.stat(f"{here}{os.sep}{name}")


def listed(root: Path) -> None:
    """What a command does with a folder before it decodes the first video."""
    source = video_source(root)
    source.fingerprint()
    source.describe()


def fastest(functions: Sequence[Callable[[Path], None]], root: Path, rounds: int) -> list[float]:
    """CPU seconds of each, in turns, the best of several rounds."""
    return [
        min(seconds)
        for seconds in zip(*([_seconds(one, root) for one in functions] for _ in range(rounds)), strict=True)
    ]


def _seconds(function: Callable[[Path], None], root: Path) -> float:
    began = time.process_time()
    function(root)
    return time.process_time() - began


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks/listing.json"))
    arguments = parser.parse_args()
    rows = []
    for folders in (1, 100):
        with tempfile.TemporaryDirectory() as temporary:
            root = Path(temporary)
            for number in range(arguments.files):
                folder = root / f"class{number % folders:03d}"
                folder.mkdir(exist_ok=True)
                (folder / f"{number:06d}.mp4").touch()
            ours, limit = fastest((listed, bare), root, arguments.rounds)
        rows.append(row(f"{arguments.files} files in {folders} folders", "listing", "s", ours, limit))
    report(rows, arguments.out, NOTE)


if __name__ == "__main__":
    main()
