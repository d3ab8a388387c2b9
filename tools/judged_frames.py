"""Judge a folder of videos against another one, whoever made them: no model is asked."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tokenreel.datasets.clip_cache import open_or_ingest
from tokenreel.datasets.clip_store import ClipStore
from tokenreel.datasets.curation import NO_RULES
from tokenreel.datasets.ingest import IngestSettings
from tokenreel.evaluation.card import REAL, Card, Figure
from tokenreel.evaluation.card_page import Strip
from tokenreel.evaluation.features import FeatureNetwork, content_hash
from tokenreel.evaluation.figures_of_prediction import Measure, fidelity_figures
from tokenreel.evaluation.figures_of_sets import MADE, distribution_figures, motion_figures, score_figure
from tokenreel.evaluation.motion import LEAST_FRAMES

SHOWN = 4


class FrameSource(NamedTuple):
    """How videos become clips."""

    size: tuple[int, int]
    fps: float | None
    clip_frames: int
    cache: Path


def clips_of(folder: Path, source: FrameSource, most: int | None = None) -> tuple[np.ndarray, list[str]]:
    """All clips of a folder of videos, not overlapping, and the file of each; if there are more, an even choice.

    Raises:
        FileNotFoundError: If there is no folder.
        ValueError: If no video is long enough.
    """
    settings = IngestSettings(*source.size, fps=source.fps, curation=NO_RULES)
    store = open_or_ingest(folder, settings, source.cache)
    length = source.clip_frames
    places = [(record, start) for record in store.records for start in range(0, record.frames - length + 1, length)]
    if not places:
        longest = max(record.frames for record in store.records)
        raise ValueError(f"the longest video of {folder} has {longest} frames, expected {length}; lower --clip-frames")
    chosen = np.unique(np.linspace(0, len(places) - 1, min(most or len(places), len(places))).round().astype(int))
    return _read(store, [places[i] for i in chosen], length), [places[i][0].file for i in chosen]


def frames_card(
    made: Path,
    real: Path,
    source: FrameSource,
    networks: Sequence[FeatureNetwork],
    classifier: FeatureNetwork | None,
    paired: Sequence[Measure] | None,
    most: int,
) -> tuple[Card, list[Strip]]:
    """Judge videos by real ones, half of which are the reference and half the floor.

    Args:
        made: Folder of the videos to judge.
        real: Folder of real videos.
        source: How they become clips.
        networks: For the distances between sets.
        classifier: For the Inception Score.
        paired: Measures against the real video of the same name; None: they show other things.
        most: Clips of either kind.

    Returns:
        The card, and clips to show.

    Raises:
        Errors of :func:`clips_of`, and ValueError if there are too few clips, or names that do not match.
    """
    judged, files = clips_of(made, source, most)
    truth, real_files = clips_of(real, source, 2 * most)
    count = min(len(judged), len(truth) // 2)
    if count < 2:
        raise ValueError(
            f"{len(judged)} clips in {made} and {len(truth)} in {real}, expected at least 2 and 4; give more or longer "
            "videos, or lower --clip-frames"
        )
    order = np.random.default_rng(0).permutation(len(truth))
    sets = {MADE: _spread(judged, count), REAL: truth[order[:count]]}
    reference = truth[order[count:]]
    figures: list[Figure] = []
    if paired is not None:
        figures += fidelity_figures(*_pairs(judged, files, truth, real_files), paired)
    figures += distribution_figures(sets, reference, networks, source.cache / "features")
    if classifier is not None:
        figures.append(score_figure(sets, reference, classifier, source.cache / "features"))
    if source.clip_frames >= LEAST_FRAMES:
        figures += motion_figures(sets, reference)
    protocol = {
        "kind": "videos against videos",
        "clips": count,
        "reference_clips": len(reference),
        "real_clips_sha256": content_hash(truth),
        "clip_frames": source.clip_frames,
        "frame_size": list(source.size),
        "fps": source.fps or "as they are",
    }
    shown = min(SHOWN, count)
    strips = [
        Strip(name, [(f"{name} {i}", clip) for i, clip in enumerate(_spread(clips, shown))])
        for name, clips in (("judged", judged), ("real", truth))
    ]
    return Card({"videos": str(made), "against": str(real)}, protocol, figures), strips


def _read(store: ClipStore, places: Sequence[tuple], length: int) -> np.ndarray:
    return np.stack([store.frames(record, start, start + length) for record, start in places])


def _spread(clips: np.ndarray, count: int) -> np.ndarray:
    return clips[np.linspace(0, len(clips) - 1, count).round().astype(int)]


def _pairs(
    made: np.ndarray, files: Sequence[str], real: np.ndarray, real_files: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """The first clip of each video beside that of the real video of the same name."""
    first, second = (_first_of(names) for names in (files, real_files))
    both = [name for name in first if name in second]
    if not both:
        raise ValueError(
            f"--paired: no video has the name of a real one, as {next(iter(first))} and {next(iter(second))}"
        )
    return made[[first[name] for name in both]], real[[second[name] for name in both]]


def _first_of(names: Sequence[str]) -> dict[str, int]:
    """Place of the first clip of each video, by its name without folder's and file's kind."""
    stems = [str(Path(name).with_suffix("")) for name in names]
    return {stem: stems.index(stem) for stem in dict.fromkeys(stems)}
