"""Scenarios of ViZDoom, recorded here (``tokenreel[vizdoom]``, which brings the free assets of Freedoom along)."""

import importlib
from collections.abc import Callable
from contextlib import chdir
from dataclasses import dataclass, fields
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np

from tokenreel.datasets.array_file import ModuleMissing
from tokenreel.datasets.gameplay import GameplaySettings, record_games

FPS = 35
LICENCE = "assets of Freedoom: BSD-3-Clause"


@dataclass(frozen=True)
class VizdoomSettings(GameplaySettings):
    """Which scenarios, and how they are played."""

    scenarios: tuple[str, ...] = ("take_cover",)
    """Names as in ViZDoom, such as take_cover health_gathering my_way_home; each becomes a class."""
    policy: Literal["held", "random"] = "held"
    """held: random actions, each held for 3 to 25 frames; random: a new one for every frame."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.scenarios:
            raise ValueError("scenarios names none, expected at least one, such as take_cover")


def make_vizdoom(settings: VizdoomSettings, out: Path, progress: Callable[[int, int], None]) -> bool:
    """Records the scenarios; see ``gameplay.record_games``.

    Raises:
        ValueError: If ViZDoom or a scenario is not there, or the folder holds something else.
        OSError: If a file cannot be written.
    """
    doom = _vizdoom()
    known = sorted(path.stem for path in Path(doom.scenarios_path).glob("*.cfg"))
    unknown = [name for name in settings.scenarios if name not in known]
    if unknown:
        raise ValueError(f"ViZDoom has no scenario {unknown[0]!r}; expected one of {', '.join(known)}")
    told = {f.name: getattr(settings, f.name) for f in fields(VizdoomSettings)}
    told["recorded_with"] = f"vizdoom {doom.__version__}"
    return record_games(
        out,
        settings.scenarios,
        lambda name: DoomGame(doom, name, settings.frame_skip),
        settings.policy,
        settings,
        told,
        progress,
    )


class DoomGame:
    """One scenario of ViZDoom; see ``gameplay.Game``. An action presses one button, or none."""

    def __init__(self, doom: Any, name: str, frame_skip: int) -> None:
        self._skip, self.fps = frame_skip, FPS / frame_skip
        self._game = doom.DoomGame()
        self._game.load_config(f"{doom.scenarios_path}/{name}.cfg")
        self._game.set_screen_resolution(doom.ScreenResolution.RES_160X120)
        self._game.set_screen_format(doom.ScreenFormat.RGB24)
        self._game.set_window_visible(False)
        self._game.set_sound_enabled(False)
        self._game.set_mode(doom.Mode.PLAYER)
        # Others take an amount, such as degrees to turn by.
        self._game.set_available_buttons(
            [button for button in self._game.get_available_buttons() if not doom.is_delta_button(button)]
        )
        self.action_names = ["NOOP", *(button.name for button in self._game.get_available_buttons())]
        self.told = {"source": f"vizdoom {doom.__version__}: {name}", "licence": LICENCE, "frame_skip": frame_skip}
        # It leaves its settings in the working directory, when it begins and when it ends.
        self._home = TemporaryDirectory(prefix="vizdoom-", ignore_cleanup_errors=True)
        with chdir(self._home.name):
            self._game.init()

    def start(self, seed: int) -> np.ndarray:
        """See ``gameplay.Game``."""
        self._game.set_seed(seed % 2**31)
        self._game.new_episode()
        return self._game.get_state().screen_buffer

    def act(self, action: int) -> tuple[np.ndarray | None, float]:
        """See ``gameplay.Game``."""
        pressed = [float(number == action) for number in range(1, len(self.action_names))]
        reward = float(self._game.make_action(pressed, self._skip))
        if self._game.is_episode_finished():
            return None, reward
        return self._game.get_state().screen_buffer, reward

    def wish(self, aside: float) -> int | None:
        """See ``gameplay.Game``."""
        return None


def _vizdoom() -> Any:
    try:
        return importlib.import_module("vizdoom")
    except ImportError as error:
        raise ModuleMissing("recording ViZDoom needs the package vizdoom; pip install 'tokenreel[vizdoom]'") from error
