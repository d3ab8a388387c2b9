"""Clips of equal length, cut from the videos of a clip store.

windows = ClipWindows(store, "train", clip_frames=16)
windows[0]  # uint8 (16, 64, 64, 3)
"""

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from tokenreel.datasets.clip_record import CHANNELS, ClipRecord
from tokenreel.datasets.clip_store import ClipStore
from tokenreel.datasets.frame_fit import Size

SAID = ("label", "caption", "licence", "source")
"""What the record of a clip takes over from that of its video."""


class ClipWindows:
    """All clips of ``clip_frames`` consecutive frames in one split, one at each start divisible by ``hop``.

    A clip store may hold videos of several frame sizes; these are those of one of them (see ``clip_shapes`` for all).

    Attributes:
        store: The clip store.
        size: (height, width) of the frames: the one asked for, else the store's first.
        records: The videos of that size that are long enough, in the order of the store.
        clip_frames: Frames per clip.
        hop: Frames between the starts of neighbouring clips.

    Args:
        store: The clip store.
        split: Which videos.
        clip_frames: See above.
        hop: See above.
        size: See above.
        below: Only videos with fewer frames than this.

    Raises:
        ValueError: If no such video of the split is long enough.
    """

    def __init__(
        self,
        store: ClipStore,
        split: str,
        clip_frames: int,
        hop: int = 1,
        size: Size | None = None,
        below: int | None = None,
    ) -> None:
        if clip_frames < 1 or hop < 1:
            raise ValueError(f"clip_frames {clip_frames} and hop {hop}, expected at least 1 each")
        videos = store.split(split)
        self.store, self.clip_frames, self.hop, self.size = store, clip_frames, hop, size or store.first_size
        lengths = range(clip_frames, below or sys.maxsize)
        self.records = [record for record in videos if record.frames in lengths and record.size == self.size]
        if not self.records:
            raise ValueError(_too_short(store, split, videos, clip_frames, self.size))
        counts = [(record.frames - clip_frames) // hop + 1 for record in self.records]
        self._ends = np.cumsum(counts)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def location(self, index: int) -> tuple[ClipRecord, int]:
        """The video and the first frame of a clip.

        Raises:
            IndexError: If there is no clip with this number.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"clip {index}, expected 0 to {len(self) - 1}")
        video = int(np.searchsorted(self._ends, index, side="right"))
        before = int(self._ends[video - 1]) if video else 0
        return self.records[video], (int(index) - before) * self.hop

    @property
    def num_videos(self) -> int:
        """Videos that the clips are of."""
        return len(self.records)

    def places_of_clips(self) -> tuple[np.ndarray, np.ndarray]:
        """Of every clip the place of its video in ``records``, and its first frame: int64 (clips,) twice."""
        counts = np.diff(self._ends, prepend=0)
        begins = np.repeat(self._ends - counts, counts)
        return np.repeat(np.arange(len(counts)), counts), (np.arange(len(begins)) - begins) * self.hop

    def record(self, index: int, later: int = 0) -> dict[str, Any]:
        """What is known about one clip: its video, its place in it, and what the user said about it.

        Args:
            index: Number of the clip.
            later: Frames by which it begins later than that one.

        Returns:
            "video", "start", "fps"; "label", "caption", "licence", "source", "actions" (``actions[t]`` is what was
            done after frame t of the clip) and "action_names" where they are known.
        """
        video, start = self.location(index)
        start += later
        record: dict[str, Any] = {"video": video.key, "start": start, "fps": video.fps}
        record |= {name: value for name in SAID if (value := getattr(video, name)) is not None}
        if video.actions is not None:
            record["actions"] = video.actions[start : start + self.clip_frames]
            record["action_names"] = video.action_names
        return record

    def __getitem__(self, index: int) -> np.ndarray:
        """One clip, uint8 (T, H, W, 3)."""
        record, start = self.location(index)
        return self.store.frames(record, start, start + self.clip_frames)

    def batch(self, ids: Sequence[int] | np.ndarray) -> np.ndarray:
        """Several clips, uint8 (B, T, H, W, 3)."""
        height, width = self.size
        # Copied once, straight into place: np.stack over clips took 15 times as long.
        clips = np.empty((len(ids), self.clip_frames, height, width, CHANNELS), np.uint8)
        for clip, index in zip(clips, ids, strict=True):
            record, start = self.location(int(index))
            clip[:] = self.store.view(record, start, start + self.clip_frames)
        return clips


def _too_short(store: ClipStore, split: str, videos: list[ClipRecord], clip_frames: int, size: Size) -> str:
    if not videos:
        splits = ", ".join(sorted({record.split for record in store.records}))
        return f"no videos in split {split!r} of {store.path}, expected one of {splits}; add a folder {split}"
    fit = [record for record in videos if record.size == size]
    if not fit:
        height, width = size
        if size == store.first_size:
            remedy = "name a size first that more of them are nearest to (--size, --width)"
        else:
            remedy = "use " + " or ".join(sorted({f"{record.height}x{record.width}" for record in videos}))
        return f"no video of split {split!r} has frames of {height}x{width}, expected some; {remedy}"
    longest = max(fit, key=lambda record: record.frames)
    # Clips are cut in multiples of the tokenizer's time stride, most often 4.
    use = longest.frames // 4 * 4 or longest.frames
    return (
        f"the longest video of split {split!r} has {longest.frames} frames at {longest.fps:g} fps, "
        f"expected at least {clip_frames}; use --clip-frames {use}, a higher --fps, or longer videos"
    )
