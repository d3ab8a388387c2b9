"""Copies of videos, found by what they show: re-encoded, scaled, or cut out of a longer one.

    seen = SeenVideos()
    original = seen.copy_of(samples, frames)  # the key of one that shows the same, or None
    seen.add("my_video", samples, frames)

Difference hashes of four frames a second lead to candidates; their frames decide. A copy must be nearer to its original
than the original is to itself at other times. So two recordings of one game, which share nearly every pixel, are no
copies, while hashes alone take 20 recordings of Breakout for one. What hardly moves is only found where the copy is
nearly exact.
"""

from array import array
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tokenreel.datasets.frame_measures import SMALLEST_SIDE, thumbnails_of

# Bits of 64 by which hashes of the same picture may differ: 0.2 on average after an ordinary re-encoding, 5.6 after a
# very heavy one; 34 between unrelated videos.
NEAR = 8
# A hash is looked up by each of its four quarters; what differs in no more than three bits shares one, and of several
# frames of a copy one nearly always does.
QUARTERS = 4
# So many videos may share a quarter; what more have in common (black, a logo, a game's background) tells nothing.
MOST_IN_BUCKET = 64
# One frame of a fade or an explosion may look like one of another.
FEWEST_VOTES = 2
# So many candidates are looked at, those with most hashes in common first.
MOST_CANDIDATES = 8
# So many frames of a candidate are compared, and so many places before and after the one that the hashes say.
COMPARED_FRAMES = 8
SLACK = 3
# How much nearer than to itself at other times, where hashes tell the place, and where it is guessed.
NEARER = 0.4
NEARER_AT_A_GUESS = 0.2
# So many of the frames compared must be near.
SHARE_NEAR = 0.75
# Where so many of the frames compared are not near, too few others are left (of up to nine; the quantile interpolates).
FEW_FRAMES = 3
# A hash with fewer bits of one kind (black, fog, a fade) tells too little to lead anywhere.
FEWEST_BITS = 4
# Share of the shorter one that both must show.
OVERLAP = 0.5

Frames = Callable[[Sequence[int]], np.ndarray]
"""Gives frames of a video by their numbers: uint8 (N, H, W, 3)."""


class _Thumbnails:
    """Thumbnails of a video, each made once."""

    def __init__(self, frames: Frames, length: int) -> None:
        self._frames, self.length = frames, length
        self._made: dict[int, np.ndarray] = {}

    def of(self, numbers: np.ndarray) -> np.ndarray:
        """int16 (N, h, w, 3) of these frames."""
        wanted: list[int] = numbers.tolist()
        if new := sorted({number for number in wanted if number not in self._made}):
            frames = self._frames(new)
            every = max(1, min(frames.shape[1:3]) // SMALLEST_SIDE)
            self._made.update(zip(new, thumbnails_of(frames[:, ::every, ::every]), strict=True))
        return np.stack([self._made[number] for number in wanted])


@dataclass(frozen=True)
class _Seen:
    key: str
    length: int
    frames: Frames


class SeenVideos:
    """What has been seen so far, in 24 bytes per sampled frame and a few hundred per video."""

    def __init__(self) -> None:
        self._videos: list[_Seen] = []
        self._of, self._at, self._hashes = array("q"), array("q"), array("Q")
        self._buckets: dict[int, list[int]] = {}

    def add(self, key: str, samples: Sequence[tuple[int, int]], length: int, frames: Frames) -> None:
        """Remembers a video.

        Args:
            key: What ``copy_of`` is to answer.
            samples: Number and difference hash of frames, about four a second.
            length: Number of its frames.
            frames: Gives them; is called later, again and again.
        """
        number = len(self._videos)
        self._videos.append(_Seen(key, length, frames))
        for frame, value in _telling(samples):
            entry = len(self._hashes)
            self._of.append(number)
            self._at.append(frame)
            self._hashes.append(value)
            for quarter in _quarters(value):
                bucket = self._buckets.setdefault(quarter, [])
                # Once per video: its still scenes would fill the bucket.
                if len(bucket) < MOST_IN_BUCKET and not (bucket and self._of[bucket[-1]] == number):
                    bucket.append(entry)

    def copy_of(self, samples: Sequence[tuple[int, int]], length: int, frames: Frames) -> str | None:
        """The key of a video seen before that shows the same for half of the shorter one, or None.

        Args:
            samples: As for ``add``.
            length: Number of its frames.
            frames: Gives them.
        """
        votes: Counter[tuple[int, int]] = Counter()
        for frame, value in _telling(samples):
            # dict.fromkeys and not a set, so that ties are decided the same way every time.
            entries = dict.fromkeys(e for quarter in _quarters(value) for e in self._buckets.get(quarter, ()))
            for entry in entries:
                if (self._hashes[entry] ^ value).bit_count() <= NEAR:
                    votes[self._of[entry], self._at[entry] - frame] += 1
        mine, others = _Thumbnails(frames, length), dict[int, _Thumbnails]()
        for (number, ahead), nearer in self._places(votes, length).items():
            seen = self._videos[number]
            theirs = others.setdefault(number, _Thumbnails(seen.frames, seen.length))
            if _shows_the_same(mine, theirs, ahead, nearer):
                return seen.key
        return None

    def _places(self, votes: Counter[tuple[int, int]], length: int) -> dict[tuple[int, int], float]:
        """Where to look: which video and how far ahead it is; and how near it must be."""
        places = {place: NEARER for place, hits in votes.most_common(MOST_CANDIDATES) if hits >= FEWEST_VOTES}
        # Where the scene stands still behind what moves, all frames have one hash, and it does not tell the place:
        # then the two begin or end together, or are not found.
        by_video = Counter[int]()
        for (number, _), hits in votes.items():
            by_video[number] += hits
        for number, hits in by_video.most_common(MOST_CANDIDATES):
            if hits >= FEWEST_VOTES:
                for ahead in (0, self._videos[number].length - length):
                    places.setdefault((number, ahead), NEARER_AT_A_GUESS)
        return places


def _telling(samples: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    return [(frame, value) for frame, value in samples if FEWEST_BITS <= value.bit_count() <= 64 - FEWEST_BITS]


def _quarters(value: int) -> list[int]:
    bits = 64 // QUARTERS
    return [number << bits | (value >> number * bits) & ((1 << bits) - 1) for number in range(QUARTERS)]


def _shows_the_same(mine: _Thumbnails, theirs: _Thumbnails, ahead: int, nearer: float) -> bool:
    """Whether most frames t are frame t + ``ahead`` of the other, give or take SLACK, where both have frames."""
    start, stop = max(0, -ahead), min(mine.length, theirs.length - ahead)
    if stop - start < OVERLAP * min(mine.length, theirs.length):
        return False
    places = np.unique(np.linspace(start, stop - 1, COMPARED_FRAMES).round().astype(int))
    images = mine.of(places)
    if images.shape[1:] != theirs.of(places[:1] + ahead).shape[1:]:
        return False  # cut to frames of another shape, they show other parts of the picture
    # Neighbours are left out, since a frame is near to the next one.
    early, late = np.nonzero(places - places[:, None] > (stop - start) / 3)
    apart = _distances(images[early], images[late])
    limit = nearer * (float(apart.mean()) if len(apart) else 0.0)
    middle = max(0, len(places) // 2 - 1)
    few = places[middle : middle + FEW_FRAMES]
    for shift in _shifts_by_few(mine, theirs, few, ahead, limit):
        both = (places + shift >= 0) & (places + shift < theirs.length)
        if 2 * both.sum() < len(places):
            continue
        if np.quantile(_distances(images[both], theirs.of(places[both] + shift)), SHARE_NEAR) <= limit:
            return True
    return False


def _shifts_by_few(mine: _Thumbnails, theirs: _Thumbnails, few: np.ndarray, ahead: int, limit: float) -> list[int]:
    """By how much the other may be ahead, as far as these frames say: nearly always nothing is left to look at."""
    shifts = range(ahead - SLACK, ahead + SLACK + 1)
    within = [shift for shift in shifts if few[0] + shift >= 0 and few[-1] + shift < theirs.length]
    untold = [shift for shift in shifts if shift not in within]
    if len(few) < FEW_FRAMES or not within:
        return list(shifts)
    later = theirs.of((few + np.array(within)[:, None]).ravel())
    distances = _distances(np.concatenate([mine.of(few)] * len(within)), later).reshape(len(within), -1)
    return untold + [within[row] for row in np.flatnonzero(np.any(distances <= limit, axis=1))]


def _distances(images: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Between pairs of thumbnails: int16 (N, h, w, 3) twice -> float (N,)."""
    return np.abs(images - others).mean(axis=(1, 2, 3))
