"""What people say about a video apart from its frames: the keys that are understood, and those that are kept.

The keys follow the VideoFolder convention of Hugging Face; ``metadata_files`` says where they are read from.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
"""What splits are called, and what is meant."""
SYNONYMS = {"text": "caption", "license": "licence"}
"""Names that mean a key of ours where that one is not there."""
TEXTS = ("label", "caption", "licence", "source", "group", "split")
KNOWN = {*TEXTS, "file_name", "actions", "action_names"}
LONGEST_EXTRA = 1000
"""Characters of JSON. Longer values (states or rewards for every frame) stay where they were read."""


@dataclass(frozen=True)
class VideoMetadata:
    """What is known of a video apart from its frames; everything may be missing.

    Attributes:
        label: Class.
        caption: Text.
        actions: One number, or list of numbers, per source frame.
        action_names: Names of the actions 0, 1, ….
        split: ``train``, ``val`` or ``test``.
        licence: Under what terms it may be used.
        source: Where it comes from: a name, a link.
        group: Videos of one group (cameras of one scene, parts of one recording) stay on one side of the split.
        extra: Everything else that was said and is short, by name.
    """

    label: str | None = None
    caption: str | None = None
    actions: list[Any] | None = None
    action_names: list[str] | None = None
    split: str | None = None
    licence: str | None = None
    source: str | None = None
    group: str | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    def over(self, other: "VideoMetadata") -> "VideoMetadata":
        """This metadata, with what it lacks taken from ``other``."""
        said = {name: value for name, value in vars(self).items() if value is not None}
        return replace(other, **{**said, "extra": {**other.extra, **self.extra}})


def metadata_of(data: Mapping[str, Any], where: str) -> VideoMetadata:
    """What a JSON object, or a row of a table, says of a video.

    Args:
        data: By key.
        where: File and line, for errors.

    Raises:
        ValueError: If a known key has a value of the wrong type.
    """
    said = {SYNONYMS[name]: value for name, value in data.items() if name in SYNONYMS} | {
        name: value for name, value in data.items() if name not in SYNONYMS
    }
    texts = {name: _text(name, said.get(name), where) for name in TEXTS}
    if texts["split"] is not None:
        if texts["split"] not in SPLITS:
            raise ValueError(f"{where}: split is {texts['split']!r}, expected one of {', '.join(SPLITS)}")
        texts["split"] = SPLITS[texts["split"]]
    actions, names = said.get("actions"), said.get("action_names")
    if actions is not None and not _are_actions(actions):
        raise ValueError(f"{where}: actions must be one number, or list of numbers, per frame")
    if names is not None and not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        raise ValueError(f"{where}: action_names must be a list of texts")
    extra = {str(name): value for name, value in said.items() if name not in KNOWN and _is_short(value)}
    return VideoMetadata(actions=actions, action_names=names, extra=extra, **texts)


def _text(name: str, value: Any, where: str) -> str | None:
    numbered = name in ("label", "group") and isinstance(value, int | float) and not isinstance(value, bool)
    if numbered and math.isfinite(value) and value == int(value):
        return str(int(value))  # a table with gaps makes 3.0 of class 3
    if value is not None and not isinstance(value, str):
        raise ValueError(f"{where}: {name} is {value!r}, expected text")
    return value


def _is_short(value: Any) -> bool:
    return value is not None and len(json.dumps(value)) <= LONGEST_EXTRA


def aligned_actions(
    actions: list[Any] | None, facts: dict[str, Any], indices: list[int]
) -> tuple[list[Any] | None, dict[str, str]]:
    """Picks the actions of the stored frames.

    Args:
        actions: One per source frame, or None.
        facts: ``decoding.VideoFacts`` of the source as a dict.
        indices: Source frame of each stored frame.

    Returns:
        One action per stored frame and no flag; or with the flag ``actions_length`` where one action too few
        was repeated or too many were cut (a damaged file may lack any number of frames), and the flag
        ``actions_resampled`` where frames, and their actions, were dropped or repeated to change the rate; or None
        and the flag ``actions_mismatch``.
    """
    if actions is None:
        return None, {}
    count, expected = len(actions), facts["source_frames"]
    remark = f"{count} actions for {expected} frames"
    if count and (abs(count - expected) <= 1 or (facts["damaged"] and count > expected)):
        picked = [actions[min(index, count - 1)] for index in indices]
        flags = {} if count == expected else {"actions_length": remark}
        if indices != list(range(len(indices))) or len(indices) < expected:
            flags["actions_resampled"] = f"{len(set(indices))} of {count} actions kept, those of the frames kept"
        return picked, flags
    return None, {"actions_mismatch": remark}


def _are_actions(actions: Any) -> bool:
    if not isinstance(actions, list):
        return False
    return all(
        all(isinstance(number, int | float) for number in action)
        if isinstance(action, list)
        else isinstance(action, int | float)
        for action in actions
    )
