"""Continue video with a trained model: the fourth stage.

    python tools/sample.py --prompt-frames 4                          # clips of the validation split
    python tools/sample.py --prompt-frames 8 --input my.mp4 --num-samples 4 --temperature 0.9 --format gif
    python tools/sample.py --prompt "a red ball and a green ball" --guidance 2
    python tools/sample.py --prompt-frames 4 --actions actions.json   # ["left", "left", "stay", ...]
    python tools/sample.py --prompt-frames 8 --frames 1000            # beyond the window, as long as you like
    python tools/sample.py --prompts prompts.jsonl                    # many clips, each as its line says
    python tools/sample.py --prompt-frames 4 --last-frames 4          # what lies between, if trained to fill in

Each clip is written on its own, and all of them into one comparison: prompt and continuation beside what
really happened, given frames bordered green, new ones orange (grid.mp4 or the chosen format, grid.png; of
clips longer than the window every second frame, or third, ... of the clip alone; last frames are bordered
green where all clips have them at the same place).
"""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from tokenreel.datasets.clip_shapes import parse_size
from tokenreel.datasets.data_source import DataSettings, held_out_windows
from tokenreel.datasets.decoding import load_video
from tokenreel.datasets.frame_fit import Size
from tokenreel.datasets.video_writer import VideoFile, write_video
from tokenreel.evaluation.film_strip import film_strip, side_by_side
from tokenreel.generation import VideoModel
from tokenreel.generation.requests import Request, read_actions, read_requests
from tokenreel.training.command_line import run_tool
from tokenreel.training.hardware import DeviceName, pick_device
from tokenreel.training.run_folder import check_writable
from tokenreel.transformer import ClipConditions, Conditions, SamplingSettings
from tokenreel.transformer.pretrained import data_of
from tokenreel.transformer.sampling import check_guidance

PROMPT_FRAMES = 4
NUM_SAMPLES = 4
AT_ONCE = 32
"""Clips sampled together; more would gain little speed for their memory."""


@dataclass(frozen=True, kw_only=True)
class Config(SamplingSettings):
    """What to continue, and how."""

    model: Path = Path("runs/gpt")
    """Run folder or model folder of the GPT."""
    tokenizer: Path | None = None
    """Another tokenizer with the same encoder and codebook, such as one whose decoder was trained further; default:
    the one that the model carries."""
    input: Path | None = None
    """A video to continue, of any size and rate; default: clips of the validation split."""
    prompt_frames: int | None = None
    """Frames given to the model, a multiple of its temporal stride; 0 makes clips from nothing; default: 4, or 0
    where --prompt or --prompts says what is to be seen and no --input is given."""
    top_p: float = 0.9
    """Draw among the likeliest indices that together have this probability; 1 is all, and lets one index from the
    far tail break an object now and then. For clips from nothing rather 1: what may begin anywhere is unlikely at each
    place, and with less it begins too late or not at all."""
    frame_size: str = ""
    """HEIGHTxWIDTH of clips from nothing, for a model that was trained on several sizes; default: the first of them.
    An --input is brought to the one nearest its shape."""
    last_frames: int = 0
    """Frames given that come after the new ones, which then fill in what lies between: the end of each validation
    clip, or what --input shows there. The model must have been trained with --infilling, and all fit its window."""
    frames: int = 0
    """New frames, any multiple of the model's temporal stride: beyond the window the model goes on from the last of
    what it made; 0: up to the window the model was trained on, or as many as there are actions."""
    num_samples: int | None = None
    """Clips to make: of different prompts from the validation split, or continuations of one --input; with --prompts
    of each line; default: 4, and 1 with --prompts."""
    prompt: str | None = None
    """Caption of the clips, if the model was trained on captions; default: that of each validation clip, else none."""
    text_encoder: str | None = None
    """Folder or hub id of the model's text encoder, where it is no longer found under the name that training knew."""
    label: str | None = None
    """Class of the clips, one of the model's labels; default: that of each validation clip, else none."""
    actions: Path | None = None
    """JSON file with the action that leads to each new frame, by number, name or as numbers, if the model was trained
    on actions: a list; default: what was done in each validation clip, else unknown."""
    prompts: Path | None = None
    """Many requests: a .txt file with a caption per line, or a .jsonl file with an object per line that may hold
    prompt, label, actions, seed, frames and format; what a line leaves open is as said here."""
    seed: int = 0
    """Sample i uses seed + i, and is the same whatever else is sampled."""
    keep_prompt: bool = False
    """Show the given frames themselves instead of what the tokenizer makes of them."""
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

    @property
    def given_frames(self) -> int:
        """Prompt frames, chosen if they are not said."""
        from_nothing = (self.prompt or self.prompts) and not self.input
        return (0 if from_nothing else PROMPT_FRAMES) if self.prompt_frames is None else self.prompt_frames


def sample(config: Config) -> None:
    """Continue prompts, write the clips and the comparison, and print where they are."""
    requests = _requests(config)
    model = VideoModel.from_pretrained(config.model, pick_device(config.device), config.text_encoder, config.tokenizer)
    config.check_codebook(model.gpt.config.head_sizes)
    lengths = [_new_frames(request, config, model) for request in requests]
    if config.given_frames + max(lengths) > model.window:
        config.kept(model.gpt.config.grid[0])
    truth, own = _prompts(config, len(requests), model, max(lengths) + config.last_frames if config.last_frames else 0)
    said = [
        request.conditions(known, config.given_frames, length, config.last_frames)
        for request, known, length in zip(requests, own, lengths, strict=True)
    ]
    check_writable(config.out)
    if any(side % 2 for side in model.frame_size) and any(request.format != "gif" for request in requests):
        print("odd frame sizes are padded to even ones, as the format needs; gif keeps them")
    if not config.given_frames and config.top_p < 1:
        print(f"clips from nothing: if things are missing, try --top-p 1 instead of {config.top_p}")

    every = -(-(config.given_frames + max(lengths)) // model.window)  # of a long clip not all is shown
    shown = _continued(config, model, truth, requests, lengths, said, every)
    for number, request in enumerate(requests):
        print(_path(config, number, request))
    end = config.given_frames + lengths[0] if config.last_frames and len(set(lengths)) == 1 else None
    for path in _comparison(config, model, shown, said, truth, every, end):
        print(path)


def _requests(config: Config) -> list[Request]:
    """One per clip, seeds and formats filled in."""
    read = read_requests(config.prompts) if config.prompts else [Request()]
    copies = (1 if config.prompts else NUM_SAMPLES) if config.num_samples is None else config.num_samples
    if copies < 1:
        raise ValueError(f"num_samples {copies}: expected at least 1")
    actions = read_actions(config.actions) if config.actions else None
    general = Request(config.prompt, config.label, actions, None, config.frames, config.format)
    every = [(request.over(general), copy) for request in read for copy in range(copies)]
    seeds = [config.seed + i if each.seed is None else each.seed + copy for i, (each, copy) in enumerate(every)]
    return [replace(each, seed=seed) for (each, _), seed in zip(every, seeds, strict=True)]


def _new_frames(request: Request, config: Config, model: VideoModel) -> int:
    """Frames asked for, or as many as the actions, or else the window, allow."""
    step = model.tokenizer.config.stride[0]
    left = (model.window - config.given_frames - config.last_frames) // step * step
    num_frames = request.frames or max(step, left)
    if not request.frames and request.actions is not None:
        num_frames = max(step, len(request.actions) // step * step)
    model.check_lengths(config.given_frames, num_frames, config.last_frames)
    return num_frames


def _continued(
    config: Config,
    model: VideoModel,
    truth: np.ndarray,
    requests: list[Request],
    lengths: list[int],
    said: list[ClipConditions],
    every: int,
) -> list[np.ndarray]:
    """Write all clips, some of equal length at once; what does not fit the model is refused before the first.

    ``truth`` are clips that hold the prompt frames, and the last frames if there are any.

    Returns:
        Of each clip one frame in ``every``.
    """
    made: dict[int, np.ndarray] = {}
    step, given, last = model.tokenizer.config.stride[0], config.given_frames, config.last_frames
    prompts = truth[:, :given]
    alike = {length: [i for i, own in enumerate(lengths) if own == length] for length in sorted(set(lengths))}
    groups = [(length, all_[k : k + AT_ONCE]) for length, all_ in alike.items() for k in range(0, len(all_), AT_ONCE)]
    told: list[Conditions] = []
    for length, rows in groups:
        told.append(model.conditions.tensors([said[i] for i in rows], (given + length + last) // step))
    if all(part.empty for part in told):
        check_guidance(model.gpt, config, None)
    for length, rows in groups:
        seeds = [requests[i].seed or 0 for i in rows]
        # Of clips that are all told nothing, guidance has nothing to strengthen.
        settings = replace(config, guidance=1.0) if told.pop(0).empty else config
        end = truth[rows, given + length : given + length + last] if last else None
        stream = model.stream_frames(prompts[rows], length, settings, seeds, [said[i] for i in rows], last=end)
        paths = [_path(config, i, requests[i]) for i in rows]
        if config.keep_prompt:
            stream = _with_given(stream, prompts[rows] if given else None, end)
        made |= dict(zip(rows, _written(stream, paths, model.fps, every), strict=True))
    return [made[i] for i in range(len(requests))]


def _path(config: Config, number: int, request: Request) -> Path:
    return config.out / f"sample_{number:03d}.{request.format}"


def _with_given(
    stream: Iterator[np.ndarray], first: np.ndarray | None, last: np.ndarray | None
) -> Iterator[np.ndarray]:
    """Clips part by part, with the given frames themselves in place of what the tokenizer makes of them."""
    before = next(stream)
    if first is not None:
        before = first
    for part in stream:
        yield before
        before = part
    yield before if last is None else last


def _written(stream: Iterator[np.ndarray], paths: list[Path], fps: float, every: int) -> np.ndarray:
    """Write clips as they grow; returns one frame in ``every``."""
    kept, begin = [], 0
    with ExitStack() as stack:
        files = [stack.enter_context(VideoFile(path, fps)) for path in paths]
        for frames in stream:
            for file, part in zip(files, frames, strict=True):
                file.write(part)
            kept.append(frames[:, -begin % every :: every].copy())  # a view would keep all frames
            begin += frames.shape[1]
    return np.concatenate(kept, axis=1)


def _prompts(config: Config, count: int, model: VideoModel, more: int) -> tuple[np.ndarray, list[ClipConditions]]:
    """Clips whose first frames are the prompts, and what is known of them; without given frames no data is needed.

    Args:
        config: Where from.
        count: Clips.
        model: Whose.
        more: Frames of the clips that are needed after the prompts.
    """
    needed = config.given_frames + more
    if needed == 0:
        empty = np.zeros((count, 0, *_size_from_nothing(config, model), 3), dtype=np.uint8)
        return empty, [ClipConditions()] * count
    return _from_input(config, count, model, needed) if config.input else _from_validation(config, count, model)


def _size_from_nothing(config: Config, model: VideoModel) -> Size:
    """Of frames without a prompt that tells it."""
    size = parse_size(config.frame_size) if config.frame_size else model.frame_size
    if size not in model.frame_sizes:
        known = " or ".join(f"{height}x{width}" for height, width in model.frame_sizes)
        raise ValueError(f"frame_size {config.frame_size}: expected {known}, the sizes this model was trained on")
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
    windows = held_out_windows(source, model.window, one_per_video=False)
    order = np.random.default_rng(0).permutation(len(windows))
    clips = order[np.arange(count) % len(order)]
    known = model.gpt.config.conditions
    return windows.batch(clips), [known.of_record(windows.record(clip)) for clip in clips]


def _comparison(
    config: Config,
    model: VideoModel,
    made: list[np.ndarray],
    said: list[ClipConditions],
    truth: np.ndarray,
    every: int,
    last_from: int | None,
) -> list[Path]:
    """One picture and one video with every sample beside what really happened, as far as that is known.

    ``made`` has one frame in ``every``; from ``last_from`` on frames were given.
    """
    longest, prompt_frames = max(map(len, made)), -(-config.given_frames // every)
    shown = np.stack([_filled(clip, longest) for clip in made])
    real = np.stack([_filled(clip[::every][:longest], longest) for clip in truth])
    strips, rows = [], [("model", shown)]
    # Of a clip longer than the window hardly anything is known, of one from nothing nothing is.
    known = every == 1 and config.given_frames + config.last_frames > 0
    for number, clip in enumerate(shown):
        caption = said[number].caption
        strips.append((f"model, sample {number}" + (f": {caption}" if caption else ""), clip))
        if known:
            strips.append(("what really happened", real[number]))
    if known:
        rows.append(("what really happened", real))
    picture, video = config.out / "grid.png", config.out / f"grid.{config.format}"
    enlarge = max(1, 128 // model.frame_size[0])
    Image.fromarray(film_strip(strips, prompt_frames, last_from=last_from)).save(picture)
    write_video(video, side_by_side(rows, prompt_frames, enlarge, last_from), model.fps)
    if every > 1:
        print(f"the comparison shows one frame in {every}")
    return [picture, video]


def _filled(clip: np.ndarray, length: int) -> np.ndarray:
    """A clip with white frames up to a length: others are longer, or an --input ends before its continuation."""
    return np.concatenate([clip, np.full_like(clip, 255, shape=(length - len(clip), *clip.shape[1:]))])


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    run_tool(sample, Config, argv, description=__doc__)


if __name__ == "__main__":
    main()
