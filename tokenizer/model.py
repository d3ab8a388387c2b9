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

from tokenreel.tokenizer.blocks import Carried, Decoder, Encoder
from tokenreel.tokenizer.config import TokenizerConfig
from tokenreel.tokenizer.frames import check_values
from tokenreel.tokenizer.pretrained import load_folder, save_folder
from tokenreel.tokenizer.quantizer import build_quantizer
from tokenreel.tokenizer.streaming import DecoderStream, EncoderStream


class TokenizerOutput(NamedTuple):
    """One training pass over a batch; what it is worth, :class:`~tokenreel.tokenizer.TokenizerObjective` says."""

    reconstruction: Tensor
    """float32 (B, 3, T, H, W), not clamped."""
    indices: Tensor
    """int64 (B, T', H', W')."""
    commitment_loss: Tensor
    """The quantizer's own terms, scalars, unweighted; a constant 0 where it has none."""
    entropy_loss: Tensor


class VideoTokenizer(nn.Module):
    """3D VQ-VAE with stride-aligned causality in time."""

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        self.config = config
        self.quantizer = build_quantizer(config)
        self.encoder = Encoder(config.stride, config.width, config.encoder_depth, self.quantizer.dim)
        self.decoder = Decoder(config.stride, config.width, config.decoder_depth, self.quantizer.dim)
        self.encoding_frozen = False

    def freeze_encoding(self) -> None:
        """Keep encoder and codebook as they are: from here on the decoder alone trains, and indices stay the same."""
        self.encoder.requires_grad_(False)
        self.quantizer.requires_grad_(False)
        self.encoding_frozen = True

    def forward(self, video: Tensor) -> TokenizerOutput:
        """Reconstruct a batch, with a gradient through the quantizer.

        Args:
            video: float (B, 3, T, H, W) in [-1, 1]; T, H, W multiples of the stride.

        Raises:
            ValueError: If the shape does not fit the stride, or (on a CPU, where looking is cheap) values lie
                outside [-1, 1].
        """
        self._check(video)
        if video.device.type == "cpu" and not torch.compiler.is_compiling():
            check_values(video)  # on a GPU it would wait for the device at every step
        if self.encoding_frozen:
            with torch.no_grad():
                indices, none = self.quantizer.indices(self.encoder(video)), video.new_zeros(())
            return TokenizerOutput(self.decoder(self.quantizer.codes(indices)).float(), indices, none, none)
        quantized = self.quantizer(self.encoder(video))
        reconstruction = self.decoder(quantized.codes).float()
        return TokenizerOutput(reconstruction, quantized.indices, quantized.commitment_loss, quantized.entropy_loss)

    @torch.no_grad()
    def encode(self, video: Tensor, carried: list[Carried] | None = None) -> Tensor:
        """Video -> indices.

        Args:
            video: float (B, 3, T, H, W) in [-1, 1]; T, H, W multiples of the stride.
            carried: What an :meth:`encoder_stream` keeps between chunks; a whole clip has none.

        Returns:
            int64 (B, T', H', W') in [0, K).

        Raises:
            ValueError: If the shape does not fit the stride, or values lie outside [-1, 1].
        """
        self._check(video)
        check_values(video)
        return self.quantizer.indices(self.encoder(video, carried))

    @torch.no_grad()
    def decode(self, indices: Tensor, carried: list[Carried] | None = None) -> Tensor:
        """Indices -> video.

        Args:
            indices: int64 (B, T', H', W') in [0, K).
            carried: What a :meth:`decoder_stream` keeps between chunks; a whole clip has none.

        Returns:
            float (B, 3, T, H, W) in [-1, 1].

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
        return self.decoder(self.quantizer.codes(indices), carried).float().clamp(-1, 1)

    def reconstruct(self, video: Tensor) -> Tensor:
        """Encode and decode: float (B, 3, T, H, W) in [-1, 1] -> the same shape."""
        return self.decode(self.encode(video))

    def encoder_stream(self) -> EncoderStream:
        """Open a stream that encodes a video chunk by chunk as :meth:`encode` does at once, in constant memory."""
        return EncoderStream(self)

    def decoder_stream(self) -> DecoderStream:
        """Open a stream that decodes indices chunk by chunk as :meth:`decode` does at once, in constant memory."""
        return DecoderStream(self)

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
        shape = tuple(video.shape)
        if video.ndim != 5 or shape[1] != 3:
            raise ValueError(f"video has shape {shape}, expected (B, 3, T, H, W); {_cure(shape)}")
        if not video.is_floating_point():
            raise ValueError(f"video is {video.dtype}, expected float in [-1, 1]; use video / 127.5 - 1 or to_video")
        stride_t = self.config.stride[0]
        if shape[2] == 1 < stride_t:
            raise ValueError(
                f"video has 1 frame, expected a multiple of the tokenizer's stride {stride_t}; still_clip(image, "
                f"{stride_t}) makes an image a clip"
            )
        self.config.grid(*shape[2:])


def _cure(shape: tuple[int, ...]) -> str:
    """How a tensor of another shape may become a video."""
    if len(shape) == 4 and shape[0] == 3:
        return "add the axis of the batch: video[None]"
    if len(shape) == 5 and shape[-1] == 3:
        return "channels come second: video.permute(0, 4, 1, 2, 3)"
    if len(shape) == 5 and shape[1] == 1:
        return "grey video becomes that by video.expand(-1, 3, -1, -1, -1)"
    return "to_video makes it from uint8 frames, grey and RGBA ones too"
