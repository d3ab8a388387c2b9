"""The action part of benchmarks/conditioning.py: does the paddle go where the actions say?"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from report import row

from tokenreel.datasets.data_source import DataSettings, held_out_windows
from tokenreel.datasets.world_paddle import ACTION_NAMES, PADDLE_SPEED, play_on
from tokenreel.datasets.world_states import sidecar_states
from tokenreel.evaluation.orders import OrderedMotion
from tokenreel.generation import VideoModel
from tokenreel.tools.model_clips import continued, through_tokenizer
from tokenreel.tools.paddle_cases import seen_paddle
from tokenreel.transformer import ClipConditions, SamplingSettings

PROMPT_FRAMES = 4
AS_PLAYED = "as played"


class Prompt(NamedTuple):
    """The beginning of a validation clip, and all that is known of it."""

    frames: np.ndarray
    """uint8 (T, H, W, 3), the whole clip; the model is given its first frames."""
    actions: list[int]
    """After each frame of the clip."""
    states: dict[str, Any]
    """Of its video."""
    start: int
    """Frame of the video at which the clip begins."""

    @property
    def paddle(self) -> float:
        """Where it is in the last frame given to the model, x in pixels."""
        return self.states["paddle"][self.start + PROMPT_FRAMES - 1]

    def orders(self, order: str) -> list[int]:
        """The actions that lead to the new frames."""
        played = self.actions[PROMPT_FRAMES - 1 : -1]
        return played if order == AS_PLAYED else [ACTION_NAMES.index(order)] * len(played)

    def conditions(self, order: str) -> ClipConditions:
        """The actions that led to the prompt's frames and are to lead to the new ones."""
        return ClipConditions(actions=[None, *self.actions[: PROMPT_FRAMES - 1], *self.orders(order)])


def paddle_rows(
    model: VideoModel, origin: Mapping[str, Any], samples: int, settings: SamplingSettings, cache: Path
) -> tuple[list[dict[str, Any]], list[tuple[str, np.ndarray]]]:
    """Continue validation clips under orders.

    Args:
        model: Trained on the world `paddle`.
        origin: What its provenance says of the videos.
        samples: Clips per order, as far as the validation split has so many.
        settings: Of the sampler.
        cache: Folder of decoded videos.

    Returns:
        Rows, and (title, clip) pairs of one prompt continued under opposite orders.
    """
    prompts, size = _prompts(origin, model, samples, cache), model.frame_size[0]
    given = np.stack([prompt.frames[:PROMPT_FRAMES] for prompt in prompts])
    begun = np.array([prompt.paddle for prompt in prompts])
    withheld = continued(model, given, [ClipConditions()] * len(prompts), replace(settings, guidance=1.0))
    # The picture is of the paddle with most room on both sides.
    central = int(np.argmin([abs(prompt.paddle - size / 2) for prompt in prompts]))
    table: list[dict[str, Any]] = []
    strip: list[tuple[str, np.ndarray]] = []
    for order in ("left", "right", "stay", AS_PLAYED):
        clips = continued(model, given, [prompt.conditions(order) for prompt in prompts], settings)
        played = [play_on(p.states, p.start + PROMPT_FRAMES - 1, p.orders(order), size) for p in prompts]
        game = np.stack([paddle for _, paddle in played])
        true = np.concatenate([given, np.stack([frames for frames, _ in played])], axis=1)
        shown = (clips, withheld, through_tokenizer(model, true))
        motions = [OrderedMotion(seen_paddle(each[:, PROMPT_FRAMES:]), game, begun) for each in shown]
        figures = [motion.figures(size, PADDLE_SPEED * size) for motion in motions]
        table += [
            row(order, name, tally.unit, *(each[name].value for each in figures)) for name, tally in figures[0].items()
        ]
        if order in ("left", "right"):
            strip += [(f"model: {order}", clips[central]), (f"game: {order}", true[central])]
    return table, strip


def _prompts(origin: Mapping[str, Any], model: VideoModel, samples: int, cache: Path) -> list[Prompt]:
    windows = held_out_windows(DataSettings.of_model(origin, None, cache), model.window, one_per_video=False)
    prompts = []
    for clip in np.linspace(0, len(windows) - 1, min(samples, len(windows))).round().astype(int):
        record, start = windows.location(clip)
        states = sidecar_states(Path(origin["folder"]), record) or {}
        if record.actions is None or len(states.get("paddle", ())) != record.frames:
            raise ValueError(
                f"{record.file} in {origin['folder']} has no actions or paddle for each of its frames; train the "
                "model on a world made with tools/make_world.py paddle, at its own size and frame rate"
            )
        prompts.append(Prompt(windows[clip], record.actions[start : start + model.window], states, start))
    return prompts
