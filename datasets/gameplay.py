"""Recording games: who plays, how an episode becomes a video with an action per frame, how many go into which split."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from PIL import Image

from tokenreel.datasets.dataset_folder import begin_folder, finish_folder, is_recorded, write_recording

DATASET_FILE = "dataset.json"
Policy = Literal["held", "random", "follow"]
# Validation episodes are counted from here, so that no two episodes of any split or seed are the same.
VALIDATION = 2**31
HELD = (3, 25)
"""Fewest and most frames for which a random action is held."""
FOLLOW_OFF = 0.1
"""How often per frame a follower aims anew, beside what it follows."""


@dataclass(frozen=True)
class GameplaySettings:
    """How much is recorded, and who plays."""

    episodes: int = 40
    """Episodes of each game for training, each a video."""
    val_episodes: int = 4
    """Episodes of each game for validation."""
    frames: int = 600
    """Most frames of an episode; it ends earlier with the game."""
    warm_up: int = 150
    """Most frames that are played before those that are recorded, a random number of them: many games begin alike."""
    frame_skip: int = 2
    """Frames of the game from one recorded frame to the next; the action stays the same in between."""
    size: int = 0
    """Height and width in pixels to scale to, with averaging; 0: as the game shows it."""
    seed: int = 0
    """Same seed, same recordings."""
    format: Literal["mkv", "mp4"] = "mkv"
    """mkv: every pixel as it was; mp4: smaller, small coloured things lose some of their colour."""

    def __post_init__(self) -> None:
        least = {"episodes": 1, "val_episodes": 0, "frames": 1, "warm_up": 0, "frame_skip": 1, "seed": 0}
        for name, limit in least.items():
            if getattr(self, name) < limit:
                raise ValueError(f"{name} is {getattr(self, name)}, expected at least {limit}")
        if self.size and self.size < 8:
            raise ValueError(f"size is {self.size}, expected 0 (as the game shows it) or at least 8")


class Game(Protocol):
    """A game that can be played frame by frame.

    Attributes:
        action_names: Names of the actions 0, 1, ….
        told: What is to be said of its recordings, beside actions, seed and policy.
        fps: Frames per second that the player of a recording sees, at the game's own speed.
    """

    action_names: list[str]
    told: dict[str, Any]
    fps: float

    def start(self, seed: int) -> np.ndarray:
        """Begin a new episode; returns its first frame, uint8 (H, W, 3)."""
        ...

    def act(self, action: int) -> tuple[np.ndarray | None, float]:
        """Do something; returns the frame that it leads to, None at the end of the episode, and the reward."""
        ...

    def wish(self, aside: float) -> int | None:
        """The action of a player that follows what matters, ``aside`` of it by -1 to 1; None if nobody knows how."""
        ...


@dataclass
class Recording:
    """One episode.

    Attributes:
        frames: uint8 (T, H, W, 3).
        actions: ``actions[t]`` was done after frame t; the last one ended the episode or was not shown any more.
        rewards: What it brought.
    """

    frames: np.ndarray
    actions: list[int] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)


def play(game: Game, policy: Policy, seed: int, settings: GameplaySettings) -> Recording:
    """Plays one episode.

    Args:
        game: What is played.
        policy: ``held``: random actions, each for 3 to 25 frames; ``random``: a new one for every frame; ``follow``:
            one that knows the game a little and errs.
        seed: Of the game and of the player.
        settings: How much is recorded, after which warm-up, in what size.

    Raises:
        ValueError: If nobody knows how to follow in this game.
    """
    rng = np.random.default_rng(seed)
    image: np.ndarray | None = game.start(seed)
    seen: list[np.ndarray] = []
    recording = Recording(np.empty(0, np.uint8))
    players = _held(game, rng) if policy == "held" else _random(game, rng) if policy == "random" else _follow(game, rng)
    for _ in range(int(rng.integers(settings.warm_up + 1))):
        image, _ = game.act(next(players))
        if image is None:
            image = game.start(seed)
            break
    while image is not None and len(seen) < settings.frames:
        seen.append(_resized(image, settings.size))
        action = next(players)
        image, reward = game.act(action)
        recording.actions.append(action)
        recording.rewards.append(reward)
    recording.frames = np.stack(seen)
    return recording


def _random(game: Game, rng: np.random.Generator) -> Iterator[int]:
    while True:
        yield int(rng.integers(len(game.action_names)))


def _held(game: Game, rng: np.random.Generator) -> Iterator[int]:
    while True:
        action = int(rng.integers(len(game.action_names)))
        for _ in range(int(rng.integers(HELD[0], HELD[1] + 1))):
            yield action


def _follow(game: Game, rng: np.random.Generator) -> Iterator[int]:
    aside = 0.0
    while True:
        if rng.random() < FOLLOW_OFF:
            aside = float(rng.uniform(-1, 1))
        wish = game.wish(aside)
        if wish is None:
            raise ValueError("nobody knows how to follow in this game; use --policy held or random")
        yield wish


def _resized(image: np.ndarray, size: int) -> np.ndarray:
    if not size:
        return image.copy()
    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BOX))


def record_games(
    out: Path,
    names: tuple[str, ...],
    open_game: Callable[[str], Game],
    policy: Policy,
    settings: GameplaySettings,
    told: dict[str, Any],
    progress: Callable[[int, int], None],
) -> bool:
    """Records episodes of games into ``out/{train,val}/GAME/``; run again, it goes on where it was.

    Args:
        out: The folder.
        names: The games.
        open_game: Makes one.
        policy: See :func:`play`.
        settings: How much.
        told: What tells these recordings from others.
        progress: Called with (episodes done, episodes in all) after each.

    Returns:
        Whether anything was recorded; False if all was there.

    Raises:
        ValueError: If a setting is out of range, or the folder holds something else.
        OSError: If a file cannot be written.
    """
    if not begin_folder(out, told, DATASET_FILE):
        return False
    counts = {"train": (settings.episodes, 0), "val": (settings.val_episodes, VALIDATION)}
    total, done = len(names) * (settings.episodes + settings.val_episodes), 0
    for name in names:
        game = open_game(name)
        for split, (count, first) in counts.items():
            for number in range(count):
                video = out / split / name / f"{name}_{number:05d}.{settings.format}"
                if not is_recorded(video):
                    # Games take seeds of 32 bits; two settings.seed apart share none.
                    seed = (settings.seed * 100_003 + first + number) % 2**32
                    episode = play(game, policy, seed, settings)
                    sidecar = {"actions": episode.actions, "action_names": game.action_names}
                    sidecar |= {**game.told, "policy": policy, "seed": seed, "rewards": episode.rewards}
                    write_recording(video, episode.frames, game.fps, sidecar)
                done += 1
                progress(done, total)
    finish_folder(out, told, DATASET_FILE)
    return True
