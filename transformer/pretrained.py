"""The GPT's model folder: config.json + model.safetensors + provenance.json + tokenizer/, nothing pickled."""

import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tokenreel.transformer.config import GPTConfig

KIND = "tokenreel video GPT"
FORMAT_VERSION = 2
"""Rises when the same weights would mean something else: 2 turns queries by the place of what they predict."""


def find_folder(folder: Path) -> Path:
    """The model folder itself, or ``model/`` inside a run folder.

    Raises:
        FileNotFoundError: If neither holds weights.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"no GPT folder {folder}; train one with tools/train_gpt.py --run {folder}")
    for candidate in (folder / "model", folder):
        if (candidate / "model.safetensors").is_file() and (candidate / "config.json").is_file():
            return candidate
    raise FileNotFoundError(
        f"{folder} holds no GPT weights (model.safetensors and config.json); "
        f"train one with tools/train_gpt.py --run {folder}, or finish it with --resume"
    )


def fingerprint(folder: Path) -> str:
    """sha256 over the configuration and the weights of a GPT: 64 hex digits."""
    home, digest = find_folder(folder), hashlib.sha256()
    for name in ("config.json", "model.safetensors"):
        digest.update((home / name).read_bytes())
    return digest.hexdigest()


def data_of(folder: Path) -> dict[str, Any]:
    """What a GPT's provenance.json says of the videos it was trained on.

    Raises:
        ValueError: If it does not say.
    """
    path = find_folder(folder) / "provenance.json"
    data = json.loads(path.read_text()).get("data") if path.is_file() else None
    if data is None:
        raise ValueError(f"{path} does not say which videos the GPT was trained on; train it with tools/train_gpt.py")
    return data


def save_folder(
    folder: Path, model: nn.Module, config: GPTConfig, provenance: Mapping[str, Any], tokenizer: Path | None
) -> None:
    """Write a model folder under a temporary name, then rename it."""
    building = folder.with_name(f"{folder.name}.tmp-{os.getpid()}")
    retired = folder.with_name(f"{folder.name}.old-{os.getpid()}")
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True)
    try:
        save_file(
            {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()},
            building / "model.safetensors",
        )
        for name, content in (
            ("config.json", {"kind": KIND, "format_version": FORMAT_VERSION, **dataclasses.asdict(config)}),
            ("provenance.json", dict(provenance)),
        ):
            (building / name).write_text(json.dumps(content, indent=2) + "\n")
        if tokenizer is not None:
            shutil.copytree(tokenizer, building / "tokenizer")
        if folder.exists():
            os.replace(folder, retired)
        os.replace(building, folder)
        shutil.rmtree(retired, ignore_errors=True)
    except SafetensorError as error:
        raise OSError(f"cannot write {folder}: {error}; free space or make the folder writable") from error
    finally:
        shutil.rmtree(building, ignore_errors=True)


def load_folder(folder: Path) -> tuple[GPTConfig, dict[str, Tensor]]:
    """Configuration and weights of a model folder (or of the model inside a run folder)."""
    folder = find_folder(folder)
    try:
        content = json.loads((folder / "config.json").read_text())
        state = load_file(folder / "model.safetensors")
    except (ValueError, SafetensorError) as error:
        raise ValueError(f"{folder} is damaged ({error}); copy it again, or train it again") from None
    if content.pop("kind", None) != KIND:
        raise ValueError(f"{folder} is not a {KIND}; its config.json says otherwise, pass the GPT's folder")
    version = content.pop("format_version", 1)
    if version != FORMAT_VERSION:
        raise ValueError(
            f"{folder} has format version {version}, expected {FORMAT_VERSION}; train the GPT again with this version "
            "of tokenreel"
        )
    known = {field.name for field in dataclasses.fields(GPTConfig)}
    if set(content) - known:
        raise ValueError(
            f"{folder}/config.json names {sorted(set(content) - known)}, unknown to this version of tokenreel"
        )
    return GPTConfig(**content), state
