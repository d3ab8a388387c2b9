"""What a GPT trains on, looked at before training: its splits, its tokenizer, what its clips are told."""

from pathlib import Path

from tokenreel.datasets.token_shards import splits
from tokenreel.tokenizer import fingerprint
from tokenreel.tokenizer.pretrained import find_folder
from tokenreel.tools.parents import same_indices
from tokenreel.transformer import ConditionConfig
from tokenreel.transformer.conditions import KINDS


def validation_split(folder: Path) -> str:
    """``val``, or ``train`` where there are no validation clips.

    Raises:
        ValueError: If tokenizing was stopped before the validation clips were finished.
    """
    if "val" in splits(folder):
        return "val"
    if (folder / "val").is_dir():
        raise ValueError(f"the shards in {folder / 'val'} are unfinished; run tools/tokenize_dataset.py again")
    print("there are no validation clips: validation figures are of training clips")
    return "train"


def matching_tokenizer(shards: Path, expected: str, asked: Path | None) -> Path:
    """The folder of the tokenizer that made some shards, or of one that would have made the same.

    Args:
        shards: Folder of the shards, a copy of their tokenizer in it.
        expected: Fingerprint of the tokenizer that made them.
        asked: The tokenizer that somebody named; None takes the copy.

    Raises:
        ValueError: If it makes other indices.
    """
    own = shards / "tokenizer"
    folder = find_folder(asked or own)
    found = fingerprint(folder)
    if found != expected and own.is_dir() and fingerprint(own) == expected and same_indices(own, folder):
        print(f"{folder} has another decoder than the tokenizer of the shards; its indices are the same")
    elif found != expected:
        raise ValueError(
            f"the shards in {shards} were made by tokenizer {expected[:12]}, got {folder} with {found[:12]}; "
            "tokenize with this tokenizer, or pass the one that made them"
        )
    return folder


def told(known: ConditionConfig, wanted: tuple[str, ...]) -> str:
    """What the model is conditioned on, in words.

    Raises:
        ValueError: If some kinds were asked for by name and the shards lack one.
    """
    missing = [kind for kind in wanted if kind not in known.kinds]
    if missing and wanted != KINDS:
        raise ValueError(
            f"conditions {' '.join(wanted)}: the shards have no {' and no '.join(missing)}; leave that out, or "
            "tokenize videos that have them (actions_mismatch in clips.jsonl says where their number was wrong)"
        )
    said = {
        "labels": f"{len(known.labels)} labels",
        "captions": f"captions of up to {known.caption_words} {'tokens' if known.text_encoder else 'words'}",
        "actions": f"actions ({', '.join(known.action_names) or f'{known.action_size} numbers'})",
    }
    return "conditioned on " + (", ".join(said[kind] for kind in known.kinds) or "nothing")
