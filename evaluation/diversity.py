"""How different several samples of one prompt are, and how much better a model knows the clips it was trained on."""

from dataclasses import dataclass

import numpy as np

from tokenreel.evaluation.nearest_clips import small_pictures
from tokenreel.evaluation.tally import DRAWS, Interval, Tally, bootstrap_interval, drawn_clips, percentiles


def spread(samples: np.ndarray) -> np.ndarray:
    """How far apart samples of one prompt are: mean distance of their small pictures, in grey levels.

    Args:
        samples: uint8 (P, S, T, H, W, 3): S at least 2 samples of each of P prompts, without the prompts.

    Returns:
        float64 (P,).

    Raises:
        ValueError: If there is only one sample of a prompt.
    """
    P, S = samples.shape[:2]
    if samples.ndim != 6 or S < 2:
        raise ValueError(f"samples are {samples.shape}, expected (prompts, at least 2 samples, T, H, W, 3)")
    pictures = small_pictures(samples.reshape(P * S, *samples.shape[2:])).reshape(P, S, -1)
    return np.array([_mean_distance(own, own) * S / (S - 1) for own in pictures])


def spread_between(samples: np.ndarray) -> np.ndarray:
    """The same distance between samples of unlike prompts: float64 (P,), of each prompt's samples to all others'.

    Args:
        samples: uint8 (P, S, T, H, W, 3), P at least 2.
    """
    P, S = samples.shape[:2]
    if P < 2:
        raise ValueError(f"samples of {P} prompt, expected at least 2 to compare")
    pictures = small_pictures(samples.reshape(P * S, *samples.shape[2:])).reshape(P, S, -1)
    others = [np.concatenate([pictures[j] for j in range(P) if j != i]) for i in range(P)]
    return np.array([_mean_distance(own, other) for own, other in zip(pictures, others, strict=True)])


def diversity_figures(samples: np.ndarray, real: np.ndarray | None = None) -> dict[str, Tally]:
    """Diversity under one prompt.

    Args:
        samples: uint8 (P, S, T, H, W, 3): S samples of each prompt.
        real: uint8 (P, R, T, H, W, 3): several true continuations of the same prompts, where a world's chance events
            give them; None where there is but one.

    Returns:
        ``diversity under one prompt`` (of that between prompts: 0 says that a prompt has one answer, 1 that it tells
        nothing) and, with ``real``, ``diversity of the real`` (the samples' spread by that of true continuations: 1
        is right).
    """
    own, between = spread(samples), spread_between(samples)
    figures = {"diversity under one prompt": Tally(own, between, "of that between prompts")}
    if real is not None:
        figures["diversity of the real"] = Tally(own, spread(real), "of the real")
    return figures


@dataclass(frozen=True)
class BitsGap:
    """How much better a model knows the clips it was trained on than others like them."""

    training: np.ndarray
    """Bits per token of each training clip, (N,)."""
    held_out: np.ndarray
    """Of each held-out clip, (M,)."""

    @property
    def ratio(self) -> float:
        """Bits of held-out clips by those of training clips: 1 if neither is known better."""
        return float(self.held_out.mean() / self.training.mean())

    @property
    def ratio_interval(self) -> Interval:
        """Its middle 95 % over clips drawn anew, each kind on its own."""
        seen = self.training[drawn_clips(len(self.training), DRAWS, 0)].mean(axis=1)
        unseen = self.held_out[drawn_clips(len(self.held_out), DRAWS, 1)].mean(axis=1)
        return percentiles(unseen / seen)

    def plain(self) -> dict[str, object]:
        """As JSON takes it."""
        ones = [np.ones(len(part)) for part in (self.training, self.held_out)]
        return {
            "training_bits": float(self.training.mean()),
            "training_interval": list(bootstrap_interval(self.training, ones[0])),
            "held_out_bits": float(self.held_out.mean()),
            "held_out_interval": list(bootstrap_interval(self.held_out, ones[1])),
            "ratio": self.ratio,
            "interval": list(self.ratio_interval),
        }


def _mean_distance(one: np.ndarray, other: np.ndarray) -> float:
    """Root mean square difference of each pair, averaged over pairs; (n, D) and (m, D)."""
    one, other = one.astype(np.float64), other.astype(np.float64)
    squares = np.square(one).sum(axis=1)[:, None] + np.square(other).sum(axis=1)[None] - 2 * one @ other.T
    return float(np.sqrt(np.maximum(squares, 0) / one.shape[1]).mean())
