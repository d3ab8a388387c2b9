"""Tests of models on the embedded worlds: new clips of a world, what is known of them, and their judge.

    for test in world_tests(world, frames=32, prompt_frames=8, clips=32, size=64):
        found = run_world_test(test, {"ours": as_continuation(model, settings)}, reconstruct)

tools/evaluate.py and benchmarks/world_tests.py ask for them. The clips are new: no world on disk has their seeds.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tokenreel.datasets import world_balls, world_fork
from tokenreel.datasets.world_combinations import all_combinations
from tokenreel.datasets.world_episode import Episode
from tokenreel.datasets.world_states import WORLD_FILE
from tokenreel.datasets.worlds import simulate
from tokenreel.evaluation.captions import caption_figures, shown_discs
from tokenreel.evaluation.chance import judge_chance, side_taken
from tokenreel.evaluation.disc_scene import DiscScene
from tokenreel.evaluation.disc_tests import disc_figures
from tokenreel.evaluation.law import Law
from tokenreel.evaluation.tally import Tally
from tokenreel.evaluation.world_tests import ContinueFrames, WorldFindings, WorldTest
from tokenreel.generation import VideoModel
from tokenreel.tools.paddle_cases import FRESH_SEED, paddle_tests
from tokenreel.transformer import SamplingSettings

SIDES = ("left", "right")


def world_of(folder: Path) -> Mapping[str, Any] | None:
    """What a world's ``world.json`` says of it; None for a folder that holds no world."""
    path = folder / WORLD_FILE
    return json.loads(path.read_text()) if path.is_file() else None


def world_tests(
    world: Mapping[str, Any], frames: int, prompt_frames: int, clips: int, size: int, captions: bool = True
) -> list[WorldTest]:
    """All tests of a world.

    Args:
        world: Of its ``world.json``.
        frames: Length of the clips, prompt included.
        prompt_frames: Frames given, at least 3, so that they tell how things move.
        clips: How many per test.
        size: Height and width of the frames in pixels.
        captions: Whether clips are also to be made from captions alone.
    """
    named = ("occluder", "twins", "colors", "right")
    options = {name: value for name, value in world["options"].items() if name in named}
    if world["world"] == "paddle":
        return paddle_tests(clips, size, frames, prompt_frames)
    if world["world"] == "fork":
        return [fork_test(clips, size, frames, prompt_frames, options.get("right", world_fork.RIGHT))]
    tests = [balls_test(clips, size, frames, prompt_frames, **options)]
    if captions:
        held_out = [tuple(balls) for balls in world["options"].get("held_out", ())]
        known = world_balls.colors_of_world(options)
        everything = all_combinations(list(known), bool(options.get("twins")))
        shown = [balls for balls in everything if balls not in held_out]
        tests.append(caption_test("captions", clips, size, frames, shown, **options))
        if held_out:
            tests.append(caption_test("captions of combinations held out", clips, size, frames, held_out, **options))
    return tests


def scene_of(episode: Episode, options: Mapping[str, Any] | None = None) -> DiscScene:
    """What is known of a clip of the world ``balls`` with these options."""
    size = episode.frames.shape[1]
    low, high = world_balls.RADIUS
    palette = list(world_balls.colors_of_world(options or {}).values())
    return DiscScene.of_states(episode.states, palette, (low * size, high * size))


def law_of_balls(scene: DiscScene, size: int) -> Law:
    """The law of the world ``balls`` for the discs of one clip."""

    def law(
        frame: int, positions: np.ndarray, velocities: np.ndarray, frames: int
    ) -> tuple[np.ndarray, np.ndarray] | None:
        """Where discs go from a frame on."""
        return world_balls.moved(positions, velocities, scene.radius, size, frames + 1)

    return law


def balls_test(clips: int, size: int, frames: int, prompt_frames: int, **options: Any) -> WorldTest:
    """Positions, number and colours, bounces; with a bar also what comes back from behind it."""
    episodes = [simulate("balls", FRESH_SEED + i, size, frames, **options) for i in range(clips)]
    scenes = [scene_of(episode, options) for episode in episodes]
    laws = [law_of_balls(scene, size) for scene in scenes]

    def judge(made: np.ndarray) -> WorldFindings:
        """Where the balls of clips are, and whether they move by the law."""
        return WorldFindings(disc_figures(made, scenes, prompt_frames, laws))

    return WorldTest("balls", _frames(episodes), prompt_frames, [_told(episode) for episode in episodes], judge)


def caption_test(
    name: str, clips: int, size: int, frames: int, combinations: Sequence[tuple[str, ...]], **options: Any
) -> WorldTest:
    """Clips from nothing but a caption: do they show exactly what it says?"""
    order = np.random.default_rng(0).permutation(len(combinations))
    wanted = [combinations[order[i % len(order)]] for i in range(clips)]
    episodes = [
        simulate("balls", FRESH_SEED + i, size, frames, combinations=[balls], **options)
        for i, balls in enumerate(wanted)
    ]
    known = world_balls.colors_of_world(options)
    right = np.array([[Counter(balls)[color] for color in known] for balls in wanted])
    low, high = (share * size for share in world_balls.RADIUS)
    colors = list(known.values())

    def judge(made: np.ndarray) -> WorldFindings:
        """Whether clips show what their captions say."""
        return WorldFindings(caption_figures(shown_discs(made, colors, world_balls.BACKGROUND, (low, high)), right))

    # The caption alone: a label would say half of it.
    told = [{"caption": episode.caption} for episode in episodes]
    return WorldTest(name, _frames(episodes), 0, told, judge)


def fork_test(clips: int, size: int, frames: int, prompt_frames: int, right: float) -> WorldTest:
    """Clips whose prompt ends as the ball reaches the peg: to which side does it go, and how often?"""
    shown, states = [], []
    for i in range(clips):
        # Long enough for the ball that is in the picture, or the next one, to meet the peg.
        episode = simulate("fork", FRESH_SEED + i, size, prompt_frames + frames + 32, right=right)
        met = np.flatnonzero(np.diff(episode.states["drops"])) + 1
        begin = int(met[met >= prompt_frames][0]) - prompt_frames
        shown.append(episode.frames[begin : begin + frames])
        states.append((episode, episode.states))

    def judge(made: np.ndarray) -> WorldFindings:
        """Which side the balls of clips take, against the odds."""
        taken = [
            side_taken(
                clip[prompt_frames:],
                np.array(known["color"], dtype=np.uint8),
                np.array(known["background"], dtype=np.uint8),
                known["radius"],
                known["peg"],
            )
            for clip, (_, known) in zip(made, states, strict=True)
        ]
        decided = [side is not None for side in taken]
        figures = {
            "went right": Tally([side == "right" for side in taken], decided, "share"),
            "went to one side": Tally.of(np.array(decided, dtype=float), "share"),
        }
        return WorldFindings(figures, judge_chance(taken, dict(zip(SIDES, (1 - right, right), strict=True))))

    told = [{"caption": episode.caption, "label": episode.label} for episode, _ in states]
    return WorldTest("fork", np.stack(shown), prompt_frames, told, judge)


def as_continuation(model: VideoModel, settings: SamplingSettings) -> ContinueFrames:
    """A model of ours as anything that continues frames; it is told what it knows of."""

    def continue_frames(
        prompt: np.ndarray, new_frames: int, told: Sequence[Mapping[str, Any]], seeds: Sequence[int]
    ) -> np.ndarray:
        """The new frames alone."""
        known = [model.gpt.config.conditions.of_record(clip) for clip in told]
        made = model.continue_frames(prompt, new_frames, settings, seeds, known)
        return made.frames[:, prompt.shape[1] :]

    return continue_frames


def _frames(episodes: Sequence[Episode]) -> np.ndarray:
    return np.stack([episode.frames for episode in episodes])


def _told(episode: Episode) -> dict[str, Any]:
    return {"caption": episode.caption, "label": episode.label}
