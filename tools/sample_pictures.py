"""One picture and one video of all samples, beside what really happened."""

from pathlib import Path

import numpy as np
from PIL import Image

from tokenreel.datasets.video_writer import write_video
from tokenreel.evaluation.film_strip import film_strip, side_by_side
from tokenreel.generation import VideoModel
from tokenreel.tools.sample_settings import Config
from tokenreel.transformer import ClipConditions


def write_comparison(
    config: Config,
    model: VideoModel,
    made: list[np.ndarray],
    said: list[ClipConditions],
    truth: np.ndarray,
    every: int,
    last_from: int | None,
) -> list[Path]:
    """One picture and one video with every sample beside what really happened, as far as that is known.

    ``made`` has one frame in ``every``; from ``last_from`` on frames were given.
    """
    longest, prompt_frames = max(map(len, made)), -(-config.given_frames // every)
    shown = np.stack([_filled(clip, longest) for clip in made])
    real = np.stack([_filled(clip[::every][:longest], longest) for clip in truth])
    strips, rows = [], [("model", shown)]
    # Of a clip longer than the window hardly anything is known, of one from nothing nothing is.
    known = every == 1 and config.given_frames + config.last_frames > 0
    for number, clip in enumerate(shown):
        caption = said[number].caption
        strips.append((f"model, sample {number}" + (f": {caption}" if caption else ""), clip))
        if known:
            strips.append(("what really happened", real[number]))
    if known:
        rows.append(("what really happened", real))
    picture, video = config.out / "grid.png", config.out / f"grid.{config.format}"
    enlarge = max(1, 128 // shown.shape[2])  # of these clips: a model may know several sizes
    Image.fromarray(film_strip(strips, prompt_frames, last_from=last_from)).save(picture)
    write_video(video, side_by_side(rows, prompt_frames, enlarge, last_from), model.fps)
    if every > 1:
        print(f"the comparison shows one frame in {every}")
    return [picture, video]


def _filled(clip: np.ndarray, length: int) -> np.ndarray:
    """A clip with white frames up to a length: others are longer, or an --input ends before its continuation."""
    return np.concatenate([clip, np.full_like(clip, 255, shape=(length - len(clip), *clip.shape[1:]))])
