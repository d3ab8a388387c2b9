"""What a sampling goes on from: the first frames of a video, validation clips, or nothing."""

import numpy as np

from tokenreel.datasets.clip_shapes import parse_size
from tokenreel.datasets.data_source import DataSettings, held_out_windows
from tokenreel.datasets.decoding import load_video
from tokenreel.datasets.frame_fit import Size
from tokenreel.generation import VideoModel
from tokenreel.tools.sample_settings import Config
from tokenreel.transformer import ClipConditions
from tokenreel.transformer.pretrained import data_of


def read_prompts(config: Config, count: int, model: VideoModel, more: int) -> tuple[np.ndarray, list[ClipConditions]]:
    """Clips whose first frames are the prompts, and what is known of them; without given frames no data is needed.

    Args:
        config: Where from.
        count: Clips.
        model: Whose.
        more: Frames of the clips that are needed after the prompts.
    """
    needed = config.given_frames + more
    if needed and config.frame_size:
        raise ValueError(
            f"frame_size {config.frame_size}: it is of clips from nothing, and the size of given frames is their own; "
            "leave it out, or use --prompt-frames 0"
        )
    if needed == 0:
        empty = np.zeros((count, 0, *known_size(config.frame_size, model), 3), dtype=np.uint8)
        return empty, [ClipConditions()] * count
    return _from_input(config, count, model, needed) if config.input else _from_validation(config, count, model)


def known_size(asked: str, model: VideoModel) -> Size:
    """(height, width) of ``HEIGHTxWIDTH``, the model's first if that is empty.

    Raises:
        ValueError: If it was trained on no such frames.
    """
    size = parse_size(asked) if asked else model.frame_size
    if size not in model.frame_sizes:
        known = " or ".join(f"{height}x{width}" for height, width in model.frame_sizes)
        raise ValueError(f"frame_size {asked}: expected {known}, the sizes this model was trained on")
    return size


def _from_input(config: Config, count: int, model: VideoModel, needed: int) -> tuple[np.ndarray, list[ClipConditions]]:
    """The video's first frames, once per sample; as many as there are, up to the window."""
    assert config.input is not None
    (height, width), *others = model.frame_sizes
    frames = load_video(config.input, height, width, model.fps, max_frames=model.window, others=others).frames
    if len(frames) < needed:
        raise ValueError(
            f"{config.input} has {len(frames)} frames at {model.fps:g} fps, expected at least {needed}; ask for fewer "
            "--prompt-frames (with --last-frames: fewer --frames), or give a longer video"
        )
    return np.stack([frames] * count), [ClipConditions()] * count


def _from_validation(config: Config, count: int, model: VideoModel) -> tuple[np.ndarray, list[ClipConditions]]:
    """Clips of the validation split in a fixed shuffled order, and what is known of them: sample i is of clip i."""
    source = DataSettings.of_model(data_of(config.model), config.data, config.cache)
    windows = held_out_windows(source, model.window, one_per_video=False, size=model.frame_size)
    order = np.random.default_rng(0).permutation(len(windows))
    clips = order[np.arange(count) % len(order)]
    known = model.gpt.config.conditions
    return windows.batch(clips), [known.of_record(windows.record(clip)) for clip in clips]
