"""Speed of the data engine: ingest, random clips, shuffled batches of tokens, start-up, memory; beside the plain ways.

    python benchmarks/data.py --out benchmarks/results/data.json        # some minutes on a quiet core

Every figure and what stands beside it are taken in one process, ingest in turns, the rest one after the other; the
clock is its CPU time, and the best of several rounds counts; of start-up, which waits for the disk, it is the time that
passes, once. results/data.json is of --shards 8 and 1,500 batches in all. Videos, clip store and shards are made for it
in a temporary folder.

* ingest beside bare decoding with resize (more of it, on your own videos: benchmarks/ingest.py);
* random clips of a clip store beside slices of a numpy memmap of the same file;
* batches of 64 clips in an order over all clips, indices int64 and records, beside WebDataset over the same tars (files
  in any order, clips in a shuffle buffer, .npy and .json parsed by numpy and json) and beside a numpy memmap of the
  indices alone, the limit;
* opening many small shards, and the first batch of them: seconds, beside reading the manifest as JSON and asking for
  the size of every file;
* resident memory before and after many batches.
"""

import argparse
import io
import json
import os
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import webdataset
from ingest import fastest, made_videos
from report import report, row

from tokenreel.datasets.clip_cache import open_or_ingest
from tokenreel.datasets.clip_windows import ClipWindows
from tokenreel.datasets.ingest import IngestSettings
from tokenreel.datasets.order import Order
from tokenreel.datasets.shard_file import write_shard
from tokenreel.datasets.shard_manifest import MANIFEST_NAME, ShardManifest, shard_name
from tokenreel.datasets.token_shards import TokenShards

BATCH = 64
CODES = 1024
BUFFER = 5000
NOTE = (
    "per second of CPU time unless it says s or MiB; ingest: beside bare PyAV decoding with resize; clips: beside a "
    "memmap; tokens: beside WebDataset, limit a memmap of the indices alone; start-up: beside JSON and a stat per file"
)


def best(work: Callable[[], int], rounds: int) -> float:
    """Units per second of CPU time that ``work``, which returns their number, makes at best."""
    rates = []
    for _ in range(rounds):
        began = time.process_time()
        units = work()
        rates.append(units / (time.process_time() - began))
    return max(rates)


def resident_mib() -> float | None:
    """Memory of this process that is in use, where the system tells it."""
    told = Path("/proc/self/statm")
    return int(told.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20 if told.exists() else None


def make_shards(folder: Path, grid: tuple[int, int, int], shards: int, clips: int) -> np.ndarray:
    """Write shards of random indices, with records as real ones have them.

    Returns:
        All indices, uint16 (N, T', H', W').
    """
    home = folder / "train"
    home.mkdir(parents=True)
    frame_size, frames = (grid[1] * 8, grid[2] * 8), grid[0] * 4
    known: dict[str, Any] = {"tokenizer": "ab" * 32, "stride": (4, 8, 8), "codebook_size": CODES, "grid": grid}
    known |= {"split": "train", "frame_size": frame_size, "fps": 10.0, "clip_frames": frames, "hop": 4}
    indices = np.random.default_rng(0).integers(0, CODES, (shards * clips, *grid), np.uint16)
    entries, manifest = [], ShardManifest(**known)
    with patch("os.fsync"):  # what is made to be measured need not survive a power cut
        for number in range(shards):
            numbers = range(number * clips, (number + 1) * clips)
            records = [record(clip) for clip in numbers]
            path = home / shard_name(number)
            entries.append(write_shard(path, indices[numbers.start : numbers.stop], records, manifest))
        ShardManifest(**known, videos=shards, shards=tuple(entries)).save(home)
    return indices


def record(clip: int) -> dict[str, Any]:
    """What is known of a clip, about as long as in practice."""
    video = clip // 20
    return {
        "video": f"train__class_{video % 100:03d}__video_{video:07d}",
        "start": 4 * (clip % 20),
        "fps": 10.0,
        "label": f"class {video % 100}",
        "caption": "two red balls and a blue one bounce off the walls",
    }


def shuffled(shards: TokenShards, steps: range) -> int:
    """Read the batches of some steps; returns the number of tokens."""
    order, tokens = Order(len(shards), BATCH), 0
    for step in steps:
        tokens += shards.batch(order.batch(step))[0].size
    return tokens


def plain_webdataset(folder: Path, batches: int) -> int:
    """As many clips the usual way: shards in any order, one after the other, clips through a buffer of `BUFFER`."""
    urls = [str(path) for path in sorted((folder / "train").glob("*.tar"))]
    source = webdataset.WebDataset(urls, shardshuffle=len(urls), seed=0).compose(clips_of).shuffle(BUFFER)
    tokens, clips = 0, iter(source)
    for _ in range(batches):
        batch = list(islice(clips, BATCH))
        tokens += np.stack([indices for indices, _ in batch]).astype(np.int64).size if batch else 0
    return tokens


def clips_of(blocks: Iterator[dict[str, Any]]) -> Iterator[tuple[np.ndarray, dict[str, Any]]]:
    """The clips of WebDataset's samples, parsed without its decoders."""
    for block in blocks:
        yield from zip(np.load(io.BytesIO(block["npy"]), allow_pickle=False), json.loads(block["json"]), strict=True)


def memmap_batches(path: Path, shape: tuple[int, ...], steps: range) -> int:
    """The same batches of a file that holds nothing but the indices."""
    flat, order, tokens = np.memmap(path, np.uint16, "r", shape=shape), Order(shape[0], BATCH), 0
    for step in steps:
        tokens += flat[order.batch(step)].astype(np.int64).size
    return tokens


def token_rows(folder: Path, arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Shuffled batches, at two lengths of clips, and memory."""
    for grid in ((4, 8, 8), (4, 16, 16)):
        home, steps = folder / f"tokens{grid[1]}", range(arguments.batches)
        indices = make_shards(home, grid, arguments.shards, arguments.clips)
        indices.tofile(folder / "indices.u16")
        opened = TokenShards.open(home)
        case = f"{grid[0] * grid[1] * grid[2]} tokens a clip, {len(opened)} clips in {arguments.shards} shards"
        began = time.process_time()
        opened.batch(np.arange(0, len(opened), arguments.clips))
        checked = indices.size / (time.process_time() - began)
        before = resident_mib()
        ours = best(lambda opened=opened, steps=steps: shuffled(opened, steps), arguments.rounds)  # type: ignore[misc]
        after = resident_mib()
        plain = best(lambda home=home: plain_webdataset(home, arguments.batches), arguments.rounds)  # type: ignore[misc]
        raw = best(
            lambda shape=indices.shape, steps=steps: memmap_batches(folder / "indices.u16", shape, steps),  # type: ignore[misc]
            arguments.rounds,
        )
        yield row(case, "shuffled batches", "tokens/s", ours, plain, raw)
        yield row(case, "checking every shard, once", "tokens/s", checked)
        if before is not None and after is not None:
            total = arguments.rounds * arguments.batches
            yield row(case, f"memory gained in {total} batches", "MiB", after - before)


def start_rows(folder: Path, count: int) -> Iterator[dict[str, Any]]:
    """Opening many shards."""
    make_shards(folder, (1, 2, 2), count, BATCH)
    began = time.perf_counter()
    opened = TokenShards.open(folder)
    ours = time.perf_counter() - began
    opened.batch(Order(len(opened), BATCH).batch(0))
    first = time.perf_counter() - began
    began = time.perf_counter()
    told = json.loads((folder / "train" / MANIFEST_NAME).read_text())
    assert all((folder / "train" / shard["name"]).stat().st_size == shard["bytes"] for shard in told["shards"])
    plain = time.perf_counter() - began
    case = f"{count} shards"
    yield row(case, "opening them", "s", ours, plain)
    yield row(case, f"and a first batch, of up to {BATCH} shards", "s", first)


def video_rows(folder: Path, arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Ingest, and random clips of what it makes."""
    videos = arguments.videos or folder / "videos"
    if arguments.videos is None:
        videos.mkdir()
        made_videos(videos)
    for path in sorted(videos.iterdir()):
        frames, alone, ours = fastest(path, 64, None, folder / "part.u8", arguments.rounds)
        yield row(f"{path.name} to 64x64, every frame", "ingest", "frames/s", frames / ours, frames / alone)
    store = open_or_ingest(videos, IngestSettings(64, 64, fps=None), folder / "clips", progress=False)
    split = store.records[0].split
    windows = ClipWindows(store, split, 16)
    numbers = np.random.default_rng(0).integers(0, len(windows), (arguments.batches, BATCH))
    flat = np.memmap(store.path / "frames.u8", np.uint8, "r").reshape(-1, 64, 64, 3)

    def ours_clips() -> int:
        return sum(len(windows.batch(batch)) for batch in numbers)

    def plain_clips() -> int:
        return sum(len(np.stack([flat[number : number + 16] for number in batch])) for batch in numbers)

    ours, plain = best(ours_clips, arguments.rounds), best(plain_clips, arguments.rounds)
    yield row("16 frames of 64x64 from a clip store", "random clips", "clips/s", ours, plain)


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=int, default=32, help="shards that batches are read from")
    parser.add_argument("--clips", type=int, default=4096, help="clips in each")
    parser.add_argument("--videos", type=Path, help="folder of a few videos; default: two that are made")
    parser.add_argument("--many", type=int, default=10_000, help="shards of which the opening is measured")
    parser.add_argument("--batches", type=int, default=1000, help="batches of a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks/data.json"))
    arguments = parser.parse_args()
    random.seed(0)
    np.random.seed(0)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        rows = [*token_rows(folder, arguments), *start_rows(folder / "many", arguments.many)]
        rows += video_rows(folder, arguments)
    report(rows, arguments.out, NOTE)


if __name__ == "__main__":
    main()
