"""Whole latent frames in a few passes against one index after another: what quality costs how many seconds.

    python benchmarks/frame_parallel.py --frame-model runs/frame/gpt --token-model runs/token/gpt \
        --out benchmarks/results/frame_parallel.json

Both were trained on the same token shards of the world of balls for the same number of steps. New clips are continued
from their first latent frame to the end of the window. Judged by the known state; one thread. Beside the table a
picture of error against seconds.
"""

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from judged_balls import Judged, fresh_clips, judge
from report import report, row

from tokenreel.evaluation.plots import line_plot
from tokenreel.generation import VideoModel
from tokenreel.tokenizer.frames import to_frames, to_video
from tokenreel.tools.model_clips import bits, through_tokenizer
from tokenreel.training.hardware import keep_freed_memory
from tokenreel.transformer import SamplingSettings, sample_indices

NOTE = (
    "{clips} new clips of the world of balls, one latent frame given, the other {new} of the window made; means over "
    "all new frames; top-p {top_p}. Alternative: a model that goes index by index (for one clip from drafts), trained "
    "on as many clips. Limit: the true clips through the tokenizer. Bits of whole frames are those of one index after "
    "another in random order."
)


@torch.no_grad()
def continued(model: VideoModel, truth: np.ndarray, settings: SamplingSettings, batch: int) -> tuple[np.ndarray, float]:
    """Clips continued from their first latent frame, so many at once, and the median seconds per latent frame."""
    clips, seconds, step = [], [], model.tokenizer.config.stride[0]
    for begin in range(0, len(truth), batch):
        prompt = model.tokenizer.encode(to_video(truth[begin : begin + batch, :step]))
        new, seeds = model.gpt.config.grid[0] - 1, range(begin, begin + len(prompt))
        start = time.perf_counter()
        made = sample_indices(model.gpt, prompt, new, settings, seeds)
        seconds.append((time.perf_counter() - start) / new)
        clips.append(to_frames(model.tokenizer.decode(made)))
    return np.concatenate(clips), statistics.median(seconds)


def mean(judged: Judged, given: int) -> tuple[float, float]:
    """Position error and share of clips with the right balls, over all new frames."""
    return float(judged.error[given:].mean()), float(judged.whole[given:].mean())


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frame-model", type=Path, required=True, help="GPT trained with --decoding frame")
    parser.add_argument("--token-model", type=Path, required=True, help="GPT of the same shards, trained without")
    parser.add_argument("--passes", type=int, nargs="+", default=[1, 2, 4, 8, 16], help="per latent frame")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16], help="clips at once")
    parser.add_argument("--clips", type=int, default=64, help="clips to continue")
    parser.add_argument("--top-p", type=float, default=0.9, help="as tools/sample.py")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks/frame_parallel.json"), help="JSON file")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    frame, token = (VideoModel.from_pretrained(path) for path in (arguments.frame_model, arguments.token_model))
    if frame.gpt.config.tokenizer != token.gpt.config.tokenizer:
        parser.error("the two models have different tokenizers; train both on the same token shards")
    given = token.tokenizer.config.stride[0]
    truth, scenes = fresh_clips(arguments.clips, token.frame_size[0], token.window)
    limit = mean(judge(through_tokenizer(token, truth), scenes), given)
    table: list[dict[str, Any]] = [row("clips", "bits per token", "bits", bits(frame, truth), bits(token, truth))]
    curves: dict[str, tuple[list[float], list[float]]] = {}
    for batch in arguments.batches:
        made, reference = continued(token, truth, SamplingSettings(top_p=arguments.top_p), batch)
        theirs = mean(judge(made, scenes), given)
        curves[f"index by index, {batch} at once"] = [reference], [theirs[0]]
        name = f"whole frames, {batch} at once"
        curves[name] = [], []
        for passes in arguments.passes:
            made, seconds = continued(frame, truth, SamplingSettings(top_p=arguments.top_p, passes=passes), batch)
            ours, case = mean(judge(made, scenes), given), f"{passes} passes, {batch} clips at once"
            table.append(row(case, "time per latent frame", "s", seconds, reference))
            table.append(row(case, "position error", "px", ours[0], theirs[0], limit[0]))
            table.append(row(case, "exactly the right balls", "share", ours[1], theirs[1], limit[1]))
            curves[name][0].append(seconds)
            curves[name][1].append(ours[0])
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    line_plot(
        arguments.out.with_suffix(".png"),
        {name: (np.array(x), np.array(y)) for name, (x, y) in curves.items()},
        "seconds per latent frame",
        "position error (px)",
        f"{arguments.clips} clips, {', '.join(map(str, arguments.passes))} passes",
    )
    note = NOTE.format(clips=arguments.clips, new=token.gpt.config.grid[0] - 1, top_p=arguments.top_p)
    report(table, arguments.out, note)


if __name__ == "__main__":
    main()
