"""What a video GPT is made of, as plain numbers and names that fit in ``config.json``."""

from dataclasses import dataclass, field
from typing import Literal

from tokenreel.transformer.conditions import ConditionConfig
from tokenreel.transformer.factors import LARGEST_PLAIN, factorize
from tokenreel.transformer.token_order import FrameGrid

HEAD_DIM = 64


@dataclass(frozen=True)
class GPTSize:
    """Size of the transformer, whatever it is trained on."""

    dim: int = 256
    """Width; a multiple of 64, the size of one attention head."""
    depth: int = 4
    """Layers."""
    dropout: float = 0.0
    """Dropout in attention and perceptron; worth 0.1 or more when every clip is seen dozens of times."""

    def __post_init__(self) -> None:
        if self.dim < HEAD_DIM or self.dim % HEAD_DIM:
            raise ValueError(f"dim {self.dim}: expected a multiple of {HEAD_DIM}, the size of one attention head")
        if self.depth < 1:
            raise ValueError(f"depth {self.depth}: expected at least 1")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout {self.dropout}: expected a share in [0, 1)")

    @property
    def heads(self) -> int:
        """Attention heads."""
        return self.dim // HEAD_DIM


@dataclass(frozen=True)
class GPTConfig:
    """Everything that fixes a :class:`~tokenreel.transformer.VideoGPT`."""

    codebook_size: int
    """K: indices lie in [0, K)."""
    grid: tuple[int, int, int]
    """Latent grid (T', H', W') of the training window; with several sizes of frames the largest along each axis."""
    size: GPTSize = field(default_factory=GPTSize)
    """Width, depth, dropout."""
    levels: tuple[int, ...] = ()
    """Values of each digit of an index, first digit fastest, if the quantizer makes indices of digits (FSQ)."""
    factors: int = 0
    """1: every index has a row and a score of its own; 2: an index is two factors, predicted one after the other,
    which large codebooks need; 0 becomes 1 up to 2^14 codes, else 2."""
    conditions: ConditionConfig = field(default_factory=ConditionConfig)
    """What it can be conditioned on."""
    context_noise: float = 0.0
    """Largest share of past indices that training replaces, so that sampling bears its own mistakes; 0 is off."""
    decoding: Literal["token", "frame"] = "token"
    """"token": index by index, each told by all before it; "frame": the indices of a latent frame together, in a few
    passes, which is quicker where there is arithmetic to spare, and less exact."""
    infilling: float = 0.0
    """Share of training steps that read some latent frames ahead of time, so that what lies between the first and the
    last can be made; 0 is off."""
    z_loss: float = 0.0
    """Weight in training of the squared log of the softmax's denominator, which keeps scores from drifting off to
    sizes that bf16 rounds badly; 0 is off.

    Source: Chowdhery et al., 2022, "PaLM".
    """
    fps: float = 10.0
    """Frames per second of the videos it was trained on."""
    tokenizer: str = ""
    """Fingerprint (sha256) of the tokenizer that made the indices."""
    frames: tuple[FrameGrid, ...] = ()
    """Sizes (H', W') of the latent frames it is trained on; () is that of the grid alone."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "grid", tuple(self.grid))
        object.__setattr__(self, "levels", tuple(self.levels))
        frames = tuple((int(h_lat), int(w_lat)) for h_lat, w_lat in self.frames) or (self.grid[1:],)
        object.__setattr__(self, "frames", frames)
        if isinstance(self.size, dict):
            object.__setattr__(self, "size", GPTSize(**self.size))
        if isinstance(self.conditions, dict):
            object.__setattr__(self, "conditions", ConditionConfig(**self.conditions))
        if self.codebook_size < 2:
            raise ValueError(f"codebook_size {self.codebook_size}: expected at least 2")
        if self.factors not in (0, 1, 2):
            raise ValueError(f"factors {self.factors}: expected 1 or 2, or 0 to choose by the codebook's size")
        if self.factors == 0:
            object.__setattr__(self, "factors", 1 if self.codebook_size <= LARGEST_PLAIN else 2)
        if len(self.grid) != 3 or min(self.grid) < 1:
            raise ValueError(f"grid {self.grid}: expected three sizes of at least 1 (T', H', W')")
        largest = tuple(max(sizes) for sizes in zip(*frames, strict=True))
        if len(set(frames)) < len(frames) or min(map(min, frames)) < 1 or largest != self.grid[1:]:
            raise ValueError(
                f"frames {frames}: expected different sizes of at least 1 (H', W'), the largest of each axis those of "
                f"grid {self.grid}"
            )
        if not 0 <= self.context_noise < 1:
            raise ValueError(f"context_noise {self.context_noise}: expected a share in [0, 1), such as 0.2")
        if self.decoding not in ("token", "frame"):
            raise ValueError(f"decoding {self.decoding!r}: expected 'token' or 'frame'")
        if self.decoding == "frame" and self.context_noise:
            raise ValueError("context_noise works with decoding 'token' alone; leave one of them out")
        if not 0 <= self.infilling <= 1:
            raise ValueError(f"infilling {self.infilling}: expected a share in [0, 1], such as 0.5")
        if self.infilling and self.grid[0] < 3:
            raise ValueError(f"infilling needs windows of at least 3 latent frames, these have {self.grid[0]}")
        if not 0 <= self.z_loss < 1:
            raise ValueError(f"z_loss {self.z_loss}: expected 0 (off) or a small weight, such as 1e-4")

    @property
    def num_indices(self) -> int:
        """Indices in one window of the largest latent frames: T'·H'·W'."""
        return self.grid[0] * max(h_lat * w_lat for h_lat, w_lat in self.frames)

    @property
    def prefix(self) -> int:
        """Tokens before the grid: class, words of the caption, BOS."""
        return 2 + self.conditions.caption_words

    @property
    def head_sizes(self) -> tuple[int, ...]:
        """Among how many values the head chooses: (K,), or (K1, K2) if it is factored."""
        if self.factors == 1:
            return (self.codebook_size,)
        factors = factorize(self.codebook_size, self.levels)
        return factors.first_size, factors.second_size


PRESETS: dict[str, GPTSize] = {
    "tiny": GPTSize(dim=256, depth=4),
    "small": GPTSize(dim=512, depth=8),
    "base": GPTSize(dim=1024, depth=16),
}
