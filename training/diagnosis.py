"""What a diagnosis is, and a run's history in the form that diagnoses read it."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tokenreel.training.run_records import Record


@dataclass(frozen=True)
class Diagnosis:
    """Something that is wrong with a run."""

    name: str
    """What it is called; a run has each at most once."""
    step: int
    """Step up to which the log showed it."""
    sentence: str
    """In words: the numbers, what they mean, and the setting to change."""


class History:
    """The records of a run by metric, in the order in which they came.

    Args:
        records: Lines of the log so far.
        config: The run's resolved settings; sentences tell their present values.
        evaluation: What tools/evaluate.py found of the run's model.
    """

    def __init__(
        self,
        records: Iterable[Record] = (),
        config: Mapping[str, Any] | None = None,
        evaluation: Mapping[str, Any] | None = None,
    ) -> None:
        self.config, self.evaluation = config or {}, evaluation or {}
        self.step = 0
        self._numbers: dict[str, list[tuple[int, float]]] = {}
        self._words: dict[str, list[tuple[int, str]]] = {}
        for record in records:
            self.add(record)

    def add(self, record: Record) -> None:
        """Take in the next line of the log."""
        self.step = int(record["step"])
        for name, value in record.items():
            if isinstance(value, str):
                self._words.setdefault(name, []).append((self.step, value))
            elif name != "step" and isinstance(value, int | float):
                self._numbers.setdefault(name, []).append((self.step, float(value)))

    def series(self, *names: str) -> list[tuple[int, float]]:
        """(step, value) of the first of these metrics that was logged; empty if none was."""
        return next((self._numbers[name] for name in names if name in self._numbers), [])

    def finite(self, *names: str) -> list[tuple[int, float]]:
        """The same without values that are no finite numbers."""
        return [(step, value) for step, value in self.series(*names) if math.isfinite(value)]

    def names(self) -> Iterable[str]:
        """Metrics that are numbers."""
        return self._numbers

    def words(self, name: str) -> list[tuple[int, str]]:
        """(step, sentence) of what was logged in words."""
        return self._words.get(name, [])

    def recent(self, name: str, count: int) -> list[float]:
        """The last ``count`` finite values of a metric, fewer at the beginning of a run."""
        return [value for _, value in self.series(name)[-count:] if math.isfinite(value)]

    def setting(self, name: str) -> Any:
        """A setting by its dotted name, as on the command line; None if the run has none of it."""
        value: Any = self.config
        for part in name.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        return value

    def option(self, name: str) -> str:
        """An option as one would type it, with its present value: ``--lr (now 0.003)``."""
        value = self.setting(name)
        typed = "--" + name.replace("_", "-")
        if value is None:
            return typed
        shown = " ".join(map(str, value)) if isinstance(value, list | tuple) else value
        return f"{typed} (now {shown})"


def mean(values: Sequence[float]) -> float:
    """Their mean; there must be one."""
    return sum(values) / len(values)


def median(values: Sequence[float]) -> float:
    """The middle one, the upper of two; there must be one."""
    return sorted(values)[len(values) // 2]
