"""Cuts found by PySceneDetect instead of the own score of ``frame_measures`` (extra ``tokenreel[scenes]``)."""

from importlib.util import find_spec
from typing import Any

import numpy as np

SHORTEST = 0.5
"""Seconds of a scene: PySceneDetect's own default, 15 frames at 30 a second. Cuts that are nearer merge."""


def check_installed() -> None:
    """Whether PySceneDetect and the OpenCV that it needs are there; found, not imported.

    Raises:
        ValueError: If not.
    """
    missing = [name for name in ("scenedetect", "cv2") if find_spec(name) is None]
    if missing:
        raise ValueError(
            f"curation.detector pyscenedetect needs {' and '.join(missing)}, which is not installed; "
            'pip install "tokenreel[scenes]", or use own'
        )


class SceneDetector:
    """PySceneDetect's content detector, fed with the frames of one video as they are decoded.

    Args:
        threshold: Mean change of hue, saturation and brightness, 0 to 255, that makes a cut.
        fps: Frames per second.
    """

    def __init__(self, threshold: float, fps: float) -> None:
        from scenedetect.detectors import ContentDetector

        self._fps, self._frames = fps, 0
        self._detector: Any = ContentDetector(threshold, min_scene_len=max(1, round(SHORTEST * fps)))
        self.cuts: list[int] = []
        """Frames at which a scene begins, but for the first."""

    def add(self, images: np.ndarray) -> None:
        """Takes in the next frames, uint8 (T, H, W, 3), RGB."""
        from scenedetect import FrameTimecode

        for image in images:
            # OpenCV's order of colours.
            found = self._detector.process_frame(FrameTimecode(self._frames, self._fps), image[..., ::-1].copy())
            self.cuts += [cut.frame_num for cut in found]
            self._frames += 1
