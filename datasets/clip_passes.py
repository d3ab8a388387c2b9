"""Several passes over the clips of a split, each clip a little different: later, mirrored, or cut closer.

passes = ClipPasses(windows, Augmentation(passes=4, flips=True, crops=0.8))
passes[len(windows) + 3]  # clip 3 as the second pass has it
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from tokenreel.datasets.clip_windows import ClipWindows

SAME = "same"


@dataclass(frozen=True)
class Augmentation:
    """How often training clips are tokenized, and how they differ. The first pass is always as it is."""

    passes: int = 1
    """Times that each training clip is tokenized; from the second on it begins up to --hop frames later, by chance,
    and is changed as the options below say. Validation clips are tokenized once and never changed."""
    flips: bool = False
    """Mirror every other clip of the later passes, left to right."""
    crops: float = 1.0
    """Smallest share of height and width that clips of the later passes are cut to, by chance, and enlarged from."""
    augmentation_seed: int = 0
    """Seed of what chance decides."""
    mirrored_actions: tuple[str, ...] = ()
    """What actions are in a mirror, as LEFT:RIGHT per pair of names; or same, if they mean the same there."""

    def __post_init__(self) -> None:
        if self.passes < 1 or not 0.1 <= self.crops <= 1 or not 0 <= self.augmentation_seed < 2**32:
            raise ValueError(
                f"passes {self.passes}, crops {self.crops}, augmentation_seed {self.augmentation_seed}: expected at "
                "least 1 pass, crops of 0.1 to 1, a seed of 0 to 2**32 - 1"
            )
        if self.passes == 1 and (self.flips or self.crops < 1):
            raise ValueError(
                "flips and crops are for later passes, got passes 1, expected at least 2 (--passes 2); the first pass "
                "is as it is"
            )
        pairs = [pair.split(":") for pair in self.mirrored_actions if self.mirrored_actions != (SAME,)]
        names = [name for pair in pairs for name in pair]
        if any(len(pair) != 2 for pair in pairs) or len(set(names)) != len(names):
            raise ValueError(
                f"mirrored_actions {' '.join(self.mirrored_actions)}: expected pairs such as LEFT:RIGHT, each name "
                f"once, or {SAME}"
            )

    def mirror(self, names: Sequence[str] | None) -> list[int] | None:
        """For each discrete action, which one it is in a mirror; None if every action stays what it is.

        Raises:
            ValueError: If that was not said, or of actions that there are not.
        """
        if self.mirrored_actions == (SAME,):
            return None
        pairs, known = [pair.split(":") for pair in self.mirrored_actions], list(names or ())
        if not pairs:
            raise ValueError(
                f"the clips have actions ({', '.join(known) or 'numbers'}), which may be others in a mirror; say which "
                f"with --mirrored-actions LEFT:RIGHT, or {SAME}, or leave --flips out"
            )
        if unknown := [name for pair in pairs for name in pair if name not in known]:
            raise ValueError(
                f"mirrored_actions: {unknown[0]!r} is no action, expected some of "
                f"{', '.join(known) or 'none, since they are numbers'}"
            )
        swapped = dict(pairs) | {right: left for left, right in pairs}
        return [known.index(swapped.get(name, name)) for name in known]


class ClipPasses:
    """The clips of a split, once or several times; each is a function of the seed and its number alone.

    Attributes:
        windows: The clips as they are.
        augmentation: How they differ.

    Raises:
        ValueError: If clips are to be mirrored, and it was not said what their actions are then.
    """

    def __init__(self, windows: ClipWindows, augmentation: Augmentation) -> None:
        self.windows, self.augmentation = windows, augmentation
        for record in windows.records if augmentation.flips else ():
            if record.actions is not None:
                augmentation.mirror(record.action_names)

    def __len__(self) -> int:
        return len(self.windows) * self.augmentation.passes

    def told(self) -> dict[str, Any]:
        """What the manifest says of the passes; nothing if there is but one."""
        if self.augmentation.passes == 1:
            return {}
        return {
            "augmentation": {**asdict(self.augmentation), "mirrored_actions": [*self.augmentation.mirrored_actions]}
        }

    def batch(self, ids: Sequence[int]) -> np.ndarray:
        """Several clips, uint8 (B, T, H, W, 3)."""
        if all(index < len(self.windows) for index in ids):
            return self.windows.batch(ids)
        return np.stack([self[index] for index in ids])

    def __getitem__(self, index: int) -> np.ndarray:
        """One clip, uint8 (T, H, W, 3)."""
        video, start = self.windows.location(index % len(self.windows))
        change = self._change(index)
        begin = start + change.later
        frames = self.windows.store.frames(video, begin, begin + self.windows.clip_frames)
        if change.crop is not None:
            frames = _cropped(frames, change.crop)
        return np.ascontiguousarray(frames[:, :, ::-1]) if change.flipped else frames

    def record(self, index: int) -> dict[str, Any]:
        """What is known about one clip, and how it was changed.

        Returns:
            As :meth:`ClipWindows.record`, of where the clip really begins; "pass" from the second pass on, "flipped"
            where it was mirrored, "crop" (top, left, height, width in pixels) where it was cut.
        """
        window, change = index % len(self.windows), self._change(index)
        record = self.windows.record(window, later=change.later)
        if index < len(self.windows):
            return record
        record["pass"] = index // len(self.windows)
        if change.crop is not None:
            record["crop"] = list(change.crop)
        if change.flipped:
            record["flipped"] = True
            if "actions" in record and (swap := self.augmentation.mirror(record.get("action_names"))):
                record["actions"] = [swap[action] for action in record["actions"]]
        return record

    def _change(self, index: int) -> "_Change":
        number, window = divmod(index, len(self.windows))
        if number == 0:
            return _Change()
        video, start = self.windows.location(window)
        # Raw numbers, which numpy promises for ever; each is turned into a share of 1.
        raw = np.random.PCG64([self.augmentation.augmentation_seed, number, window]).random_raw(5)
        shares = (raw >> np.uint64(11)).astype(np.float64) / 2**53
        room = min(self.windows.hop, video.frames - self.windows.clip_frames - start + 1)
        crop = None
        if self.augmentation.crops < 1:
            share = self.augmentation.crops + (1 - self.augmentation.crops) * shares[2]
            height, width = max(1, round(video.height * share)), max(1, round(video.width * share))
            top, left = int(shares[3] * (video.height - height + 1)), int(shares[4] * (video.width - width + 1))
            crop = (top, left, height, width)
        return _Change(int(shares[0] * room), self.augmentation.flips and shares[1] < 0.5, crop)


class _Change(NamedTuple):
    """How many frames later, whether mirrored, and which part (top, left, height, width)."""

    later: int = 0
    flipped: bool = False
    crop: tuple[int, int, int, int] | None = None


def _cropped(frames: np.ndarray, crop: tuple[int, int, int, int]) -> np.ndarray:
    """That part of every frame, enlarged to the whole size."""
    top, left, height, width = crop
    size, box = frames.shape[2:0:-1], (left, top, left + width, top + height)
    enlarged = (Image.fromarray(frame).resize(size, Image.Resampling.BICUBIC, box) for frame in frames)
    return np.stack([np.asarray(frame) for frame in enlarged])
