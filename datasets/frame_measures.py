"""What curation wants to know of every frame, measured while the file is decoded.

    measures = FrameMeasures(fps=10.0, still_share=0.0003)
    measures.add(frames)  # uint8 (N, H, W, 3), again and again: the next few frames of the video
    measures.cut_scores(25.0)  # float32 (T,)

All is measured on small frames (64 to 127 pixels on the shorter side, a quarter of that for cuts) and on several at
once, so that it costs little beside decoding: about 50 microseconds per frame of 64x64. What stays in memory are 14
bytes per frame and a little per second: 15 MB for a day of video at 10 frames a second.
"""

from array import array
from functools import cache

import numpy as np

# Of larger frames every second, third, … pixel is looked at, so that the shorter side has at least this many.
SMALLEST_SIDE = 64
# A pixel has changed when one of its channels differs by more than this; codecs make less of a still picture.
CODEC_NOISE = 24
# Black in limited range may come out a few levels above 0.
BLACK_LEVEL = 24
# Shorter side of the thumbnails that cut scores compare: little enough to forgive what moves a little.
THUMBNAIL = 16
# A flash lasts up to so many frames: what returns to what it was before them is no cut.
FLASH_FRAMES = 3
# Perceptual hashes are taken so often, in seconds, and sharpness with every fourth.
HASH_EVERY = 0.25
HASHES_PER_SHARPNESS = 4
# Rows and columns that a perceptual hash compares: 8 x 8 comparisons of neighbours.
HASH_ROWS, HASH_COLUMNS = 8, 9
# Assumed where the rate is not known beforehand.
USUAL_RATE = 25.0
# How many steps on either side a cut is compared with, and by how much it stands out of them.
NEIGHBOURS = 10
STANDS_OUT = 2.95


class FrameMeasures:
    """Measures frames one after another.

    Args:
        fps: Frames per second, for the distance of the sampled ones; 0 if unknown.
        still_share: Share of the pixels that may change in what counts as still.

    Attributes:
        frames: How many were added.
        moved: Share of the pixels that changed from the frame before, per frame; 0 for the first.
        brightness: Mean level per frame, 0 to 255.
        black: 1 for each frame without a pixel above ``BLACK_LEVEL``, else 0.
        still_starts: Frames at which something has changed since the last such frame (the first is 0): from one
            to the next nothing does, not even slowly.
        sampled: Numbers of the frames of which ``hashes`` tell.
        hashes: Difference hash, 64 bits, of every sampled frame.
        sharpness: See ``sharpness_of``, of every fourth sampled frame.
    """

    def __init__(self, fps: float, still_share: float) -> None:
        self._every = max(1, round((fps or USUAL_RATE) * HASH_EVERY))
        self._still_share = still_share
        self.frames = 0
        self.moved, self.brightness, self.black = array("f"), array("B"), array("B")
        self.still_starts = array("q")
        self.sampled: list[int] = []
        self.hashes: list[int] = []
        self.sharpness: list[float] = []
        # Difference to the frame before, and the least of those that must be large at a cut.
        self._steps, self._scores = array("f"), array("f")
        self._before = self._still = np.empty(0, np.uint8)
        self._thumbnails = np.empty(0, np.int16)  # of the last frames

    def add(self, frames: np.ndarray) -> None:
        """Measures the next frames, uint8 (N, H, W, 3) of the same size as those before."""
        every = max(1, min(frames.shape[1:3]) // SMALLEST_SIDE)
        small = np.ascontiguousarray(frames[:, ::every, ::every])
        thumbnails = thumbnails_of(small)
        brightness = thumbnails.reshape(len(small), -1).mean(axis=1).astype(np.uint8)
        self.brightness.frombytes(brightness.tobytes())
        # The maximum is asked for only where it can be low.
        dark = (
            int(level) <= BLACK_LEVEL and image.max() <= BLACK_LEVEL
            for level, image in zip(brightness, small, strict=True)
        )
        self.black.extend(map(int, dark))
        self._follow_stillness(small)
        self._score_cuts(thumbnails)
        for number in range(-self.frames % self._every, len(small), self._every):
            if len(self.hashes) % HASHES_PER_SHARPNESS == 0:
                self.sharpness.append(sharpness_of(small[number]))
            self.sampled.append(self.frames + number)
            self.hashes.append(difference_hash(thumbnails[number]))
        self.frames += len(small)

    def cut_scores(self, least: float) -> np.ndarray:
        """How much every frame differs from those before it, 0 where it does not stand out.

        The score is a mean difference of pixels, 0 to 255, and the least of several: of the frame with each of the
        four before it, and of the one before with each of the four from it on. So a flash scores nothing at either
        end. What is less than ``STANDS_OUT`` times the upper quartile of the steps around scores 0: fast motion and
        fades, whose steps are alike.

        Args:
            least: Scores below this are given as 0.

        Returns:
            float32 (T,).
        """
        scores, steps = np.array(self._scores, np.float32), np.array(self._steps, np.float32)
        scores[scores < max(least, 1e-9)] = 0
        for frame in np.flatnonzero(scores):
            around = np.concatenate([steps[max(1, frame - NEIGHBOURS) : frame], steps[frame + 1 :][:NEIGHBOURS]])
            usual = max(1.0, float(np.percentile(around, 75))) if len(around) else 1.0
            if scores[frame] < STANDS_OUT * usual:
                scores[frame] = 0
        return scores

    def _follow_stillness(self, small: np.ndarray) -> None:
        if not self.frames:
            self.still_starts.append(0)
            self._before = self._still = small[0]
        first = changed_shares(small[:1], self._before[None])
        shares = np.concatenate([first, changed_shares(small[1:], small[:-1])]).tolist()
        self.moved.extend(shares)
        number, ahead, moving = 0, 1, self._still is self._before
        while number < len(small):
            # The frame before may itself be the one that the still ones are compared with. Else several are compared
            # at once, more and more while nothing moves.
            still = [shares[number]] if moving else changed_shares(small[number : number + ahead], self._still[None])
            over = np.flatnonzero(np.asarray(still) > self._still_share)
            moving = len(over) > 0
            number += int(over[0]) if moving else len(still)
            ahead = 1 if moving else 2 * ahead
            if moving:
                self.still_starts.append(self.frames + number)
                self._still = small[number]
                number += 1
        # Copies, since the others of these frames are not needed any more.
        self._before = small[-1].copy()
        self._still = self._before if moving else self._still.copy()

    def _score_cuts(self, thumbnails: np.ndarray) -> None:
        new, first = len(thumbnails), self.frames
        known = np.concatenate([self._thumbnails, thumbnails]) if first else thumbnails
        old = len(known) - new
        steps = np.zeros(new, np.float32)
        scores = np.full(len(known), np.inf, np.float32)
        scores[:old] = self._scores[first - old :]
        for lag in range(1, FLASH_FRAMES + 2):
            # The last of each pair is new.
            begin = max(old, lag)
            if begin >= len(known):
                break
            apart = np.abs(known[begin:] - known[begin - lag : len(known) - lag])
            differences = apart.reshape(len(apart), -1).mean(axis=1).astype(np.float32)
            if lag == 1:
                steps[begin - old :] = differences
            # At a cut before the later one, and at a cut after the earlier one, it is large.
            for shift in (0, lag - 1):
                cuts = scores[begin - shift : len(known) - shift]
                np.minimum(cuts, differences, out=cuts)
        if not first:
            scores[0] = 0.0
        del self._scores[first - old :]
        self._scores.frombytes(scores.tobytes())
        self._steps.frombytes(steps.tobytes())
        self._thumbnails = known[-FLASH_FRAMES - 1 :].copy()


def thumbnails_of(frames: np.ndarray) -> np.ndarray:
    """Frames as cuts and copies are judged by them: means of whole squares of pixels.

    Args:
        frames: uint8 (N, H, W, 3).

    Returns:
        int16 (N, h, w, 3), the smaller of h and w 16 to 31, or as it was if it was less.
    """
    side = max(1, min(frames.shape[1:3]) // THUMBNAIL)
    height, width = (length // side * side for length in frames.shape[1:3])
    whole = frames[:, :height, :width]
    # Slices are added one by one: numpy's mean over two of five axes takes ten times as long.
    values = whole.astype(np.uint16)  # sums of at most 7 * 7 * 255
    rows = values[:, ::side].copy()
    for row in range(1, side):
        rows += values[:, row::side]
    # One channel at a time, whose rows numpy takes in one go; three values at a time take it three times as long.
    sums = np.empty((3, len(frames), height // side, width // side), np.uint16)
    for channel, plane in enumerate(sums):
        plane[:] = rows[:, :, ::side, channel]
        for column in range(1, side):
            plane += rows[:, :, column::side, channel]
    return np.ascontiguousarray(np.moveaxis(sums // (side * side), 0, -1)).astype(np.int16)


def changed_shares(frames: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Share of the pixels that differ by more than the noise of a codec, between pairs of frames.

    Args:
        frames: uint8 (N, H, W, 3).
        others: uint8 (N, H, W, 3).

    Returns:
        float (N,).
    """
    # In uint8 and all channels in one row, which numpy compares many at a time.
    differs = np.maximum(frames, others)
    differs -= np.minimum(frames, others)
    pixels = frames.shape[1] * frames.shape[2]
    row = (differs > CODEC_NOISE).reshape(len(frames), 3 * pixels)
    changed = row[:, :-2] | row[:, 1:-1]
    changed |= row[:, 2:]
    changed &= _first_channels(3 * pixels - 2)
    return np.array([np.count_nonzero(own) for own in changed]) / pixels


@cache
def _first_channels(values: int) -> np.ndarray:
    """Which of so many values are the first of a pixel: bool (values,)."""
    return np.arange(values) % 3 == 0


def difference_hash(thumbnail: np.ndarray) -> int:
    """64 bits: which of 8 x 9 areas of a thumbnail, int16 (h, w, 3), are darker than the one to their right.

    Source: N. Krawetz, "Kind of like that", 2013 (dHash).
    """
    rows, columns = _pooling(*thumbnail.shape[:2])
    areas = rows @ thumbnail.sum(axis=2, dtype=np.float32) @ columns
    # A level and a half over three channels, so that plain areas have no bits.
    return int.from_bytes(np.packbits(areas[:, 1:] > areas[:, :-1] + 1.5).tobytes(), "big")


@cache
def _pooling(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Matrices that make means of areas: (8, height) and (width, 9)."""

    def means(areas: int, length: int) -> np.ndarray:
        """Each row says how much of each pixel lies in an area, and sums to 1."""
        edges = np.linspace(0, length, areas + 1)[:, None]
        inside = np.minimum(edges[1:], np.arange(1, length + 1)) - np.maximum(edges[:-1], np.arange(length))
        return (inside.clip(0) * areas / length).astype(np.float32)

    return means(HASH_ROWS, height), means(HASH_COLUMNS, width).T


def sharpness_of(image: np.ndarray) -> float:
    """Share of the contrast of a frame, uint8 (H, W, 3), that lies in its finest detail.

    It is the mean second difference divided by the standard deviation, so that dim pictures are no less sharp than
    bright ones: 0 (blurred) to about 2 (noise), and 1 for a picture of one colour, which cannot be blurred.
    """
    # Green is most of what is seen.
    values = image[..., 1].astype(np.int16)
    if min(values.shape) < 3 or (spread := float(values.std())) < 1:
        return 1.0
    across = np.abs(2 * values[:, 1:-1] - values[:, :-2] - values[:, 2:]).mean()
    down = np.abs(2 * values[1:-1] - values[:-2] - values[2:]).mean()
    return float(across + down) / 2 / spread
