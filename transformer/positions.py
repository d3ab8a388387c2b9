"""Where each token stands in space-time, and the rotary angles that follow from it.

A token of the grid stands at (t, h, w). The condition prefix and BOS stand before the clip, at t = … -2 and
t = -1, so that positions of the grid are the same with or without more conditions. Each attention head's
32 rotary pairs are shared out: 12 turn with t, 10 with h, 10 with w.

A key is turned by where its index stands, a query by where the index that it predicts will stand. So what
stood there a latent frame earlier is always one step of t away, and the neighbours of the next index are the
same steps away at the end of a row as within it.

Source: Su et al., 2021, "RoFormer"; bands for space-time as in recent video transformers.
"""

import torch
from torch import Tensor

from tokenreel.transformer.config import HEAD_DIM

BANDS = (12, 10, 10)
"""Rotary pairs of one head that turn with t, h, w."""
FASTEST = 2.8
"""Radians per step of the fastest pair of each band: more than pi, and a step forward would look like one back."""
SPACING = 1.5
"""The others slow down by this power of their place. Grids are small, so neighbours must be told apart: the usual
geometric spacing leaves most pairs too slow for that. Even spacing (1) would repeat itself every 20 steps."""


def token_positions(grid: tuple[int, int, int], prefix: int) -> Tensor:
    """Positions of all tokens of a window, and of what would follow it.

    Returns:
        int64 (prefix + T'·H'·W' + 1, 3), columns t, h, w, raster order. Token n's key stands at row n, its query at
        row n + 1.
    """
    t_lat, h_lat, w_lat = grid
    axes = torch.meshgrid(torch.arange(t_lat), torch.arange(h_lat), torch.arange(w_lat), indexing="ij")
    places = torch.stack(axes, dim=-1).reshape(-1, 3)
    before = torch.zeros(prefix, 3, dtype=torch.int64)
    before[:, 0] = torch.arange(-prefix, 0)
    return torch.cat([before, places, torch.tensor([[t_lat, 0, 0]])])


def rotary_angles(positions: Tensor) -> Tensor:
    """Angle of each rotary pair at each position.

    Args:
        positions: int64 (N, 3), columns t, h, w.

    Returns:
        float32 (N, 32), in radians; pair j turns by angle j.
    """
    bands = []
    for axis, pairs in enumerate(BANDS):
        frequency = FASTEST * (torch.arange(1, pairs + 1, dtype=torch.float32) / pairs) ** SPACING
        bands.append(positions[:, axis, None].float() * frequency)
    angles = torch.cat(bands, dim=-1)
    assert angles.shape[-1] == HEAD_DIM // 2, f"{angles.shape[-1]} rotary pairs, expected {HEAD_DIM // 2}"
    return angles
