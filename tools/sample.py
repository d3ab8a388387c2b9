"""Continue video with a trained model: the fourth stage.

    python tools/sample.py --prompt-frames 4                          # clips of the validation split
    python tools/sample.py --prompt-frames 8 --input my.mp4 --num-samples 4 --temperature 0.9 --format gif

Each clip is written on its own, and all of them into one comparison: prompt and continuation beside what
really happened, prompt frames bordered green, new ones orange (grid.mp4 or the chosen format, grid.png).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from tokenreel.datasets.data_source import DataSettings, held_out_windows
from tokenreel.datasets.decoding import load_video
from tokenreel.datasets.video_writer import write_video
from tokenreel.evaluation.film_strip import film_strip, side_by_side
from tokenreel.generation import VideoModel
from tokenreel.training.command_line import run_tool
from tokenreel.training.hardware import DeviceName, pick_device
from tokenreel.training.run_folder import check_writable
from tokenreel.transformer import SamplingSettings
from tokenreel.transformer.pretrained import data_of


@dataclass(frozen=True, kw_only=True)
class Config(SamplingSettings):
    """What to continue, and how."""

    model: Path = Path("runs/gpt")
    """Run folder or model folder of the GPT."""
    input: Path | None = None
    """A video to continue, of any size and rate; default: clips of the validation split."""
    prompt_frames: int = 4
    """Frames given to the model, a multiple of its temporal stride; 0 makes clips from nothing."""
    top_p: float = 0.9
    """Draw among the likeliest indices that together have this probability; 1 is all, and lets one index from the
    far tail break an object now and then."""
    frames: int = 0
    """New frames; 0: up to the window the model was trained on."""
    num_samples: int = 4
    """Clips to make: of different prompts from the validation split, or continuations of one --input."""
    label: str | None = None
    """Class of the clips, one of the model's labels; default: that of each validation clip, else none."""
    seed: int = 0
    """Sample i uses seed + i, and is the same whatever else is sampled."""
    keep_prompt: bool = False
    """Show the prompt's own frames instead of what the tokenizer makes of them."""
    format: Literal["mp4", "webm", "gif", "avi"] = "mp4"
    """File format of the clips."""
    out: Path = Path("runs/samples")
    """Folder for the clips and the comparison."""
    data: Path | None = None
    """Folder of videos or clip store to take prompts from; default: what the model was trained on."""
    cache: Path = Path("runs/clips")
    """Folder in which decoded videos are kept."""
    device: DeviceName = "auto"
    """Where to sample."""


def sample(config: Config) -> None:
    """Continue prompts, write the clips and the comparison, and print where they are."""
    if config.num_samples < 1 or not 0 <= config.seed < 2**32:
        raise ValueError(
            f"num_samples {config.num_samples}, seed {config.seed}: expected at least 1, and 0 or more below 2**32"
        )
    model = VideoModel.from_pretrained(config.model, pick_device(config.device))
    num_frames = config.frames or model.window - config.prompt_frames
    model.check_lengths(config.prompt_frames, num_frames)
    truth, labels = _prompts(config, model)
    config.check_codebook(model.gpt.config.head_sizes)
    model.gpt.config.label_ids(labels)
    check_writable(config.out)

    seeds = [config.seed + i for i in range(config.num_samples)]
    made = model.continue_frames(truth[:, : config.prompt_frames], num_frames, config, seeds, labels).frames
    if config.keep_prompt:
        made[:, : config.prompt_frames] = truth[:, : config.prompt_frames]
    for number, clip in enumerate(made):
        path = config.out / f"sample_{number:03d}.{config.format}"
        write_video(path, clip, model.fps)
        print(path)
    for path in _comparison(config, model, made, truth):
        print(path)


def _prompts(config: Config, model: VideoModel) -> tuple[np.ndarray, list[str | None]]:
    """Clips whose first frames are the prompts, and their labels; without prompt frames no data is needed."""
    if config.prompt_frames == 0:
        empty = np.zeros((config.num_samples, 0, *model.frame_size, 3), dtype=np.uint8)
        return empty, [config.label] * config.num_samples
    return _from_input(config, model) if config.input else _from_validation(config, model)


def _from_input(config: Config, model: VideoModel) -> tuple[np.ndarray, list[str | None]]:
    """The video's first frames, once per sample; as many as there are, up to the window."""
    assert config.input is not None
    height, width = model.frame_size
    frames = load_video(config.input, height, width, model.fps, max_frames=model.window).frames
    if len(frames) < config.prompt_frames:
        raise ValueError(
            f"{config.input} has {len(frames)} frames at {model.fps:g} fps, expected at least "
            f"{config.prompt_frames}; give fewer --prompt-frames or a longer video"
        )
    return np.stack([frames] * config.num_samples), [config.label] * config.num_samples


def _from_validation(config: Config, model: VideoModel) -> tuple[np.ndarray, list[str | None]]:
    """Clips of the validation split in a fixed shuffled order, with their labels: sample i is always of clip i."""
    source = DataSettings.of_model(data_of(config.model), config.data, config.cache)
    windows = held_out_windows(source, model.window, one_per_video=False)
    order = np.random.default_rng(0).permutation(len(windows))
    clips = order[np.arange(config.num_samples) % len(order)]
    known = model.gpt.config.labels
    own = [label if (label := windows.location(clip)[0].label) in known else None for clip in clips]
    return windows.batch(clips), [config.label or label for label in own]


def _comparison(config: Config, model: VideoModel, made: np.ndarray, truth: np.ndarray) -> list[Path]:
    """One picture and one video with every sample beside what really happened, as far as that is known."""
    strips, rows = [], [("model", made)]
    known = truth[:, : made.shape[1]]
    for number, clip in enumerate(made):
        strips.append((f"model, sample {number}", clip))
        if config.prompt_frames:
            strips.append(("what really happened", known[number]))
    if config.prompt_frames:
        missing = np.full_like(made[:, known.shape[1] :], 255)  # an --input may end before the continuation does
        rows.append(("what really happened", np.concatenate([known, missing], axis=1)))
    picture, video = config.out / "grid.png", config.out / f"grid.{config.format}"
    enlarge = max(1, 128 // model.frame_size[0])
    Image.fromarray(film_strip(strips, config.prompt_frames)).save(picture)
    write_video(video, side_by_side(rows, config.prompt_frames, enlarge), model.fps)
    return [picture, video]


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    run_tool(sample, Config, argv, description=__doc__)


if __name__ == "__main__":
    main()
