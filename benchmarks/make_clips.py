"""Cut a folder of videos into the clips that the tokenizer benchmarks read.

    python benchmarks/make_clips.py --data my/videos --size 128 --out clips128.npz

The npz holds ``train`` and ``val``, uint8 (N, 16, size, size, 3). Both are drawn evenly over all videos of their
split, so that a long video does not drown the others; no video is in both.
"""

import argparse
from pathlib import Path

import numpy as np

from tokenreel.datasets.clip_windows import ClipWindows
from tokenreel.datasets.data_source import DataSettings, open_data

CLIP_FRAMES = 16


def draw(windows: ClipWindows, count: int, seed: int) -> np.ndarray:
    """Clips uint8 (count, T, H, W, 3): videos in turn, each time another place."""
    random = np.random.default_rng(seed)
    by_video: dict[str, list[int]] = {}
    for clip in random.permutation(len(windows)).tolist():
        by_video.setdefault(windows.location(clip)[0].key, []).append(clip)
    turns = [clip for turn in range(count) for places in by_video.values() for clip in places[turn : turn + 1]]
    return windows.batch(random.permutation(turns[:count]))


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of videos")
    parser.add_argument("--size", type=int, default=64, help="height and width in pixels")
    parser.add_argument("--fps", type=float, default=10.0, help="frames per second; 0 keeps each video's own")
    parser.add_argument("--train", type=int, default=512, help="training clips")
    parser.add_argument("--val", type=int, default=64, help="validation clips")
    parser.add_argument("--cache", type=Path, default=Path("runs/clips"), help="folder of decoded videos")
    parser.add_argument("--out", type=Path, required=True, help="npz file")
    arguments = parser.parse_args()
    settings = DataSettings(data=arguments.data, size=arguments.size, fps=arguments.fps, cache=arguments.cache)
    store = open_data(settings)
    train, val = (ClipWindows(store, split, CLIP_FRAMES) for split in ("train", "val"))
    clips = {"train": draw(train, arguments.train, seed=0), "val": draw(val, arguments.val, seed=1)}
    np.savez_compressed(arguments.out, **clips)  # type: ignore[arg-type]
    print(f"{arguments.out}: " + ", ".join(f"{name} {array.shape}" for name, array in clips.items()))


if __name__ == "__main__":
    main()
