"""Clip stores kept in one folder, so that videos are decoded once: found again by what they were made of.

store = open_or_ingest(Path("my/videos"), IngestSettings(height=64, width=64, fps=10.0))
"""

import hashlib
import json
import re
from pathlib import Path

from rich.console import Console

from tokenreel.datasets.atomic_folder import atomic_folder
from tokenreel.datasets.clip_record import FORMAT_VERSION, REJECTED_FILE
from tokenreel.datasets.clip_splits import leak_warning
from tokenreel.datasets.clip_store import ClipStore, is_clip_store
from tokenreel.datasets.curation import NO_RULES, CurationRules
from tokenreel.datasets.found_video import VideoSource
from tokenreel.datasets.ingest import IngestSettings, ingest
from tokenreel.datasets.video_folder import counted
from tokenreel.datasets.video_source import video_source


def open_or_ingest(
    data: Path, settings: IngestSettings, cache: Path = Path("runs/clips"), progress: bool = True, part: str = ""
) -> ClipStore:
    """Opens the clip store of a folder of videos, and makes it first if it is not there yet.

    Args:
        data: What ``video_source`` knows, such as a folder of videos; or a clip store.
        settings: How videos are brought to frames.
        cache: Folder that holds the stores; the name of each tells folder, size and fps, and a hash of the
            listing.
        progress: Whether to show a progress bar and a summary.
        part: Which part of a dataset to read, see ``video_source``.

    Raises:
        FileNotFoundError: If there is nothing at that path.
        ValueError: If it holds no readable video, broken metadata, or a clip store made with other settings.
        OSError: If the store cannot be written.
    """
    if is_clip_store(data):
        if part:
            raise ValueError(f"part {part!r} of {data}, which is a clip store; give the data that it was made from")
        return _opened_as_is(data, settings)
    videos = video_source(data, part)
    path = cache / _store_name(videos, settings)
    if is_clip_store(path):
        return ClipStore.open(path)
    console = Console(quiet=not progress)
    console.print(f"{data}: {videos.kind}", highlight=False, soft_wrap=True, markup=False)
    with atomic_folder(path) as temporary:
        ingest(videos, settings, temporary, console)
    store = ClipStore.open(path)
    console.print(_summary(store), highlight=False, soft_wrap=True)
    if leak := leak_warning(store.records):
        console.print(f"note: {leak}", highlight=False, soft_wrap=True, markup=False)
    return store


def _opened_as_is(path: Path, settings: IngestSettings) -> ClipStore:
    store = ClipStore.open(path)
    wanted_others = [list(size) for size in settings.others]
    if (others := store.info["settings"].get("others", [])) != wanted_others:
        raise ValueError(f"clip store {path} has other sizes {others}, expected {wanted_others}; give its videos")
    for name in ("height", "width", "fps"):
        got, wanted = store.info["settings"][name], getattr(settings, name)
        if got != wanted:
            raise ValueError(f"clip store {path} has {name} {got}, expected {wanted}; give the videos it was made from")
    # The defaults ask for nothing of a store that is finished.
    for name, wanted in settings.curation.told.items() if settings.curation not in (NO_RULES, CurationRules()) else ():
        got = store.curation.told[name]
        if got != wanted:
            raise ValueError(
                f"clip store {path} was made with curation.{name} {got}, expected {wanted}; give the videos it was "
                "made from"
            )
    return store


def _store_name(videos: VideoSource, settings: IngestSettings) -> str:
    chosen = [FORMAT_VERSION, videos.fingerprint(), settings.that_matter, settings.curation.told]
    content = json.dumps(chosen, sort_keys=True)
    key = hashlib.sha256(content.encode("ascii")).hexdigest()[:8]
    name = re.sub(r"[^A-Za-z0-9_-]", "-", videos.root.absolute().name) or "videos"
    rate = "native" if settings.fps is None else f"{settings.fps:g}"
    return f"{name}-{settings.height}x{settings.width}-{rate}fps-{key}"


def _summary(store: ClipStore) -> str:
    frames = sum(record.frames for record in store.records)
    videos, shots = len({record.file for record in store.records}), store.info["shots"]
    line = f"kept {videos} videos ({frames} frames{f' in {shots} shots' if shots != videos else ''})"
    if left_out := store.info["left_out"]:
        line += ", left out " + ", ".join(f"{count} frames {reason}" for reason, count in left_out.items())
    rejected = store.info["rejected"]
    line += f", rejected {rejected} (see {store.path / REJECTED_FILE})" if rejected else ", rejected none"
    ignored = counted(store.info["ignored"])
    return f"{line}, ignored {ignored}" if ignored else line
