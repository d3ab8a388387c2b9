"""Inception Score: are single clips clear to a classifier, and are they of many classes?

Source: Salimans et al., 2016, "Improved Techniques for Training GANs". It knows nothing of the real clips, and a model
that makes one perfect clip per class has the best score there is: never read it alone.
"""

import numpy as np


def class_divergences(logits: np.ndarray) -> np.ndarray:
    """KL divergence of each clip's classes from those of all clips; the score is exp of the mean.

    Args:
        logits: float (N, classes).

    Returns:
        float64 (N,), nats.

    Raises:
        ValueError: If the shape is another.
    """
    scores = np.asarray(logits, np.float64)
    if scores.ndim != 2 or scores.shape[1] < 2 or not len(scores):
        raise ValueError(f"logits have shape {scores.shape}, expected (N, classes); the classifier must name 2 or more")
    shifted = scores - scores.max(axis=1, keepdims=True)
    told = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    share = np.exp(told)
    together = np.log(np.maximum(share.mean(axis=0), np.finfo(np.float64).tiny))
    return (share * (told - together)).sum(axis=1)


def inception_score(logits: np.ndarray) -> float:
    """1 (every clip looks alike to the classifier) to the number of classes."""
    return float(np.exp(class_divergences(logits).mean()))
