"""The clips of videos of several frame sizes and lengths: one set of windows for each shape."""

from collections import Counter
from collections.abc import Sequence

from tokenreel.datasets.clip_store import ClipStore
from tokenreel.datasets.clip_windows import ClipWindows
from tokenreel.datasets.frame_fit import Size


def parse_size(text: str) -> Size:
    """(height, width) of ``HEIGHTxWIDTH``.

    Raises:
        ValueError: If it is something else.
    """
    height, cross, width = text.partition("x")
    if not (cross and height.isdecimal() and width.isdecimal() and int(height) and int(width)):
        raise ValueError(f"frame size {text!r}, expected HEIGHTxWIDTH in pixels, such as 48x80")
    return int(height), int(width)


def check_lengths(longest: int, others: Sequence[int]) -> list[int]:
    """Frames of clips, the longest first.

    Raises:
        ValueError: If the others are not all shorter, or one is there twice.
    """
    lengths = [longest, *sorted(others, reverse=True)]
    if len(set(lengths)) < len(lengths) or lengths[0] != max(lengths) or lengths[-1] < 1:
        raise ValueError(f"shorter_clips {tuple(others)}: expected different numbers of frames below {longest}")
    return lengths


def windows_by_shape(store: ClipStore, split: str, lengths: Sequence[int], hop: int = 1) -> list[ClipWindows]:
    """The clips of a split: every video gives the longest clips that it has frames for.

    Args:
        store: Of videos of any sizes.
        split: Which videos.
        lengths: Frames of a clip, from :func:`check_lengths`.
        hop: Frames between the starts of neighbouring clips.

    Returns:
        One for each shape that has clips, the store's first size and the longest clips before the others.

    Raises:
        ValueError: If no video is long enough.
    """
    sizes = {record.size: record for record in store.split(split)}
    ordered = sorted(sizes, key=lambda size: size != store.first_size)  # the rest as they come
    found = []
    for size in ordered:
        frames = [record.frames for record in store.split(split) if record.size == size]
        for below, length in zip([None, *lengths], lengths, strict=False):
            if any(length <= count and (below is None or count < below) for count in frames):
                found.append(ClipWindows(store, split, length, hop, size, below))
    return found or [ClipWindows(store, split, lengths[-1], hop)]


def left_out_in_words(windows: ClipWindows) -> str:
    """How many videos of their split clips leave out because of their shape; empty if none."""
    height, width = windows.size
    videos, split = windows.store.split(windows.records[0].split), windows.records[0].split
    others = Counter(record.size for record in videos if record.size != windows.size)
    parts = [f"{count} of {tall}x{wide}" for (tall, wide), count in others.items()]
    if short := sum(record.size == windows.size and record.frames < windows.clip_frames for record in videos):
        parts.append(f"{short} of less than {windows.clip_frames} frames")
    if not parts:
        return ""
    return (
        f"clips of {windows.clip_frames} frames of {height}x{width} from {len(windows.records)} videos of split "
        f"{split!r}; left out are {' and '.join(parts)}"
    )


def shape_name(windows: ClipWindows) -> str:
    """Frames, height and width of clips, as part of a folder's name."""
    return "x".join(map(str, (windows.clip_frames, *windows.size)))


def shapes_in_words(groups: Sequence[ClipWindows]) -> str:
    """How many clips there are of each shape."""
    parts = (
        f"{part.clip_frames} frames of {part.size[0]}x{part.size[1]} ({len(part)} of {part.num_videos} videos)"
        for part in groups
    )
    return ", ".join(parts)
