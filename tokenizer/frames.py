"""Between frames at rest (uint8) and video inside models (float in [-1, 1])."""

import warnings

import numpy as np
import torch
from torch import Tensor


def to_video(frames: np.ndarray) -> Tensor:
    """Frames uint8 (B, T, H, W, 3) -> video float32 (B, 3, T, H, W) in [-1, 1].

    One clip (T, H, W, 3) becomes a batch of one. Grey frames, with or without a last axis of 1, get three equal
    channels, and RGBA is laid over white; a warning says so.

    Raises:
        ValueError: If the frames have another type or shape.
    """
    if frames.dtype != np.uint8:
        raise ValueError(f"frames are {frames.dtype} {frames.shape}, expected uint8 (B, T, H, W, 3); {_cure(frames)}")
    if frames.ndim == 3 and frames.shape[-1] in (3, 4):
        raise ValueError(f"frames have shape {frames.shape}, expected (B, T, H, W, 3); still_clip makes images clips")
    shaped = frames if frames.ndim == 5 or (frames.ndim == 4 and frames.shape[-1] in (1, 3, 4)) else frames[..., None]
    if shaped.ndim not in (4, 5) or shaped.shape[-1] not in (1, 3, 4):
        raise ValueError(f"frames are {frames.dtype} {frames.shape}, expected uint8 (B, T, H, W, 3)")
    colours = _colours(shaped if shaped.ndim == 5 else shaped[None])
    colours = np.require(colours, requirements=["C", "W"])  # torch refuses reversed arrays, warns of read-only ones
    return torch.from_numpy(colours).permute(0, 4, 1, 2, 3).to(torch.float32) / 127.5 - 1.0


def to_frames(video: Tensor) -> np.ndarray:
    """Video float (B, 3, T, H, W) in [-1, 1] -> frames uint8 (B, T, H, W, 3), rounded."""
    scaled = ((video.detach().float().clamp(-1, 1) + 1.0) * 127.5).round().to(torch.uint8)
    return scaled.permute(0, 2, 3, 4, 1).contiguous().cpu().numpy()


def still_clip(image: np.ndarray, stride_t: int) -> np.ndarray:
    """An image as the shortest clip a tokenizer takes: uint8 (H, W, 3) -> (stride_t, H, W, 3), all frames equal.

    Grey (H, W) and RGBA (H, W, 4) become colours as in :func:`to_video`.

    Raises:
        ValueError: If it is no such image.
    """
    shaped = image[..., None] if image.ndim == 2 else image
    if image.dtype != np.uint8 or shaped.ndim != 3 or shaped.shape[-1] not in (1, 3, 4):
        raise ValueError(f"the image is {image.dtype} {image.shape}, expected uint8 (H, W, 3); {_cure(image)}")
    return np.repeat(_colours(shaped)[None], stride_t, axis=0)


def check_values(video: Tensor) -> None:
    """Refuse a video that is not finite or leaves [-1, 1]; warn of one that fills [0, 1] instead.

    Args:
        video: float (B, 3, T, H, W).

    Raises:
        ValueError: Saying what the values look like and how to bring them to [-1, 1].
    """
    if not video.numel():
        return
    least, most = (float(bound) for bound in video.detach().aminmax())
    if not np.isfinite([least, most]).all():
        damaged = [str(i) for i, clip in enumerate(video) if not clip.isfinite().all()]
        raise ValueError(
            f"clip {', '.join(damaged)} of the batch holds values that are NaN or infinite, expected finite values in "
            "[-1, 1]; leave it out, or look at how it was made"
        )
    if least < -1.001 or most > 1.001:
        looks_like_uint8 = least >= 0 and 1.5 < most <= 255.5
        cure = "they look like 0..255: use video / 127.5 - 1" if looks_like_uint8 else "rescale them"
        raise ValueError(f"video values reach from {least:.3g} to {most:.3g}, expected values in [-1, 1]; {cure}")
    if 0 <= least < 0.05 and most > 0.9:
        warnings.warn(
            f"video values lie between {least:.3g} and {most:.3g}: expected [-1, 1], and these look like [0, 1]; "
            "if so use video * 2 - 1",
            stacklevel=3,
        )


def _colours(frames: np.ndarray) -> np.ndarray:
    """Frames uint8 (..., 1, 3 or 4) -> (..., 3)."""
    channels = frames.shape[-1]
    if channels == 1:
        warnings.warn("grey frames: their one channel is used as red, green and blue", stacklevel=3)
        return np.repeat(frames, 3, axis=-1)
    if channels == 4:
        warnings.warn("RGBA frames: laid over white by their alpha channel", stacklevel=3)
        missing = (255 - frames[..., :3].astype(np.uint16)) * frames[..., 3:]
        return (255 - (missing + 127) // 255).astype(np.uint8)
    return frames


def _cure(frames: np.ndarray) -> str:
    """How frames of another type become uint8, from what their values look like."""
    if not np.issubdtype(frames.dtype, np.floating) or not frames.size:
        return "convert them with .astype(np.uint8) if they lie in 0..255"
    least, most = float(frames.min()), float(frames.max())
    if not np.isfinite([least, most]).all():
        return "some values are not finite: leave those clips out"
    if least >= 0 and most <= 1.001:
        return "they look like [0, 1]: use (frames * 255).round().astype(np.uint8)"
    if max(-least, most) <= 1.001:
        return "they look like [-1, 1]: use ((frames + 1) * 127.5).round().astype(np.uint8)"
    return "if they lie in 0..255 use frames.round().astype(np.uint8)"
