"""The part of captions and labels in benchmarks/conditioning.py: does a clip made from nothing show what they say?"""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from report import row

from tokenreel.datasets.world_balls import BACKGROUND, COLORS, LABELS, RADIUS
from tokenreel.datasets.world_combinations import Combination, all_combinations, caption
from tokenreel.datasets.world_episode import Color
from tokenreel.datasets.world_states import WORLD_FILE
from tokenreel.datasets.worlds import simulate
from tokenreel.evaluation.captions import caption_figures, shown_discs
from tokenreel.generation import VideoModel
from tokenreel.tools.model_clips import continued, through_tokenizer
from tokenreel.tools.paddle_cases import FRESH_SEED
from tokenreel.transformer import ClipConditions, SamplingSettings


def caption_rows(
    model: VideoModel, world: Path, samples: int, settings: SamplingSettings
) -> tuple[list[dict[str, Any]], list[tuple[str, np.ndarray]]]:
    """Judge captions of combinations that training held out, and of those it showed.

    Args:
        model: Trained on a world of balls with combinations held out.
        world: Folder of that world.
        samples: Clips per kind of caption.
        settings: Of the sampler.

    Returns:
        Rows, and (caption, clip) pairs of held-out combinations to look at.
    """
    groups, colors = _combinations(world), colors_of(world)
    table: list[dict[str, Any]] = []
    shown: list[tuple[str, np.ndarray]] = []
    for case, combinations in groups.items():
        order = np.random.default_rng(0).permutation(len(combinations))
        wanted = [combinations[order[i % len(order)]] for i in range(samples)]
        right = np.array([[Counter(balls)[name] for name in colors] for balls in wanted])
        nothing = np.zeros((samples, 0, *model.frame_size, 3), np.uint8)
        told = continued(model, nothing, [ClipConditions(caption=caption(balls)) for balls in wanted], settings)
        # Guidance has nothing to strengthen here.
        untold = continued(model, nothing, [ClipConditions()] * samples, replace(settings, guidance=1.0))
        true = through_tokenizer(model, _true_clips(model, wanted))
        judged = [caption_figures(_counts(clips, colors), right) for clips in (told, untold, true)]
        table += [
            row(case, metric, tally.unit, *(each[metric].value for each in judged))
            for metric, tally in judged[0].items()
        ]
        if not shown:
            shown = [(caption(balls), clip) for balls, clip in zip(wanted, told, strict=True)]
    return table, shown


def label_rows(
    model: VideoModel, colors: Mapping[str, Color], samples: int, settings: SamplingSettings
) -> list[dict[str, Any]]:
    """Judge labels, which name the number of balls, where nothing else is said of a clip."""
    names = [LABELS[i % len(LABELS)] for i in range(samples)]
    balls = np.array([1 + LABELS.index(name) for name in names])
    nothing = np.zeros((samples, 0, *model.frame_size, 3), np.uint8)
    true = _true_clips(model, [tuple(COLORS)[:number] for number in balls])
    clips = (
        continued(model, nothing, [ClipConditions(label=name) for name in names], settings),
        continued(model, nothing, [ClipConditions()] * samples, replace(settings, guidance=1.0)),
        through_tokenizer(model, true),
    )
    hits = [float((_counts(part, colors).sum(axis=1) == balls).mean()) for part in clips]
    return [row("labels", "number of balls right", "share", *hits)]


def colors_of(world: Path) -> dict[str, Color]:
    """Of the balls of a world, by name."""
    colors: dict[str, Color] = json.loads((world / WORLD_FILE).read_text())["colors"]
    return colors


def _combinations(world: Path) -> dict[str, list[Combination]]:
    path = world / WORLD_FILE
    made = json.loads(path.read_text()) if path.is_file() else {"options": {}}
    options = made["options"]
    held_out = [tuple(balls) for balls in options.get("held_out", ())]
    if not held_out:
        raise ValueError(
            f"{path} names no combinations held out; train the model on a world made with "
            "tools/make_world.py balls --twins --hold-out 0.2"
        )
    everything = all_combinations(list(made["colors"]), options.get("twins", False))
    return {"held-out captions": held_out, "training captions": [b for b in everything if b not in held_out]}


def _true_clips(model: VideoModel, wanted: list[Combination]) -> np.ndarray:
    """New clips of the world with these balls."""
    size = model.frame_size[0]
    seeds = range(FRESH_SEED, FRESH_SEED + len(wanted))
    clips = (
        simulate("balls", seed, size, model.window, combinations=[balls])
        for seed, balls in zip(seeds, wanted, strict=True)
    )
    return np.stack([clip.frames for clip in clips])


def _counts(clips: np.ndarray, colors: Mapping[str, Color]) -> np.ndarray:
    """Balls of each colour that a clip shows in most frames: int64 (B, colours)."""
    low, high = (share * clips.shape[2] for share in RADIUS)
    return shown_discs(clips, list(colors.values()), BACKGROUND, (low, high))
