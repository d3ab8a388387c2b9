"""What may be given to a model to continue: so many frames, of this size. Anything else is refused in words."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class ClipLengths:
    """How many frames may be given and made."""

    step: int
    """Frames of a latent frame."""
    window: int
    """Frames that the GPT sees at once."""
    infilling: bool
    """Whether it was trained to make what lies before given frames."""

    def check(self, prompt_frames: int, num_frames: int | None, last_frames: int) -> None:
        """As :meth:`~tokenreel.generation.VideoModel.check_lengths`."""
        if prompt_frames > self.window:
            raise ValueError(
                f"prompt_frames {prompt_frames} exceed the window of {self.window} frames this model was trained on; "
                "give the last of them"
            )
        self._check_steps("prompt_frames", prompt_frames, 0)
        self._check_steps("last_frames", last_frames, 0)
        if num_frames is not None:
            self._check_steps("num_frames", num_frames, self.step)
        if last_frames:
            self._check_infilling(prompt_frames, num_frames, last_frames)

    def _check_steps(self, name: str, value: int, least: int) -> None:
        step = self.step
        if not isinstance(value, int | np.integer):
            raise ValueError(f"{name} {value!r}: expected a whole number of frames")
        if value < least:
            raise ValueError(f"{name} {value}: expected {least} or more, in steps of {step}")
        if value % step:
            below = value // step * step
            raise ValueError(
                f"{name} {value} is not a multiple of the temporal stride {step}; use {below} or {below + step}"
            )

    def _check_infilling(self, prompt_frames: int, num_frames: int | None, last_frames: int) -> None:
        if not self.infilling:
            raise ValueError(
                f"last_frames {last_frames}: this model was not trained to fill in what lies between; train one with "
                "tools/train_gpt.py --infilling 0.5"
            )
        if num_frames is None:
            raise ValueError(f"last_frames {last_frames} of a clip without end; say how many frames lie between")
        if prompt_frames + num_frames + last_frames > self.window:
            raise ValueError(
                f"{prompt_frames} prompt frames, {num_frames} new and {last_frames} last ones exceed the window of "
                f"{self.window} frames this model was trained on; give or make fewer"
            )


def check_frames(name: str, frames: np.ndarray, sizes: Sequence[tuple[int, int]], clips: int | None = None) -> None:
    """Whether given frames are uint8 (B, T, H, W, 3).

    Args:
        name: What they are, for what is said.
        frames: To be checked.
        sizes: (H, W) that will do.
        clips: B; any number if None.

    Raises:
        ValueError: If not.
    """
    fits = frames.ndim == 5 and frames.shape[2:4] in sizes and frames.shape[4] == 3 and frames.dtype == np.uint8
    if fits and clips in (None, len(frames)):
        return
    count = "B" if clips is None else clips
    expected = " or ".join(f"({count}, {name[0].upper()}, {height}, {width}, 3)" for height, width in sizes)
    remedy = ""
    if frames.dtype != np.uint8:
        remedy = "; give colours as whole numbers from 0 to 255"
    elif frames.ndim == 5 and frames.shape[2:4] not in sizes:
        remedy = "; load_video brings a file to that size"
    raise ValueError(f"{name} is {frames.dtype} {frames.shape}, expected uint8 {expected}{remedy}")
