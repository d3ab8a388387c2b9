"""A small clip store with a few videos of a larger one, to try on it what will be done with the whole."""

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np

from tokenreel.datasets.clip_record import CLIPS_FILE, FRAMES_FILE, STORE_FILE, ClipRecord, write_lines
from tokenreel.datasets.clip_store import ClipStore


def write_store_sample(store: ClipStore, folder: Path, frames: int, at_once: int, clip_frames: int) -> ClipStore:
    """Write a clip store with so much of every split that a training on it costs what one on the whole would.

    The video with the longest caption is in it, since every clip pays for that one.

    Args:
        store: To take from.
        folder: New folder for it.
        frames: Frames of each split, or all there are.
        at_once: Most frames of one video.
        clip_frames: Videos that are shorter are left out.
    """
    folder.mkdir(parents=True)
    kept: list[ClipRecord] = []
    with (folder / FRAMES_FILE).open("wb") as file:
        for record in _chosen(store, frames, at_once, clip_frames):
            length = min(record.frames, at_once)
            actions = None if record.actions is None else record.actions[:length]
            kept.append(replace(record, offset=file.tell(), frames=length, actions=actions))
            file.write(np.ascontiguousarray(store.view(record, 0, length)).data)
    write_lines(folder / CLIPS_FILE, [record.to_json() for record in kept])
    (folder / STORE_FILE).write_text(json.dumps(store.info, indent=2) + "\n", encoding="ascii")
    return ClipStore.open(folder)


def _chosen(store: ClipStore, frames: int, at_once: int, clip_frames: int) -> Iterable[ClipRecord]:
    """Videos spread over each split, in the order of the store."""
    for split in sorted({record.split for record in store.records}):
        videos = [record for record in store.split(split) if record.frames >= clip_frames]
        if not videos:
            continue
        order = np.random.default_rng(0).permutation(len(videos))
        longest = max(range(len(videos)), key=lambda i: len(videos[i].caption or ""))
        taken, total = [], 0
        for i in dict.fromkeys([longest, *order.tolist()]):
            if total >= frames:
                break
            taken.append(i)
            total += min(videos[i].frames, at_once)
        yield from (videos[i] for i in sorted(taken))
