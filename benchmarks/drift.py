"""How far a long continuation drifts, and whether another model (trained with context noise, say) drifts less.

    python benchmarks/drift.py --model runs/demo/gpt --frames 1024 --overlap 1 2 3 --clips 16
    python benchmarks/drift.py --model runs/noisy/gpt --against runs/demo/gpt --out benchmarks/results/drift.json

All were trained on a world of balls. New clips of that world are continued to many times the window, which slides over
what was made; --overlap says how many latent frames it keeps (0: half of the window). Judged by the known state: how
far the balls are from where they should be (which chance collisions soon spoil for any model), and whether exactly the
balls of the prompt are there; and beside the true clips through the tokenizer: colours, sharpness, motion. A horizon is
the frame by which an error is twice what it was in the first window.
"""

import argparse
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from judged_balls import fresh_clips
from report import report, row
from torch import Tensor

from tokenreel.evaluation.disc_scene import DiscScene
from tokenreel.evaluation.disc_tests import disc_figures
from tokenreel.evaluation.drift_curves import deviation, doubling_horizon, drift_figures
from tokenreel.evaluation.plots import line_plot
from tokenreel.evaluation.tally import Tally
from tokenreel.generation import VideoModel
from tokenreel.tokenizer.frames import to_frames, to_video
from tokenreel.training.hardware import keep_freed_memory
from tokenreel.transformer import SamplingSettings, sample_indices

EVERY = 4
"""Frames between those that are judged."""
LEAST_DEVIATION = 0.1
"""Of sharpness and motion, below which twice as much is nothing."""
SHOWN = {"position error": "position error", "right discs": "exactly the right balls"}
"""Names in the table of what the judges call otherwise."""
NOTE = (
    "{clips} new clips of the world of balls, {prompt} prompt frames, window of {window}; each figure is the mean of "
    "the eighth of the clip that ends at that frame, with 95 % of draws over clips. Ours: trained with context noise "
    "{noise}{against}. Limit: the true clip through the tokenizer. top-p {top_p}."
)

Curves = Mapping[str, Tally]
"""By metric, by frame judged."""


@torch.no_grad()
def continued(model: VideoModel, truth: np.ndarray, prompt_frames: int, settings: SamplingSettings) -> list[np.ndarray]:
    """Continue the first frames of true clips, uint8 (B, T, H, W, 3), to their length."""
    prompt = model.tokenizer.encode(to_video(truth[:, :prompt_frames]))
    new = truth.shape[1] // model.tokenizer.config.stride[0] - prompt.shape[1]
    made = sample_indices(model.gpt, prompt, new, settings, range(len(prompt)))
    return [_decoded(model, indices) for indices in made]


def _decoded(model: VideoModel, indices: Tensor) -> np.ndarray:
    return to_frames(model.tokenizer.decode(indices[None]))[0]


def judged(clips: list[np.ndarray], shown: list[np.ndarray], scenes: list[DiscScene]) -> Curves:
    """All curves of clips, from their first frame on, beside the true clips as the tokenizer shows them."""
    return {**disc_figures(clips, scenes, 0, every=EVERY), **drift_figures(clips, shown, EVERY)}


def rows(
    case: str, ours: Curves, alternative: Curves | None, limit: Curves, lengths: tuple[int, int, int]
) -> list[dict[str, Any]]:
    """Figures at an eighth, a quarter, a half and the whole of the length, and how soon each error doubles.

    Args:
        case: What is told apart, before the frame.
        ours: Of our model.
        alternative: Of the other one.
        limit: Of the tokenizer alone.
        lengths: Frames of the clips, of the prompt and of the window.
    """
    (frames, prompt, window), table = lengths, []
    for end in (frames // 8, frames // 4, frames // 2, frames):
        part = slice((end - frames // 8) // EVERY, end // EVERY)
        for metric, tally in ours.items():
            curves = [None if each is None else each[metric].curve for each in (ours, alternative, limit)]
            means = [None if curve is None else float(np.nanmean(curve[part])) for curve in curves]
            low, high = Tally(tally.total[:, part], tally.cases[:, part], tally.unit).interval()
            table.append(row(f"{case}frame {end}", SHOWN.get(metric, metric), tally.unit, *means))
            table[-1]["interval"] = [low, high]
    for metric in ours:
        if metric != "right discs":  # which is no error
            table.append(_horizon_row(case, metric, (ours, alternative, limit), prompt, window))
    return table


def _horizon_row(
    case: str, metric: str, curves: tuple[Curves, Curves | None, Curves], prompt: int, window: int
) -> dict[str, Any]:
    """How soon an error doubles; None for never."""
    horizons = []
    for each in curves:
        tally = None if each is None else each[metric]
        ratio = tally is not None and tally.unit == "of the real"
        error = None if tally is None else deviation(tally) if ratio else tally
        least = LEAST_DEVIATION if ratio else 0.0
        horizons.append(None if error is None else doubling_horizon(error, prompt, window, EVERY, least))
    what = metric if metric.endswith("error") else f"the error of {metric}"
    frames = [None if found is None or np.isinf(found[0]) else found[0] for found in horizons]
    told = row(f"{case}horizon", f"frame by which {what} doubles", "frame", *frames)  # type: ignore[arg-type]
    interval = horizons[0][1] if horizons[0] is not None else ()
    return told | {"interval": [None if np.isinf(edge) else edge for edge in interval]}


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="GPT of a world of balls")
    parser.add_argument("--against", type=Path, help="another one of the same tokens")
    parser.add_argument("--frames", type=int, default=256, help="length of the clips, a multiple of 32")
    parser.add_argument("--clips", type=int, default=32, help="clips to continue")
    parser.add_argument("--prompt-frames", type=int, default=8, help="frames given")
    parser.add_argument("--overlap", type=int, nargs="+", default=[0], help="latent frames kept; several: as cases")
    parser.add_argument("--top-p", type=float, default=0.9, help="as tools/sample.py")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks/drift.json"), help="JSON file")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    plain = SamplingSettings(top_p=arguments.top_p)
    model = VideoModel.from_pretrained(arguments.model)
    other = VideoModel.from_pretrained(arguments.against) if arguments.against else None
    truth, scenes = fresh_clips(arguments.clips, model.frame_size[0], arguments.frames)
    with torch.no_grad():
        shown = [_decoded(model, model.tokenizer.encode(to_video(clip[None]))[0]) for clip in truth]
    limit, lengths = judged(shown, shown, scenes), (arguments.frames, arguments.prompt_frames, model.window)
    curves, table = {"the truth through the tokenizer": limit}, []
    for overlap in arguments.overlap:
        settings, case = replace(plain, overlap=overlap), f"overlap {overlap}, " if len(arguments.overlap) > 1 else ""
        ours = judged(continued(model, truth, arguments.prompt_frames, settings), shown, scenes)
        curves[f"{case}{arguments.model.name}"], alternative = ours, None
        if other is not None:
            alternative = judged(continued(other, truth, arguments.prompt_frames, settings), shown, scenes)
            curves[f"{case}{arguments.against.name}"] = alternative
        table += rows(case, ours, alternative, limit, lengths)
    _draw(arguments.out, curves, f"{arguments.clips} clips, window of {model.window} frames")
    note = NOTE.format(
        clips=arguments.clips,
        prompt=arguments.prompt_frames,
        window=model.window,
        noise=model.gpt.config.context_noise,
        against=f", the alternative with {other.gpt.config.context_noise}" if other else "",
        top_p=arguments.top_p,
    )
    report(table, arguments.out, note)


def _draw(out: Path, curves: Mapping[str, Curves], title: str) -> None:
    """One picture for the balls beside the JSON, and one for each other metric."""
    out.parent.mkdir(parents=True, exist_ok=True)
    for metric, tally in next(iter(curves.values())).items():
        ending = "" if metric == "right discs" else "_" + metric.replace(" ", "_")
        label = "share of clips with exactly the right balls" if not ending else f"{metric} ({tally.unit})"
        at = EVERY * np.arange(1, tally.total.shape[1] + 1)
        series = {name: (at, each[metric].curve) for name, each in curves.items()}
        line_plot(out.with_name(f"{out.stem}{ending}.png"), series, "frame", label, title)


if __name__ == "__main__":
    main()
