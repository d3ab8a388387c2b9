"""What all tests share: the same random numbers every time, and the shared test videos where they are."""

import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest


@pytest.fixture(autouse=True)
def same_random_numbers() -> None:
    """Every test starts from the same seeds, on one thread: it passes or fails alone as in the suite."""
    random.seed(0)
    np.random.seed(0)
    torch = sys.modules.get("torch")  # tests without torch should not wait for its import
    if torch is not None:
        torch.manual_seed(0)
        torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the shared test videos (real/, odd/, atari/, vizdoom/); skips the test without them."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"the shared test videos are not at {folder}")
    return folder


@pytest.fixture
def chi_square() -> Callable[[Any, Any], float]:
    """Pearson's statistic of drawn indices against their probabilities; nothing of probability 0 may be drawn."""
    import torch

    def statistic(drawn: torch.Tensor, probability: torch.Tensor) -> float:
        counts = torch.bincount(drawn, minlength=len(probability)).double()
        possible = probability > 0
        assert (counts[~possible] == 0).all()
        expected = probability[possible].double() * len(drawn)
        assert expected.min() > 5, "too few draws for the statistic"
        return float(((counts[possible] - expected).square() / expected).sum())

    return statistic
