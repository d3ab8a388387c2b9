"""Curves as SVG to be written into a page: a few kilobytes each, sharp at any size, readable in light and dark."""

import math
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

WIDTH, HEIGHT = 460, 240
LEFT, RIGHT, TOP, BOTTOM = 58, 14, 10, 34
MOST_POINTS = 300
"""Per curve; of longer ones the means of equal pieces are drawn."""
LOGARITHMIC = 20.0
"""Values that are all above 0 and differ by more than this factor are drawn on a logarithmic axis."""


class Curve(NamedTuple):
    """One curve."""

    name: str
    points: Sequence[tuple[float, float]]
    """x and y, in order; those that are not finite are left out."""
    color: str
    """As CSS writes it."""
    dashed: bool = False
    """Dashed and with a dot on every point, for what is measured seldom."""


class _Axis(NamedTuple):
    """From values to places on one axis."""

    low: float
    high: float
    begin: float
    end: float
    logarithmic: bool = False

    def place(self, value: float) -> float:
        """Where a value stands, in units of the picture."""
        low, high, value = (math.log10(v) if self.logarithmic else v for v in (self.low, self.high, value))
        return self.begin + (self.end - self.begin) * (value - low) / (high - low)

    def ticks(self) -> list[float]:
        """Round values from end to end."""
        if self.logarithmic:
            powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            steps = (1,) if len(powers) > 4 else (1, 3)
            return [tick for p in powers for s in steps if self.low <= (tick := s * 10.0**p) <= self.high]
        step = _round_step((self.high - self.low) / 6)
        numbers = range(math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9) + 1)
        return [number * step for number in numbers]


def svg_curves(curves: Sequence[Curve], xlabel: str = "step", also: Sequence[float] = ()) -> str:
    """Draw curves over one x axis.

    Args:
        curves: What to draw; the page says which colour is whose.
        xlabel: Quantity and unit.
        also: Values that the y axis shows as well.

    Returns:
        An ``<svg>`` element; a curve's name and last value show when the pointer rests on it.

    Raises:
        ValueError: If there is no point to draw.
    """
    kept = [curve._replace(points=_thinned(curve.points)) for curve in curves]
    xs, ys = ([point[axis] for curve in kept for point in curve.points] for axis in (0, 1))
    if not xs:
        raise ValueError(f"no finite point in {len(curves)} curves, expected at least one; leave the plot out")
    x_axis = _Axis(min(xs), max(xs) if max(xs) > min(xs) else min(xs) + 1, LEFT, WIDTH - RIGHT)
    y_axis = _vertical(min([*ys, *also]), max([*ys, *also]))
    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img">']
    for tick in y_axis.ticks():
        y = y_axis.place(tick)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{_number(tick)}</text>')
    for tick in x_axis.ticks():
        place = f'x="{x_axis.place(tick):.1f}" y="{HEIGHT - BOTTOM + 15}"'
        parts.append(f'<text {place} text-anchor="middle">{_number(tick)}</text>')
    parts.append(f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 4}" text-anchor="end">{escape(xlabel)}</text>')
    parts += [_drawn(curve, x_axis, y_axis) for curve in kept if curve.points]
    return "".join([*parts, "</svg>"])


def _vertical(low: float, high: float) -> _Axis:
    """The y axis, with a little room above and below."""
    begin, end = HEIGHT - BOTTOM, TOP
    if low > 0 and high > LOGARITHMIC * low:
        return _Axis(low / 1.1, high * 1.1, begin, end, logarithmic=True)
    margin = 0.05 * (high - low) or max(abs(high), 1.0) * 0.1
    return _Axis(low - margin if low < 0 or low - margin > 0 else 0.0, high + margin, begin, end)


def _drawn(curve: Curve, x_axis: _Axis, y_axis: _Axis) -> str:
    places = [f"{x_axis.place(x):.1f},{y_axis.place(y):.1f}" for x, y in curve.points]
    dashes = ' stroke-dasharray="5 4"' if curve.dashed else ""
    title = f"<title>{escape(curve.name)}: {curve.points[-1][1]:.4g} at {curve.points[-1][0]:g}</title>"
    line = f'<polyline class="curve" stroke="{curve.color}"{dashes} points="{" ".join(places)}">{title}</polyline>'
    dots = places if curve.dashed or len(places) == 1 else []
    return line + "".join(
        f'<circle r="3" fill="{curve.color}" cx="{x}" cy="{y}"/>' for x, y in (place.split(",") for place in dots)
    )


def _thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Finite points, at most MOST_POINTS: of more, the means of equal pieces."""
    finite = [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]
    size = math.ceil(len(finite) / MOST_POINTS)
    if size <= 1:
        return finite
    pieces = [finite[begin : begin + size] for begin in range(0, len(finite), size)]
    return [(sum(x for x, _ in piece) / len(piece), sum(y for _, y in piece) / len(piece)) for piece in pieces]


def _round_step(least: float) -> float:
    """The next of 1, 2, 5, 10, 20, ... and of their tenths."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least * 0.999)


def _number(value: float) -> str:
    if abs(value) >= 10_000:
        return f"{value / 1000:g}k" if abs(value) < 1e6 else f"{value / 1e6:g}M"
    return f"{value:.6g}" if abs(value) >= 1e-3 or value == 0 else f"{value:.0e}"
