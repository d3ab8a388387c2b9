"""The network between pixels and latents: space-time patches, then causal blocks at latent resolution.

Letters: B clips, C channels, (T, H, W) pixels, (t, h, w) the latent grid, D features. Features are kept
channel-last, (B, t, h, w, D), because every matrix product and norm works on D.

Nothing here looks forward in time: patches hold whole strides, norms work on one position at a time, and
the temporal taps of :class:`CausalMixer` reach back only. So the latent frame i, and the pixels decoded
from it, depend on latent frames <= i alone. Tests prove it (tests/test_tokenizer_causality.py).

What looks back in time also carries: with a dictionary of its own per stream, a block goes on where its last chunk
ended. A clip given whole is a stream of one chunk, computed by the same lines (tests/test_streaming.py).
"""

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

TEMPORAL_TAPS = 3

Carried = dict[str, Tensor]
"""What one block of a stream keeps of the chunks before: name -> tensor, batch first. Empty where the video begins."""


def after_past(x: Tensor, reach: int, carried: Carried | None, name: str) -> Tensor:
    """Features with the ``reach`` latent frames before them in front; where the video begins, these are zeros.

    Args:
        x: Features (B, t, h, w, D).
        reach: Latent frames that are needed of the past, at least 1.
        carried: Where they were put, and the last ones of ``x`` are put for the next chunk; None for a whole clip.
        name: Under which name.

    Returns:
        Features (B, reach + t, h, w, D).
    """
    past = carried.get(name) if carried is not None else None
    if past is None:
        past = x.new_zeros(x.shape[0], reach, *x.shape[2:])
    longer = torch.cat([past, x], dim=1)
    if carried is not None:
        carried[name] = longer[:, -reach:].clone()  # a slice alone would keep the whole chunk in memory
    return longer


class ChannelNorm(nn.LayerNorm):
    """Layer norm of one position's features, in the features' own type so that it stays one fused kernel.

    torch's RMS norm has no fused backward on CPUs: with it a training step took a tenth longer.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Features (..., D) -> the same shape."""
        return F.layer_norm(x, self.normalized_shape, self.weight.to(x.dtype), self.bias.to(x.dtype), self.eps)


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

    def forward(self, x: Tensor, carried: Carried | None = None) -> Tensor:
        """Features (B, t, h, w, D) -> the same shape; in a stream, after what was carried."""
        t = x.shape[1]
        x = rearrange(x, "b t h w d -> (b t) d h w")
        x = rearrange(self.spatial(x), "(b t) d h w -> b t h w d", t=t)
        taps, reach = self.taps.to(x.dtype), TEMPORAL_TAPS - 1
        longer = after_past(x, reach, carried, "mixed")
        out = x * taps[0]
        for back in range(1, TEMPORAL_TAPS):
            out = torch.addcmul(out, longer[:, reach - back : reach - back + t], taps[back])
        return out


class Block(nn.Module):
    """Residual block: mix neighbours, two-layer perceptron; each sees normalised positions."""

    def __init__(self, dim: int, expansion: int = 4) -> None:
        super().__init__()
        self.mixer_norm = ChannelNorm(dim)
        self.mixer = CausalMixer(dim)
        self.norm = ChannelNorm(dim)
        self.up = nn.Linear(dim, expansion * dim)
        self.down = nn.Linear(expansion * dim, dim)
        # Zero, so that the block starts as the identity and depth costs no stability.
        nn.init.zeros_(self.down.weight)
        nn.init.zeros_(self.down.bias)

    def forward(self, x: Tensor, carried: Carried | None = None) -> Tensor:
        """Features (B, t, h, w, D) -> the same shape; in a stream, after what was carried."""
        return x + self.down(F.gelu(self.up(self.norm(self.mixer(self.mixer_norm(x), carried)))))


class Stack(nn.ModuleList):
    """Blocks one after the other."""

    def __init__(self, width: int, depth: int) -> None:
        super().__init__(Block(width) for _ in range(depth))

    def forward(self, x: Tensor, carried: list[Carried] | None = None) -> Tensor:
        """Features (B, t, h, w, D) -> the same shape.

        Args:
            x: The features.
            carried: In a stream, what each block carries, from :meth:`nothing_carried` at the first chunk on.
        """
        for number, block in enumerate(self):
            x = block(x, None if carried is None else carried[number])
        return x

    def nothing_carried(self) -> list[Carried]:
        """What blocks carry where a video begins."""
        return [{} for _ in self]


class Encoder(nn.Module):
    """Video -> features on the latent grid."""

    def __init__(self, stride: tuple[int, int, int], width: int, depth: int, out_dim: int) -> None:
        super().__init__()
        self.stride = stride
        st, sh, sw = stride
        self.embed = nn.Linear(3 * st * sh * sw, width)
        self.blocks = Stack(width, depth)
        self.norm = ChannelNorm(width)
        self.project = nn.Linear(width, out_dim)

    def forward(self, video: Tensor, carried: list[Carried] | None = None) -> Tensor:
        """Video (B, 3, T, H, W) in [-1, 1] -> features (B, t, h, w, out_dim); in a stream, after what was carried."""
        st, sh, sw = self.stride
        patches = rearrange(video, "b c (t st) (h sh) (w sw) -> b t h w (c st sh sw)", st=st, sh=sh, sw=sw)
        return self.project(self.norm(self.blocks(self.embed(patches), carried)))


class Decoder(nn.Module):
    """Features on the latent grid -> video."""

    def __init__(self, stride: tuple[int, int, int], width: int, depth: int, in_dim: int) -> None:
        super().__init__()
        self.stride = stride
        st, sh, sw = stride
        self.project = nn.Linear(in_dim, width)
        self.blocks = Stack(width, depth)
        self.norm = ChannelNorm(width)
        self.unembed = nn.Linear(width, 3 * st * sh * sw)

    def forward(self, codes: Tensor, carried: list[Carried] | None = None) -> Tensor:
        """Codes (B, t, h, w, in_dim) -> video (B, 3, T, H, W), not yet clamped; in a stream, after what was carried."""
        st, sh, sw = self.stride
        patches = self.unembed(self.norm(self.blocks(self.project(codes), carried)))
        return rearrange(patches, "b t h w (c st sh sw) -> b c (t st) (h sh) (w sw)", c=3, st=st, sh=sh, sw=sw)
