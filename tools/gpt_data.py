"""What a GPT trains on, looked at before training: its splits, its tokenizer, what its clips are told."""

import hashlib
import math
from pathlib import Path
from typing import Protocol

from tokenreel.datasets.caption_table import CAPTIONS, TABLE_FILES, TEXTS_FILE, CaptionTable
from tokenreel.datasets.clip_groups import ClipGroups
from tokenreel.datasets.place import open_place
from tokenreel.datasets.shard_cache import ShardCache
from tokenreel.datasets.shard_job import PLAN_NAME
from tokenreel.datasets.token_shards import TokenShards, splits
from tokenreel.tokenizer import fingerprint
from tokenreel.tokenizer.pretrained import find_folder
from tokenreel.tools.parents import same_indices
from tokenreel.tools.token_job import MODEL_FILES
from tokenreel.training import ranks
from tokenreel.transformer import ConditionConfig, GPTConfig
from tokenreel.transformer.conditions import KINDS


class ShardSettings(Protocol):
    """Where token shards are, and how they are opened."""

    @property
    def shards(self) -> str:
        """Folder or URL."""
        ...

    @property
    def verify(self) -> bool:
        """Whether all are checked at once."""
        ...

    @property
    def skip_bad(self) -> bool:
        """Whether bad ones are left out."""
        ...

    @property
    def cache(self) -> Path:
        """Folder for copies of remote shards."""
        ...

    @property
    def cache_gib(self) -> float:
        """Most that the copies may take, in GiB."""
        ...


def shard_cache(settings: ShardSettings) -> ShardCache:
    """Where copies of remote shards are kept."""
    return ShardCache(settings.cache, int(settings.cache_gib * 2**30))


def open_shards(settings: ShardSettings, split: str, tokenizer: str | None = None) -> ClipGroups[TokenShards]:
    """Open a split, and say which shards are left out, and when the copies do not fit; errors of `TokenShards.open`.

    Clips of several shapes lie in a folder each, which the first one names.
    """
    cache = shard_cache(settings)
    first = TokenShards.open(settings.shards, split, tokenizer, settings.verify, settings.skip_bad, cache)
    made_by, names = first.manifest.tokenizer, first.manifest.source.get("shapes", [split])
    others = [
        TokenShards.open(settings.shards, name, made_by, settings.verify, settings.skip_bad, cache)
        for name in names[1:]
    ]
    groups = ClipGroups([first, *others])
    for where, shards in zip(names, groups.groups, strict=True):
        for name, reason in shards.skipped.items():
            ranks.say(f"{where}: going on without {name}: {reason}")
    size = sum(entry.bytes for shards in groups.groups for entry in shards.manifest.shards)
    if first.is_remote and size > cache.most_bytes:
        ranks.say(
            f"{split}: the shards take {size / 2**30:.1f} GiB, their copies may take {settings.cache_gib:g}: they will "
            "be loaded over and over; raise --cache-gib"
        )
    return groups


def usual_tokens(shards: ClipGroups[TokenShards]) -> int:
    """Indices of a clip of the frame size that was asked for first, of which there may be no training clip."""
    manifest = shards.first.manifest
    data = manifest.source.get("data") or {}
    if "size" not in data:
        return math.prod(manifest.grid)
    sides = max(group.manifest.clip_frames for group in shards.groups), data["size"], data.get("width") or data["size"]
    return math.prod(length // step for length, step in zip(sides, manifest.stride, strict=True))


def open_captions(settings: ShardSettings) -> CaptionTable:
    """Open the vectors of captions beside the shards; errors of `CaptionTable.open`."""
    place = open_place(settings.shards).child(CAPTIONS)
    key = hashlib.sha256(place.read(TEXTS_FILE)).hexdigest() if place.exists(TEXTS_FILE) else ""
    return CaptionTable.open(shard_cache(settings).folder_of(place, TABLE_FILES, key))


def validation_split(shards: str) -> str:
    """``val``, or ``train`` where there are no validation clips.

    Raises:
        ValueError: If tokenizing was stopped before the validation clips were finished.
    """
    if "val" in splits(shards):
        return "val"
    unfinished = open_place(shards).child("val")
    if unfinished.exists(PLAN_NAME):
        raise ValueError(f"the shards in {unfinished} are unfinished; run tools/tokenize_dataset.py again")
    ranks.say("there are no validation clips: validation figures are of training clips")
    return "train"


def of_known_shapes(held_out: ClipGroups[TokenShards], config: GPTConfig) -> ClipGroups[TokenShards]:
    """The validation clips whose shapes a model is made for; says what is left out.

    Raises:
        ValueError: If there are none.
    """
    kept = []
    for group in held_out.groups:
        t_lat, *frame = group.manifest.grid
        if t_lat <= config.grid[0] and tuple(frame) in config.frames:
            kept.append(group)
        else:
            shape = f"{group.manifest.clip_frames} frames of {'x'.join(map(str, group.manifest.frame_size))}"
            ranks.say(f"{len(group)} validation clips are left out: no training clip has {shape}")
    if not kept:
        raise ValueError("no validation clip has the shape of a training clip, expected some; divide the videos anew")
    return ClipGroups(kept)


def matching_tokenizer(settings: ShardSettings, expected: str, asked: Path | None) -> Path:
    """The folder of the tokenizer that made some shards, or of one that would have made the same.

    Args:
        settings: Where the shards are, a copy of their tokenizer beside them.
        expected: Fingerprint of the tokenizer that made them.
        asked: The tokenizer that somebody named; None takes the copy.

    Raises:
        ValueError: If it makes other indices.
    """
    beside = open_place(settings.shards).child("tokenizer")
    found = fingerprint(find_folder(asked)) if asked else ""
    if asked and (found == expected or not beside.exists("config.json")):
        folder = own = find_folder(asked)
    else:
        own = shard_cache(settings).folder_of(beside, MODEL_FILES, expected)
        folder = find_folder(asked or own)
        found = fingerprint(folder)
    if found != expected and fingerprint(own) == expected and same_indices(own, folder):
        ranks.say(f"{folder} has another decoder than the tokenizer of the shards; its indices are the same")
    elif found != expected:
        raise ValueError(
            f"the shards in {settings.shards} were made by tokenizer {expected[:12]}, got {folder} with {found[:12]}; "
            "tokenize with this tokenizer, or pass the one that made them"
        )
    return folder


def told(known: ConditionConfig, wanted: tuple[str, ...]) -> str:
    """What the model is conditioned on, in words.

    Raises:
        ValueError: If some kinds were asked for by name and the shards lack one.
    """
    missing = [kind for kind in wanted if kind not in known.kinds]
    if missing and wanted != KINDS:
        raise ValueError(
            f"conditions {' '.join(wanted)}: the shards have no {' and no '.join(missing)}; leave that out, or "
            "tokenize videos that have them (actions_mismatch in clips.jsonl says where their number was wrong)"
        )
    said = {
        "labels": f"{len(known.labels)} labels",
        "captions": f"captions of up to {known.caption_words} {'tokens' if known.text_encoder else 'words'}",
        "actions": f"actions ({', '.join(known.action_names) or f'{known.action_size} numbers'})",
    }
    return "conditioned on " + (", ".join(said[kind] for kind in known.kinds) or "nothing")
