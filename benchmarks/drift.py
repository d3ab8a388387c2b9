"""How far a long continuation drifts, with and without context noise in training.

    python benchmarks/drift.py --noisy runs/noisy/gpt --plain runs/demo/gpt --out benchmarks/results/drift.json

Both GPTs were trained on the tokens of one world of balls, all else equal. New clips of that world are continued to
many times the window: the last half of what was made is the prompt of what follows. Judged by the known state: how
far the balls are from where they should be (which chance collisions soon spoil for any model), and, what needs no
truth, whether exactly the balls of the prompt are still there.
"""

import argparse
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from report import report, row
from torch import Tensor

from tokenreel.datasets.world_balls import BACKGROUND, COLORS, RADIUS
from tokenreel.datasets.worlds import simulate
from tokenreel.evaluation.counting import count_discs
from tokenreel.evaluation.plots import line_plot
from tokenreel.evaluation.tracking import position_error, track_discs
from tokenreel.generation import VideoModel
from tokenreel.tokenizer.frames import to_frames, to_video
from tokenreel.training.hardware import keep_freed_memory
from tokenreel.transformer import SamplingSettings, sample_indices

FRESH_SEED = 2**62
"""Of the clips: no world on disk has them."""
EVERY = 4
"""Frames between those that are judged."""
NOTE = (
    "{clips} new clips of the world of balls, {prompt} prompt frames, window of {window}; each figure is the mean of "
    "the eighth of the clip that ends at that frame. Ours: trained with context noise {noise}. Alternative: without. "
    "Limit: the true clip through the tokenizer. top-p {top_p}."
)


class Judged(NamedTuple):
    """Means over clips, frame by frame of those judged."""

    error: np.ndarray
    """Pixels per coordinate."""
    whole: np.ndarray
    """Share of clips that show exactly the right balls."""


def rolled_out(model: VideoModel, prompt: Tensor, frames: int, settings: SamplingSettings) -> Tensor:
    """Continue indices (B, t, H', W') to ``frames`` frames, half a window at a time."""
    window, stride = model.gpt.config.grid[0], model.tokenizer.config.stride[0]
    made, part = prompt, 0
    while made.shape[1] * stride < frames:
        seen = made[:, -min(made.shape[1], window // 2) :]
        seeds = [1000 * part + i for i in range(len(prompt))]
        new = sample_indices(model.gpt, seen, window - seen.shape[1], settings, seeds)[:, seen.shape[1] :]
        made, part = torch.cat([made, new], dim=1), part + 1
    return made[:, : frames // stride]


def judge(clips: list[np.ndarray], states: list[dict[str, Any]], size: int) -> Judged:
    """Look at every fourth frame of clips, uint8 (T, H, W, 3) each."""
    palette, radius = list(COLORS.values()), (RADIUS[0] * size, RADIUS[1] * size)
    errors, whole = [], []
    for clip, state in zip(clips, states, strict=True):
        seen = clip[EVERY - 1 :: EVERY]
        right = np.array(state["positions"])[EVERY - 1 : len(clip) : EVERY]
        errors.append(position_error(track_discs(seen, state["colors"], BACKGROUND, state["radius"]), right, size))
        wanted = np.array([state["names"].count(name) for name in COLORS])
        whole.append((count_discs(seen, palette, BACKGROUND, radius) == wanted).all(axis=1))
    return Judged(np.mean(errors, axis=0), np.mean(whole, axis=0))


@torch.no_grad()
def judged_model(
    model: VideoModel, truth: np.ndarray, states: list[dict[str, Any]], prompt_frames: int, settings: SamplingSettings
) -> Judged:
    """Continue the first frames of true clips, uint8 (B, T, H, W, 3), to their length."""
    prompt = model.tokenizer.encode(to_video(truth[:, :prompt_frames]))
    made = rolled_out(model, prompt, truth.shape[1], settings)
    return judge([_decoded(model, row) for row in made], states, truth.shape[2])


def _decoded(model: VideoModel, indices: Tensor) -> np.ndarray:
    return to_frames(model.tokenizer.decode(indices[None]))[0]


def rows(ours: Judged, alternative: Judged, limit: Judged, frames: int) -> list[dict[str, Any]]:
    """Figures at an eighth, a quarter, a half and the whole of the length."""
    table = []
    for end in (frames // 8, frames // 4, frames // 2, frames):
        part = slice((end - frames // 8) // EVERY, end // EVERY)
        for metric, unit, values in (
            ("position error", "px", [judged.error for judged in (ours, alternative, limit)]),
            ("exactly the right balls", "share", [judged.whole for judged in (ours, alternative, limit)]),
        ):
            table.append(row(f"frame {end}", metric, unit, *(float(each[part].mean()) for each in values)))
    return table


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--noisy", type=Path, required=True, help="GPT trained with --context-noise")
    parser.add_argument("--plain", type=Path, required=True, help="the same without")
    parser.add_argument("--frames", type=int, default=256, help="length of the clips, a multiple of 32")
    parser.add_argument("--clips", type=int, default=32, help="clips to continue")
    parser.add_argument("--prompt-frames", type=int, default=8, help="frames given")
    parser.add_argument("--top-p", type=float, default=0.9, help="as tools/sample.py")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks/drift.json"), help="JSON file")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    settings = SamplingSettings(top_p=arguments.top_p)
    noisy, plain = (VideoModel.from_pretrained(folder) for folder in (arguments.noisy, arguments.plain))
    size = plain.frame_size[0]
    episodes = [simulate("balls", FRESH_SEED + i, size, arguments.frames) for i in range(arguments.clips)]
    truth, states = np.stack([each.frames for each in episodes]), [each.states for each in episodes]
    ours, alternative = (
        judged_model(model, truth, states, arguments.prompt_frames, settings) for model in (noisy, plain)
    )
    with torch.no_grad():
        shown = [_decoded(plain, plain.tokenizer.encode(to_video(clip[None]))[0]) for clip in truth]
    limit = judge(shown, states, size)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    at = np.arange(EVERY, arguments.frames + 1, EVERY)
    curves = {"with context noise": ours, "without": alternative, "the truth through the tokenizer": limit}
    line_plot(
        arguments.out.with_suffix(".png"),
        {name: (at, judged.whole) for name, judged in curves.items()},
        "frame",
        "share of clips with exactly the right balls",
        f"{arguments.clips} clips, window of {plain.window} frames",
    )
    note = NOTE.format(
        clips=arguments.clips,
        prompt=arguments.prompt_frames,
        window=plain.window,
        noise=noisy.gpt.config.context_noise,
        top_p=arguments.top_p,
    )
    report(rows(ours, alternative, limit, arguments.frames), arguments.out, note)


if __name__ == "__main__":
    main()
