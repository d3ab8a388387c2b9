"""Weights to start from: those of a finished run or model, with a new optimizer and a new schedule."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from tokenreel.training.checkpoints import latest_checkpoint
from tokenreel.training.settings import TrainingSettings


def started_from(settings: TrainingSettings, start: Callable[[Path], dict[str, Any]]) -> dict[str, Any] | None:
    """What provenance says of the model that a run starts from, or started from; None if there is none.

    Args:
        settings: Of the run.
        start: Takes the weights from a folder, and returns what provenance says of it. Not called for a run that goes
            on: it has weights of its own, and the other model may be gone.
    """
    if settings.resume and latest_checkpoint(settings.run) is not None:
        return json.loads((settings.run / "config.json").read_text()).get("parent")
    return start(settings.init_from) if settings.init_from else None


def refuse_differences(folder: Path, theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> None:
    """Compare what two models are made of.

    Args:
        folder: Of the model to start from.
        theirs: Its settings, by the name of the option (``model.width``).
        ours: Those of the model that is to start from it, by the same names.

    Raises:
        ValueError: If one differs; it names all that do.
    """
    different = [name for name in theirs if theirs[name] != ours[name]]
    if different:
        told = ", ".join(f"{name} {_short(theirs[name])} (got {_short(ours[name])})" for name in different)
        raise ValueError(
            f"{folder} has {told}, expected the same in both; use the settings and data of the model to start from, or "
            "leave --init-from out"
        )


def take_weights(model: nn.Module, weights: Mapping[str, Tensor], folder: Path) -> None:
    """Give a model the weights of another.

    Args:
        model: What is to train.
        weights: By name, as in its ``state_dict``.
        folder: Where they come from, for what is said.

    Raises:
        ValueError: If a tensor is missing, left over or of another shape; it names the first.
    """
    own = model.state_dict()
    for name in sorted(set(own) | set(weights)):
        theirs, ours = (tuple(state[name].shape) if name in state else None for state in (weights, own))
        if theirs != ours:
            raise ValueError(
                f"the weights in {folder} do not fit at {name}: got shape {theirs}, expected {ours}; use the settings "
                "of the model to start from, or leave --init-from out"
            )
    model.load_state_dict(dict(weights))


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 80 else text[:80] + "…"
