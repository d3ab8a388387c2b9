"""The networks that clips are judged with, as the options of tools/evaluate.py name them."""

import hashlib
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from tokenreel.evaluation.builtin_features import BuiltinFeatures
from tokenreel.evaluation.code_hash import code_hash
from tokenreel.evaluation.features import FeatureNetwork
from tokenreel.evaluation.figures_of_prediction import Measure
from tokenreel.evaluation.pretrained_features import TorchScriptNetwork, TransformersEncoder
from tokenreel.tokenizer import perceptual
from tokenreel.tokenizer.frames import to_video
from tokenreel.tokenizer.perceptual import PerceptualDistance

BUILTIN = "builtin"
TORCHSCRIPT = (".pt", ".pth", ".torchscript", ".ts", ".jit")
FETCH = "fetch"
FRAMES_AT_ONCE = 32


@dataclass(frozen=True)
class JudgingNetworks:
    """What to see clips with."""

    features: tuple[str, ...] = (BUILTIN,)
    """Networks whose features give the distances between sets of clips: "builtin" needs no download; a TorchScript
    file (.pt), such as I3D's for FVD; a folder or Hugging Face id of a video encoder, such as MCG-NJU/videomae-base."""
    classifier: Path | None = None
    """TorchScript file of a classifier of clips, (B, 3, T, S, S) in [-1, 1] to logits, for the Inception Score."""
    classifier_size: int = 112
    """Height and width of its frames."""
    lpips_weights: str | None = None
    """LPIPS, too: a file of VGG16's weights, or "fetch" for torchvision's, 528 MB once."""
    lpips_heads: Path | None = None
    """File of LPIPS's heads for VGG; default: those in torchmetrics, if that is installed. Without heads all channels
    weigh alike, and the figure is named so."""

    def feature_networks(self, device: torch.device) -> list[FeatureNetwork]:
        """Load what ``features`` names."""
        return [_network(name, device) for name in self.features]

    def classifier_network(self, device: torch.device) -> FeatureNetwork | None:
        """Load the classifier, if there is one."""
        return None if self.classifier is None else TorchScriptNetwork(self.classifier, self.classifier_size, device)

    def lpips(self, device: torch.device) -> list[Measure]:
        """LPIPS if it is asked for."""
        if self.lpips_weights is None:
            return []
        heads = self.lpips_heads or _heads_of_torchmetrics()
        weights = None if self.lpips_weights == FETCH else Path(self.lpips_weights)
        distance = PerceptualDistance.load(weights, heads, "--lpips").to(device)

        @torch.no_grad()
        def of_frames(frames: np.ndarray, truth: np.ndarray) -> np.ndarray:
            """Of each frame to the true one, float (B, T)."""
            one, other = (to_video(clips).transpose(1, 2).flatten(0, 1) for clips in (frames, truth))
            found = [
                distance(
                    one[begin : begin + FRAMES_AT_ONCE].to(device), other[begin : begin + FRAMES_AT_ONCE].to(device)
                )
                for begin in range(0, len(one), FRAMES_AT_ONCE)
            ]
            return torch.cat(found).double().cpu().numpy().reshape(frames.shape[:2])

        kind = "VGG" if heads else "VGG without heads"
        told = f"lpips-1: {kind} {_digest(distance)}, per frame, mean"
        return [Measure(f"LPIPS, {kind}", "", "lower", of_frames, told, code_hash(perceptual))]


def _network(name: str, device: torch.device) -> FeatureNetwork:
    if name == BUILTIN:
        return BuiltinFeatures()
    if name.endswith(TORCHSCRIPT):
        return TorchScriptNetwork(Path(name), device=device)
    return TransformersEncoder(name, device)


def _heads_of_torchmetrics() -> Path | None:
    """The file of LPIPS's heads that torchmetrics brings along."""
    found = find_spec("torchmetrics")
    if found is None or found.origin is None:
        return None
    path = Path(found.origin).parent / "functional" / "image" / "lpips_models" / "vgg.pth"
    return path if path.is_file() else None


def _digest(distance: PerceptualDistance) -> str:
    """Names weights and heads."""
    found = hashlib.sha256()
    for _, value in sorted(distance.named_buffers()):
        found.update(value.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()[:8]
