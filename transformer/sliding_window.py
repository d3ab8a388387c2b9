"""The latent frames in sight of the GPT while a clip grows: within its window, then sliding along with the clip."""

from collections.abc import Iterator

import torch
from torch import Tensor

from tokenreel.transformer.condition_embedding import Told
from tokenreel.transformer.conditions import ClipConditions, Conditions
from tokenreel.transformer.filters import SamplingSettings
from tokenreel.transformer.model import VideoGPT
from tokenreel.transformer.static_decoder import StaticDecoder

FEWEST, MOST = 2, 32
"""Indices drawn at once, where the next ones are guessed."""
MOST_CLIPS = 4
"""Clips at once up to which guessing wins: more fill the processor anyway, and all must be guessed right."""


class SlidingWindow:
    """B clips that grow by one latent frame at a time, in constant memory.

    A full window moves on: its last latent frames become the first of the next one, at positions counted anew, and
    go through the layers again. So the GPT sees nothing but what it was trained on, and forgets what is older.

    Most of a video is what was there before. So the next indices are guessed to be those of the same places one latent
    frame earlier, and the layers run over several guesses at once. Each index is drawn all the same, with its own
    random number, from what came before it: as long as the draws are as guessed the next one is valid too, and the
    first that is not takes the guess's place. What is made does not depend on the guesses, only the time does.

    Source: Leviathan et al., 2023, "Fast Inference from Transformers via Speculative Decoding"; with a draft that is
    certain, accepting and resampling become one draw.

    Args:
        gpt: Trained model, in eval mode.
        prompt: int64 (B, t, H', W'), t from 0 to the window's T'.
        settings: Temperature, filters, guidance, overlap.
        conditions: Of the clips; actions of the prompt's latent frames, and of as many after them as are known.
        actions: What leads to each latent frame that follows, (B, frames per latent frame, ...) each, asked for when
            its frame begins; None: it is in ``conditions``.
    """

    def __init__(
        self,
        gpt: VideoGPT,
        prompt: Tensor,
        settings: SamplingSettings,
        conditions: Conditions,
        actions: Iterator[Tensor] | None,
    ) -> None:
        self._gpt, self._settings = gpt, settings
        self._clips, self._frames = prompt.shape[:2]
        self._frame = gpt.config.indices_per_frame
        self._copies = 2 if settings.guided else 1  # guided: rows with conditions, then the same without
        rows = self._copies * self._clips
        self._sequence = torch.zeros(rows, gpt.config.num_indices, dtype=torch.int64, device=gpt.device)
        self._sequence[:, : prompt[0].numel()] = prompt.flatten(1).repeat(self._copies, 1)
        self._decoder, self._tables = StaticDecoder(gpt, rows), gpt.tables()
        self._ahead = 1 if settings.speculative == "off" or self._clips > MOST_CLIPS else FEWEST
        known = conditions.to(gpt.device)
        nothing = gpt.config.conditions.tensors([ClipConditions()] * self._clips, gpt.config.grid[0])
        self._unknown = nothing.to(gpt.device).actions
        self._conditions = known._replace(actions=None if self._unknown is None else self._unknown.clone())
        self._coming = actions
        if self._conditions.actions is not None and known.actions is not None:
            if self._frames:
                self._conditions.actions[:, : self._frames] = known.actions[:, : self._frames]
            if actions is None:
                self._coming = iter(known.actions[:, self._frames :].unbind(1))

    def next_frame(self, uniform: Tensor) -> Tensor:
        """Draw the next latent frame.

        Args:
            uniform: float64 (B, H'·W', draws of the head) in [0, 1): each clip's own random numbers.

        Returns:
            int64 (B, H', W').

        Raises:
            ValueError: If probabilities are not finite, or the actions have ended.
        """
        if self._frames == self._gpt.config.grid[0]:
            self._slide()
        told = self._told()
        begin, end = self._frames * self._frame, (self._frames + 1) * self._frame
        place = begin
        while place < end:
            guesses = self._guesses(place, end)
            hidden = self._hidden(place, guesses, told)
            n = hidden.shape[1]
            drawn = self._gpt.head.pick(
                hidden.flatten(0, 1),
                self._tables.head,
                self._settings,
                uniform[:, place - begin : place - begin + n].flatten(0, 1),
            ).view(-1, n)
            valid = self._valid(drawn, guesses)
            self._sequence[:, place : place + valid] = drawn[:, :valid].repeat(self._copies, 1)
            place += valid
            self._decoder.rewind(self._gpt.config.prefix + place - 1)
        # One look per latent frame: a look per step would make the GPU wait for the host.
        last = self._gpt.head.losses(hidden[:, valid - 1], self._sequence[:, end - 1], self._tables.head)
        if not bool(torch.isfinite(last.cross_entropy).all()):
            raise ValueError(
                f"logits are not finite at index {end - 1}; the model's weights are damaged, train it again"
            )
        self._frames += 1
        return self._sequence[: self._clips, begin:end].reshape(-1, *self._gpt.config.grid[1:]).clone()

    def _slide(self) -> None:
        """Keep the last latent frames alone."""
        kept = self._settings.kept(self._gpt.config.grid[0])
        self._sequence[:, : kept * self._frame] = self._sequence[:, -kept * self._frame :].clone()
        actions = self._conditions.actions
        if actions is not None and self._unknown is not None:
            actions[:, :kept] = actions[:, -kept:].clone()
            actions[:, 0, 0] = self._unknown[:, 0, 0]  # as it is of any clip's first frame
        self._frames = kept
        self._decoder.rewind(0)

    def _told(self) -> Told:
        """Conditions of the rows, once what leads to the next latent frame is known."""
        actions, t_lat = self._conditions.actions, self._gpt.config.grid[0]
        if self._coming is not None and actions is not None:
            try:
                actions[:, self._frames] = next(self._coming).to(actions.device)
            except StopIteration:
                raise ValueError("the actions have ended before the clip; give those of every new frame") from None
        told = self._gpt.conditions(self._conditions, self._clips, t_lat)
        if self._copies == 1:
            return told
        untold = self._gpt.conditions(Conditions(), self._clips, t_lat)
        frames = None if told.frames is None or untold.frames is None else torch.cat([told.frames, untold.frames])
        return Told(torch.cat([told.prefix, untold.prefix]), frames)

    def _guesses(self, place: int, end: int) -> Tensor:
        """What the next indices but the last might be: (B, n - 1), n those to draw at once."""
        n = min(self._ahead, end - place) if self._frames and self._decoder.filled else 1
        earlier = place - self._frame
        return self._sequence[: self._clips, earlier : earlier + n - 1] if n > 1 else self._sequence[: self._clips, :0]

    def _hidden(self, place: int, guesses: Tensor, told: Told) -> Tensor:
        """What the head draws the index at a place from, and those after each guess: (rows, n, D)."""
        if not self._decoder.filled:
            return self._decoder.forward(self._context(told))[:, -1:]
        last = torch.cat([self._sequence[:, [place - 1]], guesses.repeat(self._copies, 1)], dim=1)
        before = self._sequence[:, : place - 1]
        return self._decoder.forward(self._gpt.embed(last, place - 1, self._tables, told, before=before))

    def _valid(self, drawn: Tensor, guesses: Tensor) -> int:
        """How many of the draws (B, n) follow from draws alone: up to the first that is not as guessed, in any row."""
        n = drawn.shape[1]
        if n == 1:
            return 1
        right = (drawn[:, :-1] == guesses).all(dim=0).cumprod(dim=0)
        valid = 1 + int(right.sum())
        # Longer guesses after good ones; a wrong one costs the time of those behind it.
        self._ahead = min(2 * n, MOST) if valid == n else max(valid, FEWEST)
        return valid

    def _context(self, told: Told) -> Tensor:
        """Embeddings of prefix and all indices so far: (rows, n, D)."""
        tokens, past = self._gpt.embed_prefix(told, self._tables), self._sequence[:, : self._frames * self._frame]
        return torch.cat([tokens, self._gpt.embed(past, 0, self._tables, told)], dim=1) if self._frames else tokens
