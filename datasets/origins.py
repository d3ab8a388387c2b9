"""Where the videos of a store come from, and under what licences: what a model's provenance says of it."""

from collections.abc import Sequence
from typing import Any

from tokenreel.datasets.clip_record import ClipRecord


def origins(records: Sequence[ClipRecord]) -> list[dict[str, Any]]:
    """How many videos are of which source and licence.

    Returns:
        {"source", "licence", "videos"} for each pair that there is, the most common first; None where nothing is said.
    """
    files: dict[tuple[str | None, str | None], set[str]] = {}
    for record in records:
        files.setdefault((record.source, record.licence), set()).add(record.file)
    counted = sorted(files.items(), key=lambda item: (-len(item[1]), str(item[0])))
    return [{"source": source, "licence": licence, "videos": len(names)} for (source, licence), names in counted]
