"""Do clips look as if their frames were shuffled? A small judge learns the difference on real clips alone.

It is told real clips from the same clips with their frames in random order, by how alike frames one, two, four apart
are, at three sizes of the picture: numbers that say nothing of what is to be seen. Then it is asked of other clips.
"""

import numpy as np

from tokenreel.evaluation.flow import luma

LAGS = (1, 2, 3, 4)
LEAST_FRAMES = max(LAGS) + 2
# Mean square change in grey levels below which a clip stands still and has no order to judge.
_STILL = 0.02
_SHUFFLES, _RIDGE, _STEPS = 4, 1e-2, 30


class OrderJudge:
    """Logistic regression on ten numbers per clip.

    Args:
        real: uint8 (N, T, H, W, 3), real clips to learn from; T at least 6.
        seed: Of the shuffling.

    Raises:
        ValueError: If the clips are too short, or fewer than 4 of them move.
    """

    def __init__(self, real: np.ndarray, seed: int = 0) -> None:
        if real.ndim != 5 or real.shape[1] < LEAST_FRAMES:
            raise ValueError(f"real clips have shape {real.shape}, expected at least {LEAST_FRAMES} frames each")
        random = np.random.default_rng(seed)
        ordered = order_signs(real)
        if np.isfinite(ordered).all(axis=1).sum() < 4:
            raise ValueError(f"hardly any of {len(real)} real clips moves, so that none shows an order; give others")
        mixed = np.concatenate([order_signs(shuffled(real, random)) for _ in range(_SHUFFLES)])
        signs = np.concatenate([np.repeat(ordered, _SHUFFLES, axis=0), mixed])
        known = np.isfinite(signs).all(axis=1)
        self._mean, self._spread = signs[known].mean(axis=0), signs[known].std(axis=0) + 1e-6
        answers = np.repeat([0.0, 1.0], len(mixed))
        self._weights = _fitted(self._inputs(signs[known]), answers[known])

    def shuffledness(self, clips: np.ndarray) -> np.ndarray:
        """How sure the judge is that a clip was shuffled, float64 (B,) in 0..1; not a number where nothing moves."""
        return 1 / (1 + np.exp(-np.clip(self._inputs(order_signs(clips)) @ self._weights, -50, 50)))

    def _inputs(self, signs: np.ndarray) -> np.ndarray:
        scaled = np.clip((signs - self._mean) / self._spread, -4, 4)
        return np.concatenate([scaled, np.ones((len(signs), 1))], axis=1)


def shuffled(clips: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """The same clips, the frames of each in an order of its own."""
    return np.stack([clip[random.permutation(len(clip))] for clip in clips])


def order_signs(clips: np.ndarray) -> np.ndarray:
    """What of a clip depends on the order of its frames and not on what they show.

    Args:
        clips: uint8 (B, T, H, W, 3).

    Returns:
        float64 (B, 12): at each of three sizes of the picture, log ratios of the mean square change between frames
        1, 2, 3 and the second difference, each to that of frames 4 apart; not a number where nothing moves.
    """
    return np.stack([_signs(luma(clip)) for clip in clips]) if len(clips) else np.zeros((0, 12))


def _signs(grey: np.ndarray) -> np.ndarray:
    found = []
    for level in range(3):
        if level:
            height, width = (side // 2 * 2 for side in grey.shape[1:])
            grey = grey[:, :height, :width].reshape(len(grey), height // 2, 2, width // 2, 2).mean(axis=(2, 4))
        energies = [np.square(grey[lag:] - grey[:-lag]).mean(dtype=np.float64) for lag in LAGS]
        if level == 0 and max(energies) < _STILL:
            return np.full(12, np.nan)
        second = np.square(grey[2:] - 2 * grey[1:-1] + grey[:-2]).mean(dtype=np.float64)
        found += [np.log((energy + 1e-3) / (energies[-1] + 1e-3)) for energy in (*energies[:-1], second)]
    return np.array(found)


def _fitted(inputs: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """Weights of the logistic regression, by Newton's method with a little ridge."""
    weights = np.zeros(inputs.shape[1])
    ridge = _RIDGE * len(inputs) * np.eye(len(weights))
    for _ in range(_STEPS):
        share = 1 / (1 + np.exp(-inputs @ weights))
        slope = inputs.T @ (share - answers) + ridge @ weights
        curve = (inputs * (share * (1 - share))[:, None]).T @ inputs + ridge
        weights = weights - np.linalg.solve(curve, slope)
    return weights
