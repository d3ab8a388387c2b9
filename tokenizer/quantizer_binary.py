"""Codes made of signs: binary spherical and lookup-free quantization, up to 2^18 codes without a table.

The soft assignment of a position to all K codes is a product of one probability per bit. So its entropy is a sum
over bits, and the mean over all positions is one product of two thin matrices: the exact losses of a dense
tokens x codes matrix in the memory of tokens x √K.

Source: Zhao et al., 2024, "Image and Video Tokenization with Binary Spherical Quantization"; Yu et al., 2023,
"Language Model Beats Diffusion - Tokenizer is Key to Visual Generation".
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from tokenreel.tokenizer.config import TokenizerConfig
from tokenreel.tokenizer.process_group import averaged
from tokenreel.tokenizer.quantized import Quantized, Quantizer


class BinaryQuantizer(Quantizer):
    """Each of ``bits`` dimensions becomes its sign: "bsq" of a vector on the unit sphere, "lfq" of a free one.

    Bit i of an index is 1 where dimension i is positive. Codes are ±1 (lfq) or ±1/√bits (bsq).
    """

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        self.dim = config.bits
        self.codebook_size = config.codebook_size
        self.spherical = config.quantizer == "bsq"
        self.scale = config.bits**-0.5 if self.spherical else 1.0
        self.place_values: Tensor
        self.register_buffer("place_values", 2 ** torch.arange(config.bits), persistent=False)

    def forward(self, features: Tensor) -> Quantized:
        """Features (B, t, h, w, D) -> :class:`Quantized`; entropy loss, and for lfq a commitment loss."""
        with torch.autocast(features.device.type, enabled=False):
            values = features.float()
            values = F.normalize(values, dim=-1) if self.spherical else values
            indices = self.indices(features)
            signs = self.codes(indices)
            none = values.new_zeros(())
            # On the sphere a feature cannot run away from its code. A free one may be unsure, within ±1: pulled to
            # its sign, all went to the same one (perplexity 2 where this has 860).
            commitment_loss = none if self.spherical else F.relu(values.abs() - 1).square().mean()
            entropy_loss = bit_entropy_loss(4 / self.scale * values.flatten(0, 3)) if self.training else none
            return Quantized(values + (signs - values).detach(), indices, commitment_loss, entropy_loss)

    @torch.no_grad()
    def indices(self, features: Tensor) -> Tensor:
        """Features (B, t, h, w, D) -> indices int64 (B, t, h, w)."""
        return ((features > 0) * self.place_values).sum(-1)

    def codes(self, indices: Tensor) -> Tensor:
        """Indices int64 (B, t, h, w) -> codes (B, t, h, w, D)."""
        bits = (indices[..., None] & self.place_values) > 0
        return torch.where(bits, self.scale, -self.scale)


def bit_entropy_loss(logits: Tensor) -> Tensor:
    """Entropy of each position's code less the entropy of all positions' codes, as a share of the index's bits.

    Args:
        logits: float (N, bits), of the probabilities that each bit is 1.

    Returns:
        Scalar in [-1, 1]. -1: every position is sure of its code, and all codes are used alike.
    """
    bits = logits.shape[1]
    probabilities = logits.sigmoid()
    of_positions = (F.softplus(logits) - logits * probabilities).sum(1).mean()
    low, high = (_joint(part) for part in (probabilities[:, : bits // 2], probabilities[:, bits // 2 :]))
    usage = averaged(low.T @ high / len(logits))
    # Not xlogy: where a use underflows to exactly 0, its gradient is no number.
    of_codebook = -(usage * usage.clamp_min(torch.finfo(usage.dtype).tiny).log()).sum()
    return (of_positions - of_codebook) / (bits * math.log(2))


def _joint(probabilities: Tensor) -> Tensor:
    """Probabilities (N, bits) of independent bits -> those of all their 2^bits values, (N, 2^bits)."""
    joint = probabilities.new_ones(len(probabilities), 1)
    for p in probabilities.unbind(1):
        joint = torch.cat([joint * (1 - p)[:, None], joint * p[:, None]], dim=1)
    return joint
