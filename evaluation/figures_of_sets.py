"""Figures that compare sets of clips, whoever made them: distributions of features, and how the clips move."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from tokenreel.evaluation import (
    flow,
    frechet,
    inception_score,
    kernel_distance,
    motion,
    temporal_order,
)
from tokenreel.evaluation.card import Figure
from tokenreel.evaluation.code_hash import code_hash
from tokenreel.evaluation.features import FeatureNetwork, network_features
from tokenreel.evaluation.intervals import halves_interval, mean_interval, ratio_interval

MADE = "model"


def distribution_figures(
    sets: Mapping[str, np.ndarray], reference: np.ndarray, networks: Sequence[FeatureNetwork], cache: Path | None = None
) -> list[Figure]:
    """Fréchet and kernel distance to real clips, in the features of each network.

    Args:
        sets: Clips uint8 (B, T, H, W, 3) by name: ``model`` is judged, the others are its yardsticks. Each has as many
            clips, since a Fréchet distance depends on their number.
        reference: Real clips, none of which are in the sets, uint8 (N, T, H, W, 3).
        networks: To see clips with.
        cache: See :func:`~tokenreel.evaluation.features.network_features`.
    """
    figures = []
    for network in networks:
        real = network_features(network, reference, cache)
        found = {name: network_features(network, clips, cache) for name, clips in sets.items()}
        code = sys.modules[type(network).__module__]
        for title, distance, module in (
            ("Fréchet distance", frechet.frechet_of_features, frechet),
            ("kernel distance", kernel_distance.kernel_distance, kernel_distance),
        ):
            values = {name: distance(features, real) for name, features in found.items()}
            value = values.pop(MADE)
            interval = halves_interval(distance, (found[MADE], real), value)
            figures.append(
                Figure(
                    *("distribution", f"{title}, {network.identity}", "", "lower", value, interval),
                    *(len(found[MADE]), values, f"{module.__name__.rsplit('.', 1)[1]}-1[{network.identity}]"),
                    code_hash(module, code),
                )
            )
    return figures


def reconstruction_distance(
    reconstruction: np.ndarray, truth: np.ndarray, network: FeatureNetwork, cache: Path | None = None
) -> Figure:
    """rFVD: the Fréchet distance of reconstructions to the very clips they are of; 0 if they are perfect."""
    pair = tuple(network_features(network, clips, cache) for clips in (reconstruction, truth))
    value = frechet.frechet_of_features(*pair)
    interval = halves_interval(frechet.frechet_of_features, pair, value, paired=True)
    return Figure(
        *("fidelity", f"Fréchet distance to the originals, {network.identity}", "", "lower", value, interval),
        *(len(truth), {"the originals": 0.0}, f"rfvd-1[{network.identity}]"),
        code_hash(frechet, sys.modules[type(network).__module__]),
    )


def score_figure(
    sets: Mapping[str, np.ndarray], reference: np.ndarray, classifier: FeatureNetwork, cache: Path | None = None
) -> Figure:
    """Inception Score by a classifier whose features are logits; arguments as of :func:`distribution_figures`."""
    logits = {name: network_features(classifier, clips, cache) for name, clips in sets.items()}
    logits["reference clips"] = network_features(classifier, reference, cache)
    values = {name: inception_score.inception_score(each) for name, each in logits.items()}
    value = values.pop(MADE)
    interval = halves_interval(inception_score.inception_score, (logits[MADE],), value)
    return Figure(
        *("distribution", f"Inception Score, {classifier.identity}", "", "higher", value, interval),
        *(len(logits[MADE]), values, f"inception-score-1[{classifier.identity}]"),
        code_hash(inception_score, sys.modules[type(classifier).__module__]),
    )


def motion_figures(sets: Mapping[str, np.ndarray], reference: np.ndarray) -> list[Figure]:
    """How clips move: flicker, changed pixels, speeds, order in time.

    Args:
        sets: As in :func:`distribution_figures`.
        reference: Real clips of the same length; the judge of order learns from them, so none may be in the sets.
    """
    figures = []
    for name, measure, protocol in (
        ("flicker, real clips are 1", motion.flicker, "flicker-1: second difference, RMS"),
        ("changed pixels, real clips are 1", motion.changed_share, "changed-1: more than 8 levels"),
    ):
        real = measure(reference)
        found = {key: measure(clips) for key, clips in sets.items()}
        made = found.pop(MADE)
        figures.append(
            Figure(
                *("motion", name, "ratio", "as real", _ratio(made, real), ratio_interval(made, real), len(made)),
                {key: _ratio(values, real) for key, values in found.items()},
                *(protocol, code_hash(motion, flow)),
            )
        )
    return [*figures, *_speed_figures(sets, reference), *_order_figure(sets, reference)]


def _speed_figures(sets: Mapping[str, np.ndarray], reference: np.ndarray) -> list[Figure]:
    real = motion.speeds(reference)
    found = {name: motion.speeds(clips) for name, clips in sets.items()}
    distances = {name: motion.speed_distance(speeds, real) for name, speeds in found.items()}
    made, distance = found[MADE], distances.pop(MADE)
    means = {name: _ratio(speeds.mean(axis=1), real.mean(axis=1)) for name, speeds in found.items()}
    ratio = means.pop(MADE)
    protocol, code = f"block-speed-1: {flow.BLOCK} px blocks, reach {flow.REACH} px", code_hash(motion, flow)
    return [
        Figure(
            *("motion", "mean speed, real clips are 1", "ratio", "as real", ratio),
            *(ratio_interval(made.mean(axis=1), real.mean(axis=1)), len(made), means, protocol, code),
        ),
        Figure(
            *("motion", "distance of speeds to real ones", "px per frame", "lower", distance),
            halves_interval(motion.speed_distance, (made, real), distance),
            *(len(made), distances, protocol, code),
        ),
    ]


def _order_figure(sets: Mapping[str, np.ndarray], reference: np.ndarray) -> list[Figure]:
    """None where no judge can learn: in clips that are too short or stand still."""
    try:
        judge = temporal_order.OrderJudge(reference)
    except ValueError:
        return []
    shares = {name: judge.shuffledness(clips) for name, clips in sets.items()}
    mixed = temporal_order.shuffled(reference, np.random.default_rng(1))
    shares["the same shuffled"] = judge.shuffledness(mixed)
    means = {name: float(np.nanmean(v)) if np.isfinite(v).any() else float("nan") for name, v in shares.items()}
    made = shares[MADE]
    return [
        Figure(
            *("motion", "frames look shuffled", "probability", "lower", means.pop(MADE), mean_interval(made)),
            *(int(np.isfinite(made).sum()), means, "order-judge-1: clips that move", code_hash(temporal_order, flow)),
        )
    ]


def _ratio(above: np.ndarray, below: np.ndarray) -> float:
    return float(above.mean() / below.mean()) if below.mean() else float("nan")
