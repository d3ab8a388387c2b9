"""The known states of a world's videos, in the pixels and frames of the clip store made from them."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tokenreel.datasets.clip_record import ClipRecord

WORLD_FILE = "world.json"


@dataclass(frozen=True)
class DiscStates:
    """Where the balls of one video are."""

    colors: np.ndarray
    """uint8 (n, 3), RGB."""
    background: np.ndarray
    """uint8 (3,), RGB."""
    radius: np.ndarray
    """float (n,), pixels of the stored frames."""
    positions: np.ndarray
    """float (T, n, 2), x and y in pixels of the stored frames."""


def sidecar_states(root: Path, record: ClipRecord) -> dict[str, Any] | None:
    """The states in a video's sidecar, in the pixels of the world; None if there are none.

    Args:
        root: Folder of the videos.
        record: The video in the clip store.
    """
    sidecar = (root / record.file).with_suffix(".json")
    return json.loads(sidecar.read_text()).get("states") if sidecar.is_file() else None


def disc_states(root: Path, record: ClipRecord) -> DiscStates | None:
    """States of one video of a world of balls.

    Args:
        root: Folder of the videos.
        record: The video in the clip store.

    Returns:
        None if the folder is no such world, or its frames were not kept one to one, or cropped; and for a world
        with twins, where a colour does not tell which ball it is.
    """
    world_file, states = root / WORLD_FILE, sidecar_states(root, record)
    if not world_file.is_file() or states is None:
        return None
    world = json.loads(world_file.read_text())
    whole = record.height == record.width and len(states.get("positions", ())) == record.frames
    if world.get("world") != "balls" or world.get("options", {}).get("twins") or not whole:
        return None
    scale = record.height / world["size"]
    return DiscStates(
        np.array(states["colors"], dtype=np.uint8),
        np.array(states["background"], dtype=np.uint8),
        np.array(states["radius"]) * scale,
        np.array(states["positions"]) * scale,
    )
