"""Pictures to look at: clips as strips of frames, and clips side by side as one video."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont, PngImagePlugin

GROUND = (245, 245, 245)
INK = (40, 40, 40)
PROMPT = (46, 160, 67)
NEW = (207, 106, 0)
BORDER = 2
TITLE_HEIGHT = 16
TITLES = "titles"


def film_strip(
    rows: Sequence[tuple[str, np.ndarray]],
    prompt_frames: int = 0,
    every: int = 1,
    scale: int = 1,
    last_from: int | None = None,
) -> np.ndarray:
    """Clips as rows of frames, time to the right.

    Args:
        rows: Title and frames uint8 (T, H, W, 3) of each row; frames of one size.
        prompt_frames: This many first frames are bordered green, later ones orange; 0 borders none.
        every: Show every n-th frame.
        scale: Whole-number enlargement.
        last_from: From this frame on the border is green again, whatever ``prompt_frames``; None: never.

    Returns:
        uint8 (height, width, 3).
    """
    strips = []
    for title, frames in rows:
        colors = {t: _color(t, prompt_frames, last_from) for t in range(0, len(frames), every)}
        shown = [_framed(_enlarged(frames[t], scale), color) for t, color in colors.items()]
        strips.append(_titled(np.concatenate(shown, axis=1), title))
    width = max(strip.shape[1] for strip in strips)
    return np.concatenate([_widened(strip, width) for strip in strips], axis=0)


def write_film_strip(path: Path, rows: Sequence[tuple[str, np.ndarray]], prompt_frames: int = 0) -> None:
    """Write a film strip as PNG that knows its titles, whole or not at all; arguments as of :func:`film_strip`."""
    told = PngImagePlugin.PngInfo()
    told.add_text(TITLES, json.dumps([title for title, _ in rows]))
    temporary = path.with_name(f"{path.name}.tmp-{os.getpid()}")
    try:
        Image.fromarray(film_strip(rows, prompt_frames)).save(temporary, format="png", pnginfo=told)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def read_film_strip(path: Path) -> list[tuple[str, np.ndarray]]:
    """Title and picture uint8 (height, width, 3) of each row of a written film strip, without its title bar.

    A PNG that knows no titles is one row without a title.
    """
    with Image.open(path) as image:
        titles = json.loads(image.info.get(TITLES, "null"))
        picture = np.asarray(image.convert("RGB"))
    if titles is None:
        return [("", picture)]
    strips = np.split(picture, len(titles))
    return [(title, strip[TITLE_HEIGHT:]) for title, strip in zip(titles, strips, strict=True)]


def side_by_side(
    rows: Sequence[tuple[str, np.ndarray]], prompt_frames: int = 0, scale: int = 1, last_from: int | None = None
) -> np.ndarray:
    """Batches of clips as one video: a row each, clips beside one another.

    Args:
        rows: Title and clips uint8 (B, T, H, W, 3) of each row; one shape for all.
        prompt_frames: During this many first frames the border is green, later orange; 0 borders none.
        scale: Whole-number enlargement.
        last_from: As in :func:`film_strip`.

    Returns:
        uint8 (T, height, width, 3).
    """
    video = []
    for t in range(rows[0][1].shape[1]):
        pictures = []
        for title, clips in rows:
            cells = [_framed(_enlarged(clip[t], scale), _color(t, prompt_frames, last_from)) for clip in clips]
            pictures.append(_titled(np.concatenate(cells, axis=1), title))
        video.append(np.concatenate(pictures, axis=0))
    return np.stack(video)


def _color(t: int, prompt_frames: int, last_from: int | None) -> tuple[int, int, int]:
    if prompt_frames == 0 and last_from is None:
        return GROUND
    return PROMPT if t < prompt_frames or (last_from is not None and t >= last_from) else NEW


def _enlarged(frame: np.ndarray, scale: int) -> np.ndarray:
    return frame.repeat(scale, axis=0).repeat(scale, axis=1)


def _framed(frame: np.ndarray, color: tuple[int, int, int]) -> np.ndarray:
    height, width, _ = frame.shape
    margin = BORDER + 1
    out = np.full((height + 2 * margin, width + 2 * margin, 3), GROUND, dtype=np.uint8)
    out[1:-1, 1:-1] = color
    out[margin:-margin, margin:-margin] = frame
    return out


def _titled(picture: np.ndarray, title: str) -> np.ndarray:
    bar = Image.new("RGB", (picture.shape[1], TITLE_HEIGHT), GROUND)
    ImageDraw.Draw(bar).text((4, 2), title, fill=INK, font=ImageFont.load_default(size=11))
    return np.concatenate([np.asarray(bar), picture], axis=0)


def _widened(picture: np.ndarray, width: int) -> np.ndarray:
    out = np.full((picture.shape[0], width, 3), GROUND, dtype=np.uint8)
    out[:, : picture.shape[1]] = picture
    return out
