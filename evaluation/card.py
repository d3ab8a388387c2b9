"""The benchmark card: figures that say how they were measured, and which may be compared.

Two figures mean the same only if clips, lengths, sizes, networks and code are the same. So a card names them all, and
cards in which one differs are not put beside each other.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

FORMAT_VERSION = 1
Better = Literal["higher", "lower", "as real"]
COPY, REPEAT = "copy of the last frame", "last motion repeated"
REAL, TOKENIZER = "real clips", "tokenizer alone"
MUST_BEAT = (COPY, REPEAT)


@dataclass(frozen=True)
class Figure:
    """One figure.

    Attributes:
        group: What it tells of: fidelity, prediction, distribution, motion, ...
        name: Of the metric, unique in its group.
        unit: What it is measured in.
        better: Which way is better; ``as real``: where real clips are.
        value: Of what is judged.
        interval: Its 95 % interval over clips; not numbers where there is none.
        samples: Clips it is worked out from; of the order of frames only those that move count.
        floors: The same of yardsticks, by name: real clips, the tokenizer alone, forecasts that any model must beat.
        protocol: How it was measured, beyond what the card's protocol says.
        code: Hash of the code that measured it.
        by_frame: Its course over the new frames, of what is judged ("model") and of the yardsticks.
    """

    group: str
    name: str
    unit: str
    better: Better
    value: float
    interval: tuple[float, float]
    samples: int
    floors: Mapping[str, float]
    protocol: str
    code: str
    by_frame: Mapping[str, Sequence[float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Card:
    """What is judged, on which clips, and what came of it.

    Attributes:
        subject: What is judged: model, its settings, or a folder; free to differ between cards.
        protocol: What all figures have in common: clips, lengths, sizes. Must be equal to be compared.
        figures: In the order of the page.
        notes: What they say, in words.
    """

    subject: Mapping[str, Any]
    protocol: Mapping[str, Any]
    figures: Sequence[Figure]
    notes: Sequence[str] = ()

    @property
    def protocol_id(self) -> str:
        """Eight hex digits that name the protocol."""
        return hashlib.sha256(json.dumps(self.protocol, sort_keys=True).encode()).hexdigest()[:8]

    def to_json(self) -> str:
        """The card as JSON text; what is not a finite number becomes null."""
        content = {
            "format_version": FORMAT_VERSION,
            "subject": self.subject,
            "protocol_id": self.protocol_id,
            "protocol": self.protocol,
            "notes": list(self.notes),
            "figures": [asdict(figure) for figure in self.figures],
        }
        return json.dumps(_finite(content), indent=2, allow_nan=False) + "\n"

    @classmethod
    def read(cls, path: Path) -> "Card":
        """Open a card.

        Args:
            path: The JSON file, or the folder with ``card.json``.

        Raises:
            FileNotFoundError: If there is none.
            ValueError: If it is no card, or one of another version.
        """
        path = path / "card.json" if path.is_dir() else path
        if not path.is_file():
            raise FileNotFoundError(f"no file {path}, expected a card.json that tools/evaluate.py wrote")
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            version = content["format_version"]
            figures = (
                [Figure(**_unpacked(figure)) for figure in content["figures"]] if version == FORMAT_VERSION else []
            )
            card = cls(content["subject"], content["protocol"], figures, content["notes"])
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path} is no card ({error!r}), expected one that tools/evaluate.py wrote") from None
        if version != FORMAT_VERSION:
            raise ValueError(f"{path} has format version {version}, expected {FORMAT_VERSION}; evaluate again")
        return card


def compared(one: Card, other: Card) -> list[tuple[Figure, Figure]]:
    """Figures of two cards side by side.

    Returns:
        Those that both have.

    Raises:
        ValueError: If a protocol or a metric's code differs; it names what, and both values.
    """
    differing = [
        name for name in {**one.protocol, **other.protocol} if one.protocol.get(name) != other.protocol.get(name)
    ]
    if differing:
        told = "; ".join(f"{name} is {one.protocol.get(name)} and {other.protocol.get(name)}" for name in differing)
        raise ValueError(f"the cards are of unlike protocols: {told}; evaluate both in the same way to compare them")
    others = {(figure.group, figure.name): figure for figure in other.figures}
    pairs = [(figure, others[key]) for figure in one.figures if (key := (figure.group, figure.name)) in others]
    for first, second in pairs:
        for what in ("protocol", "code"):
            got, expected = getattr(first, what), getattr(second, what)
            if got != expected:
                raise ValueError(
                    f"{first.group} {first.name} is of unlike {what}: {got} and {expected}; evaluate both in the same "
                    "way to compare them"
                )
    if not pairs:
        raise ValueError("the cards have no figure in common, expected at least one; evaluate both in the same way")
    return pairs


def not_beaten(figure: Figure) -> list[str]:
    """Names of the simple forecasts that what is judged does no better than, by this figure.

    Nothing in how clips move: a still picture flickers too little, but repeated motion moves as it should.
    """
    if figure.group == "motion":
        return []
    sign = 1 if figure.better == "higher" else -1
    known = {name: figure.floors[name] for name in MUST_BEAT if math.isfinite(figure.floors.get(name, math.nan))}
    return [name for name, floor in known.items() if not sign * figure.value > sign * floor]


def told_value(value: float) -> str:
    """A figure as people write it."""
    return "-" if not math.isfinite(value) else f"{value:.4g}"


def told_interval(interval: tuple[float, float]) -> str:
    """An interval as people write it; nothing if there is none."""
    return f"{interval[0]:.4g} to {interval[1]:.4g}" if all(map(math.isfinite, interval)) else ""


def _finite(value: Any) -> Any:
    """Without numbers that JSON does not know."""
    if isinstance(value, Mapping):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value


def _unpacked(figure: Mapping[str, Any]) -> dict[str, Any]:
    def number(value: Any) -> Any:
        """A number as JSON has it: null is none."""
        return float("nan") if value is None else value

    return {
        **figure,
        "value": number(figure["value"]),
        "interval": tuple(map(number, figure["interval"])),
        "floors": {name: number(value) for name, value in figure["floors"].items()},
        "by_frame": {name: [number(value) for value in values] for name, values in figure["by_frame"].items()},
    }
