"""Tests on the world ``paddle``: does the paddle go where the actions say, and the ball where the game puts it?"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tokenreel.datasets import world_paddle
from tokenreel.datasets.world_episode import Episode
from tokenreel.datasets.worlds import simulate
from tokenreel.evaluation.law import Law, law_figures
from tokenreel.evaluation.orders import OrderedMotion
from tokenreel.evaluation.tally import Tally
from tokenreel.evaluation.tracking import position_error, track_bar, track_discs
from tokenreel.evaluation.world_tests import WorldFindings, WorldTest

FRESH_SEED = 2**62
"""Of new clips, here and in all tests of worlds: no world on disk has such seeds."""
AS_PLAYED = "as played"
ORDERS = (AS_PLAYED, "left", "right")


@dataclass(frozen=True)
class _Game:
    """One clip, as the game plays it under an order."""

    frames: np.ndarray
    """uint8 (T, H, W, 3)."""
    actions: list[int]
    """``actions[t]`` after frame t."""
    paddle: np.ndarray
    """x in pixels, (T,)."""
    ball: np.ndarray
    """x and y in pixels, (T, 2); not numbers after it was missed: where the next one comes from is chance."""
    radius: float
    """Of the ball, pixels."""


def paddle_tests(clips: int, size: int, frames: int, prompt_frames: int) -> list[WorldTest]:
    """One test for each of ``ORDERS``: the actions of the clip, and one action in all new frames.

    Args:
        clips: How many per test.
        size: Height and width of the frames in pixels.
        frames: Length of the clips, prompt included.
        prompt_frames: Frames given.
    """
    episodes = [simulate("paddle", FRESH_SEED + i, size, frames) for i in range(clips)]
    return [
        _test(order, [_game(episode, order, prompt_frames) for episode in episodes], prompt_frames) for order in ORDERS
    ]


def seen_paddle(clips: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
    """Where the paddle is seen, x in pixels, (B, T); not a number where it is not."""
    size = clips[0].shape[2]
    colors = [world_paddle.COLORS[name] for name in ("paddle", "ball", "wall")]
    rows = world_paddle.PADDLE_TOP * size, world_paddle.PADDLE_BOTTOM * size
    width = 2 * world_paddle.PADDLE_HALF_WIDTH * size
    return np.stack([track_bar(clip, colors, world_paddle.BACKGROUND, width, rows) for clip in clips])


def _seen_ball(clip: np.ndarray, radius: float) -> np.ndarray:
    """Where the ball is seen, (T, 1, 2)."""
    colors = [world_paddle.COLORS[name] for name in ("ball", "paddle", "wall")]
    return track_discs(clip, colors, world_paddle.BACKGROUND, [radius] * len(colors))[:, :1]


def _game(episode: Episode, order: str, prompt_frames: int) -> _Game:
    size, states = episode.frames.shape[1], episode.states
    assert episode.actions is not None
    actions = list(episode.actions)
    if order != AS_PLAYED:
        new = len(actions) - prompt_frames + 1
        actions[prompt_frames - 1 :] = [world_paddle.ACTION_NAMES.index(order)] * new
    frames, paddle = world_paddle.play_on(states, prompt_frames - 1, actions[prompt_frames - 1 : -1], size)
    shown = np.concatenate([episode.frames[:prompt_frames], frames])
    ball = _seen_ball(shown, states["radius"])[:, 0]
    missed = np.flatnonzero(ball[:, 1] > world_paddle.PADDLE_BOTTOM * size)
    if len(missed):
        ball[missed[0] :] = np.nan
    return _Game(shown, actions, np.concatenate([states["paddle"][:prompt_frames], paddle]), ball, states["radius"])


def _law(game: _Game, seen: np.ndarray, size: int) -> Law:
    """The game's law under the clip's actions, for the paddle where it is seen, else where it should be."""
    paddle = np.where(np.isnan(seen), game.paddle, seen)

    def law(
        frame: int, positions: np.ndarray, velocities: np.ndarray, frames: int
    ) -> tuple[np.ndarray, np.ndarray] | None:
        """Where the ball goes from a frame on while the paddle is played as it was."""
        actions = game.actions[frame : frame + frames]
        due = world_paddle.played(positions[0], velocities[0], float(paddle[frame]), actions, size)
        # A ball that is missed passes behind the paddle and out of the picture, where it is not to be seen.
        if due is None or due[0][:, 1].max() > world_paddle.PADDLE_TOP * size:
            return None
        return due[0][:, None], due[1][:, None]

    return law


def _test(order: str, games: list[_Game], prompt_frames: int) -> WorldTest:
    size, P = games[0].frames.shape[1], prompt_frames
    due = np.stack([game.paddle for game in games])
    told: list[dict[str, Any]] = [
        {"actions": game.actions, "action_names": world_paddle.ACTION_NAMES, "label": world_paddle.LABELS[0]}
        for game in games
    ]

    def judge(made: np.ndarray) -> WorldFindings:
        """How clips obey their actions, and where their balls are."""
        paddle = seen_paddle(made)
        motion = OrderedMotion(paddle[:, P:], due[:, P:], due[:, P - 1])
        of_paddle = motion.figures(size, world_paddle.PADDLE_SPEED * size)
        balls = [_seen_ball(clip, game.radius) for clip, game in zip(made, games, strict=True)]
        errors = [position_error(ball, game.ball[:, None], size)[P:] for ball, game in zip(balls, games, strict=True)]
        laws = [_law(game, seen, size) for game, seen in zip(games, paddle, strict=True)]
        radii = [np.array([game.radius]) for game in games]
        figures = {f"{name} of the paddle": tally for name, tally in of_paddle.items() if name != "moved as told"}
        figures |= {"moved as told": of_paddle["moved as told"], "position error of the ball": Tally.of(errors, "px")}
        return WorldFindings(figures | law_figures(balls, radii, laws, P - 1))

    return WorldTest(f"paddle, {order}", np.stack([game.frames for game in games]), P, told, judge)
