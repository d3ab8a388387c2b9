"""What clips are asked for: on the command line for one, in a file for many.

``prompts.txt`` has one caption per line. ``prompts.jsonl`` has one JSON object per line, all keys optional:

    {"prompt": "two red balls", "label": "two balls", "seed": 7, "frames": 8, "format": "gif"}
    {"actions": ["left", "left", "stay", "right"]}
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from tokenreel.transformer import ClipConditions
from tokenreel.transformer.conditions import Action

FORMATS = ("mp4", "webm", "gif", "avi")
"""File formats of clips."""


@dataclass(frozen=True)
class Request:
    """One clip that is asked for; what is None or 0 is chosen by the tool."""

    prompt: str | None = None
    """Caption."""
    label: str | None = None
    """Class."""
    actions: Sequence[Action | None] | None = None
    """The action that leads to each new frame."""
    seed: int | None = None
    """Of the sampler."""
    frames: int = 0
    """New frames."""
    format: str | None = None
    """File format."""

    def __post_init__(self) -> None:
        for name in ("prompt", "label"):
            if not isinstance(getattr(self, name), str | None):
                raise ValueError(f"{name} {getattr(self, name)!r}: expected text")
        if self.seed is not None and not (_whole(self.seed) and 0 <= self.seed < 2**32):
            raise ValueError(f"seed {self.seed!r}: expected a whole number, 0 or more and below 2**32")
        if not (_whole(self.frames) and self.frames >= 0):
            raise ValueError(f"frames {self.frames!r}: expected a number of new frames, or 0 to let the tool choose")
        if self.format is not None and self.format not in FORMATS:
            raise ValueError(f"format {self.format!r}: expected one of {', '.join(FORMATS)}")
        if self.actions is not None and not isinstance(self.actions, list | tuple):
            raise ValueError(f"actions {self.actions!r}: expected a list, one action per new frame")

    def over(self, other: "Request") -> "Request":
        """This request, with what it leaves open taken from ``other``."""
        said = {name: value for name, value in vars(self).items() if value is not None}
        if not self.frames:
            del said["frames"]
        return replace(other, **said)

    def conditions(
        self, own: ClipConditions, prompt_frames: int, num_frames: int, last_frames: int = 0
    ) -> ClipConditions:
        """What is said of the whole clip: as requested, and where that is silent as the prompt's data says.

        Args:
            own: What is known of the clip that the prompt frames are from.
            prompt_frames: Frames of the prompt.
            num_frames: New frames.
            last_frames: Frames given that come after them.

        Raises:
            ValueError: If there are fewer actions than new frames.
        """
        # What was played after the clip's end is unknown.
        in_all = prompt_frames + num_frames + last_frames
        actions = own.actions and [*own.actions, *[None] * (in_all - len(own.actions))]
        if self.actions is not None:
            if len(self.actions) < num_frames:
                raise ValueError(
                    f"got {len(self.actions)} actions for {num_frames} new frames; give one per frame, or ask for "
                    "fewer frames"
                )
            before = list(own.actions or [None] * prompt_frames)[:prompt_frames]
            actions = [*before, *self.actions[:num_frames], *[None] * last_frames]
            actions[0] = None  # nothing leads to a clip's first frame
        label = own.label if self.label is None else self.label
        caption = own.caption if self.prompt is None else self.prompt or None  # "" says that there is none
        return ClipConditions(label, caption, actions)


def read_requests(path: Path) -> list[Request]:
    """Read ``prompts.txt`` or ``prompts.jsonl``; empty lines are passed over.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is of another kind, empty, or a line is no request.
    """
    if path.suffix not in (".txt", ".jsonl"):
        raise ValueError(f"{path}: expected prompts.txt (a caption per line) or prompts.jsonl (a JSON object per line)")
    known = {field.name for field in fields(Request)}
    requests = []
    for number, line in enumerate(_text(path).splitlines(), start=1):
        if not line.strip():
            continue
        try:
            said = {"prompt": line.strip()} if path.suffix == ".txt" else json.loads(line)
            if not isinstance(said, dict) or set(said) - known:
                raise ValueError(f"got {line.strip()!r}, expected a JSON object with keys among {sorted(known)}")
            requests.append(Request(**said))
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {error}") from None
    if not requests:
        raise ValueError(f"{path} has no requests, expected one per line")
    return requests


def read_actions(path: Path) -> list[Any]:
    """Read a JSON file with a list of actions, one per new frame: numbers, names, or lists of numbers.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it holds anything else.
    """
    try:
        said = json.loads(_text(path))
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON ({error}); expected a list of actions") from None
    actions = said.get("actions") if isinstance(said, dict) else said
    if not isinstance(actions, list) or not actions:
        raise ValueError(f'{path}: expected a list such as ["left", "left", "stay"], or {{"actions": [...]}}')
    return actions


def _text(path: Path) -> str:
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text ({error}); save it as UTF-8") from None


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
