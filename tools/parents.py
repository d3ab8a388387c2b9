"""Models that a training starts from (``--init-from``), and what their children say of them."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from tokenreel.tokenizer import TokenizerConfig, VideoTokenizer
from tokenreel.tokenizer import pretrained as tokenizer_folder
from tokenreel.training.initial_weights import refuse_differences, take_weights
from tokenreel.transformer import GPTConfig, VideoGPT
from tokenreel.transformer import pretrained as gpt_folder

FOR_TRAINING = {"entropy_weight", "commitment_weight", "vq_decay"}
"""Settings of a tokenizer that are of its training alone."""
TOLD = ("labels", "caption_words", "text_encoder", "text_dim", "action_names", "action_size", "frames_per_latent")
"""What a GPT can be told, without which its weights would mean something else."""


def start_tokenizer(model: VideoTokenizer, folder: Path) -> dict[str, Any]:
    """Give a tokenizer the weights of another one; returns what provenance says of that.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If they are made of other things; it names them.
    """
    home = tokenizer_folder.find_folder(folder)
    config, weights = tokenizer_folder.load_folder(home)
    theirs, ours = _of_tokenizer(config), _of_tokenizer(model.config)
    refuse_differences(home, theirs, ours)
    take_weights(model, weights, home)
    return {"folder": str(folder), "fingerprint": tokenizer_folder.fingerprint(home)}


def start_gpt(model: VideoGPT, tokenizer: Path, folder: Path) -> dict[str, Any]:
    """Give a GPT the weights of another one; returns what provenance says of that.

    The window may have another length.

    Args:
        model: What is to train.
        tokenizer: Folder of the tokenizer whose indices the model is to be trained on.
        folder: Run or model folder of the other one.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If it was trained on the indices of another tokenizer, or is made of other things; it names them.
    """
    home = gpt_folder.find_folder(folder)
    config, weights = gpt_folder.load_folder(home)
    if not same_indices(home / "tokenizer", tokenizer):
        raise ValueError(
            f"{home} was trained on indices of tokenizer {config.tokenizer[:12]}, got shards of "
            f"{tokenizer_folder.fingerprint(tokenizer)[:12]}; tokenize with {home / 'tokenizer'}, or leave --init-from "
            "out"
        )
    refuse_differences(home, _of_gpt(config), _of_gpt(model.config))
    take_weights(model, weights, home)
    return {"folder": str(folder), "fingerprint": gpt_folder.fingerprint(home)}


def same_indices(one: Path, other: Path) -> bool:
    """Whether two tokenizers give every video the same indices: they differ in nothing, or in their decoders alone."""
    marks = (tokenizer_folder.fingerprint, tokenizer_folder.encoding_fingerprint)
    return any(mark(one) == mark(other) for mark in marks)


def _of_tokenizer(config: TokenizerConfig) -> dict[str, Any]:
    return {f"model.{name}": value for name, value in asdict(config).items() if name not in FOR_TRAINING}


def _of_gpt(config: GPTConfig) -> dict[str, Any]:
    told = {name: getattr(config.conditions, name) for name in TOLD}
    size = {"model.dim": config.size.dim, "model.depth": config.size.depth, "factors": config.factors}
    return {"codebook_size": config.codebook_size, "frame": config.grid[1:], "levels": config.levels, **size, **told}
