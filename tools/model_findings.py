"""What more is to be known of a model than its clips beside the truth: memory, its world's laws, long clips."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tokenreel.datasets.clip_windows import ClipWindows
from tokenreel.datasets.data_source import DataSettings
from tokenreel.evaluation.card import Figure
from tokenreel.evaluation.card_page import Strip
from tokenreel.evaluation.diversity import BitsGap
from tokenreel.evaluation.drift_curves import drift_figures
from tokenreel.evaluation.figures_of_findings import (
    copies_figures,
    drift_card_figures,
    memorization_figures,
    real_and_tokenizer,
    world_figures,
)
from tokenreel.evaluation.memorization import Memorization, memorization_of_pixels, memorization_of_tokens
from tokenreel.evaluation.world_tests import run_world_test
from tokenreel.generation import VideoModel
from tokenreel.tools.judged_model import JudgedModel
from tokenreel.tools.model_clips import encoded, through_tokenizer
from tokenreel.tools.training_clips import near_copy_strips, pixel_blocks, token_blocks, training_windows
from tokenreel.tools.world_cases import as_continuation, world_of, world_tests
from tokenreel.transformer import SamplingSettings

WORLD_CLIPS, LONG_CLIPS = 32, 8
SHOWN, SHOWN_FRAMES = 4, 16
MODEL = "model"
LEAST_PROMPT = 3
"""Frames that tell how things move."""
MOST_ENCODED = 8192
"""Training clips that are encoded for a card, unless there are more videos: a minute or two on a processor core."""


class Findings(NamedTuple):
    """For the card and its page."""

    figures: Sequence[Figure] = ()
    notes: Sequence[str] = ()
    strips: Sequence[Strip] = ()


def memory(model: VideoModel, judged: JudgedModel, source: DataSettings, prompt_frames: int) -> Findings:
    """Whether the samples repeat training clips. Nothing where the judged clips are training clips themselves."""
    if judged.windows.records[0].split == "train":
        return Findings()
    try:
        windows = training_windows(source, model.window, model.tokenizer.config.stride[0], judged.windows.size)
    except ValueError:
        return Findings(notes=["memorization is not judged: no training video is of this shape and as long as a clip"])
    made, real = judged.samples[0][:, prompt_frames:], judged.reconstruction[:, prompt_frames:]
    by_pixels = memorization_of_pixels(made, real, pixel_blocks(windows, prompt_frames))
    wider = _thinned(windows)
    by_tokens = _memory_of_tokens(model, judged, wider, prompt_frames)
    some = np.linspace(0, len(windows) - 1, min(len(windows), len(judged.truth))).round().astype(int)
    told = [model.gpt.config.conditions.of_record(windows.record(clip)) for clip in some]
    gap = BitsGap(model.bits_of_clips(encoded(model, windows.batch(some)), told), judged.bits)
    several = None
    if min(len(judged.samples), len(judged.truth)) > 1:
        several = np.stack([each[:, prompt_frames:] for each in judged.samples], axis=1)
    strips = [Strip("nearest training clips", near_copy_strips(by_pixels, made, windows, prompt_frames))]
    figures = copies_figures(by_pixels, windows.hop) + copies_figures(by_tokens, wider.hop)
    figures += memorization_figures(gap, several)
    return Findings(figures, [by_pixels.sentence, by_tokens.sentence], strips)


def _thinned(windows: ClipWindows) -> ClipWindows:
    """Clips of the same videos with as much room between their beginnings as is needed to be few enough."""
    while len(windows) > MOST_ENCODED and windows.hop < windows.clip_frames:
        hop = min(2 * windows.hop, windows.clip_frames)
        windows = ClipWindows(windows.store, windows.records[0].split, windows.clip_frames, hop, windows.size)
    return windows


def _memory_of_tokens(model: VideoModel, judged: JudgedModel, windows: ClipWindows, prompt_frames: int) -> Memorization:
    """By what the GPT itself saw and made, which no decoder blurs."""
    prompt = prompt_frames // model.tokenizer.config.stride[0]
    made, real = (each[:, prompt:].cpu().numpy() for each in (judged.sample_indices, judged.truth_indices))
    training = token_blocks(windows, lambda clips: encoded(model, clips).cpu().numpy(), prompt)
    return memorization_of_tokens(made, real, training)


def world(
    model: VideoModel, judged: JudgedModel, folder: Path, prompt_frames: int, settings: SamplingSettings
) -> Findings:
    """Tests of the world that the model was trained on; nothing if it is none of ours, or brought to another rate."""
    known = world_of(folder)
    height, width = judged.windows.size
    if known is None or prompt_frames < LEAST_PROMPT or height != width or known.get("fps", model.fps) != model.fps:
        return Findings()
    clips = min(len(judged.truth), WORLD_CLIPS)
    captions = "captions" in model.gpt.config.conditions.kinds
    tests = world_tests(known, model.window, prompt_frames, clips, height, captions)
    figures: list[Figure] = []
    for test in tests:
        ours = {MODEL: as_continuation(model, settings)}
        found = run_world_test(test, ours, lambda shown: through_tokenizer(model, shown))
        figures += world_figures(test.name, found, MODEL)
    return Findings(figures)


def drift(
    model: VideoModel, judged: JudgedModel, prompt_frames: int, frames: int, settings: SamplingSettings, seed: int
) -> Findings:
    """How continuations of so many frames end, prompts included."""
    clips = min(len(judged.truth), LONG_CLIPS)
    truth = judged.truth[:clips]
    told = [model.gpt.config.conditions.of_record(judged.windows.record(clip)) for clip in judged.chosen[:clips]]
    # Beyond the window nobody knows what is done.
    told = [replace(clip, actions=None) for clip in told]
    seeds = range(seed, seed + clips)
    made = model.continue_frames(truth[:, :prompt_frames], frames - prompt_frames, settings, seeds, told).frames
    floors = real_and_tokenizer(truth, judged.reconstruction[:clips])
    window = model.window - prompt_frames
    step = max(1, frames // SHOWN_FRAMES)
    rows = [(f"clip {i}, one frame in {step}", made[i, ::step]) for i in range(min(SHOWN, clips))]
    figures = drift_card_figures(drift_figures(made, truth), floors, prompt_frames, window)
    return Findings(figures, strips=[Strip("long clips", rows)])
