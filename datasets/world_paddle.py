"""The world `paddle`: a small game in which a paddle at the bottom catches a ball, one action per frame."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tokenreel.datasets.world_episode import Canvas, Color, Episode

ACTION_NAMES = ["stay", "left", "right"]
COLORS: dict[str, Color] = {"ball": (252, 196, 72), "paddle": (84, 178, 250), "wall": (70, 76, 98)}
BACKGROUND: Color = (20, 22, 32)
LABELS = ["paddle"]

# All lengths as a share of the frame's size.
_WALL = 1 / 32
_RADIUS = 0.055
PADDLE_HALF_WIDTH = 0.13
PADDLE_TOP, PADDLE_BOTTOM = 0.89, 0.94
PADDLE_SPEED = 0.045
_BALL_SPEED = 0.048
_STEEPEST = math.radians(55)  # from the vertical, when the ball meets the paddle's very end
_NEW_BALL_ANGLE = math.radians(25)


@dataclass
class Game:
    """The whole state of the game, in units of the frame's size. With the action it fixes the next state.

    The one exception is a missed ball: the place of the new one is drawn from `rng`.
    """

    rng: np.random.Generator
    x: float = 0.5
    y: float = 0.5
    vx: float = 0.0
    vy: float = 0.0
    paddle: float = 0.5
    catches: int = 0
    misses: int = 0

    def new_ball(self) -> None:
        """Drop a ball from a random place at the top; its direction follows from the place."""
        low = _WALL + _RADIUS
        self.x, self.y = float(self.rng.uniform(low, 1 - low)), low
        self.aim(math.copysign(_NEW_BALL_ANGLE, 0.5 - self.x), 1)

    def aim(self, angle: float, vertical: int) -> None:
        """Set the direction: angle from the vertical in radians (right is positive), 1 is down, -1 up."""
        self.vx, self.vy = _BALL_SPEED * math.sin(angle), vertical * _BALL_SPEED * math.cos(angle)

    def step(self, action: int) -> None:
        """Move the paddle by the action, then the ball, by one frame."""
        end = _WALL + PADDLE_HALF_WIDTH
        self.paddle += (0, -PADDLE_SPEED, PADDLE_SPEED)[action]
        self.paddle = min(max(self.paddle, end), 1 - end)

        before, surface = self.y, PADDLE_TOP - _RADIUS
        self.x += self.vx
        self.y += self.vy
        low, high = _WALL + _RADIUS, 1 - _WALL - _RADIUS
        if not low <= self.x <= high:
            self.x = 2 * (low if self.x < low else high) - self.x
            self.vx = -self.vx
        if self.y < low:
            self.y = 2 * low - self.y
            self.vy = -self.vy
        elif self.vy > 0 and before <= surface < self.y:
            self._meet_paddle(surface)
        if self.y > 1 + _RADIUS:
            self.misses += 1
            self.new_ball()

    def _meet_paddle(self, surface: float) -> None:
        offset = (self.x - self.paddle) / (PADDLE_HALF_WIDTH + _RADIUS / 2)
        if abs(offset) > 1:
            return
        self.catches += 1
        self.y = surface
        self.aim(offset * _STEEPEST, -1)


class Player:
    """Follows the ball with a changing error of aim, and sometimes moves for no reason."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.error = 0.0
        self.whim = 0
        self.whim_frames = 0

    def act(self, game: Game) -> int:
        """Choose the action for the state shown."""
        if self.whim_frames == 0 and self.rng.random() < 0.05:
            self.whim, self.whim_frames = int(self.rng.integers(3)), int(self.rng.integers(3, 9))
        if self.rng.random() < 0.12:
            self.error = float(self.rng.normal(0, 0.08))
        if self.whim_frames > 0:
            self.whim_frames -= 1
            return self.whim
        gap = game.x + self.error - game.paddle
        if abs(gap) < PADDLE_SPEED / 2:
            return 0
        return 2 if gap > 0 else 1


def simulate_paddle(seed: int, size: int, frames: int) -> Episode:
    """Simulate one clip of the world `paddle`.

    The ball bounces off the left, right and top wall. It leaves the paddle at an angle that depends on where
    it meets it; a missed ball is replaced by one at a random place at the top: the game's only chance event.

    Args:
        seed: Same seed, same clip.
        size: Height and width in pixels.
        frames: Length T.

    Returns:
        An episode with actions, whose states are `ball` and `velocity` (T, 2; pixels, pixels per frame),
        `paddle` (T; x of its centre in pixels), `catches` and `misses` (T; so far), `radius`,
        `paddle_half_width`, `ball_color`, `paddle_color` and `background`.
    """
    # The player's dice are its own, so that the game's chance events do not depend on who plays.
    game_rng, player_rng = (np.random.default_rng([seed, stream]) for stream in (0, 1))
    game, player = Game(game_rng), Player(player_rng)
    game.new_ball()
    game.y = float(game_rng.uniform(_WALL + _RADIUS, 0.6))
    game.aim(float(game_rng.uniform(-_STEEPEST, _STEEPEST)), int(game_rng.choice([-1, 1])))
    game.paddle = float(game_rng.uniform(0.25, 0.75))

    actions, history = [], []
    for _ in range(frames):
        history.append((game.x, game.y, game.vx, game.vy, game.paddle, game.catches, game.misses))
        actions.append(player.act(game))
        game.step(actions[-1])
    recorded = np.array(history)
    motion = recorded[:, :5] * size
    states = {
        "ball": motion[:, :2].round(4).tolist(),
        "velocity": motion[:, 2:4].round(4).tolist(),
        "paddle": motion[:, 4].round(4).tolist(),
        "catches": recorded[:, 5].astype(int).tolist(),
        "misses": recorded[:, 6].astype(int).tolist(),
        "radius": round(_RADIUS * size, 4),
        "paddle_half_width": round(PADDLE_HALF_WIDTH * size, 4),
        "ball_color": list(COLORS["ball"]),
        "paddle_color": list(COLORS["paddle"]),
        "background": list(BACKGROUND),
    }
    painted = _painted(motion[:, :2], motion[:, 4], size)
    return Episode(painted, states, "a paddle catches a ball", LABELS[0], actions, list(ACTION_NAMES))


def play_on(states: Mapping[str, Any], frame: int, actions: Sequence[int], size: int) -> tuple[np.ndarray, np.ndarray]:
    """Play other actions from a state of a clip.

    Args:
        states: Of the clip, see :func:`simulate_paddle`.
        frame: Frame from whose state to play.
        actions: n of them; the first leads to the frame after `frame`.
        size: Height and width of the clip in pixels.

    Returns:
        Frames uint8 `(n, size, size, 3)` and x of the paddle's centre, float64 `(n,)`, pixels. After a missed ball
        the new one comes from a place of its own.
    """
    x, y, vx, vy, paddle = (
        value / size for value in (*states["ball"][frame], *states["velocity"][frame], states["paddle"][frame])
    )
    game, history = Game(np.random.default_rng(0), x, y, vx, vy, paddle), []
    for action in actions:
        game.step(action)
        history.append((game.x, game.y, game.paddle))
    motion = np.array(history).reshape(-1, 3) * size
    return _painted(motion[:, :2], motion[:, 2], size), motion[:, 2]


def played(
    place: Sequence[float], speed: Sequence[float], paddle: float, actions: Sequence[int], size: int
) -> tuple[np.ndarray, np.ndarray] | None:
    """The law of the world: where the ball is, and how fast, from a state on.

    Args:
        place: Of the ball, x and y in pixels.
        speed: Pixels per frame.
        paddle: x of its centre, pixels.
        actions: n of them.
        size: Height and width of the frames, pixels.

    Returns:
        Positions and velocities of the ball, each float64 (n + 1, 2), first those given; None if it is missed, since
        where the next one comes from is chance.
    """
    x, y, vx, vy = (float(value) / size for value in (*place, *speed))
    game = Game(np.random.default_rng(0), x, y, vx, vy, paddle / size)
    history = [(game.x, game.y, game.vx, game.vy)]
    for action in actions:
        game.step(action)
        history.append((game.x, game.y, game.vx, game.vy))
    motion = np.array(history) * size
    return None if game.misses else (motion[:, :2], motion[:, 2:])


def _painted(ball: np.ndarray, paddle: np.ndarray, size: int) -> np.ndarray:
    canvas = Canvas(len(ball), size, BACKGROUND)
    wall, still = _WALL * size, np.zeros(len(ball))
    canvas.discs(ball, _RADIUS * size, COLORS["ball"])
    half = PADDLE_HALF_WIDTH * size
    canvas.boxes(paddle - half, paddle + half, PADDLE_TOP * size, PADDLE_BOTTOM * size, COLORS["paddle"])
    canvas.boxes(still, still + size, 0, wall, COLORS["wall"])
    canvas.boxes(still, still + wall, 0, size, COLORS["wall"])
    canvas.boxes(still + size - wall, still + size, 0, size, COLORS["wall"])
    return canvas.finished()
