"""In which order a window's indices become tokens: as time goes, or with some latent frames ahead of it.

Attention knows each token's place by its angles, not by its turn, so one model can read a clip's last latent frames
first and then make what lies before them.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from tokenreel.transformer.clip_chance import ORDER, uniform

FrameGrid = tuple[int, int]
"""H' and W' of latent frames."""


class TokenOrder(NamedTuple):
    """Of the N = T'·H'·W' indices of a window. The sequence is BOS, at position 0, then the indices in this order."""

    places: Tensor
    """int64 (N + 1,): where each index stands in the window, in raster order t, h, w; the token at position n predicts
    the index at places[n], and the last one what would follow the window."""
    earlier: Tensor
    """int64 (N + 1,): position in the sequence of the index one latent frame before that; 0, BOS, where none is known
    by then."""
    frame: FrameGrid
    """Of which size the latent frames are."""

    def to(self, device: torch.device) -> "TokenOrder":
        """The same on another device."""
        return TokenOrder(self.places.to(device), self.earlier.to(device), self.frame)


def token_order(grid: tuple[int, int, int], first: Tensor | int = 0, stop: Tensor | int = 0) -> TokenOrder:
    """Latent frames ``first`` up to ``stop`` come ahead, the others follow; both as time goes, without them by default.

    Args:
        grid: Latent grid (T', H', W') of the window.
        first: In 0 .. T'; a tensor where it is drawn on a device, which then need not wait.
        stop: In first .. T'.
    """
    t_lat, per_frame = grid[0], grid[1] * grid[2]
    device = first.device if isinstance(first, Tensor) else None
    frames, within = torch.arange(t_lat, device=device), torch.arange(per_frame, device=device)
    ahead = (frames >= first) & (frames < stop)
    order = torch.where(ahead, frames, frames + t_lat).argsort()
    turn = order.argsort()  # of each latent frame
    before = (order - 1).clamp(min=0)
    known = (order > 0) & (turn[before] < turn[order])
    earlier = torch.where(known[:, None], 1 + turn[before, None] * per_frame + within, 0)
    places = order[:, None] * per_frame + within
    end = torch.full((1,), t_lat * per_frame, device=device)
    earlier = torch.cat([earlier.flatten(), torch.zeros_like(end)])
    return TokenOrder(torch.cat([places.flatten(), end]), earlier, grid[1:])


def drawn_order(grid: tuple[int, int, int], share: float, number: Tensor) -> TokenOrder:
    """One for a training step: with a probability of ``share`` some latent frames come ahead, often few.

    They end anywhere after the second latent frame, so that what lies between may be shorter than a window.
    ``number`` is a random one of the step, int64 (1,).
    """
    t_lat = grid[0]
    chosen, end, length = uniform(number, 3, ORDER)[0].unbind()
    stop = 2 + (end * (t_lat - 1)).long()
    first = stop - 1 - (length.square() * (stop - 1)).long()
    return token_order(grid, first, torch.where(chosen < share, stop, first))
