"""Features -> integers and back: the only file that imports vector-quantize-pytorch.

Both quantizers work channel-last in fp32 whatever the autocast: under CPU bf16 autocast the library lets
up to 1.5 % of the indices change.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from vector_quantize_pytorch import FSQ, VectorQuantize

from tokenreel.tokenizer.config import TokenizerConfig


class Quantized(NamedTuple):
    """What a quantizer makes of features (B, t, h, w, D)."""

    codes: Tensor
    """The vectors looked up, float (B, t, h, w, D), with a straight-through gradient."""
    indices: Tensor
    """Which vectors, int64 (B, t, h, w) in [0, K)."""
    commitment_loss: Tensor
    """Mean squared distance from features to codes, scalar; 0 for FSQ. Unweighted."""


class FSQuantizer(nn.Module):
    """Finite scalar quantization: each of a few dimensions is rounded to a few levels; nothing to learn.

    Source: Mentzer et al., 2023, "Finite Scalar Quantization: VQ-VAE Made Simple".
    """

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        self.dim = len(config.levels)
        self.codebook_size = config.codebook_size
        self.fsq = FSQ(list(config.levels))

    def forward(self, features: Tensor) -> Quantized:
        """Features (B, t, h, w, D) -> :class:`Quantized`."""
        with torch.autocast(features.device.type, enabled=False):
            codes, indices = self.fsq(features.float().flatten(1, 3))
        shape = features.shape
        return Quantized(codes.view(shape), indices.long().view(shape[:-1]), codes.new_zeros(()))

    def codes(self, indices: Tensor) -> Tensor:
        """Indices int64 (B, t, h, w) -> codes (B, t, h, w, D)."""
        return self.fsq.indices_to_codes(indices.flatten(1)).view(*indices.shape, self.dim)


class VQuantizer(nn.Module):
    """A learned codebook, moved by exponential averages of the features that chose each code.

    k-means initialisation and restart of dead codes are on: with the library's defaults 95 of 1,024 codes
    were used, with these settings 849.
    Source: van den Oord et al., 2017; rotation trick: Fifty et al., 2024.
    """

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        self.dim = config.vq_codebook_dim
        self.codebook_size = config.codebook_size
        self.vq = VectorQuantize(
            self.dim,
            config.codebook_size,
            decay=config.vq_decay,
            kmeans_init=True,
            threshold_ema_dead_code=0.1,
            rotation_trick=True,
            commitment_weight=1.0,
            sync_codebook=False,  # said outright: the library's own guess is kept for the whole process
        )

    def forward(self, features: Tensor) -> Quantized:
        """Features (B, t, h, w, D) -> :class:`Quantized`; in training mode the codebook moves.

        Raises:
            ValueError: In eval mode, if the codebook was never trained.
        """
        if not self.training and not self.vq._codebook.initted:
            # The library would make a codebook from these features: one that depends on the future.
            raise ValueError("the VQ codebook is empty, expected one from at least one training step; train it first")
        shape = features.shape
        with torch.autocast(features.device.type, enabled=False):
            codes, indices, loss = self.vq(features.float().flatten(1, 3), freeze_codebook=not self.training)
        return Quantized(codes.view(shape), indices.long().view(shape[:-1]), loss.sum())

    def codes(self, indices: Tensor) -> Tensor:
        """Indices int64 (B, t, h, w) -> codes (B, t, h, w, D)."""
        return self.vq.get_output_from_indices(indices.flatten(1)).view(*indices.shape, self.dim)


def build_quantizer(config: TokenizerConfig) -> FSQuantizer | VQuantizer:
    """The quantizer that the configuration names."""
    return FSQuantizer(config) if config.quantizer == "fsq" else VQuantizer(config)
