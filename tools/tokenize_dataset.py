"""Turn videos into token shards: the second stage.

    python tools/tokenize_dataset.py                                  # what runs/tokenizer was trained on
    python tools/tokenize_dataset.py --data my/videos --tokenizer runs/mine/tokenizer --out runs/mine/tokens

Every split becomes a folder of WebDataset shards with a manifest; labels, captions and actions go along.
Each shard is one unit of work: run again, the tool keeps finished shards and writes the missing ones.
"""

import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import track

from tokenreel.datasets.atomic_folder import atomic_folder
from tokenreel.datasets.caption_table import CAPTIONS, CaptionTable, write_caption_table
from tokenreel.datasets.clip_store import ClipStore, ClipWindows
from tokenreel.datasets.condition_facts import condition_facts
from tokenreel.datasets.data_source import DataSettings, open_data
from tokenreel.datasets.shard_file import write_shard
from tokenreel.datasets.shard_job import ShardPlan, finish, finished_shard, store_plan
from tokenreel.datasets.shard_manifest import ShardManifest, shard_name
from tokenreel.tokenizer import VideoTokenizer, fingerprint
from tokenreel.tokenizer.frames import to_video
from tokenreel.tokenizer.pretrained import find_folder, read_provenance
from tokenreel.training.command_line import command, run_tool
from tokenreel.training.hardware import DeviceName, peak_memory_mb, pick_device
from tokenreel.training.run_folder import check_writable
from tokenreel.transformer.conditions import SHORTEST_CAPTION
from tokenreel.transformer.text_encoder import TextEncoder

FLAGS = {
    "actions_mismatch": "have no actions, since their number does not fit",
    "actions_resampled": "lost or repeated actions with their frames (train the tokenizer with --fps 0 to keep them)",
}
"""What happened to actions at ingest, in words."""
CAPTIONS_AT_ONCE = 1024


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of one tokenizing."""

    data: Path | None = None
    """Folder of videos, or a clip store; default: what the tokenizer was trained on."""
    tokenizer: Path = Path("runs/tokenizer")
    """Run folder or model folder of the tokenizer."""
    out: Path = Path("runs/tokens")
    """Folder for the shards: one folder per split in it."""
    clip_frames: int = 0
    """Frames per clip, the window the GPT will be trained on; 0: as the tokenizer was trained."""
    hop: int = 4
    """Frames from the start of one clip to the next; less gives the GPT more clips of the same videos."""
    batch_size: int = 32
    """Clips encoded at once."""
    clips_per_shard: int = 4096
    """Clips per shard; each shard is one unit of work."""
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
        for name, least in (("clip_frames", 0), ("hop", 1), ("batch_size", 1), ("clips_per_shard", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} {getattr(self, name)}: expected at least {least}")
        if self.caption_words != 0 and self.caption_words < SHORTEST_CAPTION:
            raise ValueError(
                f"caption_words {self.caption_words}: expected 0 (as many as the longest has) or at least "
                f"{SHORTEST_CAPTION}"
            )


def tokenize_dataset(config: Config) -> None:
    """Encode every split of the videos into shards, then say where they are."""
    home = find_folder(config.tokenizer)
    tokenizer = VideoTokenizer.from_pretrained(home).to(pick_device(config.device))
    origin = read_provenance(home)
    clip_frames = config.clip_frames or origin["clip_frames"]
    source = DataSettings.of_model(origin["data"], config.data, config.cache)
    tokenizer.config.grid(clip_frames, *source.frame_size)
    encoder = TextEncoder.load(config.text_encoder, pick_device(config.device)) if config.text_encoder else None
    store = open_data(source)
    told = source.describe(store) if config.data else origin["data"]
    windows = _windows(store, clip_frames, config.hop)
    facts = _facts(store)
    check_writable(config.out)
    _carry_tokenizer(home, config.out / "tokenizer")
    if encoder:
        facts["captions"] = _encode_captions(encoder, store, config.out / CAPTIONS, config.caption_words)
    elif "captions" in facts and config.caption_words:
        facts["captions"]["words"] = min(config.caption_words, facts["captions"]["words"])
    for split, clips in windows.items():
        manifest = _write_split(
            tokenizer, clips, _plan(config, tokenizer, home, clips, {"data": told, **facts}), config
        )
        tokens = manifest.num_clips * int(np.prod(manifest.grid))
        print(f"{split}: {manifest.num_clips} clips, {tokens} tokens in {len(manifest.shards)} shards")
    device = next(tokenizer.parameters()).device
    print(f"shards in {config.out}, peak memory {peak_memory_mb(device):.0f} MB")
    print(f"next: {command('train_gpt')} --shards {config.out}")


def _windows(store: ClipStore, clip_frames: int, hop: int) -> dict[str, ClipWindows]:
    """The clips of every split; a split other than "train" may have only videos that are too short."""
    windows = {}
    for split in sorted({record.split for record in store.records}):
        if split != "train" and not any(record.frames >= clip_frames for record in store.split(split)):
            print(f"{split}: no video has {clip_frames} frames, nothing to tokenize")
            continue
        windows[split] = ClipWindows(store, split, clip_frames, hop)
    return windows


def _carry_tokenizer(home: Path, target: Path) -> None:
    """Put a copy of the tokenizer beside its shards, so that they can be decoded wherever they go.

    Raises:
        ValueError: If shards of another tokenizer are there already.
    """
    if target.exists():
        found, expected = fingerprint(target), fingerprint(home)
        if found != expected:
            raise ValueError(
                f"{target.parent} holds shards of tokenizer {found[:12]}, got {expected[:12]}; "
                "choose another --out or delete the folder"
            )
        return
    with atomic_folder(target) as building:
        shutil.copytree(home, building, dirs_exist_ok=True)


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


def _encode_captions(encoder: TextEncoder, store: ClipStore, folder: Path, most: int) -> dict[str, Any]:
    """Store the vectors of every distinct caption, of all splits; returns what the manifest says of them."""
    captions = sorted({record.caption for record in store.records if record.caption is not None})
    if all(record.caption is None for record in store.split("train")):
        raise ValueError(
            f"no training video has a caption, expected some for --text-encoder {encoder.name}; add them "
            "(metadata.jsonl), or leave the option out"
        )
    longest = encoder.longest(captions)
    words = max(SHORTEST_CAPTION, min(most or longest, longest))
    begins = track(
        range(0, len(captions), CAPTIONS_AT_ONCE), "captions", transient=True, disable=not sys.stdout.isatty()
    )
    parts = (encoder.encode(captions[begin : begin + CAPTIONS_AT_ONCE], words, cut=bool(most)) for begin in begins)
    write_caption_table(folder, encoder.name, encoder.probe, captions, parts)
    table = CaptionTable.open(folder)  # perhaps of an earlier run
    encoder.check_same(table.encoder, table.dim, table.probe)
    if table.words != words:
        raise ValueError(
            f"{folder} holds vectors of up to {table.words} tokens a caption, expected {words}; choose another --out "
            "or delete the folder"
        )
    print(f"captions: {len(captions)} distinct, up to {words} tokens of {encoder.dim} values by {encoder.name}")
    return {"words": words, "encoder": encoder.name, "dim": encoder.dim, "probe": list(table.probe)}


def _plan(
    config: Config,
    tokenizer: VideoTokenizer,
    home: Path,
    windows: ClipWindows,
    source: dict[str, Any],
) -> ShardPlan:
    store, first = windows.store, windows.records[0]
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
        source={"levels": list(tokenizer.config.digits), **source},
    )
    return ShardPlan(manifest, len(windows), config.clips_per_shard)


def _write_split(tokenizer: VideoTokenizer, windows: ClipWindows, plan: ShardPlan, config: Config) -> ShardManifest:
    folder = config.out / plan.manifest.split
    store_plan(folder, plan)
    for number, (start, stop) in enumerate(plan.ranges):
        if finished_shard(folder, plan, number) is not None:  # asked anew: another process may share the job
            continue
        indices = np.concatenate(list(_encoded(tokenizer, windows, start, stop, config.batch_size, plan)))
        records = [windows.record(clip) for clip in range(start, stop)]
        write_shard(folder / shard_name(number), indices, records, plan.manifest)
    return finish(folder, plan)


@torch.no_grad()
def _encoded(
    tokenizer: VideoTokenizer, windows: ClipWindows, start: int, stop: int, batch_size: int, plan: ShardPlan
) -> Iterator[np.ndarray]:
    device = next(tokenizer.parameters()).device
    begins = range(start, stop, batch_size)
    title = f"{plan.manifest.split} clips {start} to {stop - 1}"
    for begin in track(begins, title, transient=True, disable=not sys.stdout.isatty()):
        frames = windows.batch(range(begin, min(begin + batch_size, stop)))
        yield tokenizer.encode(to_video(frames).to(device)).cpu().numpy().astype(plan.manifest.dtype)


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    run_tool(tokenize_dataset, Config, argv, description=__doc__)


if __name__ == "__main__":
    main()
