"""The part of benchmarks/conditioning.py on a real game: does Breakout's paddle go where the actions say?"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from report import row

from tokenreel.datasets.data_source import DataSettings, held_out_windows
from tokenreel.evaluation.tracking import track_bar
from tokenreel.generation import VideoModel
from tokenreel.tools.model_clips import continued, through_tokenizer
from tokenreel.transformer import ClipConditions, SamplingSettings

PROMPT_FRAMES = 8
AS_PLAYED = "as played"
RED, BLACK = (190, 68, 68), (0, 0, 0)
# Of the frame's width and height: the paddle, and the room between the walls, which end in colours of their own.
PADDLE_WIDTH, PADDLE_ROWS, ROOM = 0.1, (0.9125, 0.95), (0.07, 0.93)
OPPOSITE = ("LEFT", "RIGHT")


def breakout_rows(
    model: VideoModel, origin: Mapping[str, Any], samples: int, settings: SamplingSettings, cache: Path
) -> tuple[list[dict[str, Any]], list[tuple[str, np.ndarray]]]:
    """Continue validation clips of Breakout under orders.

    Args:
        model: Trained on Breakout with actions, 80 x 64 pixels.
        origin: What its provenance says of the videos.
        samples: Clips per order, as far as the validation split has so many.
        settings: Of the sampler.
        cache: Folder of decoded videos.

    Returns:
        Rows, and (title, clip) pairs of one prompt continued under opposite orders.
    """
    windows = held_out_windows(DataSettings.of_model(origin, None, cache), model.window, one_per_video=False)
    chosen = np.linspace(0, len(windows) - 1, min(samples, len(windows))).round().astype(int)
    known = model.gpt.config.conditions
    truth, own = windows.batch(chosen), [known.of_record(windows.record(clip)) for clip in chosen]
    given, shown = truth[:, :PROMPT_FRAMES], through_tokenizer(model, truth)
    withheld = _paddle(continued(model, given, [ClipConditions()] * len(own), replace(settings, guidance=1.0)))
    begun = _paddle(truth)[:, PROMPT_FRAMES - 1]
    # The picture is of the paddle with most room on both sides.
    central = int(np.argmin(np.abs(np.nan_to_num(begun) - truth.shape[3] / 2)))
    table: list[dict[str, Any]] = []
    strip = [("what really happened", truth[central])]
    for order in (*OPPOSITE, AS_PLAYED):
        clips = continued(model, given, [_ordered(clip, order) for clip in own], settings)
        paddle = _paddle(clips)
        if order == AS_PLAYED:
            errors = [_error(each, _paddle(truth), truth.shape[3]) for each in (paddle, withheld, _paddle(shown))]
            table.append(row(f"Breakout, {order}", "position error of the paddle", "px", *errors))
        else:
            strip.append((f"model: {order}", clips[central]))
            table += _moved(order, paddle, withheld, begun)
    return table, strip


def _ordered(own: ClipConditions, order: str) -> ClipConditions:
    """What was done in the prompt, then one order for all new frames."""
    if order == AS_PLAYED or own.actions is None:
        return own
    new = len(own.actions) - PROMPT_FRAMES
    return replace(own, actions=[*own.actions[:PROMPT_FRAMES], *[order] * new])


def _moved(order: str, paddle: np.ndarray, withheld: np.ndarray, begun: np.ndarray) -> list[dict[str, Any]]:
    """How far the paddle was moved by the last frame that shows it, and how often the right way: as told, and untold.

    Under the right wall, which is as red, it cannot be seen.
    """
    sign = -1 if order == "LEFT" else 1
    figures = []
    for each in (paddle, withheld):
        last = each.shape[1] - 1 - np.argmax(~np.isnan(each[:, ::-1]), axis=1)
        moved = each[np.arange(len(each)), last] - begun
        figures.append((float(np.nanmean(moved)), float(np.mean(sign * np.nan_to_num(moved) > 1))))
    (far, right), (far_untold, right_untold) = figures
    return [
        row(f"Breakout, {order}", "displacement of the paddle", "px", far, far_untold),
        row(f"Breakout, {order}", "moved that way by more than a pixel", "share", right, right_untold),
    ]


def _paddle(clips: np.ndarray) -> np.ndarray:
    """Where the paddle is seen, x in pixels, (B, T); not-a-number where it is not."""
    _, _, height, width, _ = clips.shape
    left, right = (round(edge * width) for edge in ROOM)
    rows = PADDLE_ROWS[0] * height, PADDLE_ROWS[1] * height
    seen = [track_bar(clip[:, :, left:right], [RED], BLACK, PADDLE_WIDTH * width, rows) for clip in clips]
    return np.stack(seen) + left


def _error(paddle: np.ndarray, truth: np.ndarray, width: int) -> float:
    """Mean distance in the new frames; a paddle that is lost counts as a blind guess, one hidden in truth not."""
    error = np.where(np.isnan(paddle), width / 3, np.abs(paddle - truth))[:, PROMPT_FRAMES:]
    return float(np.nanmean(np.where(np.isnan(truth[:, PROMPT_FRAMES:]), np.nan, error)))
