"""What people say about their videos: ``metadata.jsonl`` and a JSON file beside a video.

``metadata.jsonl`` follows the VideoFolder convention of Hugging Face: one JSON object per line, whose
``file_name`` is relative to the folder of the file. A sidecar ``name.json`` beside ``name.mp4`` holds the
same keys for that video.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class VideoMetadata:
    """What is known of a video apart from its frames; everything may be missing.

    Attributes:
        label: Class.
        caption: Text.
        actions: One number, or list of numbers, per source frame.
        action_names: Names of the actions 0, 1, ….
    """

    label: str | None = None
    caption: str | None = None
    actions: list[Any] | None = None
    action_names: list[str] | None = None

    def over(self, other: "VideoMetadata") -> "VideoMetadata":
        """This metadata, with what it lacks taken from ``other``."""
        return replace(other, **{name: value for name, value in vars(self).items() if value is not None})


def read_sidecar(path: Path) -> VideoMetadata:
    """Reads the JSON file beside a video.

    Raises:
        ValueError: If it is not a JSON object with keys of the right types.
    """
    return _metadata(_parsed(path.read_bytes(), str(path)), str(path))


def read_metadata_file(path: Path) -> dict[str, tuple[int, VideoMetadata]]:
    """Reads a ``metadata.jsonl``.

    Returns:
        By ``file_name`` (with ``/``, relative to the folder of the file): line number and metadata.

    Raises:
        ValueError: If a line is not a JSON object with a ``file_name`` and keys of the right types.
    """
    entries: dict[str, tuple[int, VideoMetadata]] = {}
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        data = _parsed(line, where)
        name = data.get("file_name")
        if not isinstance(name, str) or not name:
            raise ValueError(f"{where}: file_name is {name!r}, expected the path of a video beside this file")
        name = name.replace("\\", "/").removeprefix("./")
        if name in entries:
            raise ValueError(f"{where}: file_name {name!r} comes a second time; keep one of the lines")
        entries[name] = (number, _metadata(data, where))
    return entries


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


def _parsed(text: bytes, where: str) -> dict[str, Any]:
    try:
        data = json.loads(text.decode("utf-8-sig"))
    except ValueError as error:
        raise ValueError(f"{where}: not valid JSON ({error}); correct or remove it") from error
    if not isinstance(data, dict):
        raise ValueError(f'{where}: got {type(data).__name__}, expected a JSON object such as {{"label": "run"}}')
    return data


def _metadata(data: dict[str, Any], where: str) -> VideoMetadata:
    label: Any = data.get("label")
    if isinstance(label, int) and not isinstance(label, bool):
        label = str(label)
    for name, value in (("label", label), ("caption", data.get("caption"))):
        if value is not None and not isinstance(value, str):
            raise ValueError(f"{where}: {name} is {value!r}, expected text")
    actions, names = data.get("actions"), data.get("action_names")
    if actions is not None and not _are_actions(actions):
        raise ValueError(f"{where}: actions must be one number, or list of numbers, per frame")
    if names is not None and not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        raise ValueError(f"{where}: action_names must be a list of texts")
    return VideoMetadata(label, data.get("caption"), actions, names)


def _are_actions(actions: Any) -> bool:
    if not isinstance(actions, list):
        return False
    return all(
        all(isinstance(number, int | float) for number in action)
        if isinstance(action, list)
        else isinstance(action, int | float)
        for action in actions
    )
