"""The benchmark card of a model, and the figures of it that the doctor reads."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from tokenreel.datasets.atomic_file import atomic_file
from tokenreel.datasets.world_states import DiscStates, disc_states
from tokenreel.evaluation.baselines import copy_last_frame, repeat_last_motion
from tokenreel.evaluation.card import COPY, REAL, REPEAT, TOKENIZER, Card, Figure
from tokenreel.evaluation.card_page import Strip
from tokenreel.evaluation.features import FeatureNetwork, content_hash
from tokenreel.evaluation.figures_of_prediction import Measure, bits_figures, fidelity_figures, prediction_figures
from tokenreel.evaluation.figures_of_sets import (
    MADE,
    distribution_figures,
    motion_figures,
    reconstruction_distance,
    score_figure,
)
from tokenreel.evaluation.motion import LEAST_FRAMES
from tokenreel.evaluation.tracking import position_error, track_discs
from tokenreel.generation import VideoModel
from tokenreel.tokenizer.pretrained import read_provenance
from tokenreel.tools.judged_model import JudgedModel, tokens_per_pixel, told_settings
from tokenreel.training.hardware import describe_hardware, peak_memory_mb
from tokenreel.transformer import SamplingSettings
from tokenreel.transformer.pretrained import find_folder

SHOWN = 4
LEAST_CLIPS = 2
"""That have a spread."""
OLD_NAMES = {MADE: "model", TOKENIZER: "tokenizer_alone", COPY: "copy_last_frame", REPEAT: "repeat_last_motion"}


class Judges(NamedTuple):
    """What clips are judged with."""

    measures: Sequence[Measure]
    networks: Sequence[FeatureNetwork]
    classifier: FeatureNetwork | None
    cache: Path


def model_card(
    model: VideoModel,
    judged: JudgedModel,
    prompt_frames: int,
    settings: SamplingSettings,
    judges: Judges,
    name: str,
) -> tuple[Card, dict[str, np.ndarray]]:
    """All figures.

    Returns:
        The card, and clips uint8 (B, T, H, W, 3) by name: the model's first sample and the yardsticks.
    """
    clips = {MADE: judged.samples[0], TOKENIZER: judged.reconstruction}
    if prompt_frames:
        prompts, new = judged.truth[:, :prompt_frames], judged.truth.shape[1] - prompt_frames
        clips |= {COPY: copy_last_frame(prompts, new), REPEAT: repeat_last_motion(prompts, new)}
    figures = fidelity_figures(judged.reconstruction, judged.truth, judges.measures)
    as_sets = len(judged.truth) >= LEAST_CLIPS
    if as_sets:
        pair = judged.reconstruction, judged.truth
        figures += [reconstruction_distance(*pair, network, judges.cache) for network in judges.networks]
    yardsticks = {key: values[:, prompt_frames:] for key, values in clips.items() if key != MADE}
    samples = [each[:, prompt_frames:] for each in judged.samples]
    figures += prediction_figures(samples, judged.truth[:, prompt_frames:], yardsticks, judges.measures)
    figures += bits_figures(judged.bits, model.tokenizer.config.codebook_size, tokens_per_pixel(model))
    if as_sets and judged.reference is not None:
        figures += _set_figures(clips | {REAL: judged.truth}, judged.reference, prompt_frames, judges)
    return Card(_subject(name, judged, settings), _protocol(judged, prompt_frames, model), figures), clips


def _set_figures(
    sets: Mapping[str, np.ndarray], reference: np.ndarray, prompt_frames: int, judges: Judges
) -> list[Figure]:
    """Whole clips for distributions, as is usual; the new frames alone for motion, which prompts would hide."""
    figures = distribution_figures(sets, reference, judges.networks, judges.cache)
    if judges.classifier is not None:
        figures.append(score_figure(sets, reference, judges.classifier, judges.cache))
    new = {key: clips[:, prompt_frames:] for key, clips in sets.items()}
    if new[MADE].shape[1] >= LEAST_FRAMES:
        figures += motion_figures(new, reference[:, prompt_frames:])
    return figures


def _subject(name: str, judged: JudgedModel, settings: SamplingSettings) -> dict[str, Any]:
    facts = json.loads((find_folder(Path(name)) / "provenance.json").read_text())
    kept = {key: facts[key] for key in ("step", "exposures_per_clip", "exposures_per_video", "commit") if key in facts}
    return {"model": name, "sampling": told_settings(settings), **kept}


def _protocol(judged: JudgedModel, prompt_frames: int, model: VideoModel) -> dict[str, Any]:
    return {
        "kind": "model on held-out clips",
        "split": judged.windows.records[0].split,
        "clips": len(judged.truth),
        "videos": len({judged.windows.location(clip)[0].file for clip in judged.chosen}),
        "clips_sha256": content_hash(judged.truth),
        "reference_clips": 0 if judged.reference is None else len(judged.reference),
        "reference_split": judged.reference_split,
        "reference_sha256": "" if judged.reference is None else content_hash(judged.reference),
        "clip_frames": judged.truth.shape[1],
        "prompt_frames": prompt_frames,
        "frame_size": list(judged.truth.shape[2:4]),
        "fps": model.fps,
    }


def model_strips(judged: JudgedModel, clips: Mapping[str, np.ndarray], prompt_frames: int) -> list[Strip]:
    """A few clips as rows to look at."""
    picked = np.unique(np.linspace(0, len(judged.truth) - 1, SHOWN).round().astype(int))
    return [
        Strip(
            f"clip {i}", [("truth", judged.truth[i]), *((name, each[i]) for name, each in clips.items())], prompt_frames
        )
        for i in picked
    ]


def write_model_figures(
    path: Path,
    card: Card,
    judged: JudgedModel,
    prompt_frames: int,
    clips: Mapping[str, np.ndarray],
    settings: Any,
    device: torch.device,
    root: Path,
) -> dict[str, Any]:
    """Write evaluation.json, and give what stands in it.

    Args:
        path: The file.
        card: Of the model.
        judged: What it was worked out from.
        prompt_frames: Frames given.
        clips: As :func:`model_card` gave them.
        settings: Of the sampler, with ``seed`` and ``model``.
        device: Where it ran.
        root: Folder of the videos, for the states of a world.
    """
    values = {(figure.group, figure.name): figure for figure in card.figures}
    curves = values["prediction", "PSNR"].by_frame
    home = find_folder(settings.model)
    result: dict[str, Any] = {
        "model": str(settings.model),
        "split": card.protocol["split"],
        "clips": len(judged.truth),
        "sampling": {**told_settings(settings), "seed": settings.seed},
        "tokenizer_psnr_db": values["fidelity", "PSNR"].value,
        "bits_per_token": values["prediction", "bits per token"].value,
        "bits_per_pixel": values["prediction", "bits per pixel"].value,
        "sampling_tokens_per_s": judged.sampling_tokens_per_s,
        "peak_memory_mb": {
            "train_tokenizer": read_provenance(home / "tokenizer")["peak_memory_mb"],
            "train_gpt": json.loads((home / "provenance.json").read_text())["peak_memory_mb"],
            "evaluate": peak_memory_mb(device),
        },
        "hardware": describe_hardware(device),
        "psnr_db": {OLD_NAMES[name]: np.round(curve, 3).tolist() for name, curve in curves.items()},
    }
    states = [disc_states(root, judged.windows.location(clip)[0]) for clip in judged.chosen]
    if prompt_frames and all(state is not None for state in states):
        starts = [judged.windows.location(clip)[1] for clip in judged.chosen]
        result["position_error_px"] = {
            OLD_NAMES[name]: _position_errors(each, states, starts, prompt_frames) for name, each in clips.items()
        }
    with atomic_file(path) as file:
        file.write((json.dumps(result, indent=2) + "\n").encode())
    return result


def _position_errors(
    frames: np.ndarray, states: list[DiscStates | None], starts: list[int], prompt_frames: int
) -> list[float]:
    """Mean absolute error per coordinate, in pixels, of each new frame: mean over clips."""
    errors = []
    for clip, state, start in zip(frames, states, starts, strict=True):
        assert state is not None
        found = track_discs(clip, state.colors, state.background, state.radius)
        right = state.positions[start : start + len(clip)]
        errors.append(position_error(found, right, clip.shape[1])[prompt_frames:])
    return np.nanmean(errors, axis=0).round(3).tolist()
