"""Several tokenizer configurations under names, read from one JSON file."""

import json
import re
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from tokenreel.tokenizer.config import TokenizerConfig

_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,62}[A-Za-z0-9])?")


def read_configs(path: Path) -> dict[str, TokenizerConfig]:
    """Read ``{"fine": {"stride": [4, 4, 4]}, "learned": {"quantizer": "vq"}}``; what is not named has its default.

    Args:
        path: JSON file. A name becomes the name of a folder.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no such object, a name cannot name a folder or comes twice (also but for upper and
            lower case, which some disks don't tell apart), or a setting is unknown or of the wrong type or value.
    """
    if not path.is_file():
        raise FileNotFoundError(f'no file {path}; expected JSON such as {{"fine": {{"stride": [4, 4, 4]}}}}')
    try:
        content = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_without_repeats)
    except ValueError as error:
        raise ValueError(f"{path}: {error}; expected one JSON object, name to settings") from None
    if not isinstance(content, dict) or not content:
        raise ValueError(f"{path} holds {str(content)[:40]}, expected a JSON object with a tokenizer or more in it")
    seen: dict[str, str] = {}
    for name in content:
        if not _NAME.fullmatch(name):
            raise ValueError(
                f"{path}: {name!r} cannot name a folder; use up to 64 letters, digits and . _ - within, as in "
                "'4x4x4-fsq'"
            )
        if (other := seen.setdefault(name.lower(), name)) != name:
            raise ValueError(f"{path}: {other!r} and {name!r} would be one folder on some disks; rename one")
    return {name: _config(settings, f"{path}, {name!r}") for name, settings in content.items()}


def _config(settings: Any, place: str) -> TokenizerConfig:
    """A configuration from JSON values; errors begin with ``place``."""
    if not isinstance(settings, Mapping):
        raise ValueError(f'{place}: got {settings!r}, expected an object of settings such as {{"width": 192}}')
    default = TokenizerConfig()
    known = [field.name for field in fields(TokenizerConfig)]
    for name, value in settings.items():
        if name not in known:
            raise ValueError(f"{place}: setting {name!r} is unknown; expected one of {', '.join(known)}")
        _check_type(name, value, getattr(default, name), place)
    try:
        return TokenizerConfig(**settings)
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from None


def _check_type(name: str, value: Any, default: Any, place: str) -> None:
    """Whether a JSON value is of the same kind as the default; JSON has no tuples, and true is no number."""
    kinds: dict[type, tuple[tuple[type, ...], str]] = {
        tuple: ((list,), "a list of whole numbers"),
        int: ((int,), "a whole number"),
        float: ((int, float), "a number"),
    }
    types, words = kinds.get(type(default), ((type(default),), f"a {type(default).__name__}"))
    parts = value if isinstance(default, tuple) and isinstance(value, list) else []
    whole = all(type(part) is int for part in parts)
    if type(value) not in types or not whole:
        raise ValueError(f"{place}: {name} {json.dumps(value)}, expected {words} such as {json.dumps(default)}")


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """What json makes an object of; of a name that comes twice it would keep the last without a word."""
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the name {next(n for n in names if names.count(n) > 1)!r} comes twice")
    return made
