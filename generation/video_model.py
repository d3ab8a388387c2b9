"""One model from a GPT folder: it takes prompt frames and continues them.

model = VideoModel.from_pretrained("runs/gpt")
clip = model.continue_clip(frames[:4], num_frames=64, top_k=50, seed=0)
many = model.continue_frames(prompts, 64, seeds=[0, 1], conditions=[ClipConditions(caption="a red ball"), ...]).frames
for frames in model.stream_frames(prompts): ...  # as they are decoded, without end
"""

import math
import warnings
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from tokenreel.tokenizer import VideoTokenizer, fingerprint
from tokenreel.tokenizer.frames import to_frames, to_video
from tokenreel.transformer import ClipConditions, Conditions, SamplingSettings, VideoGPT, sample_latent_frames
from tokenreel.transformer.conditions import Action
from tokenreel.transformer.pretrained import find_folder
from tokenreel.transformer.text_encoder import TextEncoder

CLIPS_AT_ONCE = 16


class Continuation(NamedTuple):
    """Prompts and what follows."""

    frames: np.ndarray
    """uint8 (B, prompt + new, H, W, 3); the prompt's part is the tokenizer's reconstruction."""
    indices: Tensor
    """int64 (B, T', H', W'), prompt and new."""


class VideoModel:
    """A tokenizer and the GPT trained on its indices."""

    def __init__(self, tokenizer: VideoTokenizer, gpt: VideoGPT, text_encoder: str | None = None) -> None:
        if tokenizer.config.codebook_size != gpt.config.codebook_size:
            raise ValueError(
                f"the tokenizer has {tokenizer.config.codebook_size} codes, the GPT was trained on "
                f"{gpt.config.codebook_size}; use the tokenizer that made its shards"
            )
        self.tokenizer = tokenizer.eval()
        self.gpt = gpt.eval()
        if text_encoder and not gpt.config.conditions.text_encoder:
            raise ValueError(f"text encoder {text_encoder}: this model was trained without one; leave it out")
        self._text_encoder: TextEncoder | None = None
        self._encoder_name = text_encoder or gpt.config.conditions.text_encoder

    @classmethod
    def from_pretrained(
        cls, folder: Path | str, device: torch.device | str = "cpu", text_encoder: str | None = None
    ) -> Self:
        """Load a GPT's model folder or run folder, with the tokenizer it carries.

        Args:
            folder: Of the GPT.
            device: Where to run.
            text_encoder: Folder or hub id of the frozen encoder of its captions, where it is not to be found under
                the name that training knew; it is loaded with the first caption.

        Raises:
            FileNotFoundError: If the folder, its weights or its tokenizer are missing.
            ValueError: If the tokenizer in it is not the one the GPT was trained with.
        """
        home = find_folder(Path(folder))
        gpt = VideoGPT.from_pretrained(home)
        found = fingerprint(home / "tokenizer")
        if found != gpt.config.tokenizer:
            raise ValueError(
                f"{home / 'tokenizer'} has fingerprint {found[:12]}, expected {gpt.config.tokenizer[:12]}, the "
                "tokenizer this GPT was trained with; put that one back or train the GPT on this one's shards"
            )
        tokenizer = VideoTokenizer.from_pretrained(home / "tokenizer")
        return cls(tokenizer.to(device), gpt.to(device), text_encoder)

    @property
    def fps(self) -> float:
        """Frames per second the model was trained on."""
        return self.gpt.config.fps

    @property
    def frame_size(self) -> tuple[int, int]:
        """(height, width) of its frames in pixels."""
        _, sh, sw = self.tokenizer.config.stride
        return self.gpt.config.grid[1] * sh, self.gpt.config.grid[2] * sw

    @property
    def window(self) -> int:
        """Frames that the GPT sees at once, prompt included: as long as the clips it was trained on."""
        return self.gpt.config.grid[0] * self.tokenizer.config.stride[0]

    def check_lengths(self, prompt_frames: int, num_frames: int | None) -> None:
        """Whether so many prompt frames may be continued by so many new ones; None is without end.

        Raises:
            ValueError: If not; it names lengths that would do.
        """
        step = self.tokenizer.config.stride[0]
        if prompt_frames > self.window:
            raise ValueError(
                f"prompt_frames {prompt_frames} exceed the window of {self.window} frames this model was trained on; "
                "give the last of them"
            )
        for name, value, least in (("prompt_frames", prompt_frames, 0), ("num_frames", num_frames, step)):
            if value is not None and value < least:
                raise ValueError(f"{name} {value}: expected {least} or more, in steps of {step}")
            if value is not None and value % step:
                below = value // step * step
                raise ValueError(
                    f"{name} {value} is not a multiple of the temporal stride {step}; use {below} or {below + step}"
                )

    def continue_frames(
        self,
        prompt: np.ndarray,
        num_frames: int,
        settings: SamplingSettings | None = None,
        seeds: Sequence[int] | None = None,
        conditions: Sequence[ClipConditions] | None = None,
    ) -> Continuation:
        """Continue prompts.

        Args:
            prompt: uint8 (B, P, H, W, 3) at the model's size and frame rate; P a multiple of the temporal
                stride, 0 for clips from nothing.
            num_frames: New frames, a multiple of the temporal stride. Beyond the window (prompt included) the
                model sees the last of what it made.
            settings: Temperature, filters, guidance, overlap; the plain distribution if None.
            seeds: One per prompt; 0, 1, 2, … if None. A clip depends on its own seed alone.
            conditions: What is said of each clip, prompt and new frames; nothing if None.

        Raises:
            ValueError: If lengths, sizes or conditions do not fit the model.
        """
        made = list(self._made(prompt, num_frames, settings, seeds, conditions))
        frames, indices = zip(*made, strict=True)
        return Continuation(np.concatenate(frames, axis=1), torch.cat(indices, dim=1))

    def stream_frames(
        self,
        prompt: np.ndarray,
        num_frames: int | None = None,
        settings: SamplingSettings | None = None,
        seeds: Sequence[int] | None = None,
        conditions: Sequence[ClipConditions] | None = None,
        actions: Iterable[Sequence[Sequence[Action | None]]] | None = None,
    ) -> Iterator[np.ndarray]:
        """The same as they are decoded, in constant memory: first the prompts, then one latent frame after another.

        Args:
            prompt: As in :meth:`continue_frames`.
            num_frames: New frames; None is without end.
            settings: As there.
            seeds: As there.
            conditions: As there; with ``actions`` those of the prompt alone.
            actions: For each new latent frame and each clip the actions that lead to its frames, as many as the
                temporal stride. Asked for when the frame begins, so they may depend on what was shown.

        Yields:
            uint8 (B, P, H, W, 3), if there are prompts; then uint8 (B, stride, H, W, 3) each.

        Raises:
            ValueError: As there, before the first frame; on the way if actions end before the clip or are unknown.
        """
        if num_frames is None and actions is None and any(clip.actions for clip in conditions or ()):
            raise ValueError("a clip without end needs actions that come on the way; give them as actions")
        made = self._made(prompt, num_frames, settings, seeds, conditions, actions)
        return (frames for frames, _ in made)

    def continue_clip(
        self,
        prompt: np.ndarray,
        num_frames: int,
        *,
        seed: int = 0,
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 0.9,
        guidance: float = 1.0,
        caption: str | None = None,
        label: str | None = None,
        actions: Sequence[Action | None] | None = None,
    ) -> np.ndarray:
        """One clip, as tools/sample.py makes it: uint8 (P, H, W, 3) -> uint8 (P + num_frames, H, W, 3).

        Args:
            prompt: At the model's size and frame rate; P a multiple of the temporal stride, 0 for a clip from nothing.
            num_frames: New frames, a multiple of the temporal stride.
            seed: Of the random numbers.
            temperature: See :class:`~tokenreel.transformer.SamplingSettings`, as the three that follow.
            top_k: See there.
            top_p: See there.
            guidance: See there.
            caption: What is to be seen.
            label: Its class.
            actions: The action that leads to each frame, prompt included; None where unknown.

        Raises:
            ValueError: If lengths, sizes or conditions do not fit the model.
        """
        settings = SamplingSettings(temperature, top_k, top_p, guidance)
        told = ClipConditions(label, caption, actions)
        return self.continue_frames(np.asarray(prompt)[None], num_frames, settings, [seed], [told]).frames[0]

    def _made(
        self,
        prompt: np.ndarray,
        num_frames: int | None,
        settings: SamplingSettings | None,
        seeds: Sequence[int] | None,
        conditions: Sequence[ClipConditions] | None,
        actions: Iterable[Sequence[Sequence[Action | None]]] | None = None,
    ) -> Iterator[tuple[np.ndarray, Tensor]]:
        """Frames, uint8 (B, T, H, W, 3), and their indices (B, T', H', W'): the prompts', then each latent frame's.

        What does not fit is refused at once, not with the first frame.
        """
        self._check_prompt(prompt, num_frames, conditions)
        (B, P), step, device = prompt.shape[:2], self.tokenizer.config.stride[0], self.gpt.device
        latent_frames = None if num_frames is None else num_frames // step
        known = P // step if actions is not None or latent_frames is None else P // step + latent_frames
        told = self.tensors(conditions or [ClipConditions()] * B, known)
        if not any(clip.actions for clip in conditions or ()):
            told = told._replace(actions=None)
        indices = torch.zeros(B, 0, *self.gpt.config.grid[1:], dtype=torch.int64, device=device)
        if P:
            indices = self.tokenizer.encode(to_video(prompt).to(device))
        new = sample_latent_frames(
            self.gpt,
            indices,
            latent_frames,
            settings or SamplingSettings(),
            list(range(B)) if seeds is None else seeds,
            told,
            None if actions is None else self._live(actions, B),
        )
        parts = chain([indices] if P else [], (frame[:, None] for frame in new))
        decoder = self.tokenizer.decoder_stream()
        return ((to_frames(decoder.push(part)), part) for part in parts)

    def _check_prompt(
        self, prompt: np.ndarray, num_frames: int | None, conditions: Sequence[ClipConditions] | None
    ) -> None:
        if prompt.ndim != 5 or prompt.shape[2:] != (*self.frame_size, 3) or prompt.dtype != np.uint8:
            raise ValueError(
                f"prompt is {prompt.dtype} {prompt.shape}, expected uint8 (B, P, {self.frame_size[0]}, "
                f"{self.frame_size[1]}, 3)"
            )
        self.check_lengths(prompt.shape[1], num_frames)
        if conditions is not None and len(conditions) != len(prompt):
            raise ValueError(f"got conditions of {len(conditions)} clips for {len(prompt)} prompts, expected one each")

    def _live(self, actions: Iterable[Sequence[Sequence[Action | None]]], clips: int) -> Iterator[Tensor]:
        """Actions of one latent frame after another, as the GPT takes them."""
        known, stride = self.gpt.config.conditions, self.tokenizer.config.stride[0]
        if "actions" not in known.kinds:
            raise ValueError("got actions, but this model was trained without any; leave them out")

        def checked() -> Iterator[Tensor]:
            for done in actions:
                shape = [len(each) if isinstance(each, list | tuple) else 0 for each in done]
                if shape != [stride] * clips:
                    raise ValueError(
                        f"got actions {done!r} for a latent frame, expected a list of {stride} for each of {clips} "
                        "clips"
                    )
                told = known.tensors([ClipConditions(actions=each) for each in done], 1).actions
                assert told is not None
                yield told[:, 0]

        return checked()

    @torch.no_grad()
    def bits_per_token(self, indices: Tensor, conditions: Sequence[ClipConditions]) -> float:
        """Cross-entropy of clips that were encoded, int64 (B, T', H', W'), each under what is said of it."""
        nats, told = 0.0, self.tensors(conditions, indices.shape[1])
        for begin in range(0, len(indices), CLIPS_AT_ONCE):
            part = indices[begin : begin + CLIPS_AT_ONCE].to(self.gpt.device)
            said = told.rows(begin, begin + CLIPS_AT_ONCE).to(part.device)
            nats += self.gpt(part, *said).loss.item() * len(part)
        return nats / len(indices) / math.log(2)

    def tensors(self, clips: Sequence[ClipConditions], t_lat: int) -> Conditions:
        """What is said of clips of so many latent frames, as the GPT takes it.

        Raises:
            ValueError: If the model does not know of such things, or its text encoder is not there.
        """
        config, vectors = self.gpt.config.conditions, None
        if config.text_encoder and any(clip.caption for clip in clips):
            if self._text_encoder is None:
                self._text_encoder = TextEncoder.load(self._encoder_name)
                self._text_encoder.check_same(config.text_encoder, config.text_dim, config.text_probe)
            captions = [clip.caption or "" for clip in clips]
            if self._text_encoder.longest(captions) > config.caption_words:
                warnings.warn(
                    f"captions are cut to the first {config.caption_words} tokens, the most this model takes",
                    stacklevel=2,
                )
            # No caption is not the empty one: its vectors are zero.
            vectors = self._text_encoder.encode(captions, config.caption_words, cut=True)
            vectors[[clip.caption is None for clip in clips]] = 0
        return config.tensors(clips, t_lat, vectors)
