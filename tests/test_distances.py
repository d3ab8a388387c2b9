"""Distances between sets of features, and how sure they are: against references, by hand, and by what must hold."""

import numpy as np
import pytest

from tokenreel.evaluation.frechet import FeatureStatistics, frechet_distance, frechet_of_features
from tokenreel.evaluation.inception_score import inception_score
from tokenreel.evaluation.intervals import halves_interval, mean_interval, ratio_interval
from tokenreel.evaluation.kernel_distance import kernel_distance


def features(random: np.random.Generator, count: int, dim: int) -> np.ndarray:
    return random.normal(size=(count, dim)) @ random.normal(size=(dim, dim)) / np.sqrt(dim) + random.normal(size=dim)


@pytest.mark.parametrize(("dim", "count"), [(3, 50), (40, 200), (64, 500)])
def test_frechet_agrees_with_the_usual_matrix_square_root(dim: int, count: int) -> None:
    random = np.random.default_rng(dim)
    one, other = features(random, count, dim), features(random, count + 7, dim)
    covariances = [np.cov(each, rowvar=False) for each in (one, other)]
    product = covariances[0] @ covariances[1]
    means = np.square(one.mean(axis=0) - other.mean(axis=0)).sum()
    # The eigenvalues of a product of two covariances are real and not below 0, also without its square root.
    overlap = np.sqrt(np.linalg.eigvals(product).real.clip(0)).sum()
    traces = sum(np.trace(each) for each in covariances)
    assert frechet_of_features(one, other) == pytest.approx(means + traces - 2 * overlap, abs=1e-6)
    linalg = pytest.importorskip("scipy.linalg", reason="scipy is the second reference")
    root = np.trace(linalg.sqrtm(product)).real
    assert frechet_of_features(one, other) == pytest.approx(means + traces - 2 * root, abs=1e-6)


def test_statistics_that_stream_are_those_of_the_whole() -> None:
    random = np.random.default_rng(0)
    # Far from zero, where sums of squares lose their digits.
    whole = features(random, 501, 12) + 1e6
    streamed = FeatureStatistics(12)
    for part in np.split(whole, [1, 2, 100, 400]):
        streamed.add(part)
    assert streamed.count == 501
    np.testing.assert_allclose(streamed.mean, whole.mean(axis=0), rtol=1e-14)
    np.testing.assert_allclose(streamed.covariance, np.cov(whole, rowvar=False), atol=1e-8)
    assert frechet_distance(streamed, streamed) == pytest.approx(0, abs=1e-6)
    with pytest.raises(ValueError, match="not finite"):
        streamed.add(np.full((1, 12), np.nan))
    with pytest.raises(ValueError, match="expected those of one network"):
        frechet_distance(streamed, FeatureStatistics.of(whole[:, :3]))


def test_frechet_of_two_normal_distributions_by_hand() -> None:
    one, other = np.array([[-1.0], [1.0]]), np.array([[1.0], [5.0]])  # means 0, 3; variances 2, 8
    assert frechet_of_features(one, other) == pytest.approx(9 + 2 + 8 - 2 * 4)


def test_kernel_distance_agrees_with_its_definition_and_is_unbiased() -> None:
    random = np.random.default_rng(0)
    one, other = random.normal(size=(7, 5)), random.normal(size=(9, 5)) + 0.5

    def kernel(a: np.ndarray, b: np.ndarray) -> float:
        return float((a @ b / 5 + 1) ** 3)

    def mean(a: np.ndarray, b: np.ndarray, same: bool) -> float:
        return float(np.mean([kernel(x, y) for i, x in enumerate(a) for j, y in enumerate(b) if not (same and i == j)]))

    by_hand = mean(one, one, True) + mean(other, other, True) - 2 * mean(one, other, False)
    assert kernel_distance(one, other) == pytest.approx(by_hand)
    found = [kernel_distance(*random.normal(size=(2, 8, 3))) for _ in range(2000)]
    assert abs(np.mean(found)) < 4 * np.std(found) / np.sqrt(len(found)), "of equal distributions it is 0 on average"
    assert min(found) < 0
    many = random.normal(size=(1500, 4))
    assert kernel_distance(many, many[::-1]) == pytest.approx(kernel_distance(many[::-1], many))  # more than a block


def test_inception_score_between_one_and_the_number_of_classes() -> None:
    sure = 50 * np.eye(4)[[0, 1, 2, 3]]
    assert inception_score(sure) == pytest.approx(4)
    assert inception_score(sure[[1, 1, 1]]) == pytest.approx(1), "every clip of one class"
    assert inception_score(np.zeros((6, 4))) == pytest.approx(1), "no clip is of any class"
    with pytest.raises(ValueError, match=r"expected \(N, classes\)"):
        inception_score(np.zeros((3, 1)))


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    random = np.random.default_rng(0)
    held = {"mean": 0, "ratio": 0, "distance": 0}
    wide = frechet_of_features(*(random.normal(size=(20000, 2)) + shift for shift in (0, 1)))
    bias = np.mean(
        [frechet_of_features(random.normal(size=(60, 2)), random.normal(size=(60, 2)) + 1) - wide for _ in range(300)]
    )
    for draw in range(100):
        one, other = random.normal(size=(60, 2)), random.normal(size=(60, 2)) + 1
        low, high = mean_interval(other[:, 0], seed=draw)
        held["mean"] += low <= 1 <= high
        low, high = ratio_interval(other[:, 0] + 1, one[:, 0] + 4, seed=draw)
        held["ratio"] += low <= 0.5 <= high
        low, high = halves_interval(frechet_of_features, (one, other), frechet_of_features(one, other), draw)
        held["distance"] += low <= wide + bias <= high
    assert all(times >= 85 for times in held.values()), held
    assert held["mean"] < 100 and held["distance"] < 100, "intervals that always hold it are too wide"


def test_an_interval_of_too_little_is_none() -> None:
    assert np.isnan(mean_interval(np.array([1.0]))).all()
    assert np.isnan(ratio_interval(np.array([1.0, np.nan]), np.ones(5))).all()
    assert np.isnan(halves_interval(frechet_of_features, (np.ones((3, 1)), np.ones((9, 1))), 0.0)).all()
    assert mean_interval(np.array([2.0, np.nan, 2.0])) == (2.0, 2.0)
