"""The clips that a model was trained on, in blocks, and how near its samples come to them.

windows = training_windows(source, model.window, hop=4)
found = memorization_of_pixels(samples[:, P:], held_out[:, P:], pixel_blocks(windows, P))
pictures = near_copy_strips(found, samples[:, P:], windows, P)
"""

from collections.abc import Callable, Iterator

import numpy as np

from tokenreel.datasets.clip_windows import ClipWindows
from tokenreel.datasets.data_source import DataSettings, open_data
from tokenreel.datasets.frame_fit import Size
from tokenreel.evaluation.memorization import Blocks, Memorization

CLIPS_AT_ONCE = 64
SHOWN = 4


def training_windows(source: DataSettings, clip_frames: int, hop: int, size: Size | None = None) -> ClipWindows:
    """All clips of the training videos of one size.

    Args:
        source: The videos, as the model was trained on them.
        clip_frames: Length of its clips.
        hop: Frames between the starts of neighbouring clips; the token shards' manifest tells that of training.
        size: (height, width) of their frames; default: the first of the source.

    Raises:
        Errors of :func:`~tokenreel.datasets.data_source.open_data`, and ValueError if no video is long enough.
    """
    return ClipWindows(open_data(source), "train", clip_frames, hop, size)


def pixel_blocks(windows: ClipWindows, prompt_frames: int) -> Blocks:
    """Their frames after the first ``prompt_frames``, uint8 (b, T, H, W, 3) at a time: what samples could repeat."""

    def blocks() -> Iterator[np.ndarray]:
        """All clips, some at a time."""
        for begin in range(0, len(windows), CLIPS_AT_ONCE):
            yield windows.batch(range(begin, min(begin + CLIPS_AT_ONCE, len(windows))))[:, prompt_frames:]

    return blocks


def token_blocks(windows: ClipWindows, encode: Callable[[np.ndarray], np.ndarray], prompt_latents: int) -> Blocks:
    """Their indices after the first ``prompt_latents`` latent frames, int (b, T', H', W') at a time.

    Args:
        windows: The training clips.
        encode: From uint8 (b, T, H, W, 3) to the indices of these clips.
        prompt_latents: Latent frames left out.
    """

    def blocks() -> Iterator[np.ndarray]:
        """All clips, some at a time."""
        for clips in pixel_blocks(windows, 0)():
            yield encode(clips)[:, prompt_latents:]

    return blocks


def near_copy_strips(
    found: Memorization, samples: np.ndarray, windows: ClipWindows, prompt_frames: int, most: int = SHOWN
) -> list[tuple[str, np.ndarray]]:
    """The samples that come nearest to training clips, each above the clip: rows of a film strip.

    Args:
        found: By pixels.
        samples: uint8 (Q, T, H, W, 3), those that were judged.
        windows: The training clips.
        prompt_frames: Frames that were left out at the beginning of both.
        most: How many pairs.

    Returns:
        (title, frames) pairs, two for each sample.
    """
    rows = []
    for sample, clip, distance in found.nearest_pairs(most):
        video, start = windows.location(clip)
        # Whether it is one is said by the distance: below 1 a near-copy.
        rows.append((f"sample {sample}: distance {distance:.2f} of a near-copy's", samples[sample]))
        rows.append((f"nearest of training: {video.file}, frame {start}", windows[clip][prompt_frames:]))
    return rows
