"""Turn videos into token shards: the second stage.

    python tools/tokenize_dataset.py                                  # what runs/tokenizer was trained on
    python tools/tokenize_dataset.py --data my/videos --tokenizer runs/mine/tokenizer --out runs/mine/tokens

    python tools/tokenize_dataset.py --processes 4                    # several on this machine; or on several GPUs:
    accelerate launch --num_processes 8 tools/tokenize_dataset.py --out s3://bucket/tokens
    python tools/tokenize_dataset.py --shard-range 100:200            # one of the jobs of a cluster's array

Every split becomes a folder of WebDataset shards with a manifest; labels, captions and actions go along.
Each shard is one unit of work, the same whoever writes it: run again, the tool keeps finished shards and writes the
missing ones. Whoever finds all of them there writes the manifest.
"""

import re
import sys
from contextlib import nullcontext, redirect_stdout
from dataclasses import dataclass, replace
from io import StringIO
from itertools import product
from pathlib import Path
from typing import Any

from tokenreel.datasets.clip_passes import Augmentation, ClipPasses
from tokenreel.datasets.clip_shapes import check_lengths, shape_name, shapes_in_words, windows_by_shape
from tokenreel.datasets.clip_store import ClipStore
from tokenreel.datasets.clip_windows import ClipWindows
from tokenreel.datasets.condition_facts import condition_facts
from tokenreel.datasets.data_source import DataSettings, open_data
from tokenreel.datasets.file_lock import file_lock
from tokenreel.datasets.place import LocalPlace, open_place
from tokenreel.datasets.shard_job import ShardPlan, store_plan
from tokenreel.datasets.shard_manifest import ShardManifest
from tokenreel.datasets.shard_share import Share
from tokenreel.tokenizer import VideoTokenizer, fingerprint
from tokenreel.tokenizer.pretrained import find_folder, read_provenance
from tokenreel.tools.caption_vectors import carry_captions
from tokenreel.tools.token_job import (
    SplitJob,
    carry_tokenizer,
    conclude,
    own_device,
    run_processes,
    units,
    write_share,
)
from tokenreel.training.command_line import command, quoted, run_tool
from tokenreel.training.hardware import DeviceName, peak_memory_mb, pick_device
from tokenreel.training.run_folder import check_writable
from tokenreel.transformer.conditions import SHORTEST_CAPTION
from tokenreel.transformer.text_encoder import TextEncoder

FLAGS = {
    "actions_mismatch": "have no actions, since their number does not fit",
    "actions_resampled": "lost or repeated actions with their frames (train the tokenizer with --fps 0 to keep them)",
}
"""What happened to actions at ingest, in words."""


@dataclass(frozen=True, kw_only=True)
class Config(Augmentation):
    """Settings of one tokenizing."""

    data: Path | None = None
    """Folder of videos, or a clip store; default: what the tokenizer was trained on."""
    tokenizer: Path = Path("runs/tokenizer")
    """Run folder or model folder of the tokenizer."""
    out: str = "runs/tokens"
    """Folder or URL (s3://…, gs://…) for the shards: one folder per split in it."""
    clip_frames: int = 0
    """Frames per clip, the window the GPT will be trained on; 0: as the tokenizer was trained."""
    shorter_clips: tuple[int, ...] | None = None
    """Other lengths, for videos that have fewer frames; default: as the tokenizer was trained, if it was with these
    --clip-frames."""
    hop: int = 4
    """Frames from the start of one clip to the next; less gives the GPT more clips of the same videos."""
    batch_size: int = 32
    """Clips encoded at once."""
    clips_per_shard: int = 4096
    """Clips per shard; each shard is one unit of work."""
    processes: int = 1
    """Processes on this machine that share the work."""
    shard_range: str = ""
    """Write only these of all shards, as START:STOP, counted through all splits; for the jobs of a cluster's array."""
    cache: Path = Path("runs/clips")
    """Folder in which decoded videos are kept."""
    text_encoder: str = ""
    """Folder or Hugging Face id of a frozen text encoder for the captions (needs tokenreel[text]); default: the GPT
    learns from their bytes."""
    caption_words: int = 0
    """Longest caption that the GPT is told, in words (tokens of a text encoder); longer ones are cut. Every clip pays
    for the longest one with tokens of its own. Default: none is cut."""
    device: DeviceName = "auto"
    """Where to encode."""

    def __post_init__(self) -> None:
        super().__post_init__()
        open_place(self.out)
        Share.of_environment(self.shard_range)
        for name, least in (
            ("clip_frames", 0),
            ("hop", 1),
            ("batch_size", 1),
            ("clips_per_shard", 1),
            ("processes", 1),
        ):
            if getattr(self, name) < least:
                raise ValueError(f"{name} {getattr(self, name)}: expected at least {least}")
        if self.caption_words != 0 and self.caption_words < SHORTEST_CAPTION:
            raise ValueError(
                f"caption_words {self.caption_words}: expected 0 (as many as the longest has) or at least "
                f"{SHORTEST_CAPTION}"
            )


def tokenize_dataset(config: Config) -> None:
    """Encode every split of the videos into shards, then say where they are."""
    share = Share.of_environment(config.shard_range)
    if config.processes > 1 and share.processes > 1:
        raise ValueError(
            f"processes {config.processes}: accelerate started {share.processes} already, expected --processes 1 there"
        )
    with redirect_stdout(StringIO()) if share.rank else nullcontext():  # the first process says it for all
        tokenizer, jobs = _prepare(config, share.rank, share.processes)
    if not share.whole(len(units(jobs))):
        print(f"process {share.rank} of {share.processes}: {len(share.of(units(jobs)))} of {len(units(jobs))} shards")
    if config.processes > 1:
        run_processes(config.processes, _one_process, config)
    else:
        write_share(tokenizer, jobs, share, config)
    if conclude(jobs, share):
        device = next(tokenizer.parameters()).device
        print(f"shards in {config.out}, peak memory {peak_memory_mb(device):.0f} MB")
        print(f"next: {command('train_gpt')} --shards {quoted(config.out)}")


def _one_process(config: Config, rank: int) -> None:
    """One of several processes on a machine; what it needs was made by the one that started it."""
    share = replace(Share.of_environment(config.shard_range), rank=rank, processes=config.processes)
    try:
        with redirect_stdout(StringIO()):
            tokenizer, jobs = _prepare(config, rank, config.processes)
        write_share(tokenizer, jobs, share, config)
    except (ValueError, OSError) as error:
        sys.exit(f"error in process {rank}: {' '.join(str(error).split())}")


def _prepare(config: Config, rank: int, processes: int) -> tuple[VideoTokenizer, list[SplitJob]]:
    """Open the tokenizer and the videos, and put beside the shards what they all need."""
    home = find_folder(config.tokenizer)
    device = own_device(config.device, rank, processes)
    tokenizer = VideoTokenizer.from_pretrained(home).to(device)
    origin, place = read_provenance(home), open_place(config.out)
    clip_frames = config.clip_frames or origin["clip_frames"]
    source = DataSettings.of_model(origin["data"], config.data, config.cache)
    trained_on = tuple(origin.get("shorter_clips", ())) if clip_frames == origin["clip_frames"] else ()
    lengths = check_lengths(clip_frames, trained_on if config.shorter_clips is None else config.shorter_clips)
    for length, size in product(lengths, source.frame_sizes):
        tokenizer.config.grid(length, *size)
    encoder = TextEncoder.load(config.text_encoder, pick_device(config.device)) if config.text_encoder else None
    if isinstance(place, LocalPlace):
        check_writable(place.folder)
    with file_lock(config.cache / "tokenize.lock"):  # what one process makes the others find
        store = open_data(source)
        windows = _windows(store, lengths, config.hop)
        facts = _facts(store)
        if config.flips:
            _tell_of_sides(store)
        told = source.describe(store) if config.data else origin["data"]
        carry_tokenizer(home, place)
        if encoder:
            facts["captions"] = carry_captions(encoder, config.caption_words, store, place)
        elif "captions" in facts and config.caption_words:
            facts["captions"]["words"] = min(config.caption_words, facts["captions"]["words"])
        jobs = [
            _job(config, tokenizer, home, names, part, {"data": told, **facts})
            for names, parts in windows
            for part in zip(names, parts, strict=True)
        ]
        for job in jobs:
            store_plan(job.place, job.plan)
    return tokenizer, jobs


def _windows(store: ClipStore, lengths: list[int], hop: int) -> list[tuple[list[str], list[ClipWindows]]]:
    """For every split the clips of each shape, and the names of their folders.

    A split other than "train" may have only videos that are too short.
    """
    windows = []
    for split in sorted({record.split for record in store.records}):
        if split != "train" and not any(record.frames >= lengths[-1] for record in store.split(split)):
            print(f"{split}: no video has {lengths[-1]} frames, nothing to tokenize")
            continue
        parts = windows_by_shape(store, split, lengths, hop)
        windows.append(([split, *(f"{split}-{shape_name(other)}" for other in parts[1:])], parts))
        if len(parts) > 1:
            print(f"{split}: clips of {shapes_in_words(parts)}")
    return windows


def _facts(store: ClipStore) -> dict[str, Any]:
    """What a GPT can be conditioned on: classes of training videos, all else of all splits.

    So a mistake in any of them is found before the work begins.
    """
    facts = {**condition_facts(store.records), "labels": condition_facts(store.split("train"))["labels"]}
    unseen = [record for record in store.records if record.label not in (None, *facts["labels"])]
    if unseen:
        print(
            f"{len(unseen)} videos outside of train have labels that no training video has, such as "
            f"{unseen[0].label!r} of {unseen[0].file}: the GPT is told no label there"
        )
    for flag, words in FLAGS.items():
        found = [record for record in store.records if flag in record.flags]
        if found:
            print(f"{len(found)} videos {words}, such as {found[0].file}: {found[0].flags[flag]}")
    return facts


def _tell_of_sides(store: ClipStore) -> None:
    """Captions and labels are carried to mirrored clips as they are."""
    for record in store.split("train"):
        for text in (record.caption, record.label):
            if text and re.search(r"\b(left|right)\b", text, re.IGNORECASE):
                print(f"note: {record.file} is said to be {text!r}, which is wrong of its mirrored clips (--flips)")
                return


def _job(
    config: Config,
    tokenizer: VideoTokenizer,
    home: Path,
    names: list[str],
    part: tuple[str, ClipWindows],
    source: dict[str, Any],
) -> SplitJob:
    name, windows = part
    store, first = windows.store, windows.records[0]
    changes = {name: getattr(config, name) for name in Augmentation.__dataclass_fields__}
    clips = ClipPasses(windows, Augmentation(**changes) if first.split == "train" else Augmentation())
    shapes = {"shapes": names} if len(names) > 1 else {}
    manifest = ShardManifest(
        tokenizer=fingerprint(home),
        stride=tokenizer.config.stride,
        codebook_size=tokenizer.config.codebook_size,
        grid=tokenizer.config.grid(windows.clip_frames, first.height, first.width),
        split=first.split,
        frame_size=(first.height, first.width),
        fps=store.info["settings"]["fps"],
        clip_frames=windows.clip_frames,
        hop=windows.hop,
        source={"levels": list(tokenizer.config.digits), **source, **shapes, **clips.told()},
    )
    place = open_place(config.out).child(name)
    return SplitJob(name, clips, ShardPlan(manifest, len(clips), config.clips_per_shard), place)


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    run_tool(tokenize_dataset, Config, argv, description=__doc__)


if __name__ == "__main__":
    main()
