"""The tokenizer's model folder: config.json + model.safetensors + provenance.json, nothing pickled."""

import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tokenreel.tokenizer.config import TokenizerConfig

KIND = "tokenreel video tokenizer"
NOT_OF_ENCODING = {"decoder_depth", "entropy_weight", "commitment_weight", "vq_decay"}
"""Settings that indices do not depend on."""


def find_folder(folder: Path) -> Path:
    """The model folder itself, or ``model/`` inside a run folder.

    Raises:
        FileNotFoundError: If neither holds weights.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"no tokenizer folder {folder}; train one with tools/train_tokenizer.py --run {folder}")
    for candidate in (folder / "model", folder):
        if (candidate / "model.safetensors").is_file() and (candidate / "config.json").is_file():
            return candidate
    raise FileNotFoundError(
        f"{folder} holds no tokenizer weights (model.safetensors and config.json); "
        f"train one with tools/train_tokenizer.py --run {folder}, or finish it with --resume"
    )


def fingerprint(folder: Path) -> str:
    """sha256 over the configuration and the weights of a tokenizer: 64 hex digits."""
    folder = find_folder(folder)
    digest = hashlib.sha256()
    for name in ("config.json", "model.safetensors"):
        digest.update((folder / name).read_bytes())
    return digest.hexdigest()


def encoding_fingerprint(folder: Path) -> str:
    """sha256 over what indices depend on, encoder and codebook: 64 hex digits.

    Two tokenizers that share it give every video the same indices; their decoders may differ.
    """
    config, state = load_folder(folder)
    settings = {name: value for name, value in dataclasses.asdict(config).items() if name not in NOT_OF_ENCODING}
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for name in sorted(name for name in state if not name.startswith("decoder.")):
        tensor = state[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def save_folder(folder: Path, model: nn.Module, config: TokenizerConfig, provenance: Mapping[str, Any]) -> str:
    """Write a model folder under a temporary name, then rename it; return its fingerprint."""
    building = folder.with_name(f"{folder.name}.tmp-{os.getpid()}")
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True)
    try:
        state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
        save_file(state, building / "model.safetensors")
        content = {"kind": KIND, **dataclasses.asdict(config)}
        (building / "config.json").write_text(json.dumps(content, indent=2) + "\n")
        (building / "provenance.json").write_text(json.dumps(dict(provenance), indent=2) + "\n")
        _swap(building, folder)
    except SafetensorError as error:
        raise OSError(f"cannot write {folder}: {error}; free space or make the folder writable") from error
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return fingerprint(folder)


def _swap(building: Path, folder: Path) -> None:
    """Put a finished folder under its final name; an older one there is whole until that moment."""
    retired = folder.with_name(f"{folder.name}.old-{os.getpid()}")
    if folder.exists():
        os.replace(folder, retired)
    os.replace(building, folder)
    shutil.rmtree(retired, ignore_errors=True)


def load_folder(folder: Path) -> tuple[TokenizerConfig, dict[str, Tensor]]:
    """Configuration and weights of a model folder (or of the model inside a run folder)."""
    folder = find_folder(folder)
    try:
        content = json.loads((folder / "config.json").read_text())
        state = load_file(folder / "model.safetensors")
    except (ValueError, SafetensorError) as error:
        raise ValueError(f"{folder} is damaged ({error}); copy it again, or train it again") from None
    if content.pop("kind", None) != KIND:
        raise ValueError(f"{folder} is not a {KIND}; its config.json says otherwise, pass the tokenizer's folder")
    known = {field.name for field in dataclasses.fields(TokenizerConfig)}
    if set(content) - known:
        raise ValueError(
            f"{folder}/config.json names {sorted(set(content) - known)}, unknown to this version of tokenreel"
        )
    return TokenizerConfig(**content), state


def read_judgement(folder: Path) -> dict[str, float]:
    """What the last validation of a tokenizer found, by name: ``psnr``, ``motion_kept``; empty if it was not kept."""
    path = find_folder(folder) / "provenance.json"
    told = json.loads(path.read_text()) if path.is_file() else {}
    return {name.removeprefix("val_"): float(value) for name, value in told.items() if name.startswith("val_")}


def read_provenance(folder: Path) -> dict[str, Any]:
    """What a model folder's provenance.json says.

    Raises:
        ValueError: If it is missing.
    """
    path = find_folder(folder) / "provenance.json"
    if not path.is_file():
        raise ValueError(
            f"{path} is missing, expected what the tokenizer was trained on; train it with tools/train_tokenizer.py"
        )
    told = json.loads(path.read_text())
    if not {"data", "clip_frames", "peak_memory_mb"} <= set(told):
        raise ValueError(
            f"{path} does not say what the tokenizer was trained on; train it with tools/train_tokenizer.py"
        )
    return told
