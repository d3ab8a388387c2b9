"""What a GPT in training makes of a few validation prompts: pictures to look at, and a cheap judgement for the log."""

import math
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from tokenreel.datasets.video_writer import write_video
from tokenreel.evaluation.continuations import continuation_figures
from tokenreel.evaluation.film_strip import side_by_side, write_film_strip
from tokenreel.tokenizer import VideoTokenizer
from tokenreel.tokenizer.frames import to_frames
from tokenreel.transformer import Conditions, SamplingSettings, VideoGPT, sample_indices

JUDGED = 16
"""Clips that are continued for the log at every validation: enough to tell a still picture from one that moves. On the
embedded world that took 2 seconds of computing at every 160 seconds of training."""


class TrainingSamples(NamedTuple):
    """What came of it."""

    metrics: dict[str, float]
    """``sampled/...``, as of :func:`~tokenreel.evaluation.continuations.continuation_figures`."""
    made: np.ndarray
    """uint8 (B, T, H, W, 3), prompts and continuations."""
    truth: np.ndarray
    """The same clips as they went on, as the tokenizer shows them."""
    prompt_frames: int
    fps: float

    @classmethod
    @torch.no_grad()
    def of(cls, model: VideoGPT, tokenizer: VideoTokenizer, truth: Tensor, conditions: Conditions) -> Self:
        """Continue the first latent frame of each clip, always from the same seeds.

        Args:
            model: To be judged, with its average weights if it has any.
            tokenizer: That made the indices.
            truth: int64 (B, T', H', W') of validation clips, at least 1.
            conditions: What is said of them.
        """
        T, prompt_frames = truth.shape[1], tokenizer.config.stride[0]
        prompt = truth[:, :1].to(model.device)
        made = sample_indices(model, prompt, T - 1, SamplingSettings(), range(len(truth)), conditions)
        clips, right = (to_frames(tokenizer.decode(indices.cpu())) for indices in (made, truth))
        figures = continuation_figures(clips, right, prompt_frames)
        known = {f"sampled/{name}": value for name, value in figures.items() if math.isfinite(value)}
        return cls(known, clips, right, prompt_frames, model.config.fps)

    def write(self, clips: int, step: int, folder: Path) -> list[Path]:
        """Write the first clips as a video and a film strip, above each other with what happened; tell which files."""
        video, picture = folder / f"continuation_{step:06d}.mp4", folder / f"continuation_{step:06d}.png"
        rows = [("continued", self.made[:clips]), ("what happened, by its tokens", self.truth[:clips])]
        write_video(video, side_by_side(rows, self.prompt_frames, scale=2), self.fps)
        strips = [(title, batch[i]) for i in range(len(rows[0][1])) for title, batch in reversed(rows)]
        write_film_strip(picture, strips, self.prompt_frames)
        return [video, picture]
