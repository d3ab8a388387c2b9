"""Features of clips by a network of the user's choice, worked out once for each content.

A network is anything with an ``identity`` that turns uint8 clips (B, T, H, W, 3) into float64 (B, D):
``BuiltinFeatures``, or one of ``pretrained_features``.
"""

import hashlib
import os
import sys
from pathlib import Path
from typing import Protocol

import numpy as np

from tokenreel.evaluation.code_hash import code_hash

CLIPS_AT_ONCE = 8


class FeatureNetwork(Protocol):
    """Clips to features."""

    @property
    def identity(self) -> str:
        """Names the network, its weights and how clips are brought to it; two that differ are not comparable."""
        ...

    def __call__(self, clips: np.ndarray) -> np.ndarray:
        """uint8 (B, T, H, W, 3) -> float64 (B, D)."""
        ...


def network_features(network: FeatureNetwork, clips: np.ndarray, cache: Path | None = None) -> np.ndarray:
    """Features of clips, a few clips at a time.

    Args:
        network: What to ask.
        clips: uint8 (N, T, H, W, 3).
        cache: Folder in which they are kept by the content of the clips, the network's identity and its code; None
            keeps none.

    Returns:
        float64 (N, D).
    """
    path = None
    if cache is not None:
        seen_by = f"{network.identity} {code_hash(sys.modules[type(network).__module__])}"
        path = cache / f"{content_hash(clips, seen_by)}.npy"
    if path is not None and path.is_file():
        return np.load(path, allow_pickle=False)
    parts = [network(clips[begin : begin + CLIPS_AT_ONCE]) for begin in range(0, len(clips), CLIPS_AT_ONCE)]
    found = np.concatenate(parts).astype(np.float64)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"{path.name}.tmp-{os.getpid()}")
        with temporary.open("wb") as file:
            np.save(file, found, allow_pickle=False)
        os.replace(temporary, path)
    return found


def content_hash(clips: np.ndarray, salt: str = "") -> str:
    """First half of the sha256 of clips, their shape and a salt."""
    found = hashlib.sha256(f"{salt} {clips.dtype} {clips.shape}".encode())
    for clip in clips:  # one at a time: a view need not be in one piece
        found.update(np.ascontiguousarray(clip).data)
    return found.hexdigest()[:32]
