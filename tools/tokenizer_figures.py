"""The figures of one tokenizer and its GPT, as tools/compare_tokenizers.py shows them (no command of its own)."""

import json
import math
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from tokenreel.datasets.clip_shapes import left_out_in_words
from tokenreel.datasets.clip_windows import ClipWindows
from tokenreel.datasets.data_source import DataSettings, held_out_windows, open_data
from tokenreel.evaluation.description_length import residual_bits, residual_counts
from tokenreel.evaluation.fidelity import psnr
from tokenreel.generation import VideoModel
from tokenreel.tokenizer import CodebookUsage, VideoTokenizer
from tokenreel.tokenizer.frames import to_frames, to_video
from tokenreel.training.hardware import DeviceName, pick_device

CLIPS_AT_ONCE = 8
CHANNELS = 3

# Title, key in figures.json, format.
FIGURES = (
    ("PSNR (dB)", "psnr_db", "{:.2f}"),
    ("tokens per second of video", "tokens_per_s_of_video", "{:.0f}"),
    ("bits per token needed (GPT)", "bits_per_token", "{:.2f}"),
    ("bits per token nominal (log2 K)", "nominal_bits_per_token", "{:.2f}"),
    ("bits per pixel needed (GPT)", "bits_per_pixel", "{:.5f}"),
    ("bits per pixel nominal", "nominal_bits_per_pixel", "{:.5f}"),
    ("residual bits per pixel", "residual_bits_per_pixel", "{:.4f}"),
    ("total description length, bits per pixel", "total_bits_per_pixel", "{:.4f}"),
    ("perplexity of the codes", "perplexity", "{:.0f}"),
    ("codes used", "codes_used", "{}"),
    ("codes in the codebook (K)", "codebook_size", "{}"),
    ("encode (clips/s)", "encode_clips_per_s", "{:.1f}"),
    ("decode (clips/s)", "decode_clips_per_s", "{:.1f}"),
    ("parameters of the tokenizer", "tokenizer_parameters", "{:,}"),
    ("training of the tokenizer: clips", "tokenizer_clips", "{:,}"),
    ("training of the tokenizer: seconds", "tokenizer_seconds", "{:.0f}"),
    ("parameters of the GPT", "gpt_parameters", "{:,}"),
    ("training of the GPT: clips", "gpt_clips", "{:,}"),
    ("training of the GPT: seconds", "gpt_seconds", "{:.0f}"),
)


class _Reading(NamedTuple):
    """What came of encoding and decoding clips."""

    indices: Tensor
    """int64 (N, T', H', W')."""
    psnr: np.ndarray
    """(N,) decibels."""
    residuals: np.ndarray
    """Counts, see residual_counts."""
    encode_clips_per_s: float
    decode_clips_per_s: float


@torch.no_grad()
def figures_of(home: Path, source: DataSettings, clips: int, device: DeviceName) -> dict[str, Any]:
    """Judge a trained tokenizer and its GPT on validation clips; memory does not grow with their number.

    Args:
        home: Folder with the runs ``tokenizer`` and ``gpt``.
        source: The videos they were trained on.
        clips: How many validation clips at most, spread over the split and not overlapping; as many training
            clips to fit the code of the residuals on.
        device: Where to run.

    Returns:
        What FIGURES names, ``config`` of the tokenizer, ``clips`` and ``split``.
    """
    model = VideoModel.from_pretrained(home / "gpt", pick_device(device))
    tokenizer, grid, window = model.tokenizer, model.gpt.config.grid, model.window
    held_out = held_out_windows(source, window, one_per_video=False, size=model.frame_size)
    train = ClipWindows(open_data(source), "train", window, window, model.frame_size)
    if words := left_out_in_words(held_out):
        print(f"compared on {words}")
    read = _read(tokenizer, held_out, _spread(held_out, clips))
    fitted = _read(tokenizer, train, _spread(train, clips)).residuals
    usage = CodebookUsage(tokenizer.config.codebook_size)
    usage.update(read.indices)
    bits, nominal = _bits_per_token(model, held_out, read.indices, clips), math.log2(tokenizer.config.codebook_size)
    per_pixel = math.prod(grid) / (window * math.prod(model.frame_size))
    residual = CHANNELS * residual_bits(read.residuals, fitted)
    return {
        "config": asdict(tokenizer.config),
        "split": held_out.records[0].split,
        "clips": len(read.indices),
        "psnr_db": float(read.psnr.mean()),
        "tokens_per_s_of_video": math.prod(grid) / window * model.fps,
        "bits_per_token": bits,
        "nominal_bits_per_token": nominal,
        "bits_per_pixel": bits * per_pixel,
        "nominal_bits_per_pixel": nominal * per_pixel,
        "residual_bits_per_pixel": residual,
        "total_bits_per_pixel": bits * per_pixel + residual,
        "perplexity": usage.perplexity,
        "codes_used": tokenizer.config.codebook_size - usage.dead_codes,
        "codebook_size": tokenizer.config.codebook_size,
        "encode_clips_per_s": read.encode_clips_per_s,
        "decode_clips_per_s": read.decode_clips_per_s,
        "tokenizer_parameters": _parameters(tokenizer),
        "gpt_parameters": _parameters(model.gpt),
        **_training("tokenizer", home / "tokenizer", "speed/clips_per_s", 1),
        **_training("gpt", home / "gpt", "speed/tokens_per_s", math.prod(grid)),
    }


def _spread(windows: ClipWindows, clips: int) -> np.ndarray:
    return np.linspace(0, len(windows) - 1, min(clips, len(windows))).round().astype(int)


def _parts(items: Any) -> Iterator[Any]:
    for begin in range(0, len(items), CLIPS_AT_ONCE):
        yield items[begin : begin + CLIPS_AT_ONCE]


def _read(tokenizer: VideoTokenizer, windows: ClipWindows, chosen: np.ndarray) -> _Reading:
    """Encode and decode clips, batch by batch; frames in, frames out, as a user of the tokenizer pays for it."""
    device = next(tokenizer.parameters()).device
    indices, quality, encoding, decoding = [], [], [], []
    residuals: np.ndarray = np.zeros(1, dtype=np.int64)
    tokenizer.reconstruct(to_video(windows.batch(chosen[:1])).to(device))  # first calls of a shape are slow
    for part in _parts(chosen):
        truth = windows.batch(part)
        begin = time.perf_counter()
        indices.append(tokenizer.encode(to_video(truth).to(device)).cpu())
        middle = time.perf_counter()
        frames = to_frames(tokenizer.decode(indices[-1].to(device)))
        encoding.append(len(part) / (middle - begin))
        decoding.append(len(part) / (time.perf_counter() - middle))
        quality.append(psnr(frames, truth).clip(max=100))
        residuals = residuals + residual_counts(frames, truth)
    return _Reading(
        torch.cat(indices), np.concatenate(quality), residuals, float(np.median(encoding)), float(np.median(decoding))
    )


def _bits_per_token(model: VideoModel, windows: ClipWindows, indices: Tensor, clips: int) -> float:
    """The GPT's cross-entropy on clips that were encoded, each told what the GPT knows of it."""
    known = model.gpt.config.conditions
    return model.bits_per_token(indices, [known.of_record(windows.record(int(c))) for c in _spread(windows, clips)])


def _parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _training(stage: str, run: Path, speed: str, per_clip: int) -> dict[str, Any]:
    """Clips a training saw, and the seconds its steps took, from the speeds in its metrics.jsonl.

    Validation and saving are not counted, and a stop between two parts of a run is not either.
    """
    batch_size = json.loads((run / "config.json").read_text())["batch_size"]
    step, seconds = 0, 0.0
    for line in map(json.loads, (run / "metrics.jsonl").read_text().splitlines()):
        if speed in line:
            seconds += (line["step"] - step) * batch_size * per_clip / line[speed]
            step = line["step"]
    return {f"{stage}_clips": step * batch_size, f"{stage}_seconds": seconds}
