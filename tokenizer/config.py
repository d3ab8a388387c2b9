"""What a video tokenizer is made of, as plain numbers that fit in ``config.json``."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

QuantizerName = Literal["fsq", "vq", "bsq", "lfq"]
MAX_BITS = 18
MAX_CODEBOOK_SIZE = 2**MAX_BITS


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
    quantizer: QuantizerName = "fsq"
    """"fsq": finite scalar quantization; "vq": codebook learned by moving averages; "bsq": signs of a vector on the
    sphere; "lfq": signs of a free vector."""
    levels: tuple[int, ...] = (5, 5, 5, 5)
    """FSQ only: steps of each code dimension; their product is the codebook size."""
    bits: int = 10
    """BSQ and LFQ only: signs per code; the codebook size is 2 to this power, at most 18."""
    entropy_weight: float = 0.1
    """BSQ and LFQ only: weight of the entropy loss (codes sure of themselves, all of them used)."""
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
        self._check_quantizer()

    def _check_quantizer(self) -> None:
        names = get_args(QuantizerName)
        if self.quantizer not in names:
            raise ValueError(f"quantizer {self.quantizer!r}: expected one of {', '.join(map(repr, names))}")
        if self.quantizer == "fsq" and (not self.levels or min(self.levels) < 3):
            raise ValueError(
                f"levels {self.levels}: expected at least one level and each at least 3, e.g. (8, 5, 5, 5); "
                "for levels of two values use quantizer 'bsq'"
            )
        if self.quantizer in ("bsq", "lfq") and not 2 <= self.bits <= MAX_BITS:
            raise ValueError(f"bits {self.bits}: expected 2 to {MAX_BITS}, e.g. 10 for 1024 codes")
        if self.quantizer == "vq" and min(self.vq_codebook_size, self.vq_codebook_dim) < 2:
            raise ValueError(
                f"vq_codebook_size {self.vq_codebook_size}, vq_codebook_dim {self.vq_codebook_dim}: "
                "expected both at least 2"
            )
        if self.codebook_size > MAX_CODEBOOK_SIZE:
            setting = "levels" if self.quantizer == "fsq" else "vq_codebook_size"
            raise ValueError(
                f"{setting} {getattr(self, setting)} make {self.codebook_size} codes, expected at most "
                f"{MAX_CODEBOOK_SIZE}; lower {setting}"
            )
        if not 0 <= self.vq_decay < 1:
            raise ValueError(f"vq_decay {self.vq_decay}: expected at least 0 and below 1, e.g. 0.99")
        for name in ("entropy_weight", "commitment_weight"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} {getattr(self, name)}: expected a finite number of at least 0; 0 is off")

    @property
    def codebook_size(self) -> int:
        """Number of codes K; indices lie in [0, K)."""
        return math.prod(self.digits) if self.digits else self.vq_codebook_size

    @property
    def digits(self) -> tuple[int, ...]:
        """Values of each digit of an index, first digit fastest, product K; empty if indices have none (VQ)."""
        if self.quantizer == "vq":
            return ()
        return self.levels if self.quantizer == "fsq" else (2,) * self.bits

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
