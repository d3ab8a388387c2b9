"""Whether each metric notices what it is for: real clips spoilt by grades, and which way the figures go.

    python benchmarks/corruptions.py --out benchmarks/results/corruptions.json

Clips of the world of balls are frozen, shuffled, and so on, more and more, and judged as tools/evaluate.py judges a
model's clips: beside their originals, and as a set beside other real clips. ``EXPECTED`` says which way each figure
must go with every further grade; the last column of the table says whether it did. tests/test_corruptions.py asks the
same of fewer and smaller clips.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from report import report, row

from tokenreel.datasets.worlds import simulate
from tokenreel.evaluation.builtin_features import BuiltinFeatures
from tokenreel.evaluation.corruptions import CORRUPTIONS, GRADES, drop_object
from tokenreel.evaluation.fidelity import psnr
from tokenreel.evaluation.frechet import frechet_of_features
from tokenreel.evaluation.kernel_distance import kernel_distance
from tokenreel.evaluation.motion import changed_share, flicker, speed_distance, speeds
from tokenreel.evaluation.similarity import ssim
from tokenreel.evaluation.temporal_order import OrderJudge

UP, DOWN = 1, -1
DROP = "drop an object"
EVERYTHING = (*CORRUPTIONS, DROP)
EXPECTED: dict[str, dict[str, int]] = {
    "PSNR": dict.fromkeys(EVERYTHING, DOWN),
    "SSIM": dict.fromkeys(EVERYTHING, DOWN),
    "Fréchet distance": dict.fromkeys(EVERYTHING, UP),
    "kernel distance": dict.fromkeys(EVERYTHING, UP),
    "flicker": {"freeze": DOWN, "shuffle": UP, "noise": UP, "blur": DOWN, "speed-up": UP},
    "changed pixels": {"freeze": DOWN, "shuffle": UP, "noise": UP, "speed-up": UP, DROP: DOWN},
    "mean speed": {"freeze": DOWN, "shuffle": UP, "speed-up": UP},
    "distance of speeds": {"freeze": UP, "shuffle": UP, "speed-up": UP},
    "looks shuffled": {"shuffle": UP},
}
"""Which way a figure must go; what is not named is not what the metric is for."""
UNITS = {"PSNR": "dB", "flicker": "grey levels", "mean speed": "px", "distance of speeds": "px"}
NOTE = (
    "{clips} clips of the world of balls, {size} x {size}, 16 frames, spoilt by grades ({grades}). Ours: the figure. "
    "Alternative: the same of the clips as they are. Limit: 1 if it goes the way it must with every further grade, 0 "
    "if not, nothing if nothing is asked of it."
)


class Clips(NamedTuple):
    """Of the world of balls, uint8 (N, T, H, W, 3)."""

    spoilt: np.ndarray
    """To be spoilt."""
    states: list[dict[str, Any]]
    """Of these."""
    reference: np.ndarray
    """Other ones."""


def world_clips(count: int, size: int, frames: int = 16) -> Clips:
    """Clips of seeds that no written world has."""
    episodes = [simulate("balls", 2**48 + i, size, frames) for i in range(3 * count)]
    shown = np.stack([episode.frames for episode in episodes])
    return Clips(shown[:count], [episode.states for episode in episodes[:count]], shown[count:])


def spoilt(clips: Clips) -> Iterator[tuple[str, float, np.ndarray]]:
    """(corruption, grade, clips), grade 0 first."""
    for name, corrupt in CORRUPTIONS.items():
        for grade in (0.0, *GRADES):
            yield name, grade, corrupt(clips.spoilt, grade, np.random.default_rng(0)) if grade else clips.spoilt
    positions = np.array([np.array(states["positions"])[:, 0] for states in clips.states])
    radius = np.array([states["radius"][0] for states in clips.states])
    ground = np.array(clips.states[0]["background"], np.uint8)
    for grade in (0.0, *GRADES):
        yield DROP, grade, drop_object(clips.spoilt, positions, radius, ground, grade)


class Judge:
    """All metrics of one set of clips beside its originals and other real clips."""

    def __init__(self, clips: Clips) -> None:
        self.originals, self.network = clips.spoilt, BuiltinFeatures()
        self.features, self.speeds = self.network(clips.reference), speeds(clips.reference)
        self.order = OrderJudge(clips.reference)

    def figures(self, clips: np.ndarray) -> dict[str, float]:
        """One figure for each name in ``EXPECTED``."""
        features, moved, shuffled = self.network(clips), speeds(clips), self.order.shuffledness(clips)
        return {
            "PSNR": float(psnr(clips, self.originals).clip(max=100).mean()),
            "SSIM": float(ssim(clips, self.originals).mean()),
            "Fréchet distance": frechet_of_features(features, self.features),
            "kernel distance": kernel_distance(features, self.features),
            "flicker": float(flicker(clips).mean()),
            "changed pixels": float(changed_share(clips).mean()),
            "mean speed": float(moved.mean()),
            "distance of speeds": speed_distance(moved, self.speeds),
            "looks shuffled": float(np.nanmean(shuffled)) if np.isfinite(shuffled).any() else float("nan"),
        }


def measured(clips: Clips) -> dict[str, list[dict[str, float]]]:
    """The figures of each grade, by corruption."""
    judge, table = Judge(clips), {name: [] for name in EVERYTHING}  # type: ignore[var-annotated]
    untouched = judge.figures(clips.spoilt)
    for name, grade, made in spoilt(clips):
        table[name].append(judge.figures(made) if grade else untouched)
    return table


def goes_right(figures: list[dict[str, float]], metric: str, direction: int) -> bool:
    """Whether a figure goes up (or down) with every grade."""
    return bool((direction * np.diff([each[metric] for each in figures]) > 0).all())


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=48, help="clips to spoil; twice as many are the reference")
    parser.add_argument("--size", type=int, default=64, help="height and width")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks/corruptions.json"), help="JSON file")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for name, figures in measured(world_clips(arguments.clips, arguments.size)).items():
        for metric, wanted in EXPECTED.items():
            right = float(goes_right(figures, metric, wanted[name])) if name in wanted else None
            for grade, each in zip(GRADES, figures[1:], strict=True):
                known = each[metric] if np.isfinite(each[metric]) else None
                case = f"{name} {grade:g}"
                rows.append(row(case, metric, UNITS.get(metric, ""), known, figures[0][metric], right))  # type: ignore[arg-type]
    note = NOTE.format(clips=arguments.clips, size=arguments.size, grades=", ".join(f"{grade:g}" for grade in GRADES))
    report(rows, arguments.out, note)


if __name__ == "__main__":
    main()
