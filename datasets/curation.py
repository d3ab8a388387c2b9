"""Which parts of a video are worth training on: the rules, their thresholds, and the stretches they leave.

    measures = FrameMeasures(fps=10.0, still_share=rules.still_share)  # see frame_measures
    stretches_of(measures, rules, fps=10.0)  # every frame of the video is in exactly one of them

The defaults were tried on 135 videos at 10 frames a second (films, animations, Kinetics and UCF clips, recordings of
Breakout, Pong, Ms. Pac-Man and three scenarios of ViZDoom, and damaged and odd copies of these):

* ``cuts`` 25: finds the cuts seen by eye in films and animations but for one between two dark scenes; takes a jolt of a
  shaking camera and two explosions close by in ViZDoom for cuts; none in fades, fast pans, or 40 Atari videos. Of nine
  respawns in ViZDoom it finds the one between places that look unlike. At 20 it takes fast turns for cuts.
* ``still_share`` 0.0003, one pixel of 64x64: Breakout with its ball of two pixels changes 0.0010 to 0.0016 of its
  pixels per frame, Pong 0.006, films 0.01 to 0.4, a still photograph 0.0000.
* ``frozen`` 3 s: the longest stillness was 0.8 s in Atari (a lost ball), 1.3 s in ViZDoom, 5 s in a film (a title).
* ``black`` 0.5 s: leading and trailing black and the black of cross-fades between numbers; never in a game.
* ``blur``: off. Sharpness was 0.05 for Pong and 0.06 for an animation drawn in soft shapes, and 0.05 for the blurred
  frames of a parrot: no threshold parts them.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np

from tokenreel.datasets.frame_measures import HASHES_PER_SHARPNESS, FrameMeasures
from tokenreel.datasets.scene_detector import check_installed

Duplicates = Literal["off", "flag", "drop"]
Detector = Literal["own", "pyscenedetect"]


@dataclass(frozen=True)
class CurationRules:
    """What of a video is kept for training; each rule has a threshold, and 0 turns it off."""

    cuts: float = 25.0
    """Split videos into shots where frames differ by this much from those before (mean of 0 to 255)."""
    static: bool = True
    """Leave out shots in which nothing ever moves."""
    still_share: float = 0.0003
    """Share of the pixels that may change in what counts as still; a thousandth is a small ball."""
    frozen: float = 3.0
    """Leave out parts of shots in which nothing moves for so many seconds."""
    black: float = 0.5
    """Leave out parts that are black for so many seconds."""
    blur: float = 0.0
    """Leave out shots less sharp than this; look at the sharpness in ingest.html before you set it, e.g. 0.05."""
    min_frames: int = 2
    """Leave out what is shorter than so many frames; training leaves out what is shorter than its clips in any case."""
    duplicates: Duplicates = "flag"
    """Copies of other videos, re-encoded, scaled or cut out of them: "flag" keeps them on the same side of the split,
    "drop" leaves them out, "off" looks only for files that are the same byte for byte."""

    letterbox: bool = False
    """Cut black bars off that lie above and below, or left and right, of the picture in all of a video."""
    detector: Detector = "own"
    """What finds cuts: the own score, or "pyscenedetect" (needs tokenreel[scenes]), at the same threshold."""

    def __post_init__(self) -> None:
        limits = {"cuts": 255, "still_share": 1, "frozen": 1e6, "black": 1e6, "blur": 10, "min_frames": 1e9}
        for name, most in limits.items():
            value = getattr(self, name)
            if not 0 <= value <= most:
                raise ValueError(f"curation.{name} {value}, expected 0 (off) to {most:g}")
        if self.duplicates not in ("off", "flag", "drop"):
            raise ValueError(f"curation.duplicates {self.duplicates!r}, expected 'off', 'flag' or 'drop'")
        if self.detector not in ("own", "pyscenedetect"):
            raise ValueError(f"curation.detector {self.detector!r}, expected 'own' or 'pyscenedetect'")
        if self.detector == "pyscenedetect":
            check_installed()

    @property
    def detects_scenes(self) -> bool:
        """Whether PySceneDetect looks for cuts."""
        return self.detector == "pyscenedetect" and self.cuts > 0

    @property
    def told(self) -> dict[str, Any]:
        """The rules as JSON keeps them."""
        told = asdict(self)
        if self.detector == "own":  # as stores were made before there was another
            del told["detector"]
        return told


NO_RULES = CurationRules(
    cuts=0.0, static=False, still_share=0.0003, frozen=0.0, black=0.0, blur=0.0, min_frames=0, duplicates="off"
)
"""Every video is kept whole."""


@dataclass(frozen=True)
class Stretch:
    """Neighbouring frames of one video that are kept or left out together.

    Attributes:
        start: First frame.
        stop: Frame after the last.
        dropped: Why it is left out: ``black``, ``static``, ``frozen``, ``blurred`` or ``short``; None if it is kept.
        motion: Mean share of the pixels that change from frame to frame.
        brightness: Mean level, 0 to 255.
        sharpness: Median of ``frame_measures.sharpness_of``; None where no frame was sampled.
        static: Whether nothing moves in it.
        black: Whether there is nothing but black in it.
    """

    start: int
    stop: int
    dropped: str | None
    motion: float
    brightness: float
    sharpness: float | None
    static: bool
    black: bool

    @property
    def frames(self) -> int:
        """Number of frames."""
        return self.stop - self.start


def stretches_of(
    measures: FrameMeasures, rules: CurationRules, fps: float, cuts: Sequence[int] | None = None
) -> list[Stretch]:
    """Cuts a video into stretches and decides about each.

    Args:
        measures: Of all its frames, made with the ``still_share`` of ``rules``.
        rules: What to leave out.
        fps: Frames per second of the frames measured; 0 if unknown, then 10 is assumed.
        cuts: Frames at which another detector than the own one found cuts.

    Returns:
        Stretches in their order, which together hold every frame once.
    """
    shots = {0, measures.frames, *(_cuts(measures, rules) if cuts is None else cuts)}
    reasons = np.full(measures.frames, "", "U6")
    # A run that is both keeps the second reason.
    for name, runs, seconds in (
        ("frozen", _still_runs(measures), rules.frozen),
        ("black", _black_runs(measures), rules.black),
    ):
        for start, stop in runs if seconds else ():
            if stop - start >= max(2, seconds * (fps or 10)):
                reasons[start:stop] = name
    edges = sorted(shots | set((np.flatnonzero(reasons[1:] != reasons[:-1]) + 1).tolist()))
    return [
        _judged(measures, rules, start, stop, str(reasons[start]), {start, stop} <= shots)
        for start, stop in pairwise(edges)
    ]


def _cuts(measures: FrameMeasures, rules: CurationRules) -> list[int]:
    if not rules.cuts:
        return []
    return np.flatnonzero(measures.cut_scores(rules.cuts)).tolist()


def _still_runs(measures: FrameMeasures) -> list[tuple[int, int]]:
    return list(pairwise([*measures.still_starts, measures.frames]))


def _black_runs(measures: FrameMeasures) -> list[tuple[int, int]]:
    changes = np.flatnonzero(np.diff(np.array([0, *measures.black, 0])))
    return list(zip(changes[::2].tolist(), changes[1::2].tolist(), strict=True))


def _judged(
    measures: FrameMeasures, rules: CurationRules, start: int, stop: int, reason: str, whole_shot: bool
) -> Stretch:
    first, last = np.searchsorted(np.asarray(measures.still_starts), [start, stop - 1], side="right")
    static = bool(first == last) and stop - start > 1
    begin, end = np.searchsorted(np.asarray(measures.sampled[::HASHES_PER_SHARPNESS]), [start, stop])
    sharpness = float(np.median(measures.sharpness[begin:end])) if end > begin else None
    if reason == "frozen" and whole_shot and rules.static:
        reason = "static"
    elif not reason and stop - start < rules.min_frames:
        reason = "short"
    elif not reason and static and rules.static:
        reason = "static"
    elif not reason and sharpness is not None and sharpness < rules.blur:
        reason = "blurred"
    # The first frame's step may be a cut.
    steps = measures.moved[start + 1 : stop]
    return Stretch(
        start=start,
        stop=stop,
        dropped=reason or None,
        motion=float(np.mean(steps)) if len(steps) else 0.0,
        brightness=float(np.mean(measures.brightness[start:stop])),
        sharpness=sharpness,
        static=static,
        black=all(measures.black[start:stop]),
    )
