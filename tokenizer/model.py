"""The video tokenizer: causal encoder, quantizer, causal decoder.

    tokenizer = VideoTokenizer.from_pretrained("runs/tokenizer")
    indices = tokenizer.encode(video)      # (B, 3, T, H, W) in [-1, 1] -> int64 (B, T/4, H/8, W/8)
    video = tokenizer.decode(indices)

Aligned causality: the indices of the first k latent frames are the same whatever follows, and so are the
pixels decoded from them. A prompt can never see the future.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tokenreel.tokenizer.blocks import Decoder, Encoder
from tokenreel.tokenizer.config import TokenizerConfig
from tokenreel.tokenizer.pretrained import load_folder, save_folder
from tokenreel.tokenizer.quantizer import build_quantizer


class TokenizerOutput(NamedTuple):
    """One training pass over a batch; each loss term under its own name, unweighted except ``loss``."""

    loss: Tensor
    reconstruction_loss: Tensor
    """Mean squared error on the [-1, 1] scale."""
    commitment_loss: Tensor
    indices: Tensor
    """int64 (B, T', H', W')."""
    reconstruction: Tensor
    """float (B, 3, T, H, W), not clamped."""


class VideoTokenizer(nn.Module):
    """3D VQ-VAE with stride-aligned causality in time."""

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        self.config = config
        self.quantizer = build_quantizer(config)
        self.encoder = Encoder(config.stride, config.width, config.encoder_depth, self.quantizer.dim)
        self.decoder = Decoder(config.stride, config.width, config.decoder_depth, self.quantizer.dim)

    def forward(self, video: Tensor) -> TokenizerOutput:
        """Reconstruct a batch and compute its losses.

        Args:
            video: float (B, 3, T, H, W) in [-1, 1]; T, H, W multiples of the stride.
        """
        self._check(video)
        codes, indices, commitment_loss = self.quantizer(self.encoder(video))
        reconstruction = self.decoder(codes).float()
        reconstruction_loss = F.mse_loss(reconstruction, video)
        loss = reconstruction_loss + self.config.commitment_weight * commitment_loss
        return TokenizerOutput(loss, reconstruction_loss, commitment_loss, indices, reconstruction)

    @torch.no_grad()
    def encode(self, video: Tensor) -> Tensor:
        """Video -> indices.

        Args:
            video: float (B, 3, T, H, W) in [-1, 1]; T, H, W multiples of the stride.

        Returns:
            int64 (B, T', H', W') in [0, K).

        Raises:
            ValueError: If the shape does not fit the stride, or values lie outside [-1, 1].
        """
        self._check(video)
        if video.numel() and not video.abs().amax() <= 1.001:
            raise ValueError(
                f"video values reach {video.abs().amax().item():.3g}, expected finite values in [-1, 1]; "
                "uint8 frames become that by frames / 127.5 - 1"
            )
        return self.quantizer(self.encoder(video)).indices

    @torch.no_grad()
    def decode(self, indices: Tensor) -> Tensor:
        """Indices int64 (B, T', H', W') in [0, K) -> video float (B, 3, T, H, W) in [-1, 1].

        Raises:
            ValueError: If the indices are no such grid.
        """
        if indices.ndim != 4:
            raise ValueError(f"indices have shape {tuple(indices.shape)}, expected (B, T', H', W')")
        if indices.numel() and not (int(indices.min()) >= 0 and int(indices.max()) < self.config.codebook_size):
            raise ValueError(
                f"indices reach from {int(indices.min())} to {int(indices.max())}, expected [0, "
                f"{self.config.codebook_size}); they come from another tokenizer"
            )
        return self.decoder(self.quantizer.codes(indices)).float().clamp(-1, 1)

    def reconstruct(self, video: Tensor) -> Tensor:
        """Encode and decode: float (B, 3, T, H, W) in [-1, 1] -> the same shape."""
        return self.decode(self.encode(video))

    def save_pretrained(self, folder: Path | str, provenance: Mapping[str, Any] | None = None) -> str:
        """Write config.json, model.safetensors and provenance.json, all or nothing; return the fingerprint."""
        return save_folder(Path(folder), self, self.config, provenance or {})

    @classmethod
    def from_pretrained(cls, folder: Path | str) -> Self:
        """Load a tokenizer saved by :meth:`save_pretrained`, or the newest one of a run folder, in eval mode.

        Raises:
            FileNotFoundError: If the folder or its weights are missing.
            ValueError: If its configuration is not one of this version.
        """
        config, state = load_folder(Path(folder))
        tokenizer = cls(config)
        tokenizer.load_state_dict(state)
        return tokenizer.eval()

    def _check(self, video: Tensor) -> None:
        if video.ndim != 5 or video.shape[1] != 3:
            raise ValueError(f"video has shape {tuple(video.shape)}, expected (B, 3, T, H, W)")
        self.config.grid(*video.shape[2:])
