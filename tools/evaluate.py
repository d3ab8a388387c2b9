"""Judge a trained model on the validation split: one small table, and the same as JSON.

    python tools/evaluate.py
    python tools/evaluate.py --model runs/mine/gpt --out runs/mine/evaluation

Tokenizer: PSNR. GPT: bits per token and per pixel. Sampler: tokens per second. PSNR of the continuation,
frame by frame, in evaluation.json; tools/doctor.py reads it there. On the embedded world of
balls, whose states are known, also how far the balls of the continuation are from where they should be,
frame by frame, beside two yardsticks: the tokenizer's reconstruction of the truth (no continuation can be
better) and a copy of the last prompt frame (any continuation should be).
"""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from tyro.conf import Suppress

from tokenreel.datasets.data_source import DataSettings, held_out_windows
from tokenreel.datasets.world_states import DiscStates, disc_states
from tokenreel.evaluation.fidelity import psnr
from tokenreel.evaluation.tracking import position_error, track_discs
from tokenreel.generation import VideoModel
from tokenreel.tokenizer.frames import to_frames, to_video
from tokenreel.tokenizer.pretrained import read_provenance
from tokenreel.training.command_line import run_tool
from tokenreel.training.hardware import DeviceName, describe_hardware, peak_memory_mb, pick_device
from tokenreel.training.run_folder import check_writable
from tokenreel.transformer import ClipConditions, SamplingSettings, sample_indices
from tokenreel.transformer.pretrained import data_of, find_folder

CLIPS_AT_ONCE = 16


@dataclass(frozen=True, kw_only=True)
class Config(SamplingSettings):
    """What to judge, and on how much."""

    model: Path = Path("runs/gpt")
    """Run folder or model folder of the GPT."""
    out: Path = Path("runs/evaluation")
    """Folder for evaluation.json."""
    prompt_frames: int = 4
    """Frames given to the model."""
    top_p: float = 0.9
    """Draw among the likeliest indices that together have this probability; 1 is all, and lets one index from the
    far tail break an object now and then."""
    overlap: Suppress[int] = 0
    """Clips are no longer than the window here."""
    clips: int = 64
    """Validation clips to continue, one per video as far as there are so many."""
    seed: int = 0
    """Sample i uses seed + i."""
    text_encoder: str | None = None
    """Folder or hub id of the model's text encoder, where it is no longer found under the name that training knew."""
    data: Path | None = None
    """Folder of videos; default: what the model was trained on."""
    cache: Path = Path("runs/clips")
    """Folder in which decoded videos are kept."""
    device: DeviceName = "auto"
    """Where to run."""


def evaluate(config: Config) -> None:
    """Judge the model, print the table, write evaluation.json."""
    if config.clips < 1 or not 0 <= config.seed < 2**32:
        raise ValueError(f"clips {config.clips}, seed {config.seed}: expected at least 1, and 0 or more below 2**32")
    device = pick_device(config.device)
    model = VideoModel.from_pretrained(config.model, device, config.text_encoder)
    most = model.window - model.tokenizer.config.stride[0]
    if config.prompt_frames > most:
        raise ValueError(
            f"prompt_frames {config.prompt_frames} leave nothing to judge in the window of {model.window} frames; use "
            f"at most {most}"
        )
    model.check_lengths(config.prompt_frames, model.window - config.prompt_frames)
    config.check_codebook(model.gpt.config.head_sizes)
    source = DataSettings.of_model(data_of(config.model), config.data, config.cache)
    windows = held_out_windows(source, model.window, one_per_video=True)
    check_writable(config.out)

    chosen = np.linspace(0, len(windows) - 1, min(config.clips, len(windows))).round().astype(int)
    truth = windows.batch(chosen)
    told = [model.gpt.config.conditions.of_record(windows.record(clip)) for clip in chosen]
    indices = torch.cat([model.tokenizer.encode(to_video(part).to(device)) for part in _parts(truth)])
    begin = time.perf_counter()
    made = _continued(config, model, indices, told)
    tokens_per_s = (indices.numel() - _prompt(config, model, indices).numel()) / (time.perf_counter() - begin)
    frames = {"model": _decoded(model, made), "tokenizer_alone": _decoded(model, indices)}
    bits = model.bits_per_token(indices, told)
    result: dict[str, Any] = {
        "model": str(config.model),
        "split": windows.records[0].split,
        "clips": len(truth),
        "sampling": {name: getattr(config, name) for name in ("temperature", "top_k", "top_p", "guidance", "seed")},
        "tokenizer_psnr_db": float(psnr(frames["tokenizer_alone"], truth).clip(max=100).mean()),
        "bits_per_token": bits,
        "bits_per_pixel": bits * indices[0].numel() / truth[0, ..., 0].size,
        "sampling_tokens_per_s": tokens_per_s,
        "peak_memory_mb": {
            "train_tokenizer": read_provenance(find_folder(config.model) / "tokenizer")["peak_memory_mb"],
            "train_gpt": json.loads((find_folder(config.model) / "provenance.json").read_text())["peak_memory_mb"],
            "evaluate": peak_memory_mb(device),
        },
        "hardware": describe_hardware(device),
    }
    root = config.data or Path(data_of(config.model)["folder"])
    states = [disc_states(root, windows.location(clip)[0]) for clip in chosen]
    if config.prompt_frames:
        last = truth[:, [config.prompt_frames - 1]]
        frames["copy_last_frame"] = np.repeat(last, model.window, axis=1)
    result["psnr_db"] = {name: _decibels(clips, truth, config.prompt_frames) for name, clips in frames.items()}
    if config.prompt_frames and all(state is not None for state in states):
        starts = [windows.location(clip)[1] for clip in chosen]
        result["position_error_px"] = {
            name: _position_errors(clips, states, starts, config.prompt_frames) for name, clips in frames.items()
        }
    _report(result, config)


def _parts(clips: Any) -> Iterator[Any]:
    """A batch in pieces of bounded memory."""
    for begin in range(0, len(clips), CLIPS_AT_ONCE):
        yield clips[begin : begin + CLIPS_AT_ONCE]


def _prompt(config: Config, model: VideoModel, indices: Tensor) -> Tensor:
    """The indices of the prompt: by causality the first of the whole clip's."""
    return indices[:, : config.prompt_frames // model.tokenizer.config.stride[0]]


def _continued(config: Config, model: VideoModel, indices: Tensor, told: list[ClipConditions]) -> Tensor:
    """Prompts and continuations, each under what the data says of its clip."""
    prompt, conditions = _prompt(config, model, indices), model.conditions.tensors(told, indices.shape[1])
    seeds = [config.seed + i for i in range(len(indices))]
    return sample_indices(model.gpt, prompt, indices.shape[1] - prompt.shape[1], config, seeds, conditions)


def _decoded(model: VideoModel, indices: Tensor) -> np.ndarray:
    return np.concatenate([to_frames(model.tokenizer.decode(part)) for part in _parts(indices)])


def _decibels(frames: np.ndarray, truth: np.ndarray, prompt_frames: int) -> list[float]:
    """PSNR of each new frame: mean over clips. A sharp thing in a wrong place counts twice, a missing one once."""
    new = range(prompt_frames, truth.shape[1])
    return [round(float(psnr(frames[:, [t]], truth[:, [t]]).clip(max=100).mean()), 3) for t in new]


def _position_errors(
    frames: np.ndarray, states: list[DiscStates | None], starts: list[int], prompt_frames: int
) -> list[float]:
    """Mean absolute error per coordinate, in pixels, of each new frame: mean over clips."""
    errors = []
    for clip, state, start in zip(frames, states, starts, strict=True):
        assert state is not None
        found = track_discs(clip, state.colors, state.background, state.radius)
        right = state.positions[start : start + len(clip)]
        errors.append(position_error(found, right, clip.shape[1])[prompt_frames:])
    return np.nanmean(errors, axis=0).round(3).tolist()


def _report(result: dict[str, Any], config: Config) -> None:
    path = config.out / "evaluation.json"
    path.write_text(json.dumps(result, indent=2) + "\n")
    console = Console()
    table = Table(title=f"{config.model} on {result['clips']} clips of split {result['split']}", title_justify="left")
    table.add_column("figure")
    table.add_column("value", justify="right")
    table.add_row("tokenizer PSNR (dB)", f"{result['tokenizer_psnr_db']:.2f}")
    table.add_row("GPT bits per token", f"{result['bits_per_token']:.3f}")
    table.add_row("GPT bits per pixel", f"{result['bits_per_pixel']:.5f}")
    table.add_row(f"sampling tokens/s, batch of {result['clips']}", f"{result['sampling_tokens_per_s']:.0f}")
    for stage, megabytes in result["peak_memory_mb"].items():
        table.add_row(f"peak memory of {stage} (MB)", f"{megabytes:.0f}")
    console.print(table)
    if "position_error_px" in result:
        console.print(_position_table(result["position_error_px"], config.prompt_frames))
    console.print(f"written to {path}", highlight=False, soft_wrap=True)


def _position_table(errors: dict[str, list[float]], prompt_frames: int) -> Table:
    table = Table(title="mean position error of the balls (pixels per coordinate)", title_justify="left")
    table.add_column("new frame")
    for name in errors:
        table.add_column(name.replace("_", " "), justify="right")
    length = len(next(iter(errors.values())))
    for t in range(length):
        table.add_row(str(prompt_frames + t + 1), *(f"{values[t]:.2f}" for values in errors.values()))
    for title, stop in (("mean of first 4", 4), (f"mean of all {length}", length)):
        table.add_row(title, *(f"{np.mean(values[:stop]):.2f}" for values in errors.values()), style="bold")
    return table


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    run_tool(evaluate, Config, argv, description=__doc__)


if __name__ == "__main__":
    main()
