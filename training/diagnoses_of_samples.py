"""Signs that a GPT's training goes nowhere, read off what it samples and how its validation stands: when to stop early.

Each is a function of the history alone: a diagnosis, or None.
"""

from tokenreel.training.diagnoses_of_data import WORSE_BITS
from tokenreel.training.diagnosis import Diagnosis, History

IN_A_ROW = 2
"""Validations that must agree: one has few samples."""
LEAST_MOTION, MOST_MOTION = 0.25, 2.0
"""Movement of samples, of that of real clips. The healthy trainings of this package had 0.88 to 1.1 at their end."""
EARLY = 0.5
"""Share of the steps before which samples may look like anything."""
BETTER = 0.997
"""Factor by which bits must fall to count as better."""
PATIENCE = 5
"""Validations without a better one."""


def standing_still(history: History) -> Diagnosis | None:
    """Samples in which hardly anything moves, though real clips do."""
    motion = _late(history, "sampled/motion")
    if not motion or max(motion) >= LEAST_MOTION:
        return None
    return Diagnosis(
        "samples stand still",
        history.step,
        f"continuations move {motion[-1]:.0%} as much as real clips do (sampled/motion): the GPT repeats the frame "
        "before; look at samples/, make clips cover more time with a lower --fps of the tokenizer, or train a larger "
        "--preset",
    )


def flickering(history: History) -> Diagnosis | None:
    """Samples that change from frame to frame far more than real clips."""
    motion = _late(history, "sampled/motion")
    if not motion or min(motion) <= MOST_MOTION:
        return None
    return Diagnosis(
        "samples flicker",
        history.step,
        f"continuations change {motion[-1]:.1f} times as much from frame to frame as real clips do (sampled/motion): "
        f"they flicker or break up; train longer ({history.option('steps')}) or larger (--preset), or sample with less "
        "chance (--top-p 0.8, --temperature 0.9)",
    )


def no_longer_better(history: History) -> Diagnosis | None:
    """Validation that has stood still for long: before the rate falls, so that it may fall now, or through its fall."""
    judged, steps = history.finite("val/bits_per_token"), history.setting("steps")
    if len(judged) <= PATIENCE or steps is None:
        return None
    best_step, best = judged[0]
    for step, bits in judged[1:]:
        if bits < BETTER * best:
            best_step, best = step, bits
    since = [step for step, _ in judged if step > best_step]
    falls = _steps_of_full_rate(history)
    # Once it rises, overfitting is what is said of it.
    rose = judged[-1][1] > WORSE_BITS * best
    if len(since) < PATIENCE or history.step >= steps or best_step >= falls or rose:
        return None
    if history.step < falls:
        remedy = (
            f"go on with --resume and {history.option('steps')} lowered to {round(history.step * steps / falls)}, so "
            "that the learning rate falls now, or stop it"
        )
    else:
        remedy = "what is left of it will hardly help: stop it, or train a larger --preset on more videos"
    return Diagnosis(
        "no longer better",
        history.step,
        f"validation needs {judged[-1][1]:.3f} bits per token and has not been better by {1 - BETTER:.1%} since step "
        f"{best_step} ({best:.3f}), {len(since)} validations ago: {remedy}",
    )


def _late(history: History, name: str) -> list[float]:
    """The last values of a metric, once there are enough in the later part of a run; else none."""
    steps = history.setting("steps") or 0
    values = [value for step, value in history.finite(name) if step >= EARLY * steps]
    return values[-IN_A_ROW:] if len(values) >= IN_A_ROW else []


def _steps_of_full_rate(history: History) -> float:
    """Step at which the learning rate begins to fall."""
    steps, share = history.setting("steps"), history.setting("decay_share")
    return steps * (1 - (share or 0.0))
