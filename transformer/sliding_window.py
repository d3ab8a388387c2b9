"""The latent frames in sight of the GPT while a clip grows: within its window, then sliding along with the clip."""

from collections.abc import Iterator

import torch
from torch import Tensor

from tokenreel.transformer.condition_embedding import Told
from tokenreel.transformer.conditions import ClipConditions, Conditions
from tokenreel.transformer.filters import SamplingSettings
from tokenreel.transformer.model import VideoGPT
from tokenreel.transformer.static_decoder import StaticDecoder

AHEAD = {2: 16, 8: 8}
"""Up to so many clips: so many indices at once. With more clips the processor is busy anyway, and where one clip's
draft is wrong all wait for it."""


class SlidingWindow:
    """B clips that grow by one latent frame at a time, in constant memory.

    A full window moves on: its last latent frames become the first of the next one, at positions counted anew, and
    go through the layers again. So the GPT sees nothing but what it was trained on, and forgets what is older.

    Several indices are drawn at once: the layers run over a draft of those that come next, at first what stood there
    one latent frame earlier. Each index is drawn all the same, with its own random number, from what came before it: as
    long as the draws are as drafted the next one is valid too. Those behind the first that is not are the next draft,
    and a good one: they were drawn in almost the right place. What is made does not depend on drafts (but for
    rounding, as with other batches), only the time does.

    Source: Song et al., 2021, "Accelerating Feedforward Computation via Parallel Nonlinear Equation Solving" (Jacobi
    iteration); of samples instead of the likeliest tokens Teng et al., 2024, "Speculative Jacobi Decoding".

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
        self._ahead = next((n for most, n in AHEAD.items() if self._clips <= most), 1)
        if settings.speculative == "off":
            self._ahead = 1
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
        draft = self._sequence[: self._clips, max(0, begin - self._frame) : max(begin, self._frame)].clone()
        place = begin
        while place < end:
            n = min(self._ahead, end - place) if self._decoder.filled else 1
            ahead = slice(place - begin, place - begin + n)
            hidden = self._hidden(place, draft[:, ahead][:, :-1], told)
            drawn = self._drawn(hidden, uniform[:, ahead])
            valid = _valid(drawn, draft[:, ahead])
            self._sequence[:, place : place + valid] = drawn[:, :valid].repeat(self._copies, 1)
            draft[:, ahead] = drawn
            place += valid
            self._decoder.rewind(self._gpt.config.prefix + place - 1)
        # One look per latent frame: it makes a GPU wait for the host.
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

    def _hidden(self, place: int, draft: Tensor, told: Told) -> Tensor:
        """What the head draws the index at a place from, and those behind it if the draft (B, n - 1) is true.

        Returns:
            (rows, n, D).
        """
        if not self._decoder.filled:
            return self._decoder.forward(self._context(told))[:, -1:]
        tokens = torch.cat([self._sequence[:, [place - 1]], draft.repeat(self._copies, 1)], dim=1)
        before = self._sequence[:, : place - 1]
        return self._decoder.forward(self._gpt.embed(tokens, place - 1, self._tables, told, before=before))

    def _drawn(self, hidden: Tensor, uniform: Tensor) -> Tensor:
        """Draw an index from each hidden state (rows, n, D): (B, n)."""
        drawn = self._gpt.head.pick(hidden.flatten(0, 1), self._tables.head, self._settings, uniform.flatten(0, 1))
        return drawn.view(-1, hidden.shape[1])

    def _context(self, told: Told) -> Tensor:
        """Embeddings of prefix and all indices so far: (rows, n, D)."""
        tokens, past = self._gpt.embed_prefix(told, self._tables), self._sequence[:, : self._frames * self._frame]
        return torch.cat([tokens, self._gpt.embed(past, 0, self._tables, told)], dim=1) if self._frames else tokens


def _valid(drawn: Tensor, draft: Tensor) -> int:
    """How many of the draws (B, n) follow from draws alone: up to the first that is not as drafted, in any row."""
    if drawn.shape[1] == 1:
        return 1
    right = (drawn[:, :-1] == draft[:, :-1]).all(dim=0).cumprod(dim=0)
    return 1 + int(right.sum())
