"""Make an embedded world: a folder of videos with known captions, labels, actions and states.

    python tools/make_world.py balls --out data/balls --count 600 --size 64 --frames 48 --seed 0
    python tools/make_world.py balls --twins --hold-out 0.2 --out data/twins
    python tools/make_world.py paddle --lossless
    python tools/make_world.py fork --right 0.7

Nothing is downloaded. The folder has the form your own videos would have (train/*.mp4, val/*.mp4, a JSON file
beside each; with --lossless *.mkv), and everything that takes such a folder takes this one. Run again, it finds the
world finished.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tokenreel.datasets.world_balls import USUAL_COLORS
from tokenreel.datasets.world_fork import RIGHT
from tokenreel.datasets.worlds import WorldSettings, write_world
from tokenreel.training.command_line import run_tool


@dataclass(frozen=True, kw_only=True)
class Config(WorldSettings):
    """What to make."""

    world: Annotated[Literal["balls", "paddle", "fork"], tyro.conf.Positional] = "balls"
    """balls: coloured balls that bounce off walls and each other; paddle: a game with an action per frame;
    fork: a ball falls onto a peg and goes left or right by chance."""
    out: Path | None = None
    """Folder to write; default: data/ and the world's name."""
    occluder: bool = False
    """Only balls: a grey bar that hides what is behind it."""
    twins: bool = False
    """Only balls: several may have one colour, and captions count them, colours in any order: "two red balls and a
    green ball"."""
    colors: int = USUAL_COLORS
    """Only balls: how many colours there are, 3 to 8."""
    hold_out: float = 0.0
    """Only balls: share of the combinations of colours that no training clip shows and every validation clip does."""
    right: float = RIGHT
    """Only fork: probability that a ball goes right."""


def make_world(config: Config) -> None:
    """Write the world and say where it is."""
    out = config.out if config.out is not None else Path("data") / config.world
    chosen = {name: getattr(config, name) for name in ("occluder", "twins", "hold_out")}
    options = {name: value for name, value in chosen.items() if value}
    usual = {"right": RIGHT, "colors": USUAL_COLORS}
    options |= {name: getattr(config, name) for name, value in usual.items() if getattr(config, name) != value}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(f"making {config.world}", total=config.count + config.val_count)
        made = write_world(
            config.world,
            out,
            config.count,
            config.val_count,
            config.size,
            config.frames,
            config.fps,
            config.seed,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
            options=options,
            lossless=config.lossless,
        )
    clips = f"{config.count} training and {config.val_count} validation clips"
    print(f"{out}: {clips}, {config.size}x{config.size}, {config.frames} frames" + ("" if made else " (already there)"))


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    run_tool(make_world, Config, argv, description=__doc__)


if __name__ == "__main__":
    main()
