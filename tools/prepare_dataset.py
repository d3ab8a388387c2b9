"""Read a folder of videos, choose what is worth training on, and show it: the stage before the first one.

    python tools/prepare_dataset.py --data my/videos                        # then look at runs/dataset/ingest.html
    python tools/prepare_dataset.py --data my/videos --curation.cuts 0 --curation.duplicates drop --out runs/mine

The clip store that it makes is the one that train_tokenizer.py finds with the same options; every video is decoded
once. ingest.html shows what came in, what was kept, and what was left out and why; ingest.json says the same to
programs, with every stretch of every video.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from tokenreel.datasets.atomic_file import atomic_file
from tokenreel.datasets.clip_store import ClipStore
from tokenreel.datasets.data_source import DataSettings, open_data
from tokenreel.datasets.ingest_page import ingest_page
from tokenreel.datasets.ingest_report import ingest_report
from tokenreel.training.command_line import command, quoted, run_tool
from tokenreel.training.run_folder import check_writable


@dataclass(frozen=True, kw_only=True)
class Config(DataSettings):
    """What to read, and which parts of it to keep."""

    out: Path = Path("runs/dataset")
    """Folder for ingest.html and ingest.json."""


def prepare_dataset(config: Config) -> None:
    """Make or open the clip store, write the report, and say what to look at."""
    check_writable(config.out)
    store = open_data(config)
    report = ingest_report(store)
    with atomic_file(config.out / "ingest.json") as file:
        file.write(json.dumps(report, indent=1).encode("ascii") + b"\n")
    with atomic_file(config.out / "ingest.html") as file:
        # Names of files that are no text have characters that UTF-8 has not.
        file.write(ingest_page(store).encode("utf-8", "replace"))
    totals = report["totals"]
    print(
        f"{totals['videos_kept']} of {totals['videos']} videos kept, {totals['shots']} shots, "
        f"{totals['frames_kept']} of {totals['frames']} frames"
    )
    for reason, counts in report["left_out"].items():
        print(f"left out, {reason}: {counts['frames']} frames in {counts['stretches']} stretches")
    for warning in report["warnings"]:
        print(f"note: {warning}")
    print(f"look at {config.out / 'ingest.html'}")
    print(f"next: {command('train_tokenizer')} {_options(config, store)}")


def _options(config: Config, store: ClipStore) -> str:
    """What names this store to the next tool: the store itself, and the frames in it where they are not the usual."""
    options = {"size": config.size, "width": config.width, "fps": config.fps}
    usual = DataSettings()
    changed = [f"--{name} {value:g}" for name, value in options.items() if value != getattr(usual, name)]
    if config.more_sizes:
        changed.append(f"--more-sizes {' '.join(config.more_sizes)}")
    return " ".join([f"--data {quoted(store.path)}", *changed])


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    run_tool(prepare_dataset, Config, argv, description=__doc__)


if __name__ == "__main__":
    main()
