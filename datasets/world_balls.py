"""The world `balls`: coloured discs that bounce off the walls and off each other without losing energy."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tokenreel.datasets.world_combinations import Combination, all_combinations, caption, drawn_combination
from tokenreel.datasets.world_episode import Canvas, Color, Episode

# Saturated and far from each other and from the background, so that a tracker can tell them apart.
PALETTE: dict[str, Color] = {
    "red": (238, 64, 68),
    "green": (64, 190, 86),
    "blue": (62, 112, 246),
    "yellow": (250, 208, 60),
    "magenta": (222, 84, 214),
    "cyan": (56, 210, 222),
    "white": (240, 240, 234),
    "orange": (240, 134, 30),
}
"""All colours there are."""
USUAL_COLORS = 6
BACKGROUND: Color = (22, 22, 26)
OCCLUDER: Color = (112, 112, 118)
RADIUS = (0.08, 0.11)
"""Smallest and largest of a ball, as a share of the frame's size."""
LABELS = ["one ball", "two balls", "three balls"]


def colors_of_world(options: Mapping[str, Any]) -> dict[str, Color]:
    """Of the balls of a world: the first of `PALETTE`, as many as its options say."""
    return dict(list(PALETTE.items())[: options.get("colors", USUAL_COLORS)])


COLORS = colors_of_world({})
"""Those of a world of which nothing else is said."""


def simulate_balls(
    seed: int,
    size: int,
    frames: int,
    *,
    occluder: bool = False,
    twins: bool = False,
    colors: int = USUAL_COLORS,
    combinations: Sequence[Combination] | None = None,
) -> Episode:
    """Simulate one clip of the world `balls`.

    Between events the balls move straight, so the time of the next collision is known exactly: nothing ever
    overlaps, tunnels or loses energy, whatever the speed.

    Args:
        seed: Same seed, same clip.
        size: Height and width in pixels.
        frames: Length T.
        occluder: Put a grey vertical bar in front; the balls move on behind it.
        twins: Several balls may have the same colour, and captions name the colours in any order.
        colors: Draw from so many of `PALETTE`.
        combinations: Draw the colours from these alone; None: from all.

    Returns:
        An episode whose states are `names` and `colors` (n balls), `background`, `radius` (n, pixels),
        `positions` and `velocities` (T, n, 2; pixels, pixels per frame), `visible_fraction` (T, n; the share
        of the disc in front of which no bar stands), `visible` (T, n; any of it can be seen) and `occluder`
        ([left, right] in pixels, or None).
    """
    rng = np.random.default_rng(seed)
    known = list(PALETTE)[:colors]
    names = _drawn_names(rng, known, twins, combinations)
    n = len(names)
    radius = rng.uniform(*RADIUS, n) * size
    start = _placed(rng, radius, size)
    speed = rng.uniform(0.015, 0.04, n) * size
    heading = rng.uniform(0, 2 * math.pi, n)
    velocity = speed[:, None] * np.stack([np.cos(heading), np.sin(heading)], axis=1)
    positions, velocities = moved(start, velocity, radius, size, frames)
    bar = _bar(rng, size) if occluder else None

    canvas = Canvas(frames, size, BACKGROUND)
    for i, name in enumerate(names):
        canvas.discs(positions[:, i], radius[i], PALETTE[name])
    fraction = np.ones((frames, n))
    if bar is not None:
        canvas.boxes(np.full(frames, bar[0]), np.full(frames, bar[1]), 0, size, OCCLUDER)
        left, right = (_share_left_of(edge, positions[..., 0], radius) for edge in bar)
        fraction = (1 - right + left).round(4)
    states = {
        "names": names,
        "colors": [list(PALETTE[name]) for name in names],
        "background": list(BACKGROUND),
        "radius": radius.round(4).tolist(),
        "positions": positions.round(4).tolist(),
        "velocities": velocities.round(4).tolist(),
        "visible_fraction": fraction.tolist(),
        "visible": (fraction > 0).tolist(),
        "occluder": None if bar is None else [round(edge, 4) for edge in bar],
    }
    said = _in_any_order(names, known, seed) if twins else names
    return Episode(canvas.finished(), states, caption(said), LABELS[n - 1])


def _in_any_order(names: Sequence[str], known: Sequence[str], seed: int) -> list[str]:
    """As a caption is to name them: else each combination would be one fixed sentence, and learned as such."""
    order = np.random.default_rng([seed, len(names)]).permutation(len(known))
    return sorted(names, key=lambda name: order[known.index(name)])


def _drawn_names(
    rng: np.random.Generator, known: Sequence[str], twins: bool, combinations: Sequence[Combination] | None
) -> list[str]:
    if twins or combinations is not None:
        return list(drawn_combination(rng, combinations or all_combinations(known, twins)))
    n = int(rng.integers(1, 4))
    return [known[i] for i in sorted(rng.choice(len(known), n, replace=False))]


def _placed(rng: np.random.Generator, radius: np.ndarray, size: int) -> np.ndarray:
    """Random places (n, 2) inside the walls, no two balls touching."""
    while True:
        places = rng.uniform(radius[:, None], size - radius[:, None], (len(radius), 2))
        gaps = [math.dist(places[i], places[j]) - radius[i] - radius[j] for i in range(len(radius)) for j in range(i)]
        if not gaps or min(gaps) > 0.02 * size:
            return places


def _bar(rng: np.random.Generator, size: int) -> tuple[float, float]:
    # Wider than the largest ball, so that a ball can vanish altogether.
    width = rng.uniform(0.24, 0.32) * size
    left = rng.uniform(0.2 * size, 0.8 * size - width)
    return float(left), float(left + width)


def _share_left_of(edge: float, x: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """The share of each disc's area left of a vertical line; x is (T, n), radius (n,)."""
    t = np.clip((edge - x) / radius, -1, 1)
    return 1 - (np.arccos(t) - t * np.sqrt(1 - t * t)) / math.pi


def moved(
    start: np.ndarray, velocity: np.ndarray, radius: np.ndarray, size: int, frames: int
) -> tuple[np.ndarray, np.ndarray]:
    """The law of the world: where n balls are, and how fast, from a state on.

    Args:
        start: Positions, (n, 2), pixels.
        velocity: Pixels per frame, (n, 2).
        radius: (n,), pixels.
        size: Height and width of the frames, pixels.
        frames: Length T.

    Returns:
        Positions and velocities at every frame, each (T, n, 2); the first are those given.
    """
    # Plain floats: for three balls, numpy's overhead per call would cost ten times the arithmetic.
    place, speed, reach = start.tolist(), velocity.tolist(), radius.tolist()
    positions, velocities = [], []
    for _ in range(frames):
        positions.append([list(p) for p in place])
        velocities.append([list(v) for v in speed])
        remaining = 1.0
        while remaining > 0:
            wait, first, second = _next_event(place, speed, reach, size, remaining)
            for p, v in zip(place, speed, strict=True):
                p[0] += v[0] * wait
                p[1] += v[1] * wait
            remaining -= wait
            if first is None:
                break
            if second < 0:
                speed[first][second + 2] *= -1
            else:
                _collide(place, speed, reach, first, second)
    return np.array(positions), np.array(velocities)


def _next_event(
    place: list[list[float]], speed: list[list[float]], reach: list[float], size: int, limit: float
) -> tuple[float, int | None, int]:
    """Time to the next collision within `limit`, which ball, and with whom: a ball, or -2, -1 for walls."""
    event: tuple[float, int | None, int] = (limit, None, 0)
    for i, (p, v, r) in enumerate(zip(place, speed, reach, strict=True)):
        for axis in (0, 1):
            if v[axis] == 0:
                continue
            wall = size - r if v[axis] > 0 else r
            wait = max(0.0, (wall - p[axis]) / v[axis])
            if wait < event[0]:
                event = (wait, i, axis - 2)
        for j in range(i):
            wait = _time_to_touch(p, v, place[j], speed[j], r + reach[j])
            if wait < event[0]:
                event = (wait, i, j)
    return event


def _time_to_touch(p: list[float], v: list[float], q: list[float], w: list[float], distance: float) -> float:
    """When two discs moving straight come within `distance` of each other; infinity for never."""
    dx, dy, dvx, dvy = q[0] - p[0], q[1] - p[1], w[0] - v[0], w[1] - v[1]
    approach = dx * dvx + dy * dvy
    if approach >= 0:
        return math.inf
    speed_squared = dvx * dvx + dvy * dvy
    root = approach * approach - speed_squared * (dx * dx + dy * dy - distance * distance)
    return math.inf if root <= 0 else max(0.0, (-approach - math.sqrt(root)) / speed_squared)


def _collide(place: list[list[float]], speed: list[list[float]], reach: list[float], i: int, j: int) -> None:
    """Elastic collision of two touching discs of equal density: mass grows with the area."""
    nx, ny = place[j][0] - place[i][0], place[j][1] - place[i][1]
    length = math.hypot(nx, ny)
    nx, ny = nx / length, ny / length
    mass_i, mass_j = reach[i] ** 2, reach[j] ** 2
    closing = (speed[i][0] - speed[j][0]) * nx + (speed[i][1] - speed[j][1]) * ny
    impulse = 2 * closing / (mass_i + mass_j)
    for axis, normal in enumerate((nx, ny)):
        speed[i][axis] -= impulse * mass_j * normal
        speed[j][axis] += impulse * mass_i * normal
