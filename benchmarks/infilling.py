"""What lies between a clip's first and last frames: made with the end known, and without.

    python benchmarks/infilling.py --model runs/infill/gpt --plain-model runs/plain/gpt \
        --out benchmarks/results/infilling.json

The first was trained on token shards of the world of balls with --infilling, the second on the same without. Of new
clips the first and the last latent frame are given. Judged by the known state, frame by frame.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from judged_balls import Judged, fresh_clips, judge
from PIL import Image
from report import report, row

from tokenreel.evaluation.film_strip import film_strip
from tokenreel.generation import VideoModel
from tokenreel.tools.model_clips import bits, through_tokenizer
from tokenreel.training.hardware import keep_freed_memory
from tokenreel.transformer import SamplingSettings

CLIPS_AT_ONCE = 16
NOTE = (
    "{clips} new clips of the world of balls, {window} frames, the first {step} and the last {step} given; top-p "
    "{top_p}. Alternative: the same model without the end; of bits per token: a model trained without --infilling, as "
    "long. Limit: the true clips through the tokenizer. A crossfade between the given frames is what needs no model."
)


def made(model: VideoModel, truth: np.ndarray, settings: SamplingSettings, end: bool) -> np.ndarray:
    """Clips whose first latent frame is given, and the last as well, or made too."""
    step, clips = model.tokenizer.config.stride[0], []
    for begin in range(0, len(truth), CLIPS_AT_ONCE):
        part = truth[begin : begin + CLIPS_AT_ONCE]
        new, seeds = model.window - step * (2 if end else 1), range(begin, begin + len(part))
        last = part[:, -step:] if end else None
        clips.append(model.continue_frames(part[:, :step], new, settings, seeds, last=last).frames)
    return np.concatenate(clips)


def crossfade(truth: np.ndarray, step: int) -> np.ndarray:
    """The given frames, and between them one picture turning into the other."""
    T = truth.shape[1]
    share = np.clip((np.arange(T) - step + 1) / (T - 2 * step + 1), 0, 1)[None, :, None, None, None]
    faded = truth[:, [step - 1]] * (1 - share) + truth[:, [T - step]] * share
    return np.concatenate([truth[:, :step], faded[:, step:-step].round().astype(np.uint8), truth[:, -step:]], axis=1)


def rows(ours: Judged, without: Judged, limit: Judged, faded: Judged, between: slice) -> list[dict[str, Any]]:
    """Frame by frame, and the mean of all that lie between."""
    table = []
    for t in range(between.start, between.stop):
        table.append(
            row(f"frame {t + 1}", "position error", "px", *(float(x.error[t]) for x in (ours, without, limit)))
        )
    for name, whose in (("ours", ours), ("a crossfade", faded)):
        figures = [float(x.error[between].mean()) for x in (whose, without, limit)]
        table.append(row(f"all between, {name}", "position error", "px", *figures))
        figures = [float(x.whole[between].mean()) for x in (whose, without, limit)]
        table.append(row(f"all between, {name}", "exactly the right balls", "share", *figures))
    return table


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="GPT of a world of balls, trained with --infilling")
    parser.add_argument("--plain-model", type=Path, help="GPT of the same shards, trained without")
    parser.add_argument("--clips", type=int, default=64, help="clips to fill in")
    parser.add_argument("--top-p", type=float, default=0.9, help="as tools/sample.py")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks/infilling.json"), help="JSON file")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    model, settings = VideoModel.from_pretrained(arguments.model), SamplingSettings(top_p=arguments.top_p)
    step = model.tokenizer.config.stride[0]
    truth, scenes = fresh_clips(arguments.clips, model.frame_size[0], model.window)
    filled, open_ended = (made(model, truth, settings, end) for end in (True, False))
    shown, faded = through_tokenizer(model, truth), crossfade(truth, step)
    between = slice(step, model.window - step)
    ours, without, limit, of_crossfade = (judge(clips, scenes) for clips in (filled, open_ended, shown, faded))
    table = rows(ours, without, limit, of_crossfade, between)
    if arguments.plain_model:
        plain = VideoModel.from_pretrained(arguments.plain_model)
        table.append(
            row("going on, nothing of the end", "bits per token", "bits", bits(model, truth), bits(plain, truth))
        )
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    strips = []
    for clip in range(min(3, len(truth))):
        strips += [("what happened", truth[clip]), ("filled in", filled[clip]), ("end not told", open_ended[clip])]
    Image.fromarray(film_strip(strips, step, last_from=model.window - step)).save(arguments.out.with_suffix(".png"))
    note = NOTE.format(clips=arguments.clips, window=model.window, step=step, top_p=arguments.top_p)
    report(table, arguments.out, note)


if __name__ == "__main__":
    main()
