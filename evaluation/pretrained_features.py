"""Networks that somebody trained as judges of clips: TorchScript files (I3D, classifiers) and `transformers` encoders.

Nothing is fetched but a Hugging Face model that is named by its hub id.
"""

import hashlib
import inspect
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
# The arguments of the I3D file that FVD is most often computed with (StyleGAN-V's, 400 values per clip).
_I3D = {"rescale": True, "resize": True, "return_features": True}


class TorchScriptNetwork:
    """A TorchScript file.

    If its ``forward`` knows ``rescale``, ``resize`` and ``return_features``, as the I3D file of StyleGAN-V does, it is
    given float (B, 3, T, H, W) in 0..255 and told to do these; any other is given (B, 3, T, size, size) in [-1, 1].
    Of several outputs the first counts; all but the first two axes of it are averaged.

    Args:
        path: The file.
        size: Height and width to scale frames to, for files that do not scale themselves.
        device: Where to run.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no TorchScript.
    """

    def __init__(self, path: Path, size: int = 224, device: torch.device | str = "cpu") -> None:
        if not path.is_file():
            raise FileNotFoundError(f"no file {path}, expected a TorchScript file; check the path")
        try:
            self._module = torch.jit.load(str(path), map_location=device).eval()
        except RuntimeError as error:
            raise ValueError(
                f"{path} cannot be read as TorchScript ({str(error).splitlines()[0]}); write it with torch.jit.save"
            ) from None
        known = {argument.name for argument in self._module.forward.schema.arguments}
        self._i3d = known >= _I3D.keys()
        self._size, self._device = size, device
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()[:12]
        self.identity = f"{path.stem}-{digest}" + ("" if self._i3d else f"-{size}px")

    @torch.no_grad()
    def __call__(self, clips: np.ndarray) -> np.ndarray:
        """uint8 (B, T, H, W, 3) -> float64 (B, D)."""
        video = torch.from_numpy(np.ascontiguousarray(clips)).permute(0, 4, 1, 2, 3).float().to(self._device)
        try:
            found = self._module(video, **_I3D) if self._i3d else self._module(_resized(video, self._size) / 127.5 - 1)
        except RuntimeError as error:
            told = str(error).strip().splitlines()[-1]
            raise ValueError(
                f"{self.identity} does not take clips of {clips.shape[1]} frames of {clips.shape[2]} x "
                f"{clips.shape[3]} ({told}); give longer clips or another network"
            ) from None
        return _rows(found[0] if isinstance(found, tuple | list) else found)


class TransformersEncoder:
    """A video encoder of the library `transformers`: VideoMAE, ViViT, TimeSformer, V-JEPA 2 and their kind.

    Frames are scaled to the encoder's size and to the mean and spread its preprocessor names (ImageNet's without one);
    as many frames as it takes are drawn at even steps, from shorter clips some twice. The features are the mean of
    its last hidden states.

    Args:
        name: Folder, or id on the Hugging Face hub.
        device: Where to run.

    Raises:
        ValueError: If the library is missing, or this is no video encoder.
    """

    def __init__(self, name: str, device: torch.device | str = "cpu") -> None:
        try:
            from transformers import AutoModel
        except ImportError:
            raise ValueError(
                f'features of {name} need the library transformers; install it with pip install "tokenreel[text]"'
            ) from None
        try:
            self._model: Any = AutoModel.from_pretrained(name).to(device).eval()
        except ModuleNotFoundError as error:  # such as a torchvision that does not fit this torch
            raise ValueError(
                f"{name}: transformers cannot import its model ({error}); reinstall what it needs"
            ) from None
        except (OSError, ValueError) as error:
            raise ValueError(
                f"{name} cannot be loaded as an encoder ({str(error).splitlines()[0]}); give a folder with config.json "
                "and weights, or a hub id and a network"
            ) from None
        known = inspect.signature(self._model.forward).parameters
        inputs = [key for key in ("pixel_values_videos", "pixel_values") if key in known]
        config = self._model.config
        frames, size = getattr(config, "num_frames", getattr(config, "frames_per_clip", None)), _size(config)
        if not inputs or frames is None or size is None:
            raise ValueError(
                f"{name} is a {type(self._model).__name__}, expected an encoder of video with a number of frames and "
                "an image size in its config, such as VideoMAE"
            )
        self._input, self._frames, self._size, self._device = inputs[0], int(frames), size, device
        self._mean, self._deviation = (torch.tensor(v, device=device)[:, None, None] for v in _scale(name))
        weights = hashlib.sha256()
        for key, value in sorted(self._model.state_dict().items()):
            weights.update(
                key.encode() + value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
            )
        self.identity = f"{Path(name).name}-{weights.hexdigest()[:12]}-{self._frames}x{size}px"

    @torch.no_grad()
    def __call__(self, clips: np.ndarray) -> np.ndarray:
        """uint8 (B, T, H, W, 3) -> float64 (B, D)."""
        steps = np.linspace(0, clips.shape[1] - 1, self._frames).round().astype(int)
        video = torch.from_numpy(np.ascontiguousarray(clips[:, steps])).permute(0, 4, 1, 2, 3).float()
        scaled = _resized(video.to(self._device), self._size).transpose(1, 2) / 255
        states = self._model(**{self._input: (scaled - self._mean) / self._deviation}).last_hidden_state
        return _rows(states.mean(dim=1))


def _resized(video: Tensor, size: int) -> Tensor:
    """(B, C, T, H, W) -> (B, C, T, size, size), bilinear; averaged where it shrinks."""
    B, C, T, H, W = video.shape
    flat = video.transpose(1, 2).reshape(B * T, C, H, W)
    flat = F.interpolate(flat, size=(size, size), mode="bilinear", align_corners=False, antialias=True)
    return flat.reshape(B, T, C, size, size).transpose(1, 2)


def _rows(found: Tensor) -> np.ndarray:
    """(B, D, ...) -> float64 (B, D)."""
    if found.ndim < 2:
        raise ValueError(f"the network gave shape {tuple(found.shape)} for a batch, expected (B, D); use another one")
    return found.flatten(2).mean(dim=2).double().cpu().numpy() if found.ndim > 2 else found.double().cpu().numpy()


def _size(config: Any) -> int | None:
    found = getattr(config, "image_size", getattr(config, "crop_size", None))
    return int(found[0]) if isinstance(found, list | tuple) else found


def _scale(name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and spread that the encoder's preprocessor names."""
    from transformers.utils.hub import cached_file

    path = cached_file(name, "preprocessor_config.json", _raise_exceptions_for_missing_entries=False)
    told = json.loads(Path(path).read_text()) if path else {}
    return tuple(told.get("image_mean", IMAGENET[0])), tuple(told.get("image_std", IMAGENET[1]))
