"""Figures of a card from what the judges of worlds, memorization, diversity and drift found."""

from collections.abc import Mapping
from types import ModuleType

import numpy as np

from tokenreel.evaluation import (
    captions,
    chance,
    counting,
    disc_scene,
    disc_tests,
    diversity,
    drift_curves,
    law,
    memorization,
    nearest_clips,
    orders,
    tracking,
)
from tokenreel.evaluation.card import REAL, TOKENIZER, Better, Figure
from tokenreel.evaluation.code_hash import code_hash
from tokenreel.evaluation.diversity import BitsGap
from tokenreel.evaluation.drift_curves import doubling_horizon
from tokenreel.evaluation.memorization import COPY_SHARE, Memorization
from tokenreel.evaluation.tally import Tally
from tokenreel.evaluation.world_tests import WorldFindings

WORLD_CODE = (captions, chance, counting, disc_scene, disc_tests, law, orders, tracking)
NO_INTERVAL = (float("nan"), float("nan"))


def world_figures(test: str, found: Mapping[str, WorldFindings], model: str) -> list[Figure]:
    """Figures of one world test.

    Args:
        test: Its name.
        found: Of :func:`~tokenreel.evaluation.world_tests.run_world_test`.
        model: The name in it of what is judged; the others are its yardsticks.
    """
    figures = []
    others = {name: findings for name, findings in found.items() if name != model}
    for name, tally in found[model].figures.items():
        floors = {key: findings.figures[name] for key, findings in others.items() if name in findings.figures}
        if tally.cases.any() or any(floor.cases.any() for floor in floors.values()):
            figures.append(_figure(f"world: {test}", name, tally, floors, f"world-test-1[{test}]", WORLD_CODE))
    judged = found[model].chance
    if judged is not None:
        shares = {key: each.chance.p_value for key, each in others.items() if each.chance is not None}
        figures.append(
            Figure(
                *(f"world: {test}", "odds of the world kept, p value", "", "higher", judged.p_value, NO_INTERVAL),
                *(sum(judged.counts.values()), shares, f"chance-1[{test}]", code_hash(chance)),
            )
        )
    return figures


def copies_figures(found: Memorization, hop: int) -> list[Figure]:
    """Whether samples repeat training clips, by pixels or by tokens.

    Args:
        found: Nearest training clips.
        hop: Frames between the beginnings of those that were looked at.
    """
    code, count = code_hash(memorization, nearest_clips), len(found.samples.distance)
    told, by = f"nearest-1[{found.nearness}]: training clips every {hop} frames", f"by {found.nearness}"
    distance, copies = f"distance to training clips {by}, held-out clips are 1", f"near-copies of training clips {by}"
    return [
        Figure(
            *("memorization", distance, "ratio", "as real", found.ratio, found.ratio_interval, count),
            *({"held-out real clips": 1.0}, told, code),
        ),
        Figure(
            *("memorization", copies, "share", "lower", float(found.copies.mean()), found.copies_interval, count),
            *({"by chance, at most": COPY_SHARE}, told, code),
        ),
    ]


def memorization_figures(gap: BitsGap, samples: np.ndarray | None) -> list[Figure]:
    """Whether training clips are better known than others, and whether one prompt has several answers.

    Args:
        gap: Bits of training and of held-out clips.
        samples: uint8 (P, S, T, H, W, 3), S samples of each of P prompts, both at least 2; None if there are fewer.
    """
    figures = [
        Figure(
            *("memorization", "bits of held-out clips, training clips are 1", "ratio", "as real", gap.ratio),
            *(gap.ratio_interval, len(gap.held_out), {}, "bits-gap-1", code_hash(diversity)),
        ),
    ]
    if samples is not None:
        for name, tally in diversity.diversity_figures(samples).items():
            told = f"diversity-1: {samples.shape[1]} samples"
            figures.append(_figure("memorization", name, tally, {}, told, (diversity, nearest_clips), "as real"))
    return figures


def drift_card_figures(
    long: Mapping[str, Tally], floors: Mapping[str, Mapping[str, Tally]], begin: int, window: int
) -> list[Figure]:
    """How a long clip ends: the last quarter of it, and when its colours have drifted twice as far.

    Args:
        long: Of :func:`~tokenreel.evaluation.drift_curves.drift_figures`, of long continuations.
        floors: The same of yardsticks, by name: of clips of any length.
        begin: Prompt frames.
        window: Frames that the model sees.
    """
    figures = []
    length = next(iter(long.values())).total.shape[1]
    told = f"drift-1: last quarter of {length} frames"
    for name, tally in long.items():
        end = Tally(tally.total[:, -(length // 4) :], tally.cases[:, -(length // 4) :], tally.unit)
        better: Better = "lower" if "error" in name else "as real"
        known = {key: tallies[name] for key, tallies in floors.items()}
        figure = _figure("drift", f"{name} at the end", end, known, told, (drift_curves,), better)
        curve = {"model": tally.curve[begin:].tolist()}
        figures.append(Figure(**{**figure.__dict__, "by_frame": curve}))
    horizon, interval = doubling_horizon(long["colour error"], begin, window)
    figures.append(
        Figure(
            *("drift", "colour error has doubled by", "frame; - is never", "higher", horizon, interval),
            *(len(long["colour error"].total), {}, f"{told}; a window of {window}", code_hash(drift_curves)),
        )
    )
    return figures


def real_and_tokenizer(truth: np.ndarray, reconstruction: np.ndarray) -> dict[str, dict[str, Tally]]:
    """The yardsticks of drift, from true clips and their reconstructions, uint8 (B, T, H, W, 3)."""
    return {
        REAL: drift_curves.drift_figures(truth, truth),
        TOKENIZER: drift_curves.drift_figures(reconstruction, truth),
    }


def _figure(
    group: str,
    name: str,
    tally: Tally,
    floors: Mapping[str, Tally],
    protocol: str,
    modules: tuple[ModuleType, ...],
    better: Better | None = None,
) -> Figure:
    if better is None:
        better = "lower" if "error" in name else "as real" if "displacement" in name else "higher"
    curves, known = {}, int(np.isfinite(tally.per_clip).sum())
    if tally.total.ndim == 2:
        curves = {key: each.curve.tolist() for key, each in {"model": tally, **floors}.items() if each.total.ndim == 2}
    return Figure(
        *(group, name, tally.unit, better, tally.value, tally.interval(), known),
        *({key: each.value for key, each in floors.items()}, protocol, code_hash(*modules), curves),
    )
