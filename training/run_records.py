"""What a run folder tells afterwards: the lines of its log, its settings, where its model comes from."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Record = Mapping[str, Any]
"""One line of ``metrics.jsonl``: ``step`` and metrics, numbers or words, by name."""


@dataclass(frozen=True)
class RunRecords:
    """A run as its folder describes it."""

    folder: Path
    records: list[Record]
    """Lines of ``metrics.jsonl``, in order."""
    config: Mapping[str, Any]
    """Resolved settings; empty without ``config.json``."""
    provenance: Mapping[str, Any]
    """Of the run's newest model; empty before the first."""
    evaluation: Mapping[str, Any]
    """What tools/evaluate.py found of the run's model; empty if nothing of it was found."""

    @classmethod
    def open(cls, folder: Path, evaluation: Path | None = None) -> "RunRecords":
        """Read a run folder.

        Args:
            folder: With ``metrics.jsonl``.
            evaluation: An ``evaluation.json``; None looks for one in the run folder and in ``evaluation/`` in or
                beside it, and takes the first that names this run as its model.

        Raises:
            FileNotFoundError: If the folder holds no log, or the named evaluation is missing.
            ValueError: If a JSON file of the run is broken.
        """
        log = folder / "metrics.jsonl"
        if not log.is_file():
            raise FileNotFoundError(f"{folder} holds no metrics.jsonl, expected the folder of a run; name one")
        if evaluation is not None and not evaluation.is_file():
            raise FileNotFoundError(f"no file {evaluation}, expected what tools/evaluate.py wrote; run it, or leave it")
        judged = _evaluation_beside(folder) if evaluation is None else _json(evaluation)
        return cls(
            folder,
            read_records(log),
            _json(folder / "config.json"),
            _json(folder / "model" / "provenance.json"),
            judged,
        )


def read_records(path: Path) -> list[Record]:
    """Lines of a ``metrics.jsonl``; what a killed run left of a line is passed over."""
    records = []
    for line in path.read_text().splitlines():
        try:
            record = json.loads(line)
            record["step"] = int(record["step"])
        except (json.JSONDecodeError, KeyError, TypeError, ValueError):
            continue
        records.append(record)
    return records


def _evaluation_beside(folder: Path) -> Mapping[str, Any]:
    places = (folder, folder / "evaluation", folder.parent / "evaluation")
    for path in (place / "evaluation.json" for place in places):
        found = _json(path)
        model = Path(found.get("model", ""))  # a run folder, or model/ in one
        if found and folder.resolve().name == (model.parent if model.name == "model" else model).name:
            return found
    return {}


def _json(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        return {}
    try:
        return json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON ({error}), expected what the run wrote; restore or remove it") from None
