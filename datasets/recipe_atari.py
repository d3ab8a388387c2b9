"""Atari games, recorded here with ale-py (``tokenreel[atari]``, which brings the games along)."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from tokenreel.datasets.array_file import ModuleMissing
from tokenreel.datasets.gameplay import GameplaySettings, Policy, record_games

FPS = 60
LICENCE = "the game belongs to its owner; recorded for research"
# Where RAM holds what is followed, what follows it, and how far below or right of it the middle is (found by playing).
FOLLOWED = {"breakout": (99, 72, 8, "RIGHT", "LEFT"), "pong": (54, 51, 0, "LEFT", "RIGHT")}
REACH = 8
"""How far beside its aim a follower may be, in pixels."""


@dataclass(frozen=True)
class AtariSettings(GameplaySettings):
    """Which games, and how they are played."""

    games: tuple[str, ...] = ("breakout",)
    """Names as in ale-py, such as breakout pong ms_pacman; each becomes a class."""
    size: int = 128
    """Height and width in pixels to scale the screen of 160x210 to, with averaging: all of it is seen in square frames;
    0: as it is (a square cut out of it often lacks the player)."""
    policy: Policy = "held"
    """held: random actions, each held for 3 to 25 frames; random: a new one for every frame; follow (breakout, pong):
    the paddle follows the ball, with errors."""
    sticky: float = 0.0
    """Probability that the game repeats the last action instead of the new one (0.25 in benchmarks of agents)."""
    all_actions: bool = False
    """All 18 actions of the joystick; by default those that do something in the game."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.sticky < 1:
            raise ValueError(f"sticky is {self.sticky}, expected a probability of at least 0 and less than 1")
        if not self.games:
            raise ValueError("games names none, expected at least one, such as breakout")


def make_atari(settings: AtariSettings, out: Path, progress: Callable[[int, int], None]) -> bool:
    """Records the games; see ``gameplay.record_games``.

    Raises:
        ValueError: If ale-py or a game is not there, or the folder holds something else.
        OSError: If a file cannot be written.
    """
    ale = _ale_py()
    known = ale.roms.get_all_rom_ids()
    unknown = [name for name in settings.games if name not in known]
    if unknown:
        raise ValueError(f"ale-py has no game {unknown[0]!r}; expected one of {', '.join(sorted(known))}")
    told = {f.name: getattr(settings, f.name) for f in fields(AtariSettings)}
    told["recorded_with"] = f"ale-py {ale.__version__}"
    return record_games(
        out,
        settings.games,
        lambda name: AtariGame(ale, name, settings),
        settings.policy,
        settings,
        told,
        progress,
    )


class AtariGame:
    """One game of ale-py; see ``gameplay.Game``."""

    def __init__(self, ale: Any, name: str, settings: AtariSettings) -> None:
        self.name, self._skip = name, settings.frame_skip
        ale.ALEInterface.setLoggerMode(ale.LoggerMode.Error)
        self._console = ale.ALEInterface()
        self._console.setFloat("repeat_action_probability", settings.sticky)
        self._ale, self._rom = ale, ale.roms.get_rom_path(name)
        self._load(0)
        actions = self._console.getLegalActionSet() if settings.all_actions else self._console.getMinimalActionSet()
        self._actions = list(actions)
        self.action_names = [action.name for action in self._actions]
        self.fps = FPS / settings.frame_skip
        self.told = {
            "source": f"ale-py {ale.__version__}: {name}",
            "licence": LICENCE,
            "frame_skip": settings.frame_skip,
        }

    def start(self, seed: int) -> np.ndarray:
        """See ``gameplay.Game``."""
        self._load(seed)
        return self._console.getScreenRGB()

    def act(self, action: int) -> tuple[np.ndarray | None, float]:
        """See ``gameplay.Game``."""
        reward = 0.0
        for _ in range(self._skip):
            reward += float(self._console.act(self._actions[action]))
            if self._console.game_over(with_truncation=False):
                return None, reward
        return self._console.getScreenRGB(), reward

    def wish(self, aside: float) -> int | None:
        """See ``gameplay.Game``."""
        if self.name not in FOLLOWED:
            return None
        ball, paddle, middle, more, less = FOLLOWED[self.name]
        ram = self._console.getRAM()
        away = int(ram[ball]) - int(ram[paddle]) - middle + aside * 2 * REACH
        if self.name == "breakout" and ram[101] == 0:
            return self.action_names.index("FIRE")
        wanted = "NOOP" if abs(away) < REACH / 2 else more if away > 0 else less
        return self.action_names.index(wanted)

    def _load(self, seed: int) -> None:
        # The seed counts from when a game is loaded.
        self._console.setInt("random_seed", seed % 2**31)
        self._console.loadROM(self._rom)


def _ale_py() -> Any:
    try:
        importlib.import_module("ale_py.roms")
        return importlib.import_module("ale_py")
    except ImportError as error:
        raise ModuleMissing("recording Atari games needs the package ale-py; pip install 'tokenreel[atari]'") from error
