"""Tests of anything that continues frames, on worlds whose state is known.

    def continue_frames(prompt, new_frames, told, seeds): ...   # your model, ours, or a simulator
    found = run_world_test(test, {"mine": continue_frames}, reconstruct)
    found["mine"].figures["position error"].value

Every figure stands between floors: the world itself seen by the same judge, the world through a tokenizer (no model
on its tokens can do better), and a still picture (any model should do better).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from tokenreel.evaluation.chance import ChanceResult
from tokenreel.evaluation.tally import Tally, plain_figures

WORLD, TOKENIZER, STILL = "the world itself", "tokenizer alone", "copy of the last frame"
CLIPS_AT_ONCE = 16


class ContinueFrames(Protocol):
    """Anything that continues clips."""

    def __call__(
        self, prompt: np.ndarray, new_frames: int, told: Sequence[Mapping[str, Any]], seeds: Sequence[int]
    ) -> np.ndarray:
        """Make what follows.

        Args:
            prompt: uint8 (B, P, H, W, 3); P is 0 for clips from nothing.
            new_frames: How many to make.
            told: What is said of each clip, as far as it is known: ``label``, ``caption``, ``actions`` with
                ``action_names``; ``actions[t]`` is done after frame t of the clip, prompt included.
            seeds: One for each clip: the same prompt with another seed may go on in another way.

        Returns:
            uint8 (B, new_frames, H, W, 3), the new frames alone.
        """


@dataclass(frozen=True)
class WorldFindings:
    """What a test found of one set of clips."""

    figures: dict[str, Tally]
    chance: ChanceResult | None = None
    """Of random events."""

    def plain(self) -> dict[str, Any]:
        """As JSON takes it."""
        told: dict[str, Any] = {"figures": plain_figures(self.figures)}
        return told if self.chance is None else told | {"chance": self.chance.plain()}


@dataclass(frozen=True)
class WorldTest:
    """True clips, how much of them is given, and who judges what follows."""

    name: str
    truth: np.ndarray = field(repr=False)
    """uint8 (B, T, H, W, 3)."""
    prompt_frames: int
    told: Sequence[Mapping[str, Any]] = field(repr=False)
    """Of each clip, see :class:`ContinueFrames`."""
    judge: Callable[[np.ndarray], WorldFindings] = field(repr=False)
    """From clips of the truth's shape, prompts included."""

    def __post_init__(self) -> None:
        if self.truth.ndim != 5 or self.truth.dtype != np.uint8 or len(self.told) != len(self.truth):
            raise ValueError(
                f"{self.name}: true clips are {self.truth.dtype} {self.truth.shape} and {len(self.told)} are told of, "
                "expected uint8 (B, T, H, W, 3), and as many"
            )
        if not 0 <= self.prompt_frames < self.truth.shape[1]:
            raise ValueError(
                f"{self.name}: prompt_frames {self.prompt_frames} of clips of {self.truth.shape[1]} leave nothing to "
                "judge; give fewer"
            )


def continued(
    model: ContinueFrames,
    prompts: np.ndarray,
    new_frames: int,
    told: Sequence[Mapping[str, Any]],
    seeds: Sequence[int] | None = None,
) -> np.ndarray:
    """Prompts and what a model makes of them, in batches of bounded memory.

    Args:
        model: Anything that continues frames.
        prompts: uint8 (B, P, H, W, 3).
        new_frames: How many to make.
        told: Of each clip.
        seeds: Of each clip; 0, 1, 2, ... if None.

    Returns:
        uint8 (B, P + new_frames, H, W, 3); the prompts are those given.

    Raises:
        ValueError: If the model made anything else.
    """
    seeds, clips = range(len(prompts)) if seeds is None else seeds, []
    for part in _parts(len(prompts)):
        given = prompts[part]
        made = model(given, new_frames, told[part], seeds[part])
        expected = (len(given), new_frames, *prompts.shape[2:])
        if made.shape != expected or made.dtype != np.uint8:
            raise ValueError(f"the model made {made.dtype} {made.shape}, expected uint8 {expected}: new frames alone")
        clips.append(np.concatenate([given, made], axis=1))
    return np.concatenate(clips)


def run_world_test(
    test: WorldTest,
    models: Mapping[str, ContinueFrames],
    reconstruct: Callable[[np.ndarray], np.ndarray] | None = None,
) -> dict[str, WorldFindings]:
    """Judge models, and the floors beside them.

    Args:
        test: The clips and their judge.
        models: By name.
        reconstruct: A tokenizer: clips as it shows them, of the same shape; None where there is none.

    Returns:
        Findings by name: the models', then ``WORLD``, ``TOKENIZER`` and ``STILL`` as far as there are any.
    """
    P, T = test.prompt_frames, test.truth.shape[1]
    found = {name: test.judge(continued(model, test.truth[:, :P], T - P, test.told)) for name, model in models.items()}
    found[WORLD] = test.judge(test.truth)
    if reconstruct is not None:
        found[TOKENIZER] = test.judge(
            np.concatenate([reconstruct(test.truth[part]) for part in _parts(len(test.told))])
        )
    if P:
        still = np.repeat(test.truth[:, P - 1 : P], T - P, axis=1)
        found[STILL] = test.judge(np.concatenate([test.truth[:, :P], still], axis=1))
    return found


def _parts(clips: int) -> Iterator[slice]:
    for begin in range(0, clips, CLIPS_AT_ONCE):
        yield slice(begin, begin + CLIPS_AT_ONCE)
