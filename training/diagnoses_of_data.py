"""Diagnoses of what a run trains on: wrong values, clips without movement, clips again and again, clips by heart.

Each is a function of the history alone: a diagnosis, or None.
"""

from tokenreel.training.diagnosis import Diagnosis, History, mean

LINES = 3
"""Lines of the log before anything is said: one batch may be odd."""
LEAST_SPAN = 0.25
"""Of the 2 from -1 to 1: the largest contrast in all frames seen."""
STATIC, REPEATED = 0.5, 0.2
"""Shares of the clips seen."""
WORSE_BITS, WORSE_DECIBELS = 1.03, 0.5
"""Validation has turned when it is worse than its best by this factor, or by so many dB, while training went on."""
GAP_BITS, GAP_DECIBELS = 3.0, 6.0
"""Validation so far behind training is another thing than what was trained. Healthy runs reach 2.6 and 3.3."""
RECENT = 10


def value_range(history: History) -> Diagnosis | None:
    """Video that does not fill [-1, 1]: values of another scale, or frames that were written in one."""
    for step, told in history.words("error"):
        if "video values" in told:  # the model refused them
            return Diagnosis("value range", step, told)
    lows, highs = ([value for _, value in history.finite(name)] for name in ("data/min", "data/max"))
    if len(lows) < LINES or len(highs) < LINES:
        return None
    low, high = min(lows), max(highs)
    if low < -1.05 or high > 1.05:
        told = "expected [-1, 1]: scale uint8 frames by x / 127.5 - 1 (tokenizer.frames.to_video)"
    elif low > -0.01:
        told = (
            "expected darker ones too, down to -1: they look like values of [0, 1] taken for values of [-1, 1]; scale "
            "frames from the full range of 0 to 255"
        )
    elif high - low < LEAST_SPAN:
        told = (
            "expected most of [-1, 1]: frames of floats in [0, 1] may have been written as whole numbers of 0 to 255 "
            "without scaling; multiply them by 255 and make the videos of --data anew"
        )
    else:
        return None
    return Diagnosis("value range", history.step, f"all pixel values lie in [{low:.2f}, {high:.2f}], {told}")


def static_clips(history: History) -> Diagnosis | None:
    """Clips in which nothing moves."""
    shares = history.recent("data/static_share", RECENT)
    if len(shares) < LINES or mean(shares) < STATIC:
        return None
    return Diagnosis(
        "static data",
        history.step,
        f"nothing moves in {mean(shares):.0%} of the training clips (data/static_share), so there is little to learn "
        "about time: leave still videos out of --data (the default --curation.static does; clips.jsonl flags them "
        "static), or make clips cover more time with a lower --fps or a larger "
        f"{history.option('clip_frames')} of the tokenizer{_or_tokens(history)}",
    )


def repeated_clips(history: History) -> Diagnosis | None:
    """The same clip several times in one batch, or videos that are copies of others."""
    shares, copies = history.recent("data/repeated_share", RECENT), history.recent("data/duplicate_videos_share", 1)
    if len(shares) >= LINES and mean(shares) >= REPEATED:
        found = f"{mean(shares):.0%} of the clips stand a second time in their own batch (data/repeated_share)"
    elif copies and copies[0] >= REPEATED:
        found = f"{copies[0]:.0%} of the training videos are copies of others (data/duplicate_videos_share)"
    else:
        return None
    return Diagnosis(
        "repeated data",
        history.step,
        f"{found}, so training sees less than it seems: remove copies from --data (clips.jsonl flags them "
        f"duplicate_of), add videos, or lower {history.option('batch_size')}{_or_tokens(history)}",
    )


def overfitting(history: History) -> Diagnosis | None:
    """Validation that gets worse while training gets better, or is far behind it."""
    if judged := history.finite("val/bits_per_token"):
        return _overfitting_gpt(history, judged)
    if judged := history.finite("val/psnr"):
        return _overfitting_tokenizer(history, judged)
    return None


def _overfitting_gpt(history: History, judged: list[tuple[int, float]]) -> Diagnosis | None:
    (best_step, best), (last_step, last) = min(judged, key=lambda pair: pair[1]), judged[-1]
    before, now = (_trained(history, "train/bits_per_token", step) for step in (best_step, last_step))
    if before is None or now is None:
        return None
    if last > WORSE_BITS * best and now < before:
        found = (
            f"validation rose from {best:.3f} bits per token (step {best_step}) to {last:.3f} (step {last_step}), "
            f"while training fell from {before:.3f} to {now:.3f}"
        )
        stop = f"set {history.option('steps')} to about {best_step}"
    elif last > GAP_BITS * now + 0.5:
        found = f"validation needs {last:.3f} bits per token, training {now:.3f}"
        stop = f"take fewer {history.option('steps')}"
    else:
        return None
    return Diagnosis(
        "overfitting",
        last_step,
        f"the GPT learns its clips by heart: {found}{_exposures(history)}; add videos, {stop}, or raise "
        f"{history.option('model.dropout')} to 0.1",
    )


def _overfitting_tokenizer(history: History, judged: list[tuple[int, float]]) -> Diagnosis | None:
    (best_step, best), (last_step, last) = max(judged, key=lambda pair: pair[1]), judged[-1]
    before, now = (_trained(history, "train/psnr", step) for step in (best_step, last_step))
    if before is None or now is None:
        return None
    if last < best - WORSE_DECIBELS and now > before:
        found = f"fell from {best:.2f} dB (step {best_step}) to {last:.2f}, while training rose to {now:.2f}"
    elif now - last > GAP_DECIBELS:
        found = f"is at {last:.2f} dB, training at {now:.2f}"
    else:
        return None
    return Diagnosis(
        "overfitting",
        last_step,
        f"the tokenizer learns its clips by heart: validation {found}{_exposures(history)}; add videos, or take fewer "
        f"{history.option('steps')} or a smaller {history.option('model.width')}",
    )


def _trained(history: History, name: str, step: int) -> float | None:
    """The mean of a training metric over the last lines up to a step."""
    values = [value for at, value in history.finite(name) if at <= step][-RECENT:]
    return mean(values) if values else None


def _or_tokens(history: History) -> str:
    """Clips may look alike to a GPT because of what its tokenizer leaves out."""
    if not history.series("train/bits_per_token"):
        return ""
    return "; or their tokenizer does not hold what moves: see what tools/doctor.py says of its run"


def _exposures(history: History) -> str:
    seen = history.recent("data/exposures_per_video", 1)
    return f", with {seen[0]:.1f} clips drawn from each video" if seen else ""
