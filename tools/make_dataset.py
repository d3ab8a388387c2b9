"""Make a folder of videos of one of the sets that people use: from what you downloaded, or recorded here.

    python tools/make_dataset.py ucf101 --root data/UCF101        # says what is missing and where it belongs
    python tools/make_dataset.py bair --root data/BAIR
    python tools/make_dataset.py moving-mnist --root data/MNIST
    python tools/make_dataset.py atari --games breakout pong --policy follow       # recorded here, with actions
    python tools/make_dataset.py vizdoom --scenarios take_cover --frames 300

Each has its own options: make_dataset.py NAME --help. Nothing is downloaded. The folder (--out, default data/NAME) is
an ordinary one with official splits, classes, actions, sources and licences: everything that takes videos takes it.
Run again, it goes on where it was stopped.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tokenreel.datasets.recipe_atari import AtariSettings, make_atari
from tokenreel.datasets.recipe_bair import BairSettings, make_bair, videogpt_file
from tokenreel.datasets.recipe_moving_mnist import MovingMnistSettings, make_moving_mnist
from tokenreel.datasets.recipe_ucf101 import Ucf101Settings, make_ucf101
from tokenreel.datasets.recipe_vizdoom import VizdoomSettings, make_vizdoom
from tokenreel.datasets.video_source import video_source
from tokenreel.training.command_line import command, run_tool


@dataclass(frozen=True, kw_only=True)
class Ucf101(Ucf101Settings):
    """UCF-101: 13,320 clips of 101 actions, with an official split."""

    out: Path = Path("data/ucf101")
    """Folder to make."""


@dataclass(frozen=True, kw_only=True)
class Bair(BairSettings):
    """BAIR robot pushing: 43,520 clips of 30 frames of 64x64 pixels, with the actions of the arm."""

    out: Path = Path("data/bair")
    """Folder to make."""


@dataclass(frozen=True, kw_only=True)
class MovingMnist(MovingMnistSettings):
    """Moving MNIST: digits that drift and bounce, 20 frames of 64x64 pixels."""

    out: Path = Path("data/moving-mnist")
    """Folder to make."""


@dataclass(frozen=True, kw_only=True)
class Atari(AtariSettings):
    """Atari games, recorded with an action per frame (needs tokenreel[atari])."""

    out: Path = Path("data/atari")
    """Folder to make."""


@dataclass(frozen=True, kw_only=True)
class Vizdoom(VizdoomSettings):
    """Scenarios of ViZDoom, recorded with an action per frame (needs tokenreel[vizdoom])."""

    out: Path = Path("data/vizdoom")
    """Folder to make."""


Make = Callable[[Any, Path, Callable[[int, int], None]], bool]
RECIPES: dict[str, tuple[type[Any], Make]] = {
    "ucf101": (Ucf101, make_ucf101),
    "bair": (Bair, make_bair),
    "moving-mnist": (MovingMnist, make_moving_mnist),
    "atari": (Atari, make_atari),
    "vizdoom": (Vizdoom, make_vizdoom),
}


def make_dataset(config: Any) -> None:
    """Make the folder and say what it holds and what comes next."""
    make = next(make for kind, make in RECIPES.values() if isinstance(config, kind))
    if isinstance(config, Bair) and (found := videogpt_file(config.root)) is not None:
        print(f"{config.root}: {found.kind}; it needs no conversion")
        print(f"next: {command('prepare_dataset')} --data {config.root}")
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(f"making {config.out}", total=None)
        made = make(config, config.out, lambda done, total: bar.update(task, completed=done, total=total))
    videos, rejected = video_source(config.out).describe()
    counts = {split: sum(video.split == split for video in videos) for split in ("train", "val", "test")}
    told = ", ".join(f"{count} {split}" for split, count in counts.items() if count)
    classes = {video.metadata.label for video in videos} - {None}
    print(
        f"{config.out}: {told} videos" + (f" in {len(classes)} classes" if classes else ""),
        "" if made else "(already there)",
    )
    for entry in rejected:
        print(f"left out: {entry.file}, {entry.reason}")
    # A frame that is dropped takes its action along.
    rate = " --fps 0" if any(video.metadata.actions for video in videos) else ""
    print(f"next: {command('prepare_dataset')} --data {config.out}{rate}")


def main(argv: list[str] | None = None) -> None:
    """Run the command line: the name of a recipe, then its options; without a name, say which there are."""
    name, *rest = (sys.argv[1:] if argv is None else argv) or [""]
    if name in ("", "-h", "--help"):
        print((__doc__ or "").strip())
        for known, (config_type, _) in RECIPES.items():
            print(f"  {known:<13} {(config_type.__doc__ or '').splitlines()[0]}")
        raise SystemExit(0)
    if name not in RECIPES:
        print(f"error: recipe {name!r} is unknown; expected one of {', '.join(RECIPES)}", file=sys.stderr)
        raise SystemExit(2)
    config_type, _ = RECIPES[name]
    run_tool(make_dataset, config_type, rest, description=config_type.__doc__)


if __name__ == "__main__":
    main()
