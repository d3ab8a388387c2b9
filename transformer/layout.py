"""Where the tokens of a window stand, for one size of latent frames: worked out once, kept beside the weights."""

import torch
from torch import Tensor, nn

from tokenreel.transformer.positions import rotary_angles, token_positions
from tokenreel.transformer.token_order import FrameGrid, TokenOrder, token_order


class Layout(nn.Module):
    """Places and angles of a window's tokens, in no checkpoint.

    Args:
        grid: Latent grid (T', H', W') of the window; of a shorter clip it is the beginning that counts.
        prefix: Tokens before the grid.
    """

    query_angles: Tensor
    """float32 (prefix + T'·H'·W', 32)"""
    key_angles: Tensor
    """The same shape."""
    places: Tensor
    """int64 (T'·H'·W' + 1, 3), columns t, h, w; the last row is for what would follow the window."""
    _order_places: Tensor
    _order_earlier: Tensor

    def __init__(self, grid: tuple[int, int, int], prefix: int) -> None:
        super().__init__()
        self.grid, self.prefix = grid, prefix
        positions, order = token_positions(grid, prefix), token_order(grid)
        angles = rotary_angles(positions)
        parts = {
            "query_angles": angles[1:].clone(),
            "key_angles": angles[:-1].clone(),
            "places": positions[prefix:],
            "_order_places": order.places,
            "_order_earlier": order.earlier,
        }
        for name, part in parts.items():
            self.register_buffer(name, part, persistent=False)

    @property
    def order(self) -> TokenOrder:
        """That of time."""
        return TokenOrder(self._order_places, self._order_earlier, self.grid[1:])

    def angles(self, order: TokenOrder, n: int, own: bool) -> tuple[Tensor, Tensor]:
        """Rotary angles of queries and keys of the first n tokens of the sequence, (prefix - 1 + n, 32) each.

        Args:
            order: Of the sequence.
            n: BOS and n - 1 indices.
            own: Whether a token stands where the index does that it predicts, queries and keys alike.
        """
        before = self.prefix - 1
        queries, keys = self.query_angles[before:], self.key_angles[before + 1 :]
        if own:
            both = torch.cat([self.key_angles[:before], keys[order.places[:n].clamp(max=len(keys) - 1)]])
            return both, both
        return (
            torch.cat([self.query_angles[:before], queries[order.places[:n]]]),
            torch.cat([self.key_angles[: before + 1], keys[order.places[: n - 1]]]),
        )


def layout_name(frame: FrameGrid) -> str:
    """Name of the layout for latent frames of H'·W' indices."""
    return f"{frame[0]}x{frame[1]}"
