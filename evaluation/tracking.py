"""Find coloured discs and bars in frames, and say how far they are from where they should be.

Meant for frames a model made: blurred, noisy, with stray pixels. Positions are in pixels from the top left
corner, x right and y down; the centre of the first pixel is (0.5, 0.5).
"""

import math
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike

# Distance in RGB (0..255) at which a pixel's colour counts as clearly another one: above the noise of a lossy
# reconstruction, below half the distance of two colours a person would call different.
_COLOR_SCALE = 22.0
# A pixel this many scales away from every known mixture belongs to something else, such as an occluder.
_FOREIGN = 2.0
# Less of a disc than this cannot be told from a stray stain.
_LEAST_SHARE = 0.25
_CENTERING_STEPS = 6


def track_discs(frames: np.ndarray, colors: ArrayLike, background: ArrayLike, expected_radius: ArrayLike) -> np.ndarray:
    """Find one disc per colour in every frame, each frame on its own.

    Each pixel is explained as a mixture of the background and one of the colours, and its share of the colour
    is split softly between the colours that explain it about equally well. A disc is where a circle of its
    size gathers most of its colour; its position is the centroid of the colour in a slightly larger circle,
    so that the same colour elsewhere has no pull.

    Args:
        frames: uint8 `(T, H, W, 3)`, RGB.
        colors: `(n, 3)`, RGB in 0..255, all discs that may be there; each colour once.
        background: `(3,)`, RGB in 0..255.
        expected_radius: `(n,)`, pixels.

    Returns:
        float64 `(T, n, 2)`, x and y in pixels; NaN where less than a quarter of the disc is to be seen. Of a
        disc that is partly hidden it is the centre of the visible part.

    Raises:
        ValueError: Shapes that don't fit or a radius that is not positive.
    """
    frames = np.asarray(frames)
    palette = np.asarray(colors, dtype=np.float32)
    ground = np.asarray(background, dtype=np.float32)
    radii = np.asarray(expected_radius, dtype=np.float64)
    n = len(palette)
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8:
        raise ValueError(f"frames are {frames.dtype} {frames.shape}; expected uint8 (T, H, W, 3)")
    if palette.shape != (n, 3) or ground.shape != (3,) or radii.shape != (n,):
        got = f"{palette.shape}, {ground.shape}, {radii.shape}"
        raise ValueError(f"colors, background, expected_radius have shapes {got}; expected (n, 3), (3,), (n,)")
    if not np.all(radii > 0):
        raise ValueError(f"expected_radius is {radii.tolist()}; expected pixels, more than 0")
    positions = np.full((len(frames), n, 2), np.nan)
    if n == 0:
        return positions
    # Frame by frame: memory stays small whatever the length.
    for t, frame in enumerate(frames):
        shares = color_shares(frame, palette, ground)
        for i, radius in enumerate(radii):
            positions[t, i] = _disc_position(shares[i], float(radius))
    return positions


def track_bar(
    frames: np.ndarray, colors: ArrayLike, background: ArrayLike, width: float, rows: tuple[float, float]
) -> np.ndarray:
    """Find a bar that moves from side to side, in every frame on its own.

    Args:
        frames: uint8 `(T, H, W, 3)`, RGB.
        colors: `(n, 3)`, RGB in 0..255: the bar's, then those of all else that may be in its rows.
        background: `(3,)`, RGB in 0..255.
        width: Of the bar, pixels.
        rows: Its top and bottom edge, pixels.

    Returns:
        float64 `(T,)`, x of its centre in pixels; NaN where less than a quarter of it is to be seen.
    """
    palette, ground = np.asarray(colors, dtype=np.float32), np.asarray(background, dtype=np.float32)
    inside = slice(math.ceil(rows[0]), math.floor(rows[1]))
    found = [_bar_position(color_shares(frame[inside], palette, ground)[0].mean(axis=0), width) for frame in frames]
    return np.array(found, dtype=np.float64)


def position_error(predicted: ArrayLike, truth: ArrayLike, size: float) -> np.ndarray:
    """Mean absolute error per coordinate, frame by frame.

    A disc that was not found counts as size / 3 in each coordinate: the mean distance of two points drawn at
    random from a line of that length, so what a blind guess would score. Losing a disc is never rewarded.
    A truth of NaN (a disc that is hidden) is left out.

    Args:
        predicted: `(T, n, 2)`, pixels, NaN for lost discs.
        truth: `(T, n, 2)`, pixels.
        size: Height and width of the frames in pixels.

    Returns:
        float64 `(T,)`, pixels; NaN for a frame in which no disc has a truth.

    Raises:
        ValueError: Shapes that differ.
    """
    found, right = np.asarray(predicted, dtype=np.float64), np.asarray(truth, dtype=np.float64)
    if found.shape != right.shape or right.ndim != 3 or right.shape[-1] != 2:
        raise ValueError(f"positions have shapes {found.shape} and {right.shape}; expected (T, n, 2) twice")
    error = np.where(np.isnan(found), size / 3, np.abs(found - right))
    known = ~np.isnan(right)
    total = np.where(known, error, 0).sum(axis=(1, 2))
    count = known.sum(axis=(1, 2))
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def color_shares(
    frame: np.ndarray, colors: np.ndarray, background: np.ndarray, scale: float = _COLOR_SCALE
) -> np.ndarray:
    """How much of each pixel is made of each colour.

    Args:
        frame: uint8 (H, W, 3).
        colors: float32 (n, 3).
        background: float32 (3,).
        scale: Distance in RGB (0..255) at which a pixel's colour counts as clearly another one.

    Returns:
        float32 (n, H, W) in [0, 1].
    """
    pixel = frame.astype(np.float32) - background
    direction = colors - background
    length_squared = np.maximum((direction**2).sum(axis=1), 1)
    # The nearest point on the line from the background to the colour.
    share = np.clip(np.einsum("hwc,nc->nhw", pixel, direction) / length_squared[:, None, None], 0, 1)
    rest = pixel[None] - share[..., None] * direction[:, None, None, :]
    badness = (rest**2).sum(axis=-1) / (2 * scale**2)
    likeness = np.exp(-badness)
    return share * likeness / (likeness.sum(axis=0) + np.exp(-(_FOREIGN**2) / 2))


def _disc_position(share: np.ndarray, radius: float) -> tuple[float, float]:
    """Centre (x, y) of the disc in one share map (H, W); NaN twice if there is none."""
    height, width = share.shape
    ys, xs = np.arange(height) + 0.5, np.arange(width) + 0.5
    gathered = gathered_in_circle(share, radius)
    row, column = np.unravel_index(int(gathered.argmax()), gathered.shape)
    x, y = float(xs[column]), float(ys[row])
    for _ in range(_CENTERING_STEPS):
        # Wide enough for a blurred rim; the soft edge keeps the steps from jumping between pixels.
        distance = np.hypot(xs[None, :] - x, ys[:, None] - y)
        weight = share * np.clip(radius + 2.5 - distance, 0, 1)
        mass = float(weight.sum())
        if mass < _LEAST_SHARE * np.pi * radius**2:
            return np.nan, np.nan
        x = float((weight.sum(axis=0) * xs).sum()) / mass
        y = float((weight.sum(axis=1) * ys).sum()) / mass
    return x, y


def _bar_position(profile: np.ndarray, width: float) -> float:
    """Centre of the stretch of `width` in (W,) that holds most; NaN if that is not much."""
    xs = np.arange(len(profile)) + 0.5
    reach = width / 2
    x = float(xs[np.argmax([profile[np.abs(xs - center) < reach].sum() for center in xs])])
    for _ in range(_CENTERING_STEPS):
        weight = profile * np.clip(reach + 1.5 - np.abs(xs - x), 0, 1)
        mass = float(weight.sum())
        if mass < _LEAST_SHARE * width:
            return np.nan
        x = float((weight * xs).sum()) / mass
    return x


def gathered_in_circle(share: np.ndarray, radius: float) -> np.ndarray:
    """Sum of the shares in a circle of `radius` pixels around each pixel, (H, W) from (H, W)."""
    return gathered_in_circles(share, (radius,))[0]


def gathered_in_circles(share: np.ndarray, radii: tuple[float, ...]) -> np.ndarray:
    """The same for several radii at once, (n, H, W) from (H, W)."""
    height, width = share.shape
    reach = int(np.ceil(max(radii)))
    # Padded, so that the cyclic convolution does not fold one edge onto the other.
    shape = (height + 2 * reach, width + 2 * reach)
    product = np.fft.rfft2(share, shape) * _circles(radii, shape)
    return np.fft.irfft2(product, shape)[:, reach : reach + height, reach : reach + width]


@lru_cache(maxsize=64)
def _circles(radii: tuple[float, ...], shape: tuple[int, int]) -> np.ndarray:
    """Spectra of circles around one place, for each radius."""
    reach = int(np.ceil(max(radii)))
    offsets = np.arange(-reach, reach + 1)
    distance = np.hypot(offsets[None, :], offsets[:, None])
    return np.fft.rfft2(np.stack([np.clip(radius + 0.5 - distance, 0, 1) for radius in radii]), shape)
