"""Between frames at rest (uint8) and video inside models (float in [-1, 1])."""

import numpy as np
import torch
from torch import Tensor


def to_video(frames: np.ndarray) -> Tensor:
    """Frames uint8 (B, T, H, W, 3) -> video float32 (B, 3, T, H, W) in [-1, 1].

    Raises:
        ValueError: If the frames have another type or shape.
    """
    if frames.dtype != np.uint8 or frames.ndim != 5 or frames.shape[-1] != 3:
        raise ValueError(f"frames are {frames.dtype} {frames.shape}, expected uint8 (B, T, H, W, 3)")
    return torch.from_numpy(frames).permute(0, 4, 1, 2, 3).to(torch.float32) / 127.5 - 1.0


def to_frames(video: Tensor) -> np.ndarray:
    """Video float (B, 3, T, H, W) in [-1, 1] -> frames uint8 (B, T, H, W, 3), rounded."""
    scaled = ((video.detach().float().clamp(-1, 1) + 1.0) * 127.5).round().to(torch.uint8)
    return scaled.permute(0, 2, 3, 4, 1).contiguous().cpu().numpy()
