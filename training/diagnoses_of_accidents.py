"""Diagnoses of what a run got over, or could not save.

Each is a function of the history alone: a diagnosis, or None.
"""

from tokenreel.training.diagnosis import Diagnosis, History


def unsaved(history: History) -> Diagnosis | None:
    """A checkpoint, a model or pictures that could not be written."""
    return _last_words(history, "unsaved", "not saved")


def went_back(history: History) -> Diagnosis | None:
    """Weights that went back to an earlier checkpoint."""
    return _last_words(history, "went_back", "went back")


def skipped_steps(history: History) -> Diagnosis | None:
    """Steps that were not taken, since their loss or gradient was not finite."""
    counts = history.series("optim/skipped_steps")
    if not counts:
        return None
    step, count = counts[-1]
    return Diagnosis(
        "skipped steps",
        step,
        f"{count:.0f} of {step} steps had no finite loss or gradient and were not taken: lower {history.option('lr')}, "
        "or try --precision fp32",
    )


def _last_words(history: History, metric: str, name: str) -> Diagnosis | None:
    told = history.words(metric)
    return Diagnosis(name, *told[-1]) if told else None
