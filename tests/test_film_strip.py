"""Pictures to look at: where each frame stands and how it is marked."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from tokenreel.evaluation.film_strip import (
    BORDER,
    GROUND,
    NEW,
    PROMPT,
    TITLE_HEIGHT,
    film_strip,
    read_film_strip,
    side_by_side,
    write_film_strip,
)
from tokenreel.tools.sample_pictures import write_comparison
from tokenreel.transformer import ClipConditions

MARGIN = BORDER + 1
H, W = 6, 40
CELL_H, CELL_W = H + 2 * MARGIN, W + 2 * MARGIN


def clip(frames: int, first: int = 0) -> np.ndarray:
    """Frames of one grey each: frame t is first + t."""
    greys = np.arange(first, first + frames, dtype=np.uint8)[:, None, None, None]
    return np.broadcast_to(greys, (frames, H, W, 3)).copy()


def cell(picture: np.ndarray, row: int, column: int) -> np.ndarray:
    """One bordered frame of a strip."""
    top, left = row * (TITLE_HEIGHT + CELL_H) + TITLE_HEIGHT, column * CELL_W
    return picture[top : top + CELL_H, left : left + CELL_W]


def border(framed: np.ndarray) -> set[tuple[int, ...]]:
    """Colours of the border of a bordered frame."""
    inner = framed[1:-1, 1:-1]
    inner = np.concatenate([inner[:BORDER].reshape(-1, 3), inner[:, :BORDER].reshape(-1, 3)])
    return {tuple(color) for color in inner.tolist()}


def test_frames_stand_in_order_and_prompt_and_new_ones_are_marked() -> None:
    picture = film_strip([("model", clip(3)), ("truth", clip(3, first=100))], prompt_frames=2)
    assert picture.shape == (2 * (TITLE_HEIGHT + CELL_H), 3 * CELL_W, 3) and picture.dtype == np.uint8
    for row, first in enumerate((0, 100)):
        for t in range(3):
            framed = cell(picture, row, t)
            assert (framed[MARGIN:-MARGIN, MARGIN:-MARGIN] == first + t).all()
            assert border(framed) == {PROMPT if t < 2 else NEW}
    title = picture[:TITLE_HEIGHT]
    assert (title != GROUND).any(), "the title is not written"


def test_nothing_is_marked_without_a_prompt() -> None:
    assert border(cell(film_strip([("x", clip(2))]), 0, 1)) == {GROUND}


def test_every_nth_frame_enlarged_and_shorter_rows_filled_up() -> None:
    picture = film_strip([("long", clip(6)), ("short", clip(2))], prompt_frames=4, every=2, scale=3)
    cell_h, cell_w = 3 * H + 2 * MARGIN, 3 * W + 2 * MARGIN
    assert picture.shape == (2 * (TITLE_HEIGHT + cell_h), 3 * cell_w, 3)
    middle = TITLE_HEIGHT + cell_h // 2
    assert [int(picture[middle, i * cell_w + cell_w // 2, 0]) for i in range(3)] == [0, 2, 4]
    assert (picture[TITLE_HEIGHT + cell_h :, cell_w:] == GROUND).all()


@pytest.mark.parametrize("scale", [1, 2])
def test_clips_side_by_side_are_one_video(scale: int) -> None:
    rows = [
        ("model", np.stack([clip(4), clip(4, 50)])),
        ("what really happened", np.stack([clip(4, 100), clip(4, 150)])),
    ]
    video = side_by_side(rows, prompt_frames=1, scale=scale)
    cell_h, cell_w = scale * H + 2 * MARGIN, scale * W + 2 * MARGIN
    row_h = TITLE_HEIGHT + cell_h
    assert video.shape == (4, 2 * row_h, 2 * cell_w, 3) and video.dtype == np.uint8
    for t in range(4):
        for row in range(2):
            for column in range(2):
                y, x = TITLE_HEIGHT + row * row_h, column * cell_w
                framed = video[t, y : y + cell_h, x : x + cell_w]
                assert (framed[MARGIN:-MARGIN, MARGIN:-MARGIN] == 100 * row + 50 * column + t).all()
                assert border(framed) == {PROMPT if t < 1 else NEW}


def test_a_written_strip_is_read_by_its_rows(tmp_path: Path) -> None:
    path = tmp_path / "strip.png"
    rows = [("model", clip(3)), ("truth", clip(3, first=100))]
    write_film_strip(path, rows, prompt_frames=2)
    assert (np.asarray(Image.open(path)) == film_strip(rows, prompt_frames=2)).all()
    read = read_film_strip(path)
    assert [title for title, _ in read] == ["model", "truth"]
    for (_, strip), first in zip(read, (0, 100), strict=True):
        assert strip.shape == (CELL_H, 3 * CELL_W, 3)
        assert (strip[MARGIN:-MARGIN, MARGIN : CELL_W - MARGIN] == first).all()
    assert list(tmp_path.iterdir()) == [path]
    Image.new("RGB", (4, 5)).save(path)
    ((title, whole),) = read_film_strip(path)
    assert title == "" and whole.shape == (5, 4, 3)


def test_samples_are_enlarged_by_their_own_size(tmp_path: Path) -> None:
    config = SimpleNamespace(given_frames=0, last_frames=0, out=tmp_path, format="gif")
    model = SimpleNamespace(frame_size=(16, 16), fps=10.0)  # of several sizes the first
    clip = np.zeros((2, 64, 80, 3), np.uint8)
    files = write_comparison(config, model, [clip], [ClipConditions()], clip[None], 1, None)  # type: ignore[arg-type]
    assert 2 * 80 <= Image.open(files[1]).width < 3 * 80
