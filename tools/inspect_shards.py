"""Look into token shards: what is in them, whether they are whole, and what a few clips look like.

    python tools/inspect_shards.py runs/tokens                         # then look at runs/shards/clips.png
    python tools/inspect_shards.py s3://bucket/tokens --verify --clips 0

Says for every split how many clips, videos and tokens it has, how the codes are used (codes.png, codes.json), which
labels, captions and actions the clips have; and decodes a few clips with the tokenizer that lies beside them. Every
shard that is read is checked; --verify checks all of them and names those that are bad, with their clips.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tyro.conf import Positional

from tokenreel.datasets.atomic_file import atomic_file
from tokenreel.datasets.place import open_place
from tokenreel.datasets.shard_cache import ShardCache
from tokenreel.datasets.shard_manifest import ShardManifest
from tokenreel.datasets.shard_summary import ShardSummary, spread, summarize
from tokenreel.datasets.token_shards import TokenShards, splits
from tokenreel.evaluation.film_strip import write_film_strip
from tokenreel.evaluation.plots import line_plot
from tokenreel.tokenizer import VideoTokenizer, fingerprint
from tokenreel.tokenizer.frames import to_frames
from tokenreel.tools.token_job import MODEL_FILES
from tokenreel.training.command_line import run_tool
from tokenreel.training.hardware import DeviceName, pick_device
from tokenreel.training.run_folder import check_writable

MANY = 8
"""Values that are listed, of labels and the like."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """What to look at."""

    shards: Positional[str] = "runs/tokens"
    """Folder or URL of the shards."""
    verify: bool = False
    """Read all shards and compare their checksums; exit status 2 if one is bad."""
    skip_bad: bool = False
    """Read all shards, leave bad ones out, and say so."""
    most_clips: int = 100_000
    """Clips per split that are counted, spread evenly over it; 0: all."""
    clips: int = 4
    """Clips per split that are decoded to a picture."""
    out: Path = Path("runs/shards")
    """Folder for clips.png, codes.png and codes.json."""
    cache: Path = Path("runs/remote")
    """Folder in which copies of remote shards are kept."""
    cache_gib: float = 20.0
    """Most that the copies may take, in GiB."""
    device: DeviceName = "auto"
    """Where to decode."""

    def __post_init__(self) -> None:
        if min(self.most_clips, self.clips) < 0 or self.cache_gib <= 0:
            raise ValueError(
                f"most_clips {self.most_clips}, clips {self.clips}, cache_gib {self.cache_gib}: expected 0 or more of "
                "the first two, more than 0 of the last"
            )


def inspect_shards(config: Config) -> None:
    """Print what is in every split, and write pictures and numbers."""
    check_writable(config.out)
    found = splits(config.shards)
    if not found:
        raise FileNotFoundError(f"no finished token shards in {config.shards}; run tools/tokenize_dataset.py")
    # Clips of several shapes lie in a folder each, which no store lists.
    manifests = [ShardManifest.load(open_place(config.shards).child(split)) for split in found]
    found = sorted({*found, *(name for manifest in manifests for name in manifest.source.get("shapes", ()))})
    cache = ShardCache(config.cache, int(config.cache_gib * 2**30))
    summaries, strips, bad = {}, [], 0
    for split in found:
        shards = TokenShards.open(config.shards, split, skip_bad=config.skip_bad or config.verify, cache=cache)
        bad += len(shards.skipped)
        for reason in shards.skipped.values():
            print(f"{split}: bad shard: {reason}")
        summaries[split] = summarize(shards, config.most_clips)
        _say(split, shards, summaries[split])
        strips += _strips(config, split, shards, cache)
    if config.verify and not bad:
        print("all checksums are right")
    _write(config.out, summaries, strips)
    if bad and not config.skip_bad:
        raise ValueError(
            f"{bad} bad shards, named above; run tools/tokenize_dataset.py again, or train with --skip-bad"
        )


def _say(split: str, shards: TokenShards, found: ShardSummary) -> None:
    manifest = shards.manifest
    tokens = len(shards) * int(np.prod(manifest.grid))
    size = sum(entry.bytes for entry in manifest.shards if entry.name not in shards.skipped)
    print(
        f"{split}: {len(shards)} clips of {shards.num_videos} videos, {tokens} tokens in "
        f"{len(manifest.shards) - len(shards.skipped)} shards ({size / 2**20:.1f} MiB); {manifest.clip_frames} frames "
        f"of {manifest.frame_size[0]}x{manifest.frame_size[1]}, a grid of {'x'.join(map(str, manifest.grid))}"
    )
    of = "" if found.read == found.clips else f" (of {found.read} clips)"
    print(f"  codes: perplexity {found.perplexity:.1f} of {len(found.uses)}, {found.dead_codes} dead{of}")
    for name, counter in found.values.items():
        if counter:
            listed = ", ".join(f"{value} {count}" for value, count in counter.most_common(MANY))
            more = f" and {len(counter) - MANY} more" if len(counter) > MANY else ""
            print(f"  {name}s: {listed}{more}{of}")
    if found.captions:
        caption, times = found.captions.most_common(1)[0]
        print(
            f"  captions: {found.captions.total()} clips, {len(found.captions)} distinct, such as {caption!r} ({times})"
        )
    if found.with_actions:
        print(f"  actions: {found.with_actions} clips")
    for name, count in found.changed.items():
        print(f"  {name}: {count} clips")


def _strips(config: Config, split: str, shards: TokenShards, cache: ShardCache) -> list[tuple[str, np.ndarray]]:
    """A few clips as title and frames, decoded; none where no tokenizer lies beside the shards."""
    beside, made_by = open_place(config.shards).child("tokenizer"), shards.manifest.tokenizer
    if not config.clips:
        return []
    if not beside.exists("config.json"):
        print(f"there is no tokenizer in {beside}: no clips are shown")
        return []
    folder = cache.folder_of(beside, MODEL_FILES, made_by)
    if (got := fingerprint(folder)) != made_by:
        raise ValueError(f"{beside} is tokenizer {got[:12]}, the shards are of {made_by[:12]}; put that one there")
    tokenizer = VideoTokenizer.from_pretrained(folder).to(pick_device(config.device))
    chosen = list(spread(len(shards), config.clips))
    indices, records = shards.batch(chosen)
    device = next(tokenizer.parameters()).device
    with torch.no_grad():
        clips = [to_frames(tokenizer.decode(torch.from_numpy(one[None]).to(device)).cpu())[0] for one in indices]
    titles = [
        ", ".join([f"{split} clip {number}", *(str(record[name]) for name in ("label", "caption") if name in record)])
        for number, record in zip(chosen, records, strict=True)
    ]
    return list(zip(titles, clips, strict=True))


def _write(out: Path, summaries: dict[str, ShardSummary], strips: list[tuple[str, np.ndarray]]) -> None:
    with atomic_file(out / "codes.json") as file:
        file.write(json.dumps({split: found.to_json() for split, found in summaries.items()}).encode("ascii"))
    curves = {}
    for split, found in summaries.items():
        uses = np.sort(found.uses)[::-1] / found.uses.sum()
        curves[split] = (np.arange(1, len(uses) + 1), uses)
    line_plot(out / "codes.png", curves, "code, most used first", "share of all indices", "How the codes are used")
    print(f"codes: {out / 'codes.png'}, {out / 'codes.json'}")
    if strips:
        write_film_strip(out / "clips.png", strips)
        print(f"look at {out / 'clips.png'}")


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    run_tool(inspect_shards, Config, argv, description=__doc__)


if __name__ == "__main__":
    main()
