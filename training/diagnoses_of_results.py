"""Diagnoses of what comes out: collapsed codebooks, weak tokenizers, continuations no better than a still picture.

Each is a function of the history alone: a diagnosis, or None. The last two take what tools/evaluate.py found, else what
the training's own samples showed at its end.
"""

import math
from typing import NamedTuple

from tokenreel.training.diagnoses_of_steps import rate_of_nothing, rate_too_high
from tokenreel.training.diagnosis import Diagnosis, History, mean

LEAST_MOTION = 0.25
"""Share of the movement. Tokenizers of which a GPT made something kept 0.58 to 0.89; some of 37 dB kept none."""
LEAST_PSNR = 20.0
WORSE_THAN_COPY = 1.5
"""dB by which sharp continuations may be behind a copy: a moved thing in a wrong place counts twice."""
LEAST_HORIZON = 0.5
"""Of the new frames that were judged."""


def codebook_collapse(history: History) -> Diagnosis | None:
    """What the tokenizer's own alarm said at the last validation."""
    alarms, judged = history.words("alarm"), history.series("val/psnr")
    if not alarms or (judged and alarms[-1][0] < judged[-1][0]):
        return None
    step, told = alarms[-1]
    return Diagnosis("codebook collapse", step, told)


def weak_tokenizer(history: History) -> Diagnosis | None:
    """A tokenizer whose reconstructions lack what a GPT should continue: judged when its training is over."""
    judged, steps = history.series("val/psnr"), history.setting("steps")
    trains_it = bool(judged)
    if trains_it and steps is not None and judged[-1][0] < steps:
        return None
    stage = "val" if trains_it else "tokenizer"
    decibels, motion = (history.recent(f"{stage}/{name}", 1) for name in ("psnr", "motion_kept"))
    blurred = bool(decibels) and decibels[0] < LEAST_PSNR
    # More steps of that, as proposed below, are in vain; a GPT's rate says nothing of its tokenizer.
    if trains_it and (rate_too_high(history) or rate_of_nothing(history)):
        return None
    if not blurred and not (motion and motion[0] < LEAST_MOTION):
        return None
    shown = [f"reach {decibels[0]:.1f} dB on validation clips"] if decibels else []
    shown += [f"keep {max(0.0, motion[0]):.0%} of what moves in them"] if motion else []
    missing = "they show little of the clips" if blurred else "small and fast things are missing"
    remedy = (
        f"raise {history.option('steps')}, take a finer {history.option('model.stride')} or a larger --preset, and "
        "look at samples/"
        if trains_it
        else "train another one (tools/train_tokenizer.py): more --steps, a finer --model.stride or a larger --preset"
    )
    return Diagnosis(
        "weak tokenizer",
        history.step,
        f"the tokenizer's reconstructions {' and '.join(shown)}: {missing}, and no GPT can show what its tokens do not "
        f"hold; {remedy}",
    )


def worse_than_copying(history: History) -> Diagnosis | None:
    """Continuations that are on the whole no closer to the truth than the last prompt frame standing still."""
    measure = _measured(history)
    if measure is None or mean(measure.behind) < measure.allowance:
        return None
    model, copy = mean(measure.model), mean(measure.copy)
    return Diagnosis(
        "worse than copying",
        history.step,
        f"continuations are {model:.2f} {measure.unit} the truth over {len(measure.model)} {measure.moments}, a copy "
        f"of the last prompt frame is {copy:.2f}: the GPT has not learnt how things move; train it longer "
        f"({history.option('steps')}) or larger (--preset), or sample with less chance "
        "(--top-p 0.8, --temperature 0.9)",
    )


def drift(history: History) -> Diagnosis | None:
    """Continuations that begin well and end no better than the last prompt frame standing still."""
    measure = _measured(history)
    if measure is None or worse_than_copying(history) is not None:
        return None
    held = len(measure.model)
    while held and measure.behind[held - 1] >= measure.allowance:
        held -= 1
    if held >= LEAST_HORIZON * len(measure.model):
        return None
    return Diagnosis(
        "drift",
        history.step,
        f"the drift horizon is {held} of {len(measure.model)} {measure.moments}: after that continuations are "
        f"{measure.model[held]:.2f} {measure.unit} the truth and no better than a copy of the last prompt frame "
        f"({measure.copy[held]:.2f}); try --context-noise 0.2, train longer ({history.option('steps')}), or sample "
        "with less chance (--top-p 0.8)",
    )


class _Measure(NamedTuple):
    """How far continuations are from the truth, per new frame."""

    model: list[float]
    copy: list[float]
    """Of the last prompt frame standing still."""
    behind: list[float]
    """How much worse the model is than the copy; below 0 it is better."""
    unit: str
    allowance: float
    """So much worse is not yet no better."""
    moments: str = "new frames"
    """What each value is of."""


def _measured(history: History) -> _Measure | None:
    """By positions of things where an evaluation knows them, else by pixels; None without either.

    Without an evaluation by the samples of a training that is over: before, continuations need not be good yet.
    """
    for name, unit, sign, allowance in (
        ("position_error_px", "px off", 1, 0.0),
        ("psnr_db", "dB close to", -1, WORSE_THAN_COPY),
    ):
        found = history.evaluation.get(name) or {}
        pairs = zip(found.get("model", ()), found.get("copy_last_frame", ()), strict=False)
        known = [(model, copy) for model, copy in pairs if math.isfinite(model) and math.isfinite(copy)]
        if known:
            model, copy = (list(values) for values in zip(*known, strict=True))
            return _Measure(model, copy, [sign * (a - b) for a, b in known], unit, allowance)
    return _sampled(history)


def _sampled(history: History) -> _Measure | None:
    """Parts of the new frames, as the log has them of the last validation."""
    steps = history.setting("steps")
    if steps is None or history.step < steps:
        return None
    pairs: list[tuple[float, float]] = []
    while last := [history.recent(f"sampled/parts/{name}_{len(pairs) + 1}", 1) for name in ("psnr", "psnr_of_copy")]:
        if not all(last):
            break
        pairs.append((last[0][0], last[1][0]))
    if not pairs:
        return None
    model, copy = (list(values) for values in zip(*pairs, strict=True))
    behind = [still - ours for ours, still in pairs]
    return _Measure(model, copy, behind, "dB close to", WORSE_THAN_COPY, "equal parts of the new frames")
