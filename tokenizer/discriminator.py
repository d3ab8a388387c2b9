"""A network that tells reconstructions from videos, patch by patch in space and time."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ScaledConv3d(nn.Module):
    """3x3x3 convolution whose weights are stored at unit size and scaled when they are used.

    So the optimizer's rate for the tokenizer suits it too: a step changes every layer by the same share.
    Source: Karras et al., 2018, "Progressive Growing of GANs" (equalized learning rate).
    """

    def __init__(self, dim_in: int, dim_out: int, stride: tuple[int, int, int] = (1, 1, 1)) -> None:
        super().__init__()
        self.stride = stride
        self.weight = nn.Parameter(torch.randn(dim_out, dim_in, 3, 3, 3))
        self.bias = nn.Parameter(torch.zeros(dim_out))
        self.scale = self.weight[0].numel() ** -0.5

    def forward(self, x: Tensor) -> Tensor:
        """Features (B, dim_in, T, H, W) -> (B, dim_out, ...), each axis divided by its stride, rounded up."""
        return F.conv3d(x, self.weight * self.scale, self.bias, self.stride, padding=1)


class PatchDiscriminator(nn.Module):
    """One verdict for every patch of 17 frames and 31 x 31 pixels.

    Norms work on one position at a time, so a verdict never depends on the rest of the batch.
    Source: patches: Isola et al., 2017, "pix2pix"; in space and time: Ge et al., 2022, "TATS".
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            [
                ScaledConv3d(3, width, (1, 2, 2)),
                ScaledConv3d(width, 2 * width, (2, 2, 2)),
                ScaledConv3d(2 * width, 4 * width, (2, 2, 2)),
            ]
        )
        self.verdict = ScaledConv3d(4 * width, 1)

    def forward(self, video: Tensor) -> Tensor:
        """Video (B, 3, T, H, W) of any size -> verdicts (B, 1, T', H', W'), above 0 for "this is a video"."""
        x = video
        for layer in self.layers:
            x = layer(x)
            x = F.leaky_relu(x * torch.rsqrt(x.square().mean(dim=1, keepdim=True) + 1e-6), 0.2)
        return self.verdict(x).float()
