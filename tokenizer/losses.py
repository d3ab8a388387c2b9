"""How wrong a reconstruction is: the terms a tokenizer can be trained on, and their weights."""

import math
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

SMALLEST_ERROR = (2 / 255) ** 2 / 12
"""Mean squared error of rounding to uint8, on the [-1, 1] scale: below it a clip cannot be wrong."""


@dataclass(frozen=True)
class LossConfig:
    """Weights of the terms; 0 leaves a term out, and what it needs is not built."""

    l2: float = 1.0
    """Weight of the mean squared error on the [-1, 1] scale."""
    l1: float = 0.0
    """Weight of the mean absolute error on the [-1, 1] scale."""
    log_l2: float = 0.0
    """Weight of the mean logarithm of each clip's squared error: PSNR's scale, still and dark clips count like busy
    ones."""
    perceptual: float = 0.0
    """Weight of the distance between VGG16 features (LPIPS); 0.1 to 1 is common beside l1 or l2 of 1, ten to twenty
    times that beside log_l2."""
    perceptual_weights: Path | None = None
    """File of VGG16's weights as torchvision publishes them; without it torchvision fetches them once (528 MB)."""
    perceptual_heads: Path | None = None
    """File of LPIPS's linear heads (its vgg.pth); without it all channels count alike, LPIPS's own baseline."""
    perceptual_frames: int = 4
    """Frames per clip that the perceptual term looks at, drawn anew each step."""
    adversarial: float = 0.0
    """Strength of the adversarial term: length of its gradient at the pixels, where 1 is that of all other terms
    together; 0.1 to 0.8 is common."""
    adversarial_start: float = 0.5
    """Share of the run after which the next validation starts the adversarial term."""
    adversarial_warmup: int = 100
    """Steps from there over which it rises from nothing, while the discriminator already learns."""
    discriminator_width: int = 32
    """Channels of the discriminator's first layer."""

    def __post_init__(self) -> None:
        weights = {name: getattr(self, name) for name in ("l2", "l1", "log_l2", "perceptual", "adversarial")}
        for name, weight in weights.items():
            if not (math.isfinite(weight) and weight >= 0):
                raise ValueError(f"loss.{name} {weight}: expected a weight of 0 (off) or more")
        if not any(weights[name] for name in ("l2", "l1", "log_l2", "perceptual")):
            raise ValueError("loss: l2, l1, log_l2 and perceptual are all 0, expected one above; set --loss.l2 1")
        if not 0 <= self.adversarial_start < 1:
            raise ValueError(
                f"loss.adversarial_start {self.adversarial_start}: expected a share of the run in [0, 1), such as 0.5"
            )
        for name, least in (("perceptual_frames", 1), ("adversarial_warmup", 0), ("discriminator_width", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"loss.{name} {getattr(self, name)}: expected at least {least}")


def clip_errors(reconstruction: Tensor, video: Tensor) -> Tensor:
    """Mean squared error of each clip: float (B, C, T, H, W) twice -> (B,)."""
    return (reconstruction - video).square().mean(dim=(1, 2, 3, 4))


def log_l2(errors: Tensor) -> Tensor:
    """Mean logarithm of clips' squared errors (B,) -> scalar.

    It is the negative log-likelihood, twice per value and up to a constant, of Gaussians whose variance is the
    best one for each clip.
    Source: Rybkin et al., 2021, "Simple and Effective VAE Training with Calibrated Decoders" (optimal sigma).
    """
    return (errors + SMALLEST_ERROR).log().mean()


def mean_psnr(errors: Tensor) -> Tensor:
    """Mean over clips of the PSNR in dB, from squared errors (B,) on the [-1, 1] scale, which is 2 wide."""
    return -10 * (errors / 4).log10().mean()
