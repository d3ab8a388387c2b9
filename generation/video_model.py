"""One model from a GPT folder: it takes prompt frames and continues them.

model = VideoModel.from_pretrained("runs/gpt")
clip = model.continue_clip(frames[:4], num_frames=64, top_k=50, seed=0)
many = model.continue_frames(prompts, 64, seeds=[0, 1], conditions=[ClipConditions(caption="a red ball"), ...]).frames
for frames in model.stream_frames(prompts): ...  # as they are decoded, without end
clip = model.continue_clip(frames[:4], num_frames=8, last=frames[12:16])  # what lies between, if trained to fill in
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from tokenreel.generation.condition_reader import ConditionReader
from tokenreel.generation.given_clips import ClipLengths, check_frames
from tokenreel.tokenizer import VideoTokenizer, fingerprint
from tokenreel.tokenizer.frames import to_frames, to_video
from tokenreel.tokenizer.pretrained import encoding_fingerprint
from tokenreel.transformer import ClipConditions, SamplingSettings, VideoGPT, sample_latent_frames
from tokenreel.transformer.conditions import Action
from tokenreel.transformer.filters import Sharpen
from tokenreel.transformer.pretrained import find_folder

CLIPS_AT_ONCE = 16
STILL = 2
"""Latent frames that are put before frames whose past is not known."""


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
        self.conditions = ConditionReader(gpt.config.conditions, text_encoder)

    @classmethod
    def from_pretrained(
        cls,
        folder: Path | str,
        device: torch.device | str = "cpu",
        text_encoder: str | None = None,
        tokenizer: Path | str | None = None,
    ) -> Self:
        """Load a GPT's model folder or run folder, with the tokenizer it carries.

        Args:
            folder: Of the GPT.
            device: Where to run.
            text_encoder: Folder or hub id of the frozen encoder of its captions, where it is not to be found under
                the name that training knew; it is loaded with the first caption.
            tokenizer: Folder of another tokenizer with the same encoder and codebook, such as one whose decoder was
                trained further, in place of the one that the GPT carries.

        Raises:
            FileNotFoundError: If the folder, its weights or its tokenizer are missing.
            ValueError: If the tokenizer in it is not the one the GPT was trained with, or the other one would make
                other indices.
        """
        home = find_folder(Path(folder))
        gpt = VideoGPT.from_pretrained(home)
        found = fingerprint(home / "tokenizer")
        if found != gpt.config.tokenizer:
            raise ValueError(
                f"{home / 'tokenizer'} has fingerprint {found[:12]}, expected {gpt.config.tokenizer[:12]}, the "
                "tokenizer this GPT was trained with; put that one back or train the GPT on this one's shards"
            )
        decoding = home / "tokenizer" if tokenizer is None else Path(tokenizer)
        if tokenizer is not None and encoding_fingerprint(decoding) != encoding_fingerprint(home / "tokenizer"):
            raise ValueError(
                f"{decoding} has another encoder or codebook than the tokenizer this GPT was trained with; expected "
                f"another decoder at most, as --train decoder --init-from {home / 'tokenizer'} makes it"
            )
        return cls(VideoTokenizer.from_pretrained(decoding).to(device), gpt.to(device), text_encoder)

    def __repr__(self) -> str:
        sizes = " or ".join(f"{height}x{width}" for height, width in self.frame_sizes)
        known = ", ".join(self.gpt.config.conditions.kinds) or "nothing"
        return f"VideoModel({sizes} at {self.fps:g} fps, window of {self.window} frames, may be told: {known})"

    @property
    def fps(self) -> float:
        """Frames per second the model was trained on."""
        return self.gpt.config.fps

    @property
    def frame_size(self) -> tuple[int, int]:
        """(height, width) of its frames in pixels; of several sizes the first."""
        return self.frame_sizes[0]

    @property
    def frame_sizes(self) -> list[tuple[int, int]]:
        """(height, width) of all frames that it was trained on."""
        _, sh, sw = self.tokenizer.config.stride
        return [(h_lat * sh, w_lat * sw) for h_lat, w_lat in self.gpt.config.frames]

    @property
    def window(self) -> int:
        """Frames that the GPT sees at once, prompt included: as long as the clips it was trained on."""
        return self.gpt.config.grid[0] * self.tokenizer.config.stride[0]

    def check_lengths(self, prompt_frames: int, num_frames: int | None, last_frames: int = 0) -> None:
        """Whether so many prompt frames may be continued by so many new ones; None is without end.

        Args:
            prompt_frames: Frames given.
            num_frames: Frames to make.
            last_frames: Frames given that come after them.

        Raises:
            ValueError: If not; it names lengths that would do.
        """
        step, infilling = self.tokenizer.config.stride[0], self.gpt.config.infilling > 0
        ClipLengths(step, self.window, infilling).check(prompt_frames, num_frames, last_frames)

    def continue_frames(
        self,
        prompt: np.ndarray,
        num_frames: int,
        settings: SamplingSettings | None = None,
        seeds: Sequence[int] | None = None,
        conditions: Sequence[ClipConditions] | None = None,
        last: np.ndarray | None = None,
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
            last: uint8 (B, L, H, W, 3): what the clips end with, after the new frames; L a multiple of the temporal
                stride, all together no longer than the window. For a model that was trained to fill in.

        Raises:
            ValueError: If lengths, sizes or conditions do not fit the model.
        """
        if num_frames is None:
            raise ValueError("num_frames None: expected a number of frames; stream_frames makes clips without end")
        made = list(self._made(prompt, num_frames, settings, seeds, conditions, last=last))
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
        last: np.ndarray | None = None,
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
            last: As in :meth:`continue_frames`; the actions must then be known at once.

        Yields:
            uint8 (B, P, H, W, 3), if there are prompts; then uint8 (B, stride, H, W, 3) each; the last frames.

        Raises:
            ValueError: As there, before the first frame; on the way if actions end before the clip or are unknown.
        """
        if num_frames is None and actions is None and any(clip.actions for clip in conditions or ()):
            raise ValueError("a clip without end needs actions that come on the way; give them as actions")
        made = self._made(prompt, num_frames, settings, seeds, conditions, actions, last)
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
        sharpen: Sharpen = "all",
        guidance: float = 1.0,
        caption: str | None = None,
        label: str | None = None,
        actions: Sequence[Action | None] | None = None,
        last: np.ndarray | None = None,
    ) -> np.ndarray:
        """One clip, as tools/sample.py makes it: uint8 (P, H, W, 3) -> uint8 (P + num_frames, H, W, 3).

        Args:
            prompt: At the model's size and frame rate; P a multiple of the temporal stride, 0 for a clip from nothing.
            num_frames: New frames, a multiple of the temporal stride.
            seed: Of the random numbers.
            temperature: See :class:`~tokenreel.transformer.SamplingSettings`, as the four that follow.
            top_k: See there.
            top_p: See there.
            sharpen: See there.
            guidance: See there.
            caption: What is to be seen.
            label: Its class.
            actions: The action that leads to each frame, prompt included; None where unknown.
            last: What the clip is to end with, uint8 (L, H, W, 3); see :meth:`continue_frames`.

        Raises:
            ValueError: If lengths, sizes or conditions do not fit the model.
        """
        if np.ndim(prompt) != 4:
            raise ValueError(
                f"prompt has shape {np.shape(prompt)}, expected one clip, (P, H, W, 3), with P of 0 for one from "
                "nothing; continue_frames takes several clips"
            )
        settings = SamplingSettings(temperature, top_k, top_p, sharpen, guidance)
        told = ClipConditions(label, caption, actions)
        end = None if last is None else np.asarray(last)[None]
        return self.continue_frames(np.asarray(prompt)[None], num_frames, settings, [seed], [told], end).frames[0]

    def _made(
        self,
        prompt: np.ndarray,
        num_frames: int | None,
        settings: SamplingSettings | None,
        seeds: Sequence[int] | None,
        conditions: Sequence[ClipConditions] | None,
        actions: Iterable[Sequence[Sequence[Action | None]]] | None = None,
        last: np.ndarray | None = None,
    ) -> Iterator[tuple[np.ndarray, Tensor]]:
        """Frames, uint8 (B, T, H, W, 3), and their indices (B, T', H', W').

        First of the prompts, then of each latent frame, then of the last frames. What does not fit is refused at once,
        not with the first frame.
        """
        check_frames("prompt", prompt, self.frame_sizes)
        if last is not None:
            check_frames("last", last, [(prompt.shape[2], prompt.shape[3])], len(prompt))
        last_frames = 0 if last is None else last.shape[1]
        self.check_lengths(prompt.shape[1], num_frames, last_frames)
        if conditions is not None and len(conditions) != len(prompt):
            raise ValueError(f"got conditions of {len(conditions)} clips for {len(prompt)} prompts, expected one each")
        (B, P), step = prompt.shape[:2], self.tokenizer.config.stride[0]
        latent_frames = None if num_frames is None else num_frames // step
        known = P // step
        if actions is None and latent_frames is not None:
            known += latent_frames + last_frames // step
        told = self.conditions.tensors(conditions or [ClipConditions()] * B, known)
        if not any(clip.actions for clip in conditions or ()):
            told = told._replace(actions=None)
        indices, end = self._encoded(prompt), None if not last_frames or last is None else self._encoded_end(last)
        new = sample_latent_frames(
            self.gpt,
            indices,
            latent_frames,
            settings or SamplingSettings(),
            list(range(B)) if seeds is None else seeds,
            told,
            None if actions is None else self.conditions.live(actions, B),
            end,
        )
        parts = chain([indices] if P else [], (frame[:, None] for frame in new), [] if end is None else [end])
        decoder = self.tokenizer.decoder_stream()
        return ((to_frames(decoder.push(part)), part) for part in parts)

    def _encoded(self, frames: np.ndarray) -> Tensor:
        """uint8 (B, T, H, W, 3) -> int64 (B, T', H', W'); T may be 0."""
        if not frames.shape[1]:
            _, sh, sw = self.tokenizer.config.stride
            B, _, height, width, _ = frames.shape
            return torch.zeros(B, 0, height // sh, width // sw, dtype=torch.int64, device=self.gpt.device)
        return self.tokenizer.encode(to_video(frames).to(self.gpt.device))

    def _encoded_end(self, last: np.ndarray) -> Tensor:
        """The same of frames whose past is not known.

        The encoder looks back. If the first of them had stood still before, 94 % to 97 % of the indices are those that
        the true past gives (without any past 85 % to 95 %; worlds `paddle` and `balls`).
        """
        step = self.tokenizer.config.stride[0]
        still = np.repeat(last[:, :1], STILL * step, axis=1)
        return self._encoded(np.concatenate([still, last], axis=1))[:, STILL:]

    def bits_per_token(self, indices: Tensor, conditions: Sequence[ClipConditions]) -> float:
        """Cross-entropy of clips that were encoded, int64 (B, T', H', W'), each under what is said of it."""
        return float(self.bits_of_clips(indices, conditions).mean())

    @torch.no_grad()
    def bits_of_clips(self, indices: Tensor, conditions: Sequence[ClipConditions]) -> np.ndarray:
        """The same of each clip alone, float64 (B,).

        Of a model with ``decoding`` "frame" their mean alone means something.
        """
        bits, told = [], self.conditions.tensors(conditions, indices.shape[1])
        for begin in range(0, len(indices), CLIPS_AT_ONCE):
            part = indices[begin : begin + CLIPS_AT_ONCE].to(self.gpt.device)
            said = told.rows(begin, begin + CLIPS_AT_ONCE).to(part.device)
            bits.append(self.gpt(part, *said).losses.flatten(1).double().mean(dim=1).cpu().numpy())
        return np.concatenate(bits) / math.log(2)
