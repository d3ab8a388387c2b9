"""How often training has seen each clip and each video: the ledger of exposures.

Nothing is counted on the way. What a step trains on is a function of (seed, step), so what was seen by then is one
too, whichever processes saw it.

    ledger = ExposureLedger(order, num_videos=40, clip_frames=16, hop=8, places=windows.places_of_clips())
    ledger.clips(step)      # int64 (clips,)
    ledger.told(step)       # fewest, median, most, for the log
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from tokenreel.datasets.bucket_order import BucketOrder


@dataclass(frozen=True)
class ExposureLedger:
    """The exposures of a run's clips and videos after any number of steps."""

    order: BucketOrder
    """Of the run; of any rank."""
    num_videos: int
    """Videos that the clips are of."""
    clip_frames: int | np.ndarray
    """Frames of a clip; int64 (clips,) where they differ, all alike for one video."""
    hop: int
    """Frames from the start of one clip of a video to that of the next, as a rule."""
    places: tuple[np.ndarray, np.ndarray] | None
    """Of each clip the number of its video, 0 to ``num_videos`` - 1, and its first frame, int64 (clips,) twice; None
    where this is not known, and then only means are told of videos."""

    def clips(self, step: int) -> np.ndarray:
        """How often each clip has been drawn after ``step`` steps: int64 (clips,)."""
        return self.order.times_seen(step)

    def videos(self, step: int) -> np.ndarray:
        """How many clips have been drawn from each video: int64 (videos,); places must be known."""
        assert self.places is not None
        return np.bincount(self.places[0], weights=self.clips(step)).astype(np.int64)

    def through(self, step: int) -> np.ndarray:
        """How often an average frame of each video has been seen: float64 (videos,); places must be known.

        A video as long as a clip is seen once with each clip that is drawn from it, a longer one less often.
        """
        assert self.places is not None
        return np.bincount(self.places[0], weights=self.clips(step) * self.clip_frames) / self._frames

    def told(self, step: int) -> dict[str, float]:
        """The exposures in a few numbers: ``per_clip``, ``per_video`` and ``through``.

        Of each the mean over all, and under names that end in ``_min``, ``_median``, ``_max`` those.
        """
        spread, drawn = self.order.spread(step), self.order.clips_by(step)
        told: dict[str, float] = {
            "per_clip": drawn / self.order.num_items,
            **{f"per_clip_{name}": value for name, value in spread.items()},
            "per_video": drawn / self.num_videos,
        }
        if self.places is None:
            return told | {"through": told["per_clip"] * max(1.0, float(np.mean(self.clip_frames)) / self.hop)}
        for name, counts in (("per_video", self.videos(step)), ("through", self.through(step))):
            found = {"": counts.mean(), "_min": counts.min(), "_median": np.median(counts), "_max": counts.max()}
            told |= {name + which: float(value) for which, value in found.items()}
        return told

    @cached_property
    def _frames(self) -> np.ndarray:
        """Frames of each video from the first to the last that is in a clip."""
        assert self.places is not None
        videos, starts = self.places
        first = np.full(self.num_videos, np.iinfo(np.int64).max)
        last = np.zeros(self.num_videos, np.int64)
        np.minimum.at(first, videos, starts)
        np.maximum.at(last, videos, starts + self.clip_frames)
        return last - first
