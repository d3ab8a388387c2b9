"""Embedded worlds: seeded little simulations with known state, written as ordinary folders of videos.

A world's folder follows the convention of users' own data: `train/*.mp4` and `val/*.mp4` (lossless: mkv), beside each
video a sidecar `NAME.json` with its caption, label, actions and states; `world.json` says what was made.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenreel.datasets import world_balls, world_fork, world_paddle
from tokenreel.datasets.dataset_folder import begin_folder, finish_folder, is_recorded, write_recording
from tokenreel.datasets.world_combinations import MOST_BALLS, options_by_split
from tokenreel.datasets.world_episode import Episode
from tokenreel.datasets.world_states import WORLD_FILE

__all__ = ["WORLDS", "Episode", "WorldSettings", "simulate", "write_world"]

FORMAT_VERSION = 1

_SIMULATORS: dict[str, Callable[..., Episode]] = {
    "balls": world_balls.simulate_balls,
    "paddle": world_paddle.simulate_paddle,
    "fork": world_fork.simulate_fork,
}
_MODULES = {"balls": world_balls, "paddle": world_paddle, "fork": world_fork}
_CLIP_OPTIONS: dict[str, set[str]] = {
    "balls": {"occluder", "twins", "colors", "combinations"}, "paddle": set(), "fork": {"right"},
}  # fmt: skip
_WORLD_OPTIONS: dict[str, set[str]] = {
    "balls": {"occluder", "twins", "colors", "hold_out"}, "paddle": set(), "fork": {"right"},
}  # fmt: skip
_DEFAULTS = {"right": world_fork.RIGHT, "colors": world_balls.USUAL_COLORS}
WORLDS = tuple(_SIMULATORS)

# One clip's seed is seed * _SEEDS + index, validation clips counted from the middle: no two clips of any
# split or any world seed share one.
_SEEDS = 2**32


@dataclass(frozen=True)
class WorldSettings:
    """How much of a world is written; the defaults are those of the embedded one."""

    count: int = 600
    """Training clips."""
    val_count: int = 64
    """Validation clips."""
    size: int = 64
    """Height and width in pixels; even, at least 32."""
    frames: int = 48
    """Frames per clip."""
    fps: float = 10.0
    """Frames per second of the files."""
    seed: int = 0
    """Same seed, same world."""
    lossless: bool = False
    """Write every pixel as it was drawn (ffv1, mkv) and not as h264 (mp4), whose traces a GPT has to learn, too."""


def simulate(world: str, seed: int, size: int, frames: int, **options: Any) -> Episode:
    """Simulate one clip.

    Args:
        world: `balls`, `paddle` or `fork`.
        seed: Any integer >= 0; the same seed gives the same clip.
        size: Height and width in pixels, even, at least 32.
        frames: Length T, at least 1.
        options: For `balls`: `occluder=True`, a grey bar that hides what is behind it; `twins=True`, several balls
            may have one colour; `colors`, how many there are; `combinations`, tuples of colour names from which
            alone the balls are drawn. For `fork`: `right`, the probability that a ball goes right.

    Returns:
        The episode; frames uint8 `(T, size, size, 3)`.

    Raises:
        ValueError: Unknown world or option, or a number out of range.
    """
    _check(world, size, frames, options, _CLIP_OPTIONS)
    if seed < 0:
        raise ValueError(f"seed is {seed}; expected an integer of at least 0")
    return _SIMULATORS[world](seed, size, frames, **options)


def write_world(
    world: str,
    out: Path,
    count: int,
    val_count: int,
    size: int,
    frames: int,
    fps: float,
    seed: int,
    progress: Callable[[int, int], None] | None = None,
    options: Mapping[str, Any] | None = None,
    *,
    lossless: bool = False,
) -> bool:
    """Write a world as a folder of videos with sidecars, and `world.json` last.

    A second call with the same settings finds the finished world and returns at once; an interrupted one is
    completed.

    Args:
        world: `balls`, `paddle` or `fork`.
        out: Folder, made if it is missing.
        count: Training clips, at least 1.
        val_count: Validation clips, at least 0; never the same as a training clip.
        size: Height and width in pixels, even, at least 32.
        frames: Frames per clip, at least 1.
        fps: Frames per second of the files, > 0.
        seed: Integer >= 0.
        progress: Called with (clips done, clips in all) after each clip.
        options: For `balls`: `occluder`, `twins` and `colors`, see `simulate`; `hold_out`, the share of the
            combinations of two and of three balls that no training clip shows and all validation clips show.
            `world.json` lists them as `held_out`. For `fork`: `right`, see `simulate`.
        lossless: Write mkv files that hold every pixel as drawn (ffv1), not mp4 (h264).

    Returns:
        True if the world was written, False if it was already there.

    Raises:
        ValueError: A setting out of range, or `out` already holds something else.
        OSError: A file cannot be written.
    """
    out, options = Path(out), dict(options or {})
    _check(world, size, frames, options, _WORLD_OPTIONS)
    _check_counts(count, val_count, fps, seed)
    known = world_balls.colors_of_world(options)
    by_split, held_out = options_by_split(list(known), options, seed)
    if not 0 < options.get("right", world_fork.RIGHT) < 1:
        raise ValueError(f"right is {options['right']}; expected a probability above 0 and below 1, such as 0.7")
    # An option at its default is the same world as the option left out.
    told = {name: value for name, value in sorted(options.items()) if value and value != _DEFAULTS.get(name)} | held_out
    told |= {"lossless": True} if lossless else {}
    settings = _settings(world, count, val_count, size, frames, fps, seed, told)
    if not begin_folder(out, settings, WORLD_FILE):
        return False
    clips = list(_clips(out, count, val_count, seed, ".mkv" if lossless else ".mp4"))
    for done, (video, clip_seed) in enumerate(clips, start=1):
        if not is_recorded(video):
            episode = _SIMULATORS[world](clip_seed, size, frames, **by_split[video.parent.name])
            write_recording(video, episode.frames, fps, _sidecar(episode))
        if progress is not None:
            progress(done, len(clips))
    finish_folder(out, settings, WORLD_FILE)
    return True


def _check(
    world: str, size: int, frames: int, options: Mapping[str, Any], known_options: Mapping[str, set[str]]
) -> None:
    if world not in _SIMULATORS:
        raise ValueError(f"unknown world {world!r}; expected one of {', '.join(WORLDS)}")
    for name in options:
        if name not in known_options[world]:
            known = ", ".join(sorted(known_options[world])) or "none"
            raise ValueError(f"world {world!r} has no option {name!r}; it knows: {known}")
    if size < 32 or size % 2:
        raise ValueError(f"size is {size}; expected an even number of at least 32, such as 64")
    if frames < 1:
        raise ValueError(f"frames is {frames}; expected at least 1")
    most = len(world_balls.PALETTE)
    if not MOST_BALLS <= options.get("colors", world_balls.USUAL_COLORS) <= most:
        raise ValueError(f"colors is {options['colors']}; expected {MOST_BALLS} to {most}")


def _check_counts(count: int, val_count: int, fps: float, seed: int) -> None:
    if not 1 <= count <= _SEEDS // 2:
        raise ValueError(f"count is {count}; expected at least 1")
    if not 0 <= val_count <= _SEEDS // 2:
        raise ValueError(f"val_count is {val_count}; expected at least 0")
    if not 0 < fps <= 1000:
        raise ValueError(f"fps is {fps}; expected more than 0 and at most 1000")
    if seed < 0:
        raise ValueError(f"seed is {seed}; expected an integer of at least 0")


def _settings(
    world: str,
    count: int,
    val_count: int,
    size: int,
    frames: int,
    fps: float,
    seed: int,
    options: dict[str, Any],
) -> dict[str, Any]:
    module = _MODULES[world]
    shown = world_balls.colors_of_world(options) if "colors" in options else module.COLORS
    return {
        "format_version": FORMAT_VERSION,
        "world": world,
        "count": count,
        "val_count": val_count,
        "size": size,
        "frames": frames,
        "fps": fps,
        "seed": seed,
        "options": options,
        "labels": module.LABELS,
        "colors": {name: list(color) for name, color in shown.items()},
        "background": list(module.BACKGROUND),
    }


def _clips(out: Path, count: int, val_count: int, seed: int, suffix: str) -> Iterator[tuple[Path, int]]:
    for split, clips, first in (("train", count, 0), ("val", val_count, _SEEDS // 2)):
        for index in range(clips):
            yield out / split / f"{index:05d}{suffix}", seed * _SEEDS + first + index


def _sidecar(episode: Episode) -> dict[str, Any]:
    return {
        "caption": episode.caption,
        "label": episode.label,
        "actions": episode.actions,
        "action_names": episode.action_names,
        "states": episode.states,
    }
