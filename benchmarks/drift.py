"""How far a long continuation drifts, and whether another model (trained with context noise, say) drifts less.

    python benchmarks/drift.py --model runs/demo/gpt --frames 1024 --out benchmarks/results/drift_long.json
    python benchmarks/drift.py --model runs/noisy/gpt --against runs/demo/gpt --out benchmarks/results/drift.json

Both were trained on a world of balls. New clips of that world are continued to many times the window, which slides by
half of itself. Judged by the known state: how
far the balls are from where they should be (which chance collisions soon spoil for any model), and, what needs no
truth, whether exactly the balls of the prompt are still there.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from judged_balls import Judged, fresh_clips, judge
from report import report, row
from torch import Tensor

from tokenreel.evaluation.plots import line_plot
from tokenreel.generation import VideoModel
from tokenreel.tokenizer.frames import to_frames, to_video
from tokenreel.training.hardware import keep_freed_memory
from tokenreel.transformer import SamplingSettings, sample_indices

EVERY = 4
"""Frames between those that are judged."""
NOTE = (
    "{clips} new clips of the world of balls, {prompt} prompt frames, window of {window}; each figure is the mean of "
    "the eighth of the clip that ends at that frame. Ours: trained with context noise {noise}{against}. Limit: the "
    "true clip through the tokenizer. top-p {top_p}."
)


@torch.no_grad()
def judged_model(
    model: VideoModel, truth: np.ndarray, states: list[dict[str, Any]], prompt_frames: int, settings: SamplingSettings
) -> Judged:
    """Continue the first frames of true clips, uint8 (B, T, H, W, 3), to their length."""
    prompt = model.tokenizer.encode(to_video(truth[:, :prompt_frames]))
    new = truth.shape[1] // model.tokenizer.config.stride[0] - prompt.shape[1]
    made = sample_indices(model.gpt, prompt, new, settings, range(len(prompt)))
    return judge([_decoded(model, row) for row in made], states, EVERY)


def _decoded(model: VideoModel, indices: Tensor) -> np.ndarray:
    return to_frames(model.tokenizer.decode(indices[None]))[0]


def rows(ours: Judged, alternative: Judged | None, limit: Judged, frames: int) -> list[dict[str, Any]]:
    """Figures at an eighth, a quarter, a half and the whole of the length."""
    table = []
    every = (ours, alternative, limit)
    for end in (frames // 8, frames // 4, frames // 2, frames):
        part = slice((end - frames // 8) // EVERY, end // EVERY)
        for metric, unit, values in (
            ("position error", "px", [judged and judged.error for judged in every]),
            ("exactly the right balls", "share", [judged and judged.whole for judged in every]),
        ):
            means = [None if each is None else float(each[part].mean()) for each in values]
            table.append(row(f"frame {end}", metric, unit, *means))
    return table


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="GPT of a world of balls")
    parser.add_argument("--against", type=Path, help="another one of the same tokens")
    parser.add_argument("--frames", type=int, default=256, help="length of the clips, a multiple of 32")
    parser.add_argument("--clips", type=int, default=32, help="clips to continue")
    parser.add_argument("--prompt-frames", type=int, default=8, help="frames given")
    parser.add_argument("--top-p", type=float, default=0.9, help="as tools/sample.py")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks/drift.json"), help="JSON file")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    settings = SamplingSettings(top_p=arguments.top_p)
    model = VideoModel.from_pretrained(arguments.model)
    other = VideoModel.from_pretrained(arguments.against) if arguments.against else None
    truth, states = fresh_clips(arguments.clips, model.frame_size[0], arguments.frames)
    ours = judged_model(model, truth, states, arguments.prompt_frames, settings)
    alternative = judged_model(other, truth, states, arguments.prompt_frames, settings) if other else None
    with torch.no_grad():
        shown = [_decoded(model, model.tokenizer.encode(to_video(clip[None]))[0]) for clip in truth]
    limit = judge(shown, states, EVERY)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    at = np.arange(EVERY, arguments.frames + 1, EVERY)
    curves = {"the truth through the tokenizer": limit, arguments.model.name: ours}
    if alternative is not None:
        curves[arguments.against.name] = alternative
    line_plot(
        arguments.out.with_suffix(".png"),
        {name: (at, judged.whole) for name, judged in curves.items()},
        "frame",
        "share of clips with exactly the right balls",
        f"{arguments.clips} clips, window of {model.window} frames",
    )
    note = NOTE.format(
        clips=arguments.clips,
        prompt=arguments.prompt_frames,
        window=model.window,
        noise=model.gpt.config.context_noise,
        against=f", the alternative with {other.gpt.config.context_noise}" if other else "",
        top_p=arguments.top_p,
    )
    report(rows(ours, alternative, limit, arguments.frames), arguments.out, note)


if __name__ == "__main__":
    main()
