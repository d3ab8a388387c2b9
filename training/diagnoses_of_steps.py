"""Diagnoses of how steps are taken: numbers that are none, losses that explode, rates of nothing, waiting for data.

Each is a function of the history alone: a diagnosis, or None.
"""

import math

from tokenreel.training.diagnosis import Diagnosis, History, mean, median

AGAIN = "go on from the last checkpoint with --resume, or start again"
WINDOW = 5
"""Lines of the log over which a loss is averaged: single batches differ."""
EXPLODED_ERROR, EXPLODED_BITS = 10.0, 1.5
"""Times the best so far. Batches of Atari clips differ by a factor of 5 in squared error."""
DIVERGED, UNTRAINED = 1.5, 0.1
"""Times the first lines, and squared error of values from 0 to 1 (10 dB), above which nothing is learnt."""
SURELY_ZERO, PERHAPS_ZERO, LEAST_FALL = 1e-6, 1e-4, 0.1
"""Below the first rate nothing trains; below the second a loss that has not fallen by this share says so."""
HIGH_RATE = 0.02
"""Above it, a learning rate is suspected first. The default is 0.003."""
SOON, LITTLE = 200, 0.03
"""Steps after which a high rate is judged, and squared error (15 dB) above which hardly anything was learnt by then."""
WAITS = 0.3
"""Of the time between two lines. Healthy runs stay below 0.03, below 0.15 in their first lines."""


def not_finite(history: History) -> Diagnosis | None:
    """A loss, a gradient or weights that are no longer finite."""
    failures = [(step, "the training stopped") for step, told in history.words("error") if "finite" in told]
    passed_over = {step for step, _ in history.series("optim/skipped_steps")}
    for name in history.names():
        bad = [(step, value) for step, value in history.series(name) if not math.isfinite(value)]
        bad = [(step, value) for step, value in bad if step not in passed_over or name.startswith("val/")]
        if name.startswith(("train/", "val/", "optim/")) and bad:
            failures.append((bad[0][0], f"{name} is {bad[0][1]}"))
    if not failures:
        return None
    step, what = min(failures)
    return Diagnosis(
        "no finite numbers",
        step,
        f"numbers are no longer finite at step {step} ({what}): {_cause(history, step)}; {AGAIN}",
    )


def stopped(history: History) -> Diagnosis | None:
    """An error that ended the run and is none of those that other diagnoses explain."""
    for step, told in history.words("error"):
        if "out of memory" in told.lower():
            remedy = (
                f"raise {history.option('accumulate')}, or lower {history.option('batch_size')} or the model's size"
            )
            return Diagnosis("stopped", step, f"memory ran out at step {step}: {remedy} ({told[:120]})")
        if not any(explained in told for explained in ("finite", "video values")):
            return Diagnosis("stopped", step, f"the training stopped at step {step}: {told}")
    return None


def exploding(history: History) -> Diagnosis | None:
    """A training loss that fell and then grew far above its best, or that grew above the untrained model's."""
    errors = _errors(history)
    blocks = [errors[begin : begin + WINDOW] for begin in range(0, len(errors) - WINDOW + 1, WINDOW)]
    if len(blocks) < 2:
        return None
    means = [mean([error for _, error in block]) for block in blocks]
    worst = max(range(1, len(means)), key=lambda number: means[number] / min(means[:number]))
    best, first, high = min(means[:worst]), means[0], means[worst]
    if history.series("train/bits_per_token"):
        grown, diverged = high > max(EXPLODED_BITS * best, best + 0.5), high > first + 0.5
    else:
        grown, diverged = high > EXPLODED_ERROR * best, high > max(DIVERGED * first, UNTRAINED)
    if not grown and not diverged:
        return None
    name, shown = _shown(history, high)
    step = blocks[worst][0][0]
    found = f"{name} grew to {shown} from step {step} on, {high / best:.1f} times its best until then"
    later = "" if means[-1] > high / 2 else ", and has fallen since"
    return Diagnosis("exploding loss", step, f"{found}{later}: {_cause(history, step + 1)}; {AGAIN}")


def rate_of_nothing(history: History) -> Diagnosis | None:
    """A learning rate so small that nothing is learnt, by itself or by a warm-up beyond the run's end."""
    rates = history.finite("optim/lr")
    steps = history.setting("steps") or math.inf
    if not rates or history.step < min(50, steps):
        return None
    peak = max(rate for _, rate in rates)
    asked, warmup = history.setting("lr") or peak, history.setting("warmup") or 0
    if warmup > history.step:  # it is still rising: up to what it reaches by the end
        peak = max(peak, asked * min(1.0, steps / warmup))
    errors = [error for _, error in _errors(history)]
    begin, end = (mean(part) for part in (errors[:WINDOW], errors[-WINDOW:])) if errors else (1.0, 1.0)
    if peak >= SURELY_ZERO and (peak >= PERHAPS_ZERO or len(errors) < 2 * WINDOW or end < (1 - LEAST_FALL) * begin):
        return None
    if warmup >= steps and asked > 2 * peak:
        why = f"the warm-up is longer than the run; lower {history.option('warmup')} to a twentieth of --steps"
    else:
        why = f"raise {history.option('lr')}; 0.003 is usual"
    return Diagnosis(
        "learning rate effectively zero",
        history.step,
        f"the learning rate is effectively zero, {peak:.1e} at its highest, and the loss went from {begin:.3g} to "
        f"{end:.3g} in {history.step} steps: {why}",
    )


def rate_too_high(history: History) -> Diagnosis | None:
    """A learning rate far above the usual, from the beginning, with which hardly anything is learnt: no explosion."""
    errors, peak = _errors(history), max((rate for _, rate in history.finite("optim/lr")), default=0.0)
    if peak <= HIGH_RATE or len(errors) < WINDOW or history.step < min(SOON, history.setting("steps") or math.inf):
        return None
    end = mean([error for _, error in errors[-WINDOW:]])
    learnt = end < (LITTLE if history.series("train/psnr") else (1 - LEAST_FALL) * errors[0][1])
    if learnt or exploding(history) is not None:
        return None
    name, shown = _shown(history, end)
    return Diagnosis(
        "learning rate too high",
        history.step,
        f"{name} is {shown} after {history.step} steps, so hardly anything was learnt: {_high_rate(history, peak)}; "
        "start again",
    )


def waiting_for_data(history: History) -> Diagnosis | None:
    """A processor that waits for batches instead of computing."""
    shares = history.recent("speed/data_wait_share", 2 * WINDOW)
    if len(shares) < WINDOW or median(shares) < WAITS:
        return None
    store = "the token shards (--shards)" if history.setting("shards") else "the decoded videos (--cache)"
    return Diagnosis(
        "idle on data",
        history.step,
        f"{median(shares):.0%} of the time goes by waiting for batches (speed/data_wait_share), expected a few per "
        f"cent: raise {history.option('workers')}, put {store} on a local disk, give the machine memory to keep them "
        "in, or end other programs that read or compute; a larger model costs nothing until the share is small",
    )


def _errors(history: History) -> list[tuple[int, float]]:
    """What training lowers, where a factor means something: squared error, bits per token, or the loss."""
    if decibels := history.finite("train/psnr"):
        return [(step, 10 ** (-value / 10)) for step, value in decibels]
    return history.finite("train/bits_per_token", "train/loss")


def _shown(history: History, error: float) -> tuple[str, str]:
    """What :func:`_errors` are, and one of them with its unit."""
    if history.series("train/psnr"):
        return "the training error", f"{error:.2g} of full scale squared ({-10 * math.log10(error):.1f} dB)"
    if history.series("train/bits_per_token"):
        return "the training loss", f"{error:.3g} bits per token"
    return "the training loss", f"{error:.3g}"


def _cause(history: History, step: int) -> str:
    """The likely reason for what happened at a step, and the setting to change."""
    remedy = f"lower {history.option('lr')} or raise {history.option('warmup')}"
    norms = [norm for at, norm in history.finite("optim/grad_norm") if at < step]
    rates = [rate for at, rate in history.finite("optim/lr") if at <= step] or [history.setting("lr") or 0.0]
    if norms and norms[-1] > 10 * median(norms):
        return f"the norm of the gradient had risen from {median(norms):.3g} to {norms[-1]:.3g}; {remedy}"
    if max(rates) > HIGH_RATE:
        return _high_rate(history, max(rates))
    calm = f"the norm of the gradient was {norms[-1]:.3g} before, as usual" if norms else "it is among the first steps"
    return (
        f"{calm}, at a learning rate of {rates[-1]:.3g}, so a bad clip or the precision may be the reason; look at the "
        f"clips of that step, try --precision fp32, or {remedy}"
    )


def _high_rate(history: History, peak: float) -> str:
    """That the learning rate is to blame, and the setting to change."""
    remedy = f"lower {history.option('lr')} or raise {history.option('warmup')}"
    return f"the learning rate, up to {peak:.3g}, is far above the usual 0.003; {remedy}"
