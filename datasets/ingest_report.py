"""What came in, what was kept, what was left out and why: the facts of a clip store, for people and programs.

report = ingest_report(store)  # as JSON: what tools/prepare_dataset.py writes as ingest.json
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from tokenreel.datasets.clip_record import REJECTED_FILE, SOURCES_FILE, ClipRecord
from tokenreel.datasets.clip_splits import COPIES, leak_warning
from tokenreel.datasets.clip_store import ClipStore
from tokenreel.datasets.frame_fit import Size
from tokenreel.datasets.origins import origins

SECONDS = (0, 0.5, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
MOTION = (0, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
SHARPNESS = (0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.6, 1.0)
BRIGHTNESS = tuple(range(0, 256, 32))
RATES = (0, 5, 9, 13, 20, 26, 31, 51, 61, 121)
# A centre cut that loses more of the picture than this is worth a word.
MUCH_CUT_OFF = 0.2
# A share of the videos, or of the frames, that is worth a word.
MANY = 0.1
# Frames per clip, unless train_tokenizer.py is told otherwise.
USUAL_CLIP = 16


def read_sources(store: ClipStore) -> list[dict[str, Any]]:
    """What the store keeps of every video that could be decoded, with its stretches.

    Raises:
        ValueError: If the store is from before this was kept.
    """
    path = store.path / SOURCES_FILE
    if not path.is_file():
        raise ValueError(f"clip store {store.path} does not say what it was made from; give the videos themselves")
    return [json.loads(line) for line in path.read_text(encoding="ascii").splitlines()]


def ingest_report(store: ClipStore) -> dict[str, Any]:
    """All that is known of an ingest but for the pictures.

    Returns:
        "source", "kind", "origins" (see ``origins``), "clip_store", "fingerprint", "settings", "curation"; "totals";
        "splits", by name; "left_out", by reason; "labels"; "warnings", in words; "copies"; "rejected"; "ignored";
        "histograms"; "videos", each with its stretches.

    Raises:
        ValueError: If the store is from before its sources were kept.
    """
    sources = read_sources(store)
    rejected = [json.loads(line) for line in (store.path / REJECTED_FILE).read_text(encoding="ascii").splitlines()]
    stretches = [{"fps": source["fps"], **stretch} for source in sources for stretch in source["stretches"]]
    kept = [stretch for stretch in stretches if stretch["dropped"] is None]
    return {
        "source": store.info["source"],
        "kind": store.info.get("kind", "folder of videos"),
        "origins": origins(store.records),
        "clip_store": str(store.path),
        "fingerprint": store.fingerprint,
        "settings": store.info["settings"],
        "curation": store.info["curation"],
        "totals": _totals(store, sources, rejected, kept),
        "splits": {split: _split(store.split(split)) for split in sorted({r.split for r in store.records})},
        "left_out": _left_out(stretches),
        "labels": dict(
            Counter(str(record.label) for record in store.records if record.label is not None).most_common()
        ),
        "warnings": list(_warnings(store, sources)),
        "copies": [
            {"key": record.key, "file": record.file, "of": record.flags[flag], "same_bytes": flag == "duplicate_of"}
            for record in store.records
            for flag in COPIES
            if flag in record.flags
        ],
        "rejected": rejected,
        "ignored": store.info["ignored"],
        "histograms": {
            "seconds": _histogram([_seconds(stretch) for stretch in kept], SECONDS),
            "motion": _histogram([stretch["motion"] for stretch in kept], MOTION),
            "sharpness": _histogram([s["sharpness"] for s in kept if s["sharpness"] is not None], SHARPNESS),
            "brightness": _histogram([stretch["brightness"] for stretch in kept], BRIGHTNESS),
            "source_fps": _histogram([source["source_fps"] for source in sources], RATES),
            "resolution": _most_common(f"{width}x{height}" for height, width in map(_upright, sources)),
        },
        "videos": [{**s, "stretches": [_without_picture(part) for part in s["stretches"]]} for s in sources],
    }


def _totals(
    store: ClipStore,
    sources: Sequence[dict[str, Any]],
    rejected: Sequence[dict[str, str]],
    kept: Sequence[dict[str, Any]],
) -> dict[str, float]:
    unreadable = {entry["file"] for entry in rejected} - {source["file"] for source in sources}
    return {
        "videos": len(sources) + len(unreadable),
        "videos_kept": len({record.file for record in store.records}),
        "videos_rejected": len(rejected),
        "videos_damaged": sum(source["damaged"] is not None for source in sources),
        "shots": len(kept),
        "frames": sum(source["frames"] for source in sources),
        "frames_kept": sum(record.frames for record in store.records),
        "seconds_kept": round(sum(_seconds(stretch) for stretch in kept), 3),
    }


def _without_picture(stretch: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in stretch.items() if name != "picture"}


def _seconds(stretch: dict[str, Any]) -> float:
    return (stretch["stop"] - stretch["start"]) / (stretch["fps"] or 10)


def _split(records: Sequence[ClipRecord]) -> dict[str, int]:
    return {
        "videos": len({record.file for record in records}),
        "shots": len(records),
        "frames": sum(record.frames for record in records),
    }


def _left_out(stretches: Iterable[dict[str, Any]]) -> dict[str, dict[str, int]]:
    frames, parts = Counter[str](), Counter[str]()
    for stretch in stretches:
        if stretch["dropped"]:
            frames[stretch["dropped"]] += stretch["stop"] - stretch["start"]
            parts[stretch["dropped"]] += 1
    return {reason: {"stretches": parts[reason], "frames": count} for reason, count in frames.most_common()}


def _histogram(values: Sequence[float], edges: Sequence[float]) -> dict[str, int]:
    """Counts by the words for a bin; the last bin has no upper end, empty bins at the ends are left out."""
    if not values:
        return {}
    places = np.searchsorted(np.asarray(edges), np.asarray(values), side="right") - 1
    counts = np.bincount(places.clip(0), minlength=len(edges))
    ends = [f"{low:g} to {high:g}" for low, high in pairwise(edges)] + [f"{edges[-1]:g} and more"]
    used = np.flatnonzero(counts)
    return {ends[n]: int(counts[n]) for n in range(used[0], used[-1] + 1)}


def _most_common(names: Iterable[str], most: int = 12) -> dict[str, int]:
    counts = Counter(names).most_common()
    rest = sum(count for _, count in counts[most:])
    return dict(counts[:most]) | ({"others": rest} if rest else {})


def _warnings(store: ClipStore, sources: list[dict[str, Any]]) -> Iterable[str]:
    """What a person would want to be told, in sentences."""
    height, width = store.info["settings"]["height"], store.info["settings"]["width"]
    if leak := leak_warning(store.records):
        yield leak
    if "val" not in {record.split for record in store.records}:
        yield "there is no validation video, so nothing tells when clips are learned by heart; add a folder val"
    frames = sum(record.frames for record in store.records)
    short = sum(record.frames for record in store.records if record.frames < USUAL_CLIP)
    if short > MANY * frames:
        yield (
            f"{short / frames:.0%} of the frames are in shots of less than {USUAL_CLIP} frames, the usual clip, which "
            "training leaves out; use a higher --fps, or train with a shorter --clip-frames"
        )
    # Each video was brought to one size, of several the one nearest its shape.
    brought = [(_upright(s), (s.get("height", height), s.get("width", width))) for s in sources]
    small = [source for source, wanted in brought if source[0] < wanted[0] or source[1] < wanted[1]]
    several = "their size" if store.info["settings"].get("others") else f"{width}x{height}"
    if len(small) > MANY * len(sources):
        yield (
            f"{len(small)} of {len(sources)} videos are smaller than {several} and were enlarged; use a smaller --size"
        )
    cut_off = [_cut_off(source, wanted) for source, wanted in brought]
    if np.mean(cut_off) > MUCH_CUT_OFF:
        yield (
            f"the centre cut to {several} loses {np.mean(cut_off):.0%} of the picture on average; use a --width that "
            "fits your videos, or --more-sizes"
        )
    for flag, words in FLAGS.items():
        found = {record.file for record in store.records if flag in record.flags}
        if found:
            yield f"{len(found)} videos {words}, such as {min(found)}"


FLAGS = {
    "damaged": "are damaged and kept up to the damage, or without the broken frames",
    "upsampled": "have fewer frames per second than are stored, so frames are repeated; use a lower --fps",
    "actions_mismatch": "have no actions, since their number does not fit",
    "actions_resampled": "lost or repeated actions with their frames; use --fps 0 to keep them",
}
"""What the flags of a record mean, in words."""


def _upright(source: Mapping[str, Any]) -> Size:
    """(height, width) of a video as it is shown; pixel shapes are not reckoned with."""
    height, width = source["source_height"], source["source_width"]
    return (width, height) if source.get("rotation", 0) % 180 else (height, width)


def _cut_off(source: Size, wanted: Size) -> float:
    """Share of the picture that a centre cut loses."""
    shapes = source[1] / source[0], wanted[1] / wanted[0]
    return 1 - min(shapes) / max(shapes)
