"""What curation wants to know of every frame, measured while the file is decoded.

    measures = FrameMeasures(fps=10.0)
    for frame in stream:
        measures.add(frame.image)
    measures.cut_scores()  # float32 (T,)

All is measured on small frames (64 to 127 pixels on the shorter side, a quarter of that for cuts), so that it costs
little beside decoding: 100 microseconds per frame of 64x64. What stays in memory are 14 bytes per frame and a little
per second: 15 MB for a day of video at 10 frames a second.
"""

from array import array

import numpy as np
from PIL import Image

# Frames are brought down by whole factors to at least this many pixels on the shorter side.
SMALLEST_SIDE = 64
# A pixel has changed when one of its channels differs by more than this; codecs make less of a still picture.
CODEC_NOISE = 24
# Black in limited range may come out a few levels above 0.
BLACK_LEVEL = 24
# Shorter side of the thumbnails that cut scores compare: little enough to forgive what moves a little.
THUMBNAIL = 16
# A flash lasts up to so many frames: what returns to what it was before them is no cut.
FLASH_FRAMES = 3
# Perceptual hashes and sharpness are taken so often, in seconds.
SAMPLE_EVERY = 0.25
# Rows and columns that a perceptual hash compares: 8 x 8 comparisons of neighbours.
HASH_ROWS, HASH_COLUMNS = 8, 9


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
        sampled: Numbers of the frames of which ``hashes`` and ``sharpness`` tell.
        hashes: Difference hash, 64 bits, of every sampled frame.
        sharpness: See ``sharpness_of``, of every sampled frame.
    """

    def __init__(self, fps: float, still_share: float) -> None:
        self._every = max(1, round((fps or 10) * SAMPLE_EVERY))
        self._still_share = still_share
        self.frames = 0
        self.moved, self.brightness, self.black = array("f"), array("B"), array("B")
        self.still_starts = array("q")
        self.sampled: list[int] = []
        self.hashes: list[int] = []
        self.sharpness: list[float] = []
        # Difference to the frame before, and the least of those that must be large at a cut.
        self._steps, self._scores = array("f"), array("f")
        self._thumbnails = np.empty(0, np.int16)  # the last frames, the latest first
        self._before = self._still = np.empty(0, np.uint8)

    def add(self, image: np.ndarray) -> None:
        """Measures the next frame, uint8 (H, W, 3)."""
        picture = Image.fromarray(image)
        factor = min(image.shape[:2]) // SMALLEST_SIDE
        if factor > 1:
            picture = picture.reduce(factor)
            image = np.asarray(picture)
        thumbnail = np.asarray(picture.reduce(max(1, min(image.shape[:2]) // THUMBNAIL)))
        self.brightness.append(int(thumbnail.mean()))
        # The maximum is asked for only where it can be low.
        self.black.append(int(self.brightness[-1] <= BLACK_LEVEL and image.max() <= BLACK_LEVEL))
        self._follow_stillness(image)
        self._score_cut(thumbnail)
        if self.frames % self._every == 0:
            grey = picture.convert("L")
            self.sampled.append(self.frames)
            self.hashes.append(difference_hash(grey))
            self.sharpness.append(sharpness_of(np.asarray(grey)))
        self.frames += 1

    def cut_scores(self, neighbours: int = 10, ratio: float = 2.95) -> np.ndarray:
        """How much every frame differs from those before it, 0 where it does not stand out.

        The score is a mean difference of pixels, 0 to 255, and the least of several: of the frame with each of the
        four before it, and of the one before with each of the four from it on. So a flash scores nothing at either
        end. What is less than ``ratio`` times the upper quartile of the steps around scores 0: fast motion and
        fades, whose steps are alike.

        Args:
            neighbours: Steps on either side that are looked at.
            ratio: How far a cut stands out.

        Returns:
            float32 (T,).
        """
        scores, steps = np.array(self._scores, np.float32), np.array(self._steps, np.float32)
        for frame in np.flatnonzero(scores > 0):
            around = np.concatenate([steps[max(1, frame - neighbours) : frame], steps[frame + 1 :][:neighbours]])
            usual = max(1.0, float(np.percentile(around, 75))) if len(around) else 1.0
            if scores[frame] < ratio * usual:
                scores[frame] = 0
        return scores

    def _follow_stillness(self, small: np.ndarray) -> None:
        if not self.frames:
            self.moved.append(0.0)
            self.still_starts.append(0)
            self._before = self._still = small
            return
        moved = changed_share(small, self._before)
        # The frame before may itself be the one that the still ones are compared with.
        since = moved if self._still is self._before else changed_share(small, self._still)
        self.moved.append(moved)
        if since > self._still_share:
            self.still_starts.append(self.frames)
            self._still = small
        self._before = small

    def _score_cut(self, thumbnail: np.ndarray) -> None:
        values = thumbnail.astype(np.int16)[None]
        if not self.frames:
            self._steps.append(0.0)
            self._scores.append(0.0)
            self._thumbnails = values
            return
        # differences[k]: with the frame k + 1 before.
        differences = np.abs(self._thumbnails - values).reshape(len(self._thumbnails), -1).mean(axis=1).tolist()
        self._steps.append(differences[0])
        self._scores.append(min(differences))
        for k in range(1, len(differences)):
            # The cut k frames ago lies between this frame and the one k + 1 before.
            self._scores[-1 - k] = min(self._scores[-1 - k], differences[k])
        self._thumbnails = np.concatenate([values, self._thumbnails[:FLASH_FRAMES]])


def thumbnail_of(image: np.ndarray) -> np.ndarray:
    """A frame, uint8 (H, W, 3), as cut scores and copies are judged by it: int16, shorter side of 16 to 31 pixels."""
    factor = max(1, min(image.shape[:2]) // THUMBNAIL)
    return np.asarray(Image.fromarray(image).reduce(factor)).astype(np.int16)


def changed_share(image: np.ndarray, other: np.ndarray) -> float:
    """Share of the pixels that differ by more than the noise of a codec between two uint8 (H, W, 3)."""
    # In uint8, which numpy compares many at a time.
    differs = np.maximum(image, other) - np.minimum(image, other) > CODEC_NOISE
    return float(np.count_nonzero(differs[..., 0] | differs[..., 1] | differs[..., 2])) / differs[..., 0].size


def difference_hash(grey: Image.Image) -> int:
    """64 bits: which of 8 x 9 areas of a grey picture are darker than the one to their right.

    Source: N. Krawetz, "Kind of like that", 2013 (dHash).
    """
    areas = np.asarray(grey.resize((HASH_COLUMNS, HASH_ROWS), Image.Resampling.BOX)).astype(np.int16)
    return int.from_bytes(np.packbits(areas[:, 1:] > areas[:, :-1]).tobytes(), "big")


def sharpness_of(grey: np.ndarray) -> float:
    """Share of the contrast of a uint8 (H, W) that lies in its finest detail; 0 (blurred) to about 2 (noise).

    It is the mean second difference divided by the standard deviation, so that dim pictures are no less sharp than
    bright ones; 1 for a picture of one colour, which has nothing that could be blurred.
    """
    values = grey.astype(np.int16)
    if min(values.shape) < 3 or (spread := float(values.std())) < 1:
        return 1.0
    across = np.abs(2 * values[:, 1:-1] - values[:, :-2] - values[:, 2:]).mean()
    down = np.abs(2 * values[1:-1] - values[:-2] - values[2:]).mean()
    return float(across + down) / 2 / spread
