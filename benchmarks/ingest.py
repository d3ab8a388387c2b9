"""Speed of ingest: what the child process does with a video, curation included, against bare decoding.

    python benchmarks/ingest.py --data my/videos --out runs/benchmarks/ingest.json   # one core, a minute
    python benchmarks/ingest.py                                                     # two videos made for it
    python benchmarks/ingest.py --alike 2000 --out runs/benchmarks/copies.json      # many short videos of one world

Bare decoding is PyAV on one thread, every frame scaled by swscale to the same size and made an array, nothing else.
Ingest decodes every frame too, scales those that it keeps, cuts, measures, hashes the file and writes the frames.
Both take turns in one process; the clock is its CPU time, and the best of several rounds counts.

With --alike: what the process that writes the store and looks for copies takes, beside the same without looking. In
videos of one world much looks alike and nothing is a copy.
"""

import argparse
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter
from report import report, row

from tokenreel.datasets.curation import CurationRules, Duplicates
from tokenreel.datasets.data_source import DataSettings, open_data
from tokenreel.datasets.found_video import VideoPlace
from tokenreel.datasets.ingest_worker import decode
from tokenreel.datasets.video_folder import VideoFolder
from tokenreel.datasets.video_writer import write_video
from tokenreel.datasets.worlds import WorldSettings, write_world

RATES = (10.0, None)
DUPLICATES: tuple[Duplicates, Duplicates] = ("flag", "off")
ALIKE_NOTE = "CPU time of the process that writes the store; alternative: --curation.duplicates off"
NOTE = "source frames per second of CPU time; alternative: bare sequential PyAV decoding with resize of every frame"


def bare(path: Path, size: int) -> tuple[int, float]:
    """Frames in a file, and CPU seconds that decoding and resizing takes."""
    began, frames = time.process_time(), 0
    with av.open(str(path)) as container:
        stream: Any = container.streams.best("video")
        stream.codec_context.thread_type, stream.codec_context.thread_count = "NONE", 1
        scaler = VideoReformatter()
        for frame in container.decode(stream):
            scaler.reformat(frame, size, size, "rgb24", interpolation=Interpolation.BILINEAR, threads=1).to_ndarray()
            frames += 1
    return frames, time.process_time() - began


def ingested(path: Path, size: int, fps: float | None, part: Path) -> float:
    """CPU seconds that the child process takes for a file.

    Raises:
        ValueError: If the file is rejected.
    """
    job = {"part": str(part), "height": size, "width": size, "others": [], "fps": fps, "decoder": "pyav"}
    job |= {"rules": CurationRules().told, "want_indices": False}
    began = time.process_time()
    answer = decode({**asdict(VideoPlace(str(path))), **job})
    if "rejected" in answer:
        raise ValueError(f"{path}: {answer['rejected']}, expected videos that can be read; take it out of --data")
    return time.process_time() - began


def fastest(path: Path, size: int, fps: float | None, part: Path, rounds: int) -> tuple[int, float, float]:
    """Frames in a file; CPU seconds of bare decoding and of ingest, the best of several rounds in turns."""
    seconds = []
    for _ in range(rounds):
        frames, alone = bare(path, size)
        seconds.append((alone, ingested(path, size, fps, part)))
    alone, ours = (min(column) for column in zip(*seconds, strict=True))
    return frames, alone, ours


def made_videos(folder: Path) -> None:
    """Two videos of a panned texture, of the size of Kinetics clips and of 720p."""
    for height, width in ((256, 340), (720, 1280)):
        coarse = np.random.default_rng(0).integers(0, 256, (height // 16 + 1, width // 16 + 20, 3))
        wide = np.kron(coarse, np.ones((16, 16, 1))).astype(np.uint8)
        frames = np.stack([wide[:height, 2 * t : 2 * t + width] for t in range(120)])
        write_video(folder / f"made_{width}x{height}.mp4", frames, 30, crf=23)


def alike_rows(count: int, size: int, folder: Path) -> list[dict[str, Any]]:
    """Time the search for copies among the videos of a world."""
    settings = replace(WorldSettings(), count=count, val_count=0, size=size)
    write_world("balls", folder / "alike", **asdict(settings))
    speeds, flags = {}, {}
    for duplicates in DUPLICATES:
        rules = CurationRules(duplicates=duplicates)
        data = DataSettings(data=folder / "alike", size=size, cache=folder / duplicates, curation=rules)
        began = time.process_time()
        records = open_data(data).records
        speeds[duplicates] = count / (time.process_time() - began)
        flags[duplicates] = sum("near_duplicate_of" in record.flags for record in records)
    case = f"{count} videos of balls, {settings.frames} frames {size}x{size}"
    return [
        row(case, "videos written to the store", "videos/s", *(speeds[name] for name in DUPLICATES)),
        row(case, "taken for copies", "", *(flags[name] for name in DUPLICATES)),
    ]


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--data", type=Path, help="folder of videos; default: two that are made")
    source.add_argument("--alike", type=int, default=0, help="only the search for copies, in so many videos of a world")
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 128], help="height and width of the frames")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks/ingest.json"))
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        folder, part = Path(temporary), Path(temporary) / "part.u8"
        if arguments.alike:
            for size in arguments.sizes:
                rows += alike_rows(arguments.alike, size, folder / str(size))
            report(rows, arguments.out, ALIKE_NOTE)
            return
        if arguments.data is None:
            made_videos(folder)
        videos = VideoFolder.scan(arguments.data or folder)
        for size in arguments.sizes:
            for name in videos.videos:
                path = videos.root / name
                for rate in RATES:
                    frames, alone, curated = fastest(path, size, rate, part, arguments.rounds)
                    kept = "every frame" if rate is None else f"{rate:g} fps"
                    case = f"{name} to {size}x{size}, {kept}"
                    rows.append(row(case, "ingest", "frames/s", frames / curated, frames / alone))
                    rows.append(row(case, "share of bare decoding", "", alone / curated))
    report(rows, arguments.out, NOTE)


if __name__ == "__main__":
    main()
