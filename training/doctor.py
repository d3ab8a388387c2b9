"""The run doctor: reads a run's log, as it grows or afterwards, and says in words what is wrong.

    history = History(read_records(run / "metrics.jsonl"), config)
    for diagnosis in diagnose(history):
        print(diagnosis.sentence)

A healthy run is told nothing. What each diagnosis takes for healthy was read off real runs of this package.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from tokenreel.training.diagnoses_of_accidents import skipped_steps, unsaved, went_back
from tokenreel.training.diagnoses_of_data import overfitting, repeated_clips, static_clips, value_range
from tokenreel.training.diagnoses_of_results import codebook_collapse, drift, weak_tokenizer, worse_than_copying
from tokenreel.training.diagnoses_of_samples import flickering, no_longer_better, standing_still
from tokenreel.training.diagnoses_of_steps import (
    exploding,
    not_finite,
    rate_of_nothing,
    rate_too_high,
    stopped,
    waiting_for_data,
)
from tokenreel.training.diagnosis import Diagnosis, History
from tokenreel.training.run_records import Record

DIAGNOSES: tuple[Callable[[History], Diagnosis | None], ...] = (
    not_finite,
    stopped,
    unsaved,
    went_back,
    skipped_steps,
    exploding,
    rate_of_nothing,
    rate_too_high,
    value_range,
    static_clips,
    repeated_clips,
    codebook_collapse,
    weak_tokenizer,
    overfitting,
    worse_than_copying,
    drift,
    standing_still,
    flickering,
    no_longer_better,
    waiting_for_data,
)
"""The gravest first."""


def diagnose(history: History) -> list[Diagnosis]:
    """All that is wrong with a run by now, the gravest first."""
    found = (examine(history) for examine in DIAGNOSES)
    return [diagnosis for diagnosis in found if diagnosis is not None]


class Doctor:
    """Follows a run and tells every diagnosis once.

    Args:
        records: What the log of an earlier attempt holds; what is wrong in it was told then.
        config: The run's resolved settings.
    """

    def __init__(self, records: Iterable[Record], config: Mapping[str, Any]) -> None:
        self._history = History(records, config)
        self._told = {diagnosis.name for diagnosis in diagnose(self._history)}
        self._seen = self._next_look = 0

    def see(self, record: Record) -> list[Diagnosis]:
        """Take in the next record, and say what is wrong that was not told before.

        What the record itself says in words is not said again. Validations and words are looked at when they come,
        other records whenever there are a hundredth more: a long log costs no more time than a short one.
        """
        self._history.add(record)
        self._seen += 1
        told = any(isinstance(value, str) or name.startswith("val/") for name, value in record.items())
        if self._seen < self._next_look and not told:
            return []
        self._next_look = self._seen + 1 + self._seen // 100
        new = [diagnosis for diagnosis in diagnose(self._history) if diagnosis.name not in self._told]
        self._told |= {diagnosis.name for diagnosis in new}
        return [diagnosis for diagnosis in new if diagnosis.sentence not in record.values()]
