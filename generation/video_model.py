"""One model from a GPT folder: it takes prompt frames and continues them.

model = VideoModel.from_pretrained("runs/gpt")
clip = model.continue_frames(frames[None, :4], num_frames=12, seeds=[0]).frames[0]
told = model.continue_frames(frames[None, :4], 12, conditions=[ClipConditions(caption="a red ball")]).frames[0]
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from tokenreel.tokenizer import VideoTokenizer, fingerprint
from tokenreel.tokenizer.frames import to_frames, to_video
from tokenreel.transformer import ClipConditions, Conditions, SamplingSettings, VideoGPT, sample_indices
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
        """Longest clip in frames, prompt included."""
        return self.gpt.config.grid[0] * self.tokenizer.config.stride[0]

    def check_lengths(self, prompt_frames: int, num_frames: int) -> None:
        """Whether so many prompt frames may be continued by so many new ones.

        Raises:
            ValueError: If not; it names lengths that would do.
        """
        step = self.tokenizer.config.stride[0]
        if prompt_frames > self.window - step:
            raise ValueError(
                f"prompt_frames {prompt_frames} leave no room for new ones in the window of {self.window} frames "
                f"this model was trained on; use at most {self.window - step}"
            )
        for name, value, least in (("prompt_frames", prompt_frames, 0), ("num_frames", num_frames, step)):
            if value % step or value < least:
                below = max(value // step * step, least)
                raise ValueError(
                    f"{name} {value} is not a multiple of the temporal stride {step}; use {below} or {below + step}"
                    if value >= 0
                    else f"{name} {value}: expected {least} or more"
                )
        if prompt_frames + num_frames > self.window:
            raise ValueError(
                f"{prompt_frames} prompt and {num_frames} new frames are {prompt_frames + num_frames}, expected at "
                f"most {self.window}, the window this model was trained on; ask for fewer frames"
            )

    @torch.no_grad()
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
            num_frames: New frames, a multiple of the temporal stride.
            settings: Temperature, filters, guidance; the plain distribution if None.
            seeds: One per prompt; 0, 1, 2, … if None. A clip depends on its own seed alone.
            conditions: What is said of each clip, prompt and new frames; nothing if None.

        Raises:
            ValueError: If lengths, sizes or conditions do not fit the model.
        """
        B, P = prompt.shape[:2]
        self.check_lengths(P, num_frames)
        if prompt.ndim != 5 or prompt.shape[2:4] != self.frame_size:
            raise ValueError(
                f"prompt has shape {prompt.shape}, expected (B, P, {self.frame_size[0]}, {self.frame_size[1]}, 3)"
            )
        device, config = self.gpt.device, self.gpt.config
        if conditions is not None and len(conditions) != B:
            raise ValueError(f"got conditions of {len(conditions)} clips for {B} prompts, expected one each")
        told = self.tensors(conditions or [ClipConditions()] * B, (P + num_frames) // self.tokenizer.config.stride[0])
        if P:
            indices = self.tokenizer.encode(to_video(prompt).to(device))
        else:
            indices = torch.zeros(B, 0, *config.grid[1:], dtype=torch.int64, device=device)
        indices = sample_indices(
            self.gpt,
            indices,
            num_frames // self.tokenizer.config.stride[0],
            settings or SamplingSettings(),
            list(range(B)) if seeds is None else seeds,
            told,
        )
        return Continuation(to_frames(self.tokenizer.decode(indices)), indices)

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
            # No caption is not the empty one: its vectors are zero.
            vectors = self._text_encoder.encode([clip.caption or "" for clip in clips], config.caption_words)
            vectors[[clip.caption is None for clip in clips]] = 0
        return config.tensors(clips, t_lat, vectors)
