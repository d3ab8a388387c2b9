"""Features of clips that need no download: what fixed random filters answer to a clip and to its changes.

Sixty-three numbers per clip, the same on every machine and for every version of torch and numpy but for rounding:

* 12: mean colour in each quarter of the frame; 3: spread of each colour over the clip;
* 12: log energy of four random 5 x 5 filters at three sizes of the frame (whole, half, quarter): texture, sharpness;
* 24: log energy of the same on changes between frames, one and four frames apart: how much moves, how fast, how sharp;
* 9: the mean over places of the log energy of each of these three: grain on even ground, which energies alone miss;
* 3: log energy of the second difference in time at the three sizes: flicker.

Log energies are in units of the noise of a codec, 0 where there is no more than that.

What they can't do: they know no things. A dog that turns into a cat at the same speed and sharpness goes unnoticed, as
does a clip that is played backwards. Distances in them are comparable with one another, never with published FVD. They
see what goes wrong with small models (blur, noise, standing still, haste, flicker, missing things, wrong colours), as
the table of corruptions shows (benchmarks/corruptions.py).
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

DIM = 63
LARGEST, SMALLEST = 128, 20
"""Pixels of the shorter side; larger frames are scaled down by area, smaller ones are doubled."""
_SEED = 20210420
_FILTERS, _WIDTH, _SIZES, _LAGS = 4, 5, 3, (1, 4)
# Energy of two of 255 grey levels: below it changes are noise of a codec.
_FLOOR = (2 / 255) ** 2
# Brings log energies to the scale of the colours: between 0 and 2.
_LOG_SCALE = 0.25


class BuiltinFeatures:
    """uint8 clips (B, T, H, W, 3) -> float64 (B, 63)."""

    identity = "builtin-1"

    def __init__(self) -> None:
        # RandomState's stream is frozen, unlike that of newer generators.
        drawn = np.random.RandomState(_SEED).standard_normal((_FILTERS, 3, _WIDTH, _WIDTH))
        drawn -= drawn.mean(axis=(2, 3), keepdims=True)  # even ground has no energy
        drawn /= np.sqrt(np.square(drawn).sum(axis=(1, 2, 3), keepdims=True))
        self._filters = torch.from_numpy(drawn).float()

    def __call__(self, clips: np.ndarray) -> np.ndarray:
        """Work them out, clip by clip.

        Raises:
            ValueError: If the clips are no clips of RGB, or shorter than 2 frames.
        """
        if clips.ndim != 5 or clips.shape[-1] != 3 or clips.dtype != np.uint8 or clips.shape[1] < 2:
            raise ValueError(f"clips are {clips.dtype} {clips.shape}, expected uint8 (B, T, H, W, 3), T at least 2")
        return np.stack([self._of_clip(clip) for clip in clips]) if len(clips) else np.zeros((0, DIM))

    @torch.no_grad()
    def _of_clip(self, clip: np.ndarray) -> np.ndarray:
        video = torch.from_numpy(np.ascontiguousarray(clip)).permute(0, 3, 1, 2).float() / 255
        height, width = video.shape[-2:]
        if (shorter := min(height, width)) > LARGEST:
            size = [round(side * LARGEST / shorter) for side in (height, width)]
            video = F.interpolate(video, size=size, mode="area")
        while min(video.shape[-2:]) < SMALLEST:
            video = video.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
        parts = [F.adaptive_avg_pool2d(video, 2).mean(dim=0).flatten(), video.std(dim=(0, 2, 3))]
        for level in range(_SIZES):
            if level:
                video = F.avg_pool2d(video, 2)
            parts.append(self._energies(video))
            for lag in _LAGS:
                apart = min(lag, len(video) - 1)
                parts.append(self._energies(video[apart:] - video[:-apart]))
            second = video[2:] - 2 * video[1:-1] + video[:-2]
            energy = second.square().mean() if len(second) else video.new_zeros(())
            parts.append(_log(energy)[None])
        return torch.cat(parts).double().numpy()

    def _energies(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) -> (5,): log energy of what each filter answers, and its mean over places and filters."""
        energy = F.conv2d(images, self._filters).square()
        return torch.cat([_log(energy.mean(dim=(0, 2, 3))), _log(energy).mean()[None]])


def _log(energy: Tensor) -> Tensor:
    return torch.log1p(energy / _FLOOR) * _LOG_SCALE
