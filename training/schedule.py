"""Learning rate over a run."""


def warmup_stable_decay(step: int, steps: int, warmup: int, decay_share: float, floor: float = 0.02) -> float:
    """Factor on the peak learning rate at a step: up, flat, then linearly down.

    A run can be prolonged from its flat part, which a cosine has not.

    Args:
        step: Step about to be taken, 0 .. steps - 1.
        steps: Length of the run.
        warmup: Steps of linear rise.
        decay_share: Share of the run, at its end, over which the rate falls to ``floor``.
        floor: Factor at the last step.
    """
    rise = min(1.0, (step + 1) / max(1, warmup))
    decay_steps = max(1, round(decay_share * steps))
    fall = min(1.0, (steps - step) / decay_steps)
    return rise * (floor + (1 - floor) * fall)
