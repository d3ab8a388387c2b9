"""What every quantizer offers and gives back."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from torch import Tensor, nn


class Quantized(NamedTuple):
    """What a quantizer makes of features (B, t, h, w, D). Losses are scalars, unweighted, 0 where there is none."""

    codes: Tensor
    """The vectors looked up, float32 (B, t, h, w, D); in training with a gradient that passes straight through."""
    indices: Tensor
    """Which vectors, int64 (B, t, h, w) in [0, K)."""
    commitment_loss: Tensor
    """VQ: mean squared distance from features to codes. LFQ: the same, of features beyond ±1 only."""
    entropy_loss: Tensor
    """BSQ and LFQ: how unsure positions are of their bits, less how widely all of them spread over the codebook, as
    a share of the index's bits: -1 (sure, and all codes used alike) to 1."""


class Quantizer(nn.Module):
    """Features -> integers and back, one position at a time: nothing depends on a neighbour.

    Channel-last, and in float32 whatever the autocast: under bf16 up to 1.5 % of the indices change.
    Only training moves anything; in eval mode the same features always give the same indices.
    """

    dim: int
    """Length D of a code vector."""
    codebook_size: int
    """Number of codes K."""

    def forward(self, features: Tensor) -> Quantized:
        """Features float (B, t, h, w, D) -> :class:`Quantized`."""
        raise NotImplementedError

    def indices(self, features: Tensor) -> Tensor:
        """Features float (B, t, h, w, D) -> indices int64 (B, t, h, w), and nothing else: nothing moves."""
        raise NotImplementedError

    def codes(self, indices: Tensor) -> Tensor:
        """Indices int64 (B, t, h, w) in [0, K) -> codes float32 (B, t, h, w, D)."""
        raise NotImplementedError

    @contextmanager
    def accumulating(self) -> Iterator[None]:
        """Around every micro-batch of a step but its last one: what they tell is kept until then.

        Example:
            with quantizer.accumulating():
                model(first_half).loss.backward()
            model(second_half).loss.backward()  # a codebook learns from both halves here
        """
        yield
