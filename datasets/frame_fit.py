"""How a coded picture becomes a frame of the wanted size: scaled to cover it, turned, cut at the centre."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

import numpy as np

# Pixel shapes outside this range are broken headers rather than films.
WIDEST_PIXEL = 4

Size = tuple[int, int]
"""(height, width) of frames in pixels."""


class Bars(NamedTuple):
    """Black bars at the sides of an upright picture, as shares of its height and width."""

    top: float
    bottom: float
    left: float
    right: float


NO_BARS = Bars(0.0, 0.0, 0.0, 0.0)


def over_white(picture: np.ndarray) -> np.ndarray:
    """Lay a picture uint8 (h, w, 4), its last channel how opaque a pixel is, over white: uint8 (h, w, 3)."""
    missing = (255 - picture[..., :3].astype(np.uint16)) * picture[..., 3:]
    return (255 - (missing + 127) // 255).astype(np.uint8)


@dataclass(frozen=True)
class FrameFit:
    """The plan for every frame of one video.

    Attributes:
        height: Wanted height in pixels.
        width: Wanted width in pixels.
        quarter_turns: Turns of 90 degrees counter-clockwise that set the picture upright.
        scaled_height: Height of the upright picture before the centre cut, at least ``height``.
        scaled_width: Width of the upright picture before the centre cut, at least ``width``.
        shift: How far below and right of the centre is cut, in pixels, where bars are cut off.
    """

    height: int
    width: int
    quarter_turns: int
    scaled_height: int
    scaled_width: int
    shift: tuple[int, int] = (0, 0)

    @classmethod
    def of(
        cls,
        source: tuple[int, int],
        sizes: Sequence[Size],
        rotation: float = 0.0,
        pixel_aspect: Fraction | None = None,
        bars: Bars = NO_BARS,
    ) -> "FrameFit":
        """Plans the shorter side to be scaled to the wanted one, as the video is meant to be seen.

        Args:
            source: Coded (height, width) in pixels.
            sizes: (height, width) in pixels; of several the one whose shape is nearest, the first of equals.
            rotation: Degrees counter-clockwise by which players turn the picture.
            pixel_aspect: Width of a source pixel divided by its height; None or 0 when unknown.
            bars: What is to be cut off at the sides.
        """
        tall, wide = Fraction(source[0]), Fraction(source[1])
        if pixel_aspect and Fraction(1, WIDEST_PIXEL) <= pixel_aspect <= WIDEST_PIXEL:
            wide *= pixel_aspect
        turns = round(rotation / 90) % 4
        if turns % 2:
            tall, wide = wide, tall
        inside = float(tall) * (1 - bars.top - bars.bottom), float(wide) * (1 - bars.left - bars.right)
        height, width = min(sizes, key=lambda size: abs(math.log(inside[1] / inside[0] * size[0] / size[1])))
        if bars != NO_BARS:
            return cls._without_bars((float(tall), float(wide)), (height, width), turns, bars)
        # The side that would fall short decides the scale.
        if wide * height >= tall * width:
            return cls(height, width, turns, height, max(width, round(wide * height / tall)))
        return cls(height, width, turns, max(height, round(tall * width / wide)), width)

    @classmethod
    def _without_bars(cls, upright: tuple[float, float], wanted: tuple[int, int], turns: int, bars: Bars) -> "FrameFit":
        inside = upright[0] * (1 - bars.top - bars.bottom), upright[1] * (1 - bars.left - bars.right)
        scale = max(wanted[0] / inside[0], wanted[1] / inside[1])
        scaled = [max(least, round(length * scale)) for least, length in zip(wanted, upright, strict=True)]
        shift = []
        for before, after, length, least in zip(bars[::2], bars[1::2], scaled, wanted, strict=True):
            centred = (length - least) // 2
            # The middle of what is between the bars, as far as the picture reaches.
            shift.append(min(max(round((before - after) / 2 * length), -centred), length - least - centred))
        return cls(*wanted, turns, scaled[0], scaled[1], (shift[0], shift[1]))

    @property
    def coded_size(self) -> tuple[int, int]:
        """(height, width) to which the picture is scaled before it is turned."""
        if self.quarter_turns % 2:
            return self.scaled_width, self.scaled_height
        return self.scaled_height, self.scaled_width

    def finish(self, picture: np.ndarray) -> np.ndarray:
        """Turns a picture of ``coded_size`` upright and cuts its centre.

        Args:
            picture: uint8 (h, w, 3) of ``coded_size``.

        Returns:
            uint8 (height, width, 3), contiguous.
        """
        return self.cut(np.rot90(picture, self.quarter_turns) if self.quarter_turns else picture)

    def cut(self, upright: np.ndarray) -> np.ndarray:
        """Cuts the centre of an upright picture of (scaled_height, scaled_width), as ``finish`` does."""
        top = (self.scaled_height - self.height) // 2 + self.shift[0]
        left = (self.scaled_width - self.width) // 2 + self.shift[1]
        return np.ascontiguousarray(upright[top : top + self.height, left : left + self.width])
