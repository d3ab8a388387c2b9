"""Distance between images as VGG16 sees them: LPIPS.

Features after the five stages of VGG16 are brought to unit length at each position; their squared differences
are summed over channels, averaged over positions, and summed over stages. With LPIPS's linear heads the channels
are weighted and this is LPIPS (VGG, version 0.1); without them all channels weigh 1, which is LPIPS's baseline:
a good training signal too, with values a few times larger.

Source: Zhang et al., 2018, "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric".
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# The numbers of VGG16's convolutions in torchvision's `features`; a ReLU follows each, a pooling each stage.
STAGES = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))
SMALLEST_IMAGE = 2 ** (len(STAGES) - 1)
# ImageNet's statistics, on the [-1, 1] scale.
MEAN = (-0.030, -0.088, -0.188)
DEVIATION = (0.458, 0.448, 0.450)


class PerceptualDistance(nn.Module):
    """Distance between images in the features of VGG16, which do not train.

    Args:
        vgg: State dict of torchvision's ``vgg16``; only the convolutions are read.
        heads: State dict of LPIPS's linear heads for VGG; None weighs all channels alike.

    Raises:
        ValueError: If either is the state of something else.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, vgg: Mapping[str, Tensor], heads: Mapping[str, Tensor] | None = None) -> None:
        super().__init__()
        self.has_heads = heads is not None
        # Buffers that no checkpoint keeps: half a gigabyte that never changes.
        self.register_buffer("mean", torch.tensor(MEAN)[:, None, None], persistent=False)
        self.register_buffer("deviation", torch.tensor(DEVIATION)[:, None, None], persistent=False)
        for layer in (layer for stage in STAGES for layer in stage):
            for part in ("weight", "bias"):
                self._keep(f"{part}{layer}", vgg, f"features.{layer}.{part}", "the state dict of torchvision's vgg16")
        if heads is not None:
            for stage in range(len(STAGES)):
                self._keep(f"head{stage}", heads, f"lin{stage}.model.1.weight", "LPIPS's heads for VGG (vgg.pth)")

    @classmethod
    def load(cls, weights: Path | None, heads: Path | None, option: str = "--loss.perceptual") -> Self:
        """From files, or from what torchvision fetches on first use.

        Args:
            weights: File of VGG16's; None fetches them.
            heads: File of LPIPS's heads for VGG, or None.
            option: How the user's options for both begin; they end in ``-weights`` and ``-heads``.

        Raises:
            FileNotFoundError: If a file is missing.
            ValueError: If a file is something else, or the weights cannot be fetched.
        """
        vgg = _fetched(option) if weights is None else _read(weights, f"{option}-weights")
        return cls(vgg, None if heads is None else _read(heads, f"{option}-heads"))

    def forward(self, images: Tensor, others: Tensor) -> Tensor:
        """Images float (N, 3, H, W) in [-1, 1], H and W at least 16, twice -> distances (N,).

        Raises:
            ValueError: If the images are smaller.
        """
        if min(images.shape[-2:]) < SMALLEST_IMAGE:
            raise ValueError(
                f"images of {images.shape[-2]} x {images.shape[-1]} are too small for VGG16, expected at least "
                f"{SMALLEST_IMAGE} x {SMALLEST_IMAGE}; use larger frames or set loss.perceptual to 0"
            )
        one, other = (images - self.mean) / self.deviation, (others - self.mean) / self.deviation
        distance = images.new_zeros(len(images))
        for number, stage in enumerate(STAGES):
            if number:
                one, other = F.max_pool2d(one, 2), F.max_pool2d(other, 2)
            one, other = self._convolve(one, stage), self._convolve(other, stage)
            differences = (F.normalize(one.float(), eps=1e-6) - F.normalize(other.float(), eps=1e-6)).square()
            if self.has_heads:
                differences = differences * self.get_buffer(f"head{number}")
            distance = distance + differences.sum(dim=1).mean(dim=(1, 2))
        return distance

    def _convolve(self, x: Tensor, layers: tuple[int, ...]) -> Tensor:
        for layer in layers:
            x = F.relu(F.conv2d(x, self.get_buffer(f"weight{layer}"), self.get_buffer(f"bias{layer}"), padding=1))
        return x

    def _keep(self, name: str, state: Mapping[str, Tensor], key: str, expected: str) -> None:
        if key not in state:
            raise ValueError(f"perceptual weights hold no {key}, expected {expected}; pass that file")
        self.register_buffer(name, state[key].detach().clone().float(), persistent=False)


def frames_drawn(count: int, chance: Tensor | None, *videos: Tensor) -> list[Tensor]:
    """Some frames of each clip, the same from each video: (B, C, T, H, W) each -> images (B * count, C, H, W) each.

    Those with the lowest random numbers in ``chance``, float (B, T), which are drawn if it is None; all T if there are
    no more than ``count``.
    """
    B, _, T, _, _ = videos[0].shape
    chance = torch.rand(B, T, device=videos[0].device) if chance is None else chance
    drawn = chance.argsort(dim=1)[:, :count]
    clips = torch.arange(B, device=drawn.device)[:, None]
    return [video.transpose(1, 2)[clips, drawn].flatten(0, 1) for video in videos]


def _read(path: Path, option: str) -> Mapping[str, Tensor]:
    """A state dict from a file that the user named."""
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}, expected weights; check {option}")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # unpickling fails in many ways, each says the same: another file
        raise ValueError(
            f"{path} cannot be read as weights ({type(error).__name__}), expected a .pth of tensors; check {option}"
        ) from None
    if not isinstance(state, Mapping):
        raise ValueError(f"{path} holds a {type(state).__name__}, expected a state dict; check {option}")
    return state


def _fetched(option: str) -> Mapping[str, Tensor]:
    """The weights that torchvision publishes, downloaded once into torch's cache."""
    try:
        from torchvision.models import VGG16_Weights
    except (ImportError, RuntimeError) as error:  # a CUDA torchvision beside a CPU-only torch
        raise ValueError(
            f"LPIPS fetches its weights with torchvision, which does not fit this torch ({error}); "
            f"reinstall both, or pass VGG16's weights as {option}-weights FILE"
        ) from None
    source = VGG16_Weights.IMAGENET1K_V1
    try:
        return source.get_state_dict(progress=True, check_hash=True, weights_only=True)
    except (OSError, RuntimeError) as error:  # no network, or a download cut short
        raise ValueError(
            f"VGG16's weights cannot be fetched ({error}); download {source.url} elsewhere and put it into "
            f"{Path(torch.hub.get_dir()) / 'checkpoints'}, or pass it as {option}-weights FILE"
        ) from None
