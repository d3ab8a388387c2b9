"""What is in the token shards of a split: how codes are used, what is said of the clips, how they were changed."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tokenreel.datasets.token_shards import TokenShards

AT_ONCE = 512
COUNTED = ("label", "licence", "source")
"""What the user said of clips that has few values, which are counted one by one."""


@dataclass
class ShardSummary:
    """Facts of the clips that were read.

    Attributes:
        clips: Clips in the split.
        read: How many of them these facts are of.
        videos: Distinct videos of those.
        uses: int64 (K,), how often each index occurs in them.
        values: For each of `COUNTED`, how many clips have which value.
        captions: How many clips have which caption.
        with_actions: Clips that have actions.
        changed: Clips that are "flipped", have a "crop", or are of a later "pass".
    """

    clips: int
    read: int
    uses: np.ndarray
    videos: int = 0
    values: dict[str, Counter[str]] = field(default_factory=lambda: {name: Counter() for name in COUNTED})
    captions: Counter[str] = field(default_factory=Counter)
    with_actions: int = 0
    changed: Counter[str] = field(default_factory=Counter)

    @property
    def perplexity(self) -> float:
        """exp(entropy) of the index use, 1 to K."""
        share = self.uses[self.uses > 0] / self.uses.sum()
        return math.exp(-float((share * np.log(share)).sum()))

    @property
    def dead_codes(self) -> int:
        """Codes that none of the clips uses."""
        return int((self.uses == 0).sum())

    def to_json(self) -> dict[str, Any]:
        """All of it as plain JSON values; captions as numbers only."""
        return {
            "clips": self.clips,
            "clips_read": self.read,
            "videos_read": self.videos,
            "perplexity": self.perplexity,
            "dead_codes": self.dead_codes,
            "histogram": self.uses.tolist(),
            **{f"{name}s": dict(counter.most_common()) for name, counter in self.values.items()},
            "captions": {"clips": self.captions.total(), "distinct": len(self.captions)},
            "with_actions": self.with_actions,
            "changed": dict(self.changed),
        }


def summarize(shards: TokenShards, most_clips: int) -> ShardSummary:
    """Read a split, or ``most_clips`` of its clips spread evenly over it.

    Raises:
        ValueError, OSError: If a shard is missing or damaged; names its clips.
    """
    chosen = spread(len(shards), most_clips)
    found = ShardSummary(len(shards), len(chosen), np.zeros(shards.manifest.codebook_size, np.int64))
    videos: set[str] = set()
    for begin in range(0, len(chosen), AT_ONCE):
        indices, records = shards.batch(chosen[begin : begin + AT_ONCE])
        found.uses += np.bincount(indices.reshape(-1), minlength=len(found.uses))
        for record in records:
            videos.add(record["video"])
            _count(found, record)
    found.videos = len(videos)
    return found


def spread(count: int, most: int) -> Sequence[int]:
    """At most ``most`` of ``count`` numbers (all if 0), evenly spread, the first and the last among them."""
    if most == 0 or count <= most:
        return range(count)
    return np.linspace(0, count - 1, most).round().astype(int).tolist()


def _count(found: ShardSummary, record: dict[str, Any]) -> None:
    for name, counter in found.values.items():
        if record.get(name) is not None:
            counter[str(record[name])] += 1
    if record.get("caption") is not None:
        found.captions[str(record["caption"])] += 1
    found.with_actions += "actions" in record
    found.changed.update(name for name in ("pass", "flipped", "crop") if name in record)
