"""Tests on clips of discs whose state is known: where they are, which they are, and whether they obey their world.

    found = disc_figures(clips, scenes, prompt_frames=8, laws=laws)
    found["wall bounces obeyed"].value, found["wall bounces obeyed"].interval()

They judge arrays, whoever made them: a model's clips, the same clips by the simulator and through a tokenizer
(the floors), or a still picture.
"""

from collections.abc import Sequence

import numpy as np

from tokenreel.evaluation.disc_scene import DiscScene, SeenDiscs, behind_bar, right_discs, see
from tokenreel.evaluation.law import Law, law_figures
from tokenreel.evaluation.tally import Tally
from tokenreel.evaluation.tracking import position_error

_PATIENCE = 1.5
"""A disc may stay behind a bar so many times as long as it takes to pass, before it is missed."""
_CLEAR = 0.3
"""Pixels per frame at which a disc has to move sideways to come out from behind a bar in time."""
_RECENT = 8


def disc_figures(
    clips: Sequence[np.ndarray] | np.ndarray,
    scenes: Sequence[DiscScene],
    prompt_frames: int,
    laws: Sequence[Law] | None = None,
    every: int = 1,
) -> dict[str, Tally]:
    """Judge clips frame by frame, from the first frame after the prompt.

    Args:
        clips: uint8 (T, H, W, 3) each, prompts and what follows.
        scenes: What is known of each clip.
        prompt_frames: First frames that were given; they are looked at only to know how discs move.
        laws: Of each clip's world; None judges no bounces.
        every: Look at one frame in so many; then nothing is said of bounces.

    Returns:
        ``position error`` (px, by frame) and ``right discs`` (share, by frame: exactly those of the scene); with a
        bar ``discs back from behind the bar`` (share); with laws those of
        :data:`~tokenreel.evaluation.law.KINDS` (shares).

    Raises:
        ValueError: If numbers of clips differ, or bounces are to be judged by frames that were left out.
    """
    if len(clips) != len(scenes) or (laws is not None and len(laws) != len(clips)):
        raise ValueError(f"{len(clips)} clips, {len(scenes)} scenes, laws of another number; expected one per clip")
    if laws is not None and every != 1:
        raise ValueError(f"every {every}: bounces are judged by all frames; leave the laws out, or look at each frame")
    seen = [see(clip, scene, every) for clip, scene in zip(clips, scenes, strict=True)]
    new = slice(prompt_frames // every, None)
    figures = {
        "position error": Tally.of(
            [_error(one, scene, clip, every)[new] for one, scene, clip in zip(seen, scenes, clips, strict=True)], "px"
        ),
        "right discs": Tally.of(
            [right_discs(one, scene)[new].astype(float) for one, scene in zip(seen, scenes, strict=True)], "share"
        ),
    }
    if any(scene.bar for scene in scenes) and every == 1:
        counted = [_returned(one, scene, prompt_frames) for one, scene in zip(seen, scenes, strict=True)]
        figures["discs back from behind the bar"] = Tally(
            [back for back, _ in counted], [cases for _, cases in counted], "share"
        )
    if laws is not None:
        places, radii = [one.positions for one in seen], [scene.radius for scene in scenes]
        figures |= law_figures(places, radii, list(laws), prompt_frames - 1)
    return figures


def _error(seen: SeenDiscs, scene: DiscScene, clip: np.ndarray, every: int) -> np.ndarray:
    """Of each frame looked at, (T,); not a number where no disc's place is known or colours do not tell them apart."""
    truth = scene.positions[every - 1 : len(clip) : every]
    if not scene.tells_apart:
        return np.full(len(truth), np.nan)
    return position_error(seen.positions, truth, clip.shape[1])


def _returned(seen: SeenDiscs, scene: DiscScene, first: int) -> tuple[int, int]:
    """(discs that came back, discs that went behind the bar early enough to be seen again)."""
    if scene.bar is None or not scene.tells_apart:
        return 0, 0
    away, width = behind_bar(seen, scene), scene.bar[1] - scene.bar[0]
    back = cases = 0
    for i, radius in enumerate(scene.radius):
        x, hidden = seen.positions[:, i, 0], away[:, i]
        for t in np.flatnonzero(hidden[1:] & ~hidden[:-1]) + 1:
            # The fastest of late: of a disc that is half hidden the tracker sees the centre of what still shows.
            ways = np.abs(np.diff(x[max(0, t - _RECENT) : t]))
            speed = float(np.max(ways, initial=0.0, where=~np.isnan(ways)))
            if t < first or speed <= _CLEAR:
                continue
            until = t + int(np.ceil(_PATIENCE * (width + 2 * radius) / speed))
            if until < len(x):
                cases += 1
                back += bool((~np.isnan(x[t:until])).any())
    return back, cases
