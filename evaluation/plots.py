"""Two kinds of plot, written as PNG: curves, and labelled points.

matplotlib is imported when something is drawn, not before: a training that draws nothing never waits for it.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIZE = (8.0, 5.0)
"""Width and height in inches, at DPI dots per inch."""
DPI = 120
# Places of a label around its point, in points (1/72 inch), the best first: x, y, and which side touches.
_PLACES: tuple[tuple[float, float, str, str], ...] = (
    (7, 5, "left", "bottom"), (7, -5, "left", "top"), (-7, 5, "right", "bottom"), (-7, -5, "right", "top"),
    (0, 9, "center", "bottom"), (0, -9, "center", "top"),
    (7, 18, "left", "bottom"), (7, -18, "left", "top"), (-7, 18, "right", "bottom"), (-7, -18, "right", "top"),
)  # fmt: skip


def line_plot(
    path: Path,
    series: Mapping[str, tuple[Sequence[float] | np.ndarray, Sequence[float] | np.ndarray]],
    xlabel: str,
    ylabel: str,
    title: str = "",
) -> None:
    """Draw curves.

    Args:
        path: PNG to write; its folder must exist.
        series: The x and y values of each curve, of one length, under the name that the legend shows.
        xlabel: Quantity and unit.
        ylabel: Quantity and unit.
        title: Above the plot.

    Raises:
        ValueError: If a curve's x and y differ in length.
    """
    for name, (x, y) in series.items():
        if len(x) != len(y):
            raise ValueError(f"curve {name!r} has {len(x)} x and {len(y)} y values, expected as many of both")
    figure, axes = _canvas(xlabel, ylabel, title)
    for name, (x, y) in series.items():
        axes.plot(x, y, marker="o", markersize=3, linewidth=1.5, label=name)
    if series:
        axes.legend(frameon=False)
    _write(figure, path)


def scatter_plot(
    path: Path,
    points: Mapping[str, tuple[float, float]],
    xlabel: str,
    ylabel: str,
    title: str = "",
    faint_x: Mapping[str, float] | None = None,
    log_x: bool = False,
) -> None:
    """Draw points with their names beside them.

    Args:
        path: PNG to write; its folder must exist.
        points: x and y under the name that stands beside the point.
        xlabel: Quantity and unit.
        ylabel: Quantity and unit.
        title: Above the plot.
        faint_x: A second x of some points: a faint ring at the same height, joined to its point by a thin line.
        log_x: Logarithmic x axis; all x must be above 0.

    Raises:
        ValueError: If an x is not above 0 on a logarithmic axis.
    """
    faint_x = faint_x or {}
    lowest = min([x for x, _ in points.values()] + list(faint_x.values()), default=1.0)
    if log_x and lowest <= 0:
        raise ValueError(f"x {lowest} on a logarithmic axis, expected values above 0; use a linear axis")
    figure, axes = _canvas(xlabel, ylabel, title)
    if log_x:
        axes.set_xscale("log")
    for number, (name, (x, y)) in enumerate(points.items()):
        color = _color(number)
        if name in faint_x:
            axes.plot([x, faint_x[name]], [y, y], color=color, linewidth=1, alpha=0.3, zorder=1)
            axes.plot([faint_x[name]], [y], "o", mfc="white", mec=color, markersize=6, alpha=0.5, zorder=2)
        axes.plot([x], [y], "o", color=color, markersize=8, zorder=3)
    axes.margins(0.18, 0.15)  # room for the names
    _name(axes, points)
    _write(figure, path)


def _canvas(xlabel: str, ylabel: str, title: str) -> "tuple[Figure, Axes]":
    # A Figure of its own instead of pyplot: no global state, and drawn by Agg, so no display is asked for.
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE, dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    axes.set_title(title, loc="left", fontsize=11)
    axes.grid(True, which="both", color="#e6e6e6", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _name(axes: "Axes", points: Mapping[str, tuple[float, float]]) -> None:
    """Write each name at the first place around its point where it covers no other name and no point."""
    figure: Any = axes.figure
    figure.draw_without_rendering()  # only then are data and pixels tied together
    centres = axes.transData.transform(list(points.values()))
    taken = [_box(x - 6, y - 6, x + 6, y + 6) for x, y in centres]
    for number, (name, point) in enumerate(points.items()):
        label = axes.annotate(name, point, (0, 0), textcoords="offset points", fontsize=9, color=_color(number))
        for dx, dy, horizontal, vertical in (*_PLACES, _PLACES[0]):  # all taken: over another name, not nowhere
            label.set(position=(dx, dy), ha=horizontal, va=vertical)
            if label.get_window_extent().count_overlaps(taken) == 0:
                break
        taken.append(label.get_window_extent())


def _color(number: int) -> str:
    return f"C{number % 10}"


def _box(x0: float, y0: float, x1: float, y1: float) -> Any:
    from matplotlib.transforms import Bbox

    return Bbox([[x0, y0], [x1, y1]])


def _write(figure: "Figure", path: Path) -> None:
    """Write under a temporary name and rename, so that a plot is whole or absent."""
    temporary = path.with_name(f"{path.name}.tmp-{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            figure.savefig(file, format="png")
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
