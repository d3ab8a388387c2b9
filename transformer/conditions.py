"""What clips are conditioned on: a class, a caption, the action that led to each frame.

Said in plain words for one clip (:class:`ClipConditions`), checked against what a model knows
(:class:`ConditionConfig`), and carried into it as tensors of a batch (:class:`Conditions`).
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

WORD_BYTES = 16
"""Bytes of one prefix token of a caption; a longer word takes several."""

SHORTEST_CAPTION = 8
"""Words (tokens of a text encoder) that a caption may have at least, however short those of the training are."""

KINDS: tuple[Literal["labels", "captions", "actions"], ...] = ("labels", "captions", "actions")
"""What a model can be told, by name."""

Action = int | float | str | Sequence[float]
"""A discrete action by number or name, or a vector of numbers."""


@dataclass(frozen=True)
class ClipConditions:
    """What is said about one clip; what is None is left open."""

    label: str | None = None
    """Its class."""
    caption: str | None = None
    """What is to be seen."""
    actions: Sequence[Action | None] | None = None
    """For each frame the action that led to it; None where unknown, as it is for a clip's first frame."""


class Conditions(NamedTuple):
    """The same for a batch; None says nothing."""

    labels: Tensor | None = None
    """int64 (B,): 0 is no label, else 1 + its place among the model's labels."""
    captions: Tensor | None = None
    """int64 (B, W, 16): the bytes of each word plus 1, 0 where there is none; or, from a text encoder, float32
    (B, W, E), zero vectors where there is none."""
    actions: Tensor | None = None
    """int64 (B, T', frames per latent frame): 0 is unknown, else 1 + the action's number; or float32 (..., size),
    not-a-number where unknown."""

    def to(self, device: torch.device) -> "Conditions":
        """All of it on a device."""
        return Conditions(*(part if part is None else part.to(device) for part in self))

    def rows(self, start: int, stop: int) -> "Conditions":
        """Those of some clips of the batch."""
        return Conditions(*(part if part is None else part[start:stop] for part in self))

    @property
    def empty(self) -> bool:
        """Whether they say nothing about any clip."""
        said = [part for part in (self.labels, self.captions) if part is not None]
        if self.actions is not None:
            said.append(~self.actions.isnan() if self.actions.is_floating_point() else self.actions)
        return not any(bool(part.any()) for part in said)


@dataclass(frozen=True)
class ConditionConfig:
    """What a GPT can be conditioned on."""

    labels: tuple[str, ...] = ()
    """Names of the classes, in order; none: it knows no classes."""
    caption_words: int = 0
    """Prefix tokens for a caption, the longest it takes; 0: it knows no captions."""
    text_encoder: str = ""
    """Folder or hub id of the frozen encoder whose vectors tell a caption; "": bytes of words, learned with the GPT."""
    text_dim: int = 0
    """Size of that encoder's vectors."""
    text_probe: tuple[float, ...] = ()
    """What it makes of a fixed sentence, by which another encoder is told."""
    action_names: tuple[str, ...] = ()
    """Names of discrete actions 0, 1, …"""
    action_size: int = 0
    """Numbers in an action that is a vector; 0 with empty names: it knows no actions."""
    action_mean: tuple[float, ...] = ()
    """Of each number over the training data; what the model sees is relative to it …"""
    action_std: tuple[float, ...] = ()
    """… in units of this."""
    frames_per_latent: int = 4
    """Frames, and so actions, of one latent frame."""
    dropout: float = 0.1
    """Share of training clips that lose all conditions, and again of those that lose one of them, so that the model
    can do without and guidance has something to compare with."""

    def __post_init__(self) -> None:
        for name in ("labels", "text_probe", "action_names", "action_mean", "action_std"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if not 0 <= self.dropout <= 1:
            raise ValueError(f"condition dropout {self.dropout}: expected a share in [0, 1]")
        if self.action_names and self.action_size:
            raise ValueError("actions have names and a size; expected either discrete actions or vectors")
        if not self.action_size == len(self.action_mean) == len(self.action_std):
            raise ValueError(
                f"actions of {self.action_size} numbers have {len(self.action_mean)} means and "
                f"{len(self.action_std)} deviations, expected one each"
            )

    @classmethod
    def of_data(cls, facts: Mapping[str, Any], use: Iterable[str], frames_per_latent: int, dropout: float) -> Self:
        """What the data allows.

        Args:
            facts: ``source`` of a shard manifest: "labels", "captions", "actions" where the videos have them.
            use: Those of the three to condition on.
            frames_per_latent: Temporal stride of the tokenizer.
            dropout: See the field.
        """
        labels, captions, actions = (facts.get(name) or {} if name in use else {} for name in KINDS)
        return cls(
            labels=tuple(labels),
            caption_words=max(captions["words"], SHORTEST_CAPTION) if captions else 0,
            text_encoder=captions.get("encoder", ""),
            text_dim=captions.get("dim", 0),
            text_probe=tuple(captions.get("probe", ())),
            action_names=tuple(actions.get("names", ())),
            action_size=actions.get("size", 0),
            action_mean=tuple(actions.get("mean", ())),
            action_std=tuple(actions.get("std", ())),
            frames_per_latent=frames_per_latent,
            dropout=dropout,
        )

    @property
    def kinds(self) -> tuple[str, ...]:
        """Which of "labels", "captions", "actions" the model knows."""
        known = (self.labels, self.caption_words, self.action_names or self.action_size)
        return tuple(kind for kind, there in zip(KINDS, known, strict=True) if there)

    def of_record(self, record: Mapping[str, Any]) -> ClipConditions:
        """What a clip's record says, as far as the model knows of such things; a caption too long for it is cut.

        Args:
            record: "label", "caption", "actions"; ``actions[t]`` is what was done after frame t.
        """
        label, caption, done = (record.get(name) for name in ("label", "caption", "actions"))
        names = record.get("action_names")
        if done is not None and names and self.action_names and tuple(names) != self.action_names:
            done = [names[int(action)] for action in done]  # the numbers mean something else there
        if caption is not None and not self.text_encoder:
            caption = _shortened(caption, self.caption_words) if self.caption_words else None
        return ClipConditions(
            label if label in self.labels else None,
            caption if self.caption_words else None,
            [None, *done[:-1]] if done is not None and "actions" in self.kinds else None,
        )

    def tensors(
        self, clips: Sequence[ClipConditions], t_lat: int, caption_vectors: np.ndarray | None = None
    ) -> Conditions:
        """A batch of clips as tensors, None for what the model does not know.

        Args:
            clips: B of them.
            t_lat: Latent frames of the clips.
            caption_vectors: float (B, W, E) of the captions, where a text encoder tells them.

        Raises:
            ValueError: If a label, caption or action is none the model knows, or actions end before the clip.
        """
        return Conditions(
            torch.tensor(self.label_ids([clip.label for clip in clips]))
            if self.labels or _any(clips, "label")
            else None,
            self._captions([clip.caption for clip in clips], caption_vectors),
            self._actions([clip.actions for clip in clips], t_lat),
        )

    def label_ids(self, names: Sequence[str | None]) -> list[int]:
        """Ids of class names; 0 is "no label".

        Raises:
            ValueError: If a name is not among :attr:`labels`.
        """
        for name in names:
            if name is not None and name not in self.labels:
                known = ", ".join(self.labels) or "none (it was trained without labels)"
                raise ValueError(f"label {name!r} is unknown to this model; it knows: {known}")
        return [0 if name is None else 1 + self.labels.index(name) for name in names]

    def _captions(self, captions: Sequence[str | None], vectors: np.ndarray | None) -> Tensor | None:
        if not self.caption_words:
            told = next((caption for caption in captions if caption is not None), None)
            if told is not None:
                raise ValueError(f"caption {told!r}: this model was trained without captions; leave it out")
            return None
        if self.text_encoder:
            if vectors is None:
                vectors = np.zeros((len(captions), self.caption_words, self.text_dim), dtype=np.float32)
            return torch.from_numpy(np.asarray(vectors, dtype=np.float32))
        spelled = np.zeros((len(captions), self.caption_words, WORD_BYTES), dtype=np.int64)
        for row, caption in enumerate(captions):
            found = words(caption or "")
            if len(found) > self.caption_words:
                raise ValueError(
                    f"caption {caption!r} has {len(found)} words, expected at most {self.caption_words}, the longest "
                    "this model was trained on; shorten it"
                )
            for place, word in enumerate(found):
                spelled[row, place, : len(word)] = np.frombuffer(word, dtype=np.uint8).astype(np.int64) + 1
        return torch.from_numpy(spelled)

    def _actions(self, actions: Sequence[Sequence[Action | None] | None], t_lat: int) -> Tensor | None:
        if "actions" not in self.kinds:
            if any(told is not None for told in actions):
                raise ValueError("got actions, but this model was trained without any; leave them out")
            return None
        frames = t_lat * self.frames_per_latent
        rows = [self._of_clip(told, frames) for told in actions]
        whole = np.array(rows, dtype=np.float32 if self.action_size else np.int64)
        return torch.from_numpy(whole.reshape(len(rows), t_lat, self.frames_per_latent, *whole.shape[2:]))

    def _of_clip(self, told: Sequence[Action | None] | None, frames: int) -> list[Any]:
        unknown: Any = [math.nan] * self.action_size if self.action_size else 0
        if told is None:
            return [unknown] * frames
        if len(told) < frames:
            raise ValueError(f"got actions for {len(told)} frames, expected {frames}; give one more per missing frame")
        read = self._vector if self.action_size else self._discrete
        return [unknown if action is None else read(action) for action in told[:frames]]

    def _discrete(self, action: Action) -> int:
        names = self.action_names
        if isinstance(action, str) and action in names:
            return 1 + names.index(action)
        if _number(action) and 0 <= action < len(names) and action == int(action):  # type: ignore[operator, arg-type]
            return 1 + int(action)  # type: ignore[arg-type]
        raise ValueError(
            f"action {action!r} is unknown to this model; it knows 0 to {len(names) - 1}: {', '.join(names)}"
        )

    def _vector(self, action: Action) -> list[float]:
        if not isinstance(action, list | tuple) or len(action) != self.action_size or not all(map(_number, action)):
            raise ValueError(f"action {action!r}, expected a list of {self.action_size} numbers")
        scaled = zip(action, self.action_mean, self.action_std, strict=True)
        values = [(value - mean) / (std or 1.0) for value, mean, std in scaled]
        if not all(map(math.isfinite, values)):
            raise ValueError(f"action {action!r} is not finite; expected {self.action_size} ordinary numbers")
        return values


def words(caption: str) -> list[bytes]:
    """Runs of bytes between white space, those of more than 16 bytes cut into several."""
    spelled = [word.encode("utf-8") for word in caption.split()]
    return [word[begin : begin + WORD_BYTES] for word in spelled for begin in range(0, len(word), WORD_BYTES)]


def _shortened(caption: str, most: int) -> str:
    """The beginning of a caption, as much as fits; a long run without white space is cut within."""
    kept, room = [], most
    for word in caption.split():
        fits = word.encode()[: room * WORD_BYTES].decode(errors="ignore")
        if fits:
            kept.append(fits)
        room -= len(words(word))
        if room <= 0:
            break
    return " ".join(kept)


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _any(clips: Sequence[ClipConditions], name: str) -> bool:
    return any(getattr(clip, name) is not None for clip in clips)
