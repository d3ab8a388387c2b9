"""Clips spoilt on purpose, by grades: a metric that does not notice what it is for is worth nothing.

Each takes uint8 clips (B, T, H, W, 3), a grade in 0..1 (0 changes nothing) and a generator, and gives clips of the same
shape.
"""

from collections.abc import Callable

import numpy as np

Corruption = Callable[[np.ndarray, float, np.random.Generator], np.ndarray]
GRADES = (0.25, 0.5, 1.0)


def freeze(clips: np.ndarray, grade: float, random: np.random.Generator) -> np.ndarray:
    """Stand still for the last ``grade`` of the time."""
    still = round((1 - grade) * (clips.shape[1] - 1))
    return clips[:, np.minimum(np.arange(clips.shape[1]), still)]


def shuffle(clips: np.ndarray, grade: float, random: np.random.Generator) -> np.ndarray:
    """Put ``grade`` of the frames of each clip into a random order among themselves."""
    made = clips.copy()
    for clip, source in zip(made, clips, strict=True):
        mixed = np.sort(random.permutation(len(clip))[: round(grade * len(clip))])
        clip[mixed] = source[random.permutation(mixed)]
    return made


def noise(clips: np.ndarray, grade: float, random: np.random.Generator) -> np.ndarray:
    """Add grain of ``grade`` * 24 grey levels, another in every frame."""
    return _bytes(clips + random.normal(0, 24 * grade, clips.shape).astype(np.float32))


def blur(clips: np.ndarray, grade: float, random: np.random.Generator) -> np.ndarray:
    """Blur with a Gaussian of ``grade`` * 4 % of the height."""
    spread = 0.04 * grade * clips.shape[2]
    rows, columns = (_gaussian(side, spread) for side in clips.shape[2:4])
    spread_out = np.einsum("hg,btgwc->bthwc", rows, clips.astype(np.float32), optimize=True)
    return _bytes(np.einsum("wv,bthvc->bthwc", columns, spread_out, optimize=True))


def speed_up(clips: np.ndarray, grade: float, random: np.random.Generator) -> np.ndarray:
    """Go 1 + ``grade`` times as fast, to the end of the clip and back again: no frame is made up."""
    last = clips.shape[1] - 1
    at = np.rint(np.arange(clips.shape[1]) * (1 + grade)).astype(int)
    return clips[:, last - np.abs(last - at % (2 * last))]


CORRUPTIONS: dict[str, Corruption] = {
    "freeze": freeze,
    "shuffle": shuffle,
    "noise": noise,
    "blur": blur,
    "speed-up": speed_up,
}
"""Those that need nothing but the clips."""


def drop_object(
    clips: np.ndarray, positions: np.ndarray, radius: np.ndarray, ground: np.ndarray, grade: float
) -> np.ndarray:
    """Let a disc vanish for the last ``grade`` of the time: painted over with the ground.

    Args:
        clips: uint8 (B, T, H, W, 3).
        positions: float (B, T, 2), x and y of the disc in pixels.
        radius: float (B,), pixels.
        ground: uint8 (3,), its colour.
        grade: 0..1.
    """
    made, first = clips.copy(), round((1 - grade) * clips.shape[1])
    ys, xs = (np.arange(side) + 0.5 for side in clips.shape[2:4])
    for clip, places, reach in zip(made, positions, radius, strict=True):
        for frame, (x, y) in zip(clip[first:], places[first:], strict=True):
            frame[np.hypot(xs[None, :] - x, ys[:, None] - y) < reach + 1.5] = ground
    return made


def _bytes(values: np.ndarray) -> np.ndarray:
    return values.round().clip(0, 255).astype(np.uint8)


def _gaussian(side: int, spread: float) -> np.ndarray:
    """float32 (side, side): rows are what each pixel gathers, at the edges of what there is."""
    at = np.arange(side)
    weights = np.exp(-((at[:, None] - at) ** 2) / (2 * max(spread, 1e-3) ** 2))
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
