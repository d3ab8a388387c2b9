"""What a video tokenizer is made of, as plain numbers that fit in ``config.json``."""

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class TokenizerConfig:
    """Shape of a :class:`~tokenreel.tokenizer.VideoTokenizer`."""

    stride: tuple[int, int, int] = (4, 8, 8)
    """Downsampling (time, height, width); each a power of two."""
    width: int = 192
    """Channels of every block."""
    encoder_depth: int = 2
    """Blocks between the patches and the quantizer."""
    decoder_depth: int = 4
    """Blocks between the quantizer and the pixels."""
    quantizer: Literal["fsq", "vq"] = "fsq"
    """"fsq": finite scalar quantization; "vq": codebook learned by moving averages."""
    levels: tuple[int, ...] = (5, 5, 5, 5)
    """FSQ only: steps of each code dimension; their product is the codebook size."""
    vq_codebook_size: int = 1024
    """VQ only: number of codes."""
    vq_codebook_dim: int = 16
    """VQ only: length of a code vector."""
    vq_decay: float = 0.99
    """VQ only: decay of the codebook's moving averages."""
    commitment_weight: float = 0.25
    """VQ only: weight of the commitment loss beside the reconstruction loss."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "stride", tuple(self.stride))
        object.__setattr__(self, "levels", tuple(self.levels))
        if len(self.stride) != 3 or any(s < 1 or s & (s - 1) for s in self.stride):
            raise ValueError(
                f"stride {self.stride}: expected three powers of two (time, height, width), e.g. (4, 8, 8)"
            )
        for name in ("width", "encoder_depth", "decoder_depth"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)}: expected at least 1")
        if self.quantizer not in ("fsq", "vq"):
            raise ValueError(f"quantizer {self.quantizer!r}: expected 'fsq' or 'vq'")
        if self.quantizer == "fsq" and (not self.levels or min(self.levels) < 3):
            raise ValueError(
                f"levels {self.levels}: expected at least one level and each at least 3, e.g. (8, 5, 5, 5)"
            )
        if self.quantizer == "vq" and min(self.vq_codebook_size, self.vq_codebook_dim) < 2:
            raise ValueError(
                f"vq_codebook_size {self.vq_codebook_size}, vq_codebook_dim {self.vq_codebook_dim}: "
                "expected both at least 2"
            )

    @property
    def codebook_size(self) -> int:
        """Number of codes K; indices lie in [0, K)."""
        return math.prod(self.levels) if self.quantizer == "fsq" else self.vq_codebook_size

    def grid(self, frames: int, height: int, width: int) -> tuple[int, int, int]:
        """Latent grid (T', H', W') of a clip.

        Raises:
            ValueError: If the stride does not divide the clip's size.
        """
        got, axes = (frames, height, width), ("frames", "height", "width")
        for size, step, axis in zip(got, self.stride, axes, strict=True):
            if size < step or size % step:
                below = max(size // step, 1) * step
                raise ValueError(
                    f"{axis} {size} is not a multiple of the tokenizer's stride {step}; use {below} or {below + step}"
                )
        return frames // self.stride[0], height // self.stride[1], width // self.stride[2]


PRESETS: dict[str, TokenizerConfig] = {
    "tiny": TokenizerConfig(),
    "small": TokenizerConfig(width=384, encoder_depth=4, decoder_depth=8, levels=(8, 8, 8, 5)),
    "base": TokenizerConfig(width=768, encoder_depth=8, decoder_depth=16, levels=(8, 8, 8, 5, 5)),
}
