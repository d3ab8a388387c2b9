"""The network between pixels and latents: space-time patches, then causal blocks at latent resolution.

Letters: B clips, C channels, (T, H, W) pixels, (t, h, w) the latent grid, D features. Features are kept
channel-last, (B, t, h, w, D), because every matrix product and norm works on D.

Nothing here looks forward in time: patches hold whole strides, norms work on one position at a time, and
the temporal taps of :class:`CausalMixer` reach back only. So the latent frame i, and the pixels decoded
from it, depend on latent frames <= i alone. Tests prove it (tests/test_tokenizer_causality.py).
"""

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

TEMPORAL_TAPS = 3


class RMSNorm(nn.RMSNorm):
    """RMS norm of one position's features, in the features' own type so that it stays one fused kernel."""

    def forward(self, x: Tensor) -> Tensor:
        """Features (..., D) -> the same shape."""
        assert self.weight is not None
        return F.rms_norm(x, self.normalized_shape, self.weight.to(x.dtype), self.eps)


class CausalMixer(nn.Module):
    """Mix neighbours: a depthwise 3x3 convolution in space, then depthwise taps back in time.

    Factored, since CPUs run depthwise 3D convolutions slowly.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.spatial = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)
        # Starts as "this latent frame only": tap 0 is now, tap k is k latent frames ago.
        taps = torch.zeros(TEMPORAL_TAPS, dim)
        taps[0] = 1.0
        self.taps = nn.Parameter(taps)

    def forward(self, x: Tensor) -> Tensor:
        """Features (B, t, h, w, D) -> the same shape."""
        t = x.shape[1]
        x = rearrange(x, "b t h w d -> (b t) d h w")
        x = rearrange(self.spatial(x), "(b t) d h w -> b t h w d", t=t)
        taps = self.taps.to(x.dtype)
        out = x * taps[0]
        for back in range(1, min(TEMPORAL_TAPS, t)):
            past = F.pad(x[:, :-back], (0, 0, 0, 0, 0, 0, back, 0))
            out = out + past * taps[back]
        return out


class Block(nn.Module):
    """Residual block: mix neighbours, normalise each position, two-layer perceptron."""

    def __init__(self, dim: int, expansion: int = 4) -> None:
        super().__init__()
        self.mixer = CausalMixer(dim)
        self.norm = RMSNorm(dim)
        self.up = nn.Linear(dim, expansion * dim)
        self.down = nn.Linear(expansion * dim, dim)
        # Zero, so that the block starts as the identity and depth costs no stability.
        nn.init.zeros_(self.down.weight)
        nn.init.zeros_(self.down.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Features (B, t, h, w, D) -> the same shape."""
        return x + self.down(F.gelu(self.up(self.norm(self.mixer(x)))))


class Encoder(nn.Module):
    """Video -> features on the latent grid."""

    def __init__(self, stride: tuple[int, int, int], width: int, depth: int, out_dim: int) -> None:
        super().__init__()
        self.stride = stride
        st, sh, sw = stride
        self.embed = nn.Linear(3 * st * sh * sw, width)
        self.blocks = nn.Sequential(*(Block(width) for _ in range(depth)))
        self.norm = RMSNorm(width)
        self.project = nn.Linear(width, out_dim)

    def forward(self, video: Tensor) -> Tensor:
        """Video (B, 3, T, H, W) in [-1, 1] -> features (B, t, h, w, out_dim)."""
        st, sh, sw = self.stride
        patches = rearrange(video, "b c (t st) (h sh) (w sw) -> b t h w (c st sh sw)", st=st, sh=sh, sw=sw)
        return self.project(self.norm(self.blocks(self.embed(patches))))


class Decoder(nn.Module):
    """Features on the latent grid -> video."""

    def __init__(self, stride: tuple[int, int, int], width: int, depth: int, in_dim: int) -> None:
        super().__init__()
        self.stride = stride
        st, sh, sw = stride
        self.project = nn.Linear(in_dim, width)
        self.blocks = nn.Sequential(*(Block(width) for _ in range(depth)))
        self.norm = RMSNorm(width)
        self.unembed = nn.Linear(width, 3 * st * sh * sw)

    def forward(self, codes: Tensor) -> Tensor:
        """Codes (B, t, h, w, in_dim) -> video (B, 3, T, H, W), not yet clamped."""
        st, sh, sw = self.stride
        patches = self.unembed(self.norm(self.blocks(self.project(codes))))
        return rearrange(patches, "b t h w (c st sh sw) -> b c (t st) (h sh) (w sw)", c=3, st=st, sh=sh, sw=sw)
