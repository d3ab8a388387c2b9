"""Judge a trained model on the validation split: one small table, and the same as JSON.

    python tools/evaluate.py
    python tools/evaluate.py --model runs/mine/gpt --out runs/mine/evaluation

Tokenizer: PSNR. GPT: bits per token and per pixel. Sampler: tokens per second. On the embedded world of
balls, whose states are known, also how far the balls of the continuation are from where they should be,
frame by frame, beside two yardsticks: the tokenizer's reconstruction of the truth (no continuation can be
better) and a copy of the last prompt frame (any continuation should be).
"""

import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from tokenreel.datasets.clip_store import ClipWindows
from tokenreel.datasets.data_source import EMBEDDED_WORLD, DataSettings, open_data
from tokenreel.datasets.world_states import DiscStates, disc_states
from tokenreel.evaluation.fidelity import psnr
from tokenreel.evaluation.tracking import position_error, track_discs
from tokenreel.generation import VideoModel
from tokenreel.tokenizer.frames import to_frames, to_video
from tokenreel.tokenizer.pretrained import read_provenance
from tokenreel.training.command_line import run_tool
from tokenreel.training.hardware import DeviceName, describe_hardware, peak_memory_mb, pick_device
from tokenreel.training.run_folder import check_writable
from tokenreel.transformer import SamplingSettings
from tokenreel.transformer.pretrained import find_folder


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
    clips: int = 64
    """Validation clips to continue, one per video as far as there are so many."""
    seed: int = 0
    """Sample i uses seed + i."""
    data: Path | None = None
    """Folder of videos; default: what the model was trained on."""
    cache: Path = Path("runs/clips")
    """Folder in which decoded videos are kept."""
    device: DeviceName = "auto"
    """Where to run."""


def evaluate(config: Config) -> None:
    """Judge the model, print the table, write evaluation.json."""
    device = pick_device(config.device)
    model = VideoModel.from_pretrained(config.model, device)
    num_frames = model.window - config.prompt_frames
    model.check_lengths(config.prompt_frames, num_frames)
    origin = read_provenance(find_folder(config.model) / "tokenizer")
    windows = _windows(config, model, origin["data"])
    check_writable(config.out)
    chosen = np.linspace(0, len(windows) - 1, min(config.clips, len(windows))).round().astype(int)
    truth = windows.batch(chosen)

    indices = model.tokenizer.encode(to_video(truth).to(device))
    reconstruction = to_frames(model.tokenizer.decode(indices))
    begin = time.perf_counter()
    seeds = [config.seed + i for i in range(len(truth))]
    made = model.continue_frames(truth[:, : config.prompt_frames], num_frames, config, seeds).frames
    seconds = time.perf_counter() - begin
    with torch.no_grad():
        bits = model.gpt(indices).loss.item() / math.log(2)
    result: dict[str, Any] = {
        "clips": len(truth),
        "tokenizer_psnr_db": float(psnr(reconstruction, truth).clip(max=100).mean()),
        "bits_per_token": bits,
        "bits_per_pixel": bits * indices[0].numel() / truth[0, ..., 0].size,
        "sampling_tokens_per_s": indices[:, config.prompt_frames // model.tokenizer.config.stride[0] :].numel()
        / seconds,
        "peak_memory_mb": {
            "train_tokenizer": origin["peak_memory_mb"],
            "train_gpt": json.loads((find_folder(config.model) / "provenance.json").read_text())["peak_memory_mb"],
            "evaluate": peak_memory_mb(device),
        },
        "hardware": describe_hardware(device),
    }
    copied = np.concatenate(
        [truth[:, : config.prompt_frames], np.repeat(truth[:, [config.prompt_frames - 1]], num_frames, axis=1)], axis=1
    ) if config.prompt_frames else None  # fmt: skip
    root = config.data or Path(origin["data"]["folder"] or EMBEDDED_WORLD)
    states = [disc_states(root, windows.location(clip)[0]) for clip in chosen]
    if copied is not None and all(state is not None for state in states):
        starts = [windows.location(clip)[1] for clip in chosen]
        kinds = {"model": made, "tokenizer_alone": reconstruction, "copy_last_frame": copied}
        result["position_error_px"] = {
            name: _position_errors(frames, states, starts, config.prompt_frames) for name, frames in kinds.items()
        }
    _report(result, config)


def _windows(config: Config, model: VideoModel, origin: dict[str, Any]) -> ClipWindows:
    store = open_data(DataSettings.of_model(origin, config.data, config.cache))
    split = store.held_out_split(model.window)
    longest = max(record.frames for record in store.split(split))
    return ClipWindows(store, split, model.window, hop=longest)  # one window per video


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
    table = Table(title=f"{config.model} on {result['clips']} validation clips", title_justify="left")
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
