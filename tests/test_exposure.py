"""How often clips and videos were seen: exact without counting, and what is said of it."""

import numpy as np
import pytest

from tokenreel.datasets import order as order_file
from tokenreel.datasets.bucket_order import Bucket, BucketOrder
from tokenreel.datasets.exposure import ExposureLedger
from tokenreel.datasets.large_shuffle import LargeShuffle
from tokenreel.datasets.order import Order
from tokenreel.training.exposure_advice import advice, crossed, forecast

GOLDEN = [36535549, 35662508, 76206192, 85140278]
VIDEO_OF_CLIP = np.array([0] * 5 + [1] + [2] * 7)  # of 24, 8 and 32 frames
STARTS = np.array([0, 4, 8, 12, 16, 0, *range(4, 32, 4)])  # the last begins with frame 4


@pytest.fixture(params=["listed", "worked out"])
def either(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways to shuffle."""
    if request.param == "worked out":
        monkeypatch.setattr(order_file, "LARGEST_LISTED", 1)


@pytest.mark.usefixtures("either")
@pytest.mark.parametrize("batch_size", [4, 13, 30])
def test_the_ledger_is_what_one_would_count(batch_size: int) -> None:
    order = BucketOrder([Bucket(13, batch_size)], seed=5)
    ledger = ExposureLedger(order, 3, 8, 4, (VIDEO_OF_CLIP, STARTS))
    rough = ExposureLedger(order, 3, 8, 4, None)
    clips = np.zeros(13, np.int64)
    for step in range(12):
        assert np.array_equal(ledger.clips(step), clips)
        videos = [clips[video == VIDEO_OF_CLIP].sum() for video in range(3)]
        assert ledger.videos(step).tolist() == videos
        assert ledger.through(step) == pytest.approx(np.array(videos) * 8 / np.array([24, 8, 32]))
        told = ledger.told(step)
        assert told["per_clip"] == pytest.approx(step * batch_size / 13) and told["per_video_max"] == max(videos)
        assert (told["per_clip_min"], told["per_clip_median"]) == (clips.min(), np.median(clips))
        assert rough.told(step).items() <= {**told, "through": pytest.approx(2 * told["per_clip"])}.items()
        np.add.at(clips, order.batch(step), 1)


def test_the_ledger_of_clips_of_several_lengths() -> None:
    order = BucketOrder([Bucket(6, 2), Bucket(7, 3)], seed=2)
    videos, starts = np.array([0, 0, 0, 1, 1, 1, 2, 2, 2, 2, 2, 2, 3]), np.array([0, 4, 8, 0, 4, 8, *range(6), 0])
    frames = np.array([16] * 6 + [4] * 7)
    ledger, clips = ExposureLedger(order, 4, frames, 1, (videos, starts)), np.zeros(13, np.int64)
    for step in range(40):
        assert np.array_equal(ledger.clips(step), clips)
        seen = [(clips * frames)[videos == video].sum() for video in range(4)]
        assert ledger.through(step) == pytest.approx(np.array(seen) / np.array([24, 24, 9, 4]))
        assert ledger.told(step)["per_clip_max"] == clips.max()
        np.add.at(clips, order.batch(step), 1)


@pytest.mark.parametrize("num_items", [2, 3, 5, 16, 17, 1000])
def test_a_large_shuffle_has_every_item_once(num_items: int) -> None:
    orders = [LargeShuffle(num_items, [seed, 7]).items(0, num_items) for seed in range(20)]
    assert orders[0].dtype == np.int64 and all(np.array_equal(np.sort(one), np.arange(num_items)) for one in orders)
    assert np.array_equal(LargeShuffle(num_items, [0, 7]).items(1, num_items), orders[0][1:])
    if num_items > 3:
        assert len({tuple(one) for one in orders}) > 15


def test_a_large_shuffle_puts_every_item_anywhere_and_neighbours_apart() -> None:
    # 5,000 orders of 10 items: each item is at each place about 500 times (standard deviation 21).
    orders = np.stack([LargeShuffle(10, [3, epoch]).items(0, 10) for epoch in range(5000)])
    counts = np.stack([np.bincount(column, minlength=10) for column in orders.T])
    assert ((counts - 500) ** 2 / 500).sum() < 130  # 81 degrees of freedom
    large = LargeShuffle(10**8, [3, 0]).items(12_345, 112_345)
    assert len(set(large.tolist())) == 100_000 and abs(large.mean() / 10**8 - 0.5) < 0.005
    for lag in (1, 2, 7):
        assert abs(np.corrcoef(large[:-lag], large[lag:])[0, 1]) < 0.015


@pytest.mark.usefixtures("either")
def test_ranks_of_a_large_order_are_one_process() -> None:
    alone = Order(50, 8, seed=1)
    for step in (0, 5, 6, 1000):
        ranks = [Order(50, 8, 1, rank, 4).batch(step) for rank in range(4)]
        assert np.array_equal(np.concatenate(ranks), alone.batch(step))


def test_a_hundred_million_clips_cost_nothing() -> None:
    order = Order(10**8, 64, seed=0)
    far = order.batch(10**9)
    assert len(set(far.tolist())) == 64 and not order._permutations
    assert Order(10**8, 64, seed=0).batch(0).tolist() == order.batch(0).tolist()
    # Golden: a run of today must resume exactly under any later version.
    assert order.batch(0)[:4].tolist() == GOLDEN


def test_what_is_said_grows_at_10_50_and_100_times() -> None:
    said = [advice(times, "val/psnr", "--augment flip") for times in (9.9, 10, 50, 100)]
    assert said[0] is None and len(set(said)) == 4
    for sentence, word in zip(said[1:], ("watch val/psnr", "trust val/psnr", "risky"), strict=True):
        assert sentence is not None and word in sentence and "more videos" in sentence and "--augment flip" in sentence
    assert forecast(9, "a", "b") is None
    assert str(forecast(23.7, "a", "b")).startswith("each video will be seen through 24 times: watch a;")
    assert crossed(49, 11, "a", "b") is None, "it was said before"
    assert str(crossed(51, 11, "a", "b")).startswith("each video has been seen through 51 times: more than 50 times")
