"""The latent frames in sight of the GPT while a clip grows: within its window, then sliding along with the clip."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from tokenreel.transformer.condition_embedding import Told
from tokenreel.transformer.conditions import ClipConditions, Conditions
from tokenreel.transformer.filters import SamplingSettings
from tokenreel.transformer.model import VideoGPT
from tokenreel.transformer.static_decoder import StaticDecoder
from tokenreel.transformer.token_order import token_order

AHEAD = {2: 12, 8: 8}
"""Up to so many clips: so many indices of each at once. With more clips a pass keeps the processor busy anyway."""


class SlidingWindow:
    """B clips that grow by one latent frame at a time, in constant memory.

    A full window moves on: its last latent frames become the first of the next one, at positions counted anew, and
    go through the layers again. So the GPT sees nothing but what it was trained on, and forgets what is older.

    Several indices are drawn at once: the layers run over a draft of those that come next, at first what stood there
    one latent frame earlier. Each index is drawn all the same, with its own random number, from what came before it: as
    long as the draws are as drafted the next one is valid too. Those behind the first that is not are the next draft,
    and a good one: they were drawn in almost the right place. What is made does not depend on drafts (but for
    rounding, as with other batches), only the time does. Each clip goes on from where it is; they meet again at the
    end of the latent frame.

    Source: Song et al., 2021, "Accelerating Feedforward Computation via Parallel Nonlinear Equation Solving" (Jacobi
    iteration); of samples instead of the likeliest tokens Teng et al., 2024, "Speculative Jacobi Decoding".

    Args:
        gpt: Trained model, in eval mode.
        prompt: int64 (B, t, H', W'), t from 0 to the window's T'.
        settings: Temperature, filters, guidance, overlap.
        conditions: Of the clips; actions of the prompt's latent frames, and of as many after them as are known.
        actions: What leads to each latent frame that follows, (B, frames per latent frame, ...) each, asked for when
            its frame begins; None: it is in ``conditions``.
        last: int64 (B, k, H', W') and where they begin: latent frames that the clips are to end with. What lies
            between is made; the window does not slide.
    """

    def __init__(
        self,
        gpt: VideoGPT,
        prompt: Tensor,
        settings: SamplingSettings,
        conditions: Conditions,
        actions: Iterator[Tensor] | None,
        last: tuple[Tensor, int] | None = None,
    ) -> None:
        self._gpt, self._settings = gpt, settings
        self._clips, self._time = prompt.shape[:2]
        layout = gpt.layout(prompt.shape[2:])
        self._grid, self._frame = layout.grid, math.prod(layout.grid[1:])
        self._copies = 2 if settings.guided else 1  # guided: rows with conditions, then the same without
        self._order, known_frames = layout.order, prompt
        if last is not None:
            end, begin = last
            self._order = token_order(layout.grid, begin, begin + end.shape[1]).to(gpt.device)
            known_frames = torch.cat([end, prompt], dim=1)
        one_by_one = settings.speculative == "off" or gpt.config.decoding == "frame"
        self._ahead = 1 if one_by_one else _at_once(self._clips)
        # BOS, the indices, and room for a draft beyond the last of them.
        self._room = math.prod(layout.grid)
        self._sequence = gpt.sequence(prompt.new_zeros(self._clips, self._room + self._ahead))
        self._length = known_frames[0].numel()
        self._sequence[:, 1 : 1 + self._length] = known_frames.flatten(1)
        rows = self._copies * self._clips
        per_pass = self._frame if gpt.config.decoding == "frame" else self._ahead
        self._decoder = StaticDecoder(gpt, rows, per_pass, settings.precision, self._order)
        self._tables = gpt.tables(layout.grid[1:])
        self._set_conditions(conditions.to(gpt.device), actions, whole=last is not None)

    def _set_conditions(self, known: Conditions, coming: Iterator[Tensor] | None, whole: bool) -> None:
        """Actions are looked at as far as they are known, all of them if the clips' ends are known too."""
        config = self._gpt.config
        nothing = config.conditions.tensors([ClipConditions()] * self._clips, config.grid[0])
        self._unknown = nothing.to(self._gpt.device).actions
        self._conditions = known._replace(actions=None if self._unknown is None else self._unknown.clone())
        self._coming = coming
        if self._conditions.actions is not None and known.actions is not None:
            seen = min(known.actions.shape[1], config.grid[0]) if whole else self._time
            if seen:
                self._conditions.actions[:, :seen] = known.actions[:, :seen]
            if coming is None and not whole:
                self._coming = iter(known.actions[:, self._time :].unbind(1))

    def next_frame(self, uniform: Tensor) -> Tensor:
        """Draw the next latent frame.

        Args:
            uniform: float64 (B, ...) in [0, 1), as :attr:`draws` says: each clip's own random numbers.

        Returns:
            int64 (B, H', W').

        Raises:
            ValueError: If probabilities are not finite, or the actions have ended.
        """
        if self._length == self._room:
            self._slide()
        told = self._told()
        if not self._decoder.filled:
            self._read(told)
        hidden = self._draw(uniform, told)
        self._length, self._time = self._length + self._frame, self._time + 1
        # One look per latent frame: it makes a GPU wait for the host.
        scores = self._gpt.head.losses(hidden, torch.zeros_like(hidden[:, 0], dtype=torch.int64), self._tables.head)
        if not bool(torch.isfinite(scores.drift).all()):
            raise ValueError(
                f"logits are not finite at index {self._length - 1}; the model's weights are damaged, train it again"
            )
        made = self._sequence[:, 1 + self._length - self._frame : 1 + self._length]
        return made.reshape(-1, *self._grid[1:]).clone()

    @property
    def draws(self) -> tuple[int, ...]:
        """Random numbers that a latent frame of a clip takes: per index those of the head."""
        return self._frame, self._gpt.head.draws

    def _read(self, told: Told) -> None:
        """Run prefix and all indices but the last through the layers."""
        tokens = [told.prefix]
        if self._length:
            tokens.append(self._embedded(torch.arange(self._length, device=self._gpt.device), told))
        self._decoder.forward(torch.cat(tokens, dim=1))

    def _draw(self, uniform: Tensor, told: Told) -> Tensor:
        """Draw a latent frame into the sequence; gives some hidden states (rows, D), to look at."""
        return self._draw_ahead(uniform, told) if self._ahead > 1 else self._draw_in_turn(uniform, told)

    def _draw_in_turn(self, uniform: Tensor, told: Told) -> Tensor:
        """Index by index."""
        for n, at in enumerate(torch.arange(self._length, self._length + self._frame, device=self._gpt.device)):
            hidden = self._decoder.forward(self._embedded(at[None], told))[:, 0]
            self._sequence[:, self._length + n + 1] = self._drawn(hidden, uniform[:, n])
        return hidden

    def _draw_ahead(self, uniform: Tensor, told: Told) -> Tensor:
        """From drafts, several indices of each clip at once."""
        n, begin, end = self._ahead, self._length, self._length + self._frame
        earlier = slice(max(1, begin + 1 - self._frame), max(1, begin + 1 - self._frame) + self._frame)
        self._sequence[:, begin + 1 : end + 1] = self._sequence[:, earlier].clone()
        device, before = self._gpt.device, self._gpt.config.prefix - 1
        every, steps = torch.arange(self._clips, device=device)[:, None], torch.arange(n, device=device)
        at = torch.full((self._clips,), begin, device=device)  # of the last token that is sure
        while bool((at < end).any()):
            tokens = at[:, None] + steps
            draft = self._sequence[every, tokens]
            x = self._embedded(tokens.clamp(max=self._room), told)
            hidden = self._decoder.forward_at(x, self._repeated(at) + before, before + end + n)
            numbers = uniform[every, (tokens - begin).clamp(max=self._frame - 1)]
            drawn = self._drawn(hidden.flatten(0, 1), numbers.flatten(0, 1)).view(-1, n)
            # Of clips that are done this writes behind the latent frame, where nothing stands yet.
            self._sequence[every, tokens + 1] = drawn
            at = (at + valid(drawn, draft[:, 1:])).clamp(max=end)
        self._decoder.keep(before + end)
        return hidden[:, 0]

    def _slide(self) -> None:
        """Keep the last latent frames alone."""
        kept = self._settings.kept(self._gpt.config.grid[0])
        n = kept * self._frame
        self._sequence[:, 1 : 1 + n] = self._sequence[:, 1 + self._length - n : 1 + self._length].clone()
        actions = self._conditions.actions
        if actions is not None and self._unknown is not None:
            actions[:, :kept] = actions[:, -kept:].clone()
            actions[:, 0, 0] = self._unknown[:, 0, 0]  # as it is of any clip's first frame
        self._length, self._time = n, kept
        self._decoder.keep(0)

    def _told(self) -> Told:
        """Conditions of the rows, once what leads to the next latent frame is known."""
        actions, t_lat = self._conditions.actions, self._gpt.config.grid[0]
        if self._coming is not None and actions is not None:
            try:
                actions[:, self._time] = next(self._coming).to(actions.device)
            except StopIteration:
                raise ValueError("the actions have ended before the clip; give those of every new frame") from None
        told = self._gpt.conditions(self._conditions, self._clips, t_lat)
        if self._copies == 1:
            return told
        untold = self._gpt.conditions(Conditions(), self._clips, t_lat)
        frames = None if told.frames is None or untold.frames is None else torch.cat([told.frames, untold.frames])
        return Told(torch.cat([told.prefix, untold.prefix]), frames)

    def _embedded(self, at: Tensor, told: Told, current: Tensor | None = None) -> Tensor:
        """Tokens at positions int64 (n,) or (B, n) of the sequences: (rows, n, D)."""
        at, current = at if at.ndim == 1 else self._repeated(at), None if current is None else self._repeated(current)
        return self._gpt.embed(self._repeated(self._sequence), at, self._order, self._tables, told, current)

    def _repeated(self, x: Tensor) -> Tensor:
        return x if self._copies == 1 else torch.cat([x] * self._copies)

    def _drawn(self, hidden: Tensor, uniform: Tensor) -> Tensor:
        """Draw an index from each hidden state (rows, D), with the random numbers of each clip (B, draws): (B,)."""
        return self._gpt.head.pick(hidden, self._tables.head, self._settings, uniform)


def valid(drawn: Tensor, draft: Tensor) -> Tensor:
    """How many draws of each clip follow from draws alone: the first, and each behind one that was as drafted.

    Args:
        drawn: int64 (B, n).
        draft: int64 (B, n - 1): what the draws after the first looked back on.

    Returns:
        int64 (B,), 1 to n.
    """
    return 1 + (drawn[:, :-1] == draft).cumprod(dim=1).sum(dim=1)


def _at_once(clips: int) -> int:
    """How many indices of each clip."""
    return next((n for most, n in AHEAD.items() if clips <= most), 1)
