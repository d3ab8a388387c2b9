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
from dataclasses import replace
from pathlib import Path

import numpy as np

from tokenreel.datasets.video_writer import VideoFile
from tokenreel.generation import VideoModel
from tokenreel.generation.requests import Request, read_actions, read_requests
from tokenreel.tools.sample_pictures import write_comparison
from tokenreel.tools.sample_prompts import read_prompts
from tokenreel.tools.sample_settings import AT_ONCE, NUM_SAMPLES, Config
from tokenreel.training.command_line import run_tool
from tokenreel.training.hardware import pick_device
from tokenreel.training.run_folder import check_writable
from tokenreel.transformer import ClipConditions, Conditions
from tokenreel.transformer.sampling import check_guidance


def sample(config: Config) -> None:
    """Continue prompts, write the clips and the comparison, and print where they are."""
    requests = _requests(config)
    model = VideoModel.from_pretrained(config.model, pick_device(config.device), config.text_encoder, config.tokenizer)
    config.check_codebook(model.gpt.config.head_sizes)
    lengths = [_new_frames(request, config, model) for request in requests]
    if config.given_frames + max(lengths) > model.window:
        config.kept(model.gpt.config.grid[0])
    truth, own = read_prompts(
        config, len(requests), model, max(lengths) + config.last_frames if config.last_frames else 0
    )
    said = [
        request.conditions(known, config.given_frames, length, config.last_frames)
        for request, known, length in zip(requests, own, lengths, strict=True)
    ]
    check_writable(config.out)
    if any(side % 2 for side in truth.shape[2:4]) and any(request.format != "gif" for request in requests):
        print("odd frame sizes are padded to even ones, as the format needs; gif keeps them")
    if not config.given_frames and config.sharpen == "all" and (config.top_p < 1 or config.temperature < 1):
        print("clips from nothing: if things are missing, try --sharpen others")

    every = -(-(config.given_frames + max(lengths)) // model.window)  # of a long clip not all is shown
    shown = _continued(config, model, truth, requests, lengths, said, every)
    for number, request in enumerate(requests):
        print(_path(config, number, request))
    end = config.given_frames + lengths[0] if config.last_frames and len(set(lengths)) == 1 else None
    for path in write_comparison(config, model, shown, said, truth, every, end):
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


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    run_tool(sample, Config, argv, description=__doc__)


if __name__ == "__main__":
    main()
