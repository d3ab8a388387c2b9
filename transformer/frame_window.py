"""Sampling of whole latent frames: all indices are drawn at once, the surest kept, the others drawn again."""

import math

import torch
from torch import Tensor

from tokenreel.transformer.condition_embedding import Told
from tokenreel.transformer.sliding_window import SlidingWindow

WAVER = 4.5
"""Weight of chance, beside the log-probability, in which indices are kept: at first, then less and less; none at
temperature 0. Always keeping the surest would leave out what is rare."""


class FrameWindow(SlidingWindow):
    """Clips that grow by a latent frame in a few passes, by a GPT trained with ``decoding`` "frame".

    Source: Chang et al., 2022, "MaskGIT".
    """

    @property
    def draws(self) -> tuple[int, ...]:
        """Of each clip: in each pass, per index, the numbers of the head, and one more for whether it is kept."""
        return self._passes, self._frame, self._gpt.head.draws + 1

    @property
    def _passes(self) -> int:
        return min(self._settings.passes, self._frame)

    def _read(self, told: Told) -> None:
        self._decoder.forward(told.prefix, causal=False)
        for begin in range(0, self._length, self._frame):
            self._read_frame(begin, told)

    def _draw(self, uniform: Tensor, told: Told) -> Tensor:
        begin, n, filled = self._length, self._frame, self._decoder.filled
        nothing = self._gpt.config.codebook_size
        shown, left = self._sequence.new_full((self._clips, n), nothing), n
        for turn in range(self._passes):
            hidden = self._frame_states(begin, shown, told)
            self._decoder.keep(filled)
            drawn = self._drawn(hidden.flatten(0, 1), uniform[:, turn, :, :-1].flatten(0, 1)).view(-1, n)
            done = (turn + 1) / self._passes
            # Of many passes the curve would leave some with nothing to do.
            left = min(left - 1, math.floor(n * math.cos(math.pi / 2 * done))) if done < 1 else 0
            known = shown != nothing
            sure = self._sureness(hidden, drawn, uniform[:, turn, :, -1], 1 - done).masked_fill(known, torch.inf)
            kept = sure.argsort(descending=True).argsort() < n - left
            shown = torch.where(known | ~kept, shown, drawn)
        self._sequence[:, begin + 1 : begin + 1 + n] = shown
        if begin + n < self._room:
            self._read_frame(begin, told)
        return hidden[:, 0]

    def _sureness(self, hidden: Tensor, drawn: Tensor, uniform: Tensor, waver: float) -> Tensor:
        """Log-probability of each index that was drawn, and some chance: (B, n)."""
        losses = self._gpt.head.losses(hidden[: self._clips], drawn, self._tables.head).cross_entropy
        gumbel = -(-(uniform.clamp(1e-12, 1 - 1e-12)).log()).log()
        return WAVER * min(1.0, self._settings.temperature) * waver * gumbel - losses

    def _read_frame(self, begin: int, told: Told) -> None:
        """A finished latent frame goes to the cache, for those that follow."""
        self._frame_states(begin, self._sequence[:, begin + 1 : begin + 1 + self._frame], told)

    def _frame_states(self, begin: int, shown: Tensor, told: Told) -> Tensor:
        """Run a latent frame with the indices (B, H'·W') that are shown, K where one is hidden: (rows, H'·W', D)."""
        at = torch.arange(begin, begin + self._frame, device=shown.device)
        return self._decoder.forward(self._embedded(at, told, shown), causal=False)
