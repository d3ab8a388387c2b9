"""Steps of several shapes: every clip its turn, any step at once, equal on all ranks."""

import numpy as np
import pytest

from tokenreel.datasets.bucket_order import Bucket, BucketOrder, order_over
from tokenreel.datasets.clip_groups import ClipGroups
from tokenreel.datasets.order import Order

BUCKETS = [Bucket(37, 8), Bucket(100, 4), Bucket(1, 8), Bucket(20, 20)]


def test_one_bucket_is_the_plain_order() -> None:
    order, plain = BucketOrder([Bucket(13, 4)], seed=5), Order(13, 4, seed=5)
    for step in (0, 3, 4, 1000):
        assert np.array_equal(order.batch(step), plain.batch(step))
        assert np.array_equal(order.chance(step), plain.chance(step))
        assert np.array_equal(order.times_seen(step), plain.times_seen(step))


def test_every_step_has_one_shape_and_all_clips_are_seen_alike() -> None:
    order = BucketOrder(BUCKETS, seed=1)
    seen, steps = np.zeros(order.num_items, int), [0] * len(BUCKETS)
    ends = np.cumsum([bucket.clips for bucket in BUCKETS])
    for step in range(500):
        bucket, own = order.place(step)
        ids = order.batch(step)
        assert len(ids) == BUCKETS[bucket].per_step
        assert (np.searchsorted(ends, ids, side="right") == bucket).all()
        assert own == steps[bucket], "no batch of a bucket is left out"
        steps[bucket] += 1
        np.add.at(seen, ids, 1)
        if step % 97 == 0:
            assert np.array_equal(order.times_seen(step + 1), seen) and order.steps_of(step + 1) == steps
            assert order.clips_by(step + 1) == seen.sum()
    rates = [times.mean() for times in np.split(seen, ends[:-1])]
    # A step is the least that can be missing: eight times a bucket that holds one clip.
    for bucket, rate in zip(BUCKETS, rates, strict=True):
        assert abs(rate - np.mean(rates)) <= 1 + bucket.per_step / bucket.clips / 2
    assert order.spread(500) == {"min": seen.min(), "median": np.median(seen), "max": seen.max()}


def test_a_late_step_needs_no_earlier_ones_and_ranks_cut_it() -> None:
    late = 123_456
    whole = BucketOrder(BUCKETS, seed=3).batch(late)
    again = BucketOrder(BUCKETS, seed=3)
    for step in (late + 5, 2, late):
        again.batch(step)
    assert np.array_equal(again.batch(late), whole)
    cut = [BucketOrder(BUCKETS, 3, rank, 4) for rank in range(4)]
    assert np.array_equal(np.concatenate([order.batch(late) for order in cut]), whole)
    assert np.array_equal(np.concatenate([order.chance(late) for order in cut]), again.chance(late))
    turns = [[BucketOrder(BUCKETS, seed).place(step)[0] for step in range(400)] for seed in (3, 4)]
    assert turns[0] != turns[1] and len(set(turns[0])) == len(BUCKETS)


def test_steps_of_all_shapes_cost_about_the_same() -> None:
    order = order_over([10, 10, 10], [64 * 64 * 16, 64 * 64 * 8, 80 * 80 * 16], batch_size=8, seed=0)
    assert [bucket.per_step for bucket in order.buckets] == [8, 16, 5]
    order = order_over([10, 10, 10], [100, 30, 900], batch_size=8, seed=0, world_size=2, parts=2)
    assert [bucket.per_step for bucket in order.buckets] == [8, 24, 4], "multiples of ranks times parts, at least one"
    assert order.clips_per_step == pytest.approx(30 / (10 / 8 + 10 / 24 + 10 / 4))
    # Of the shape that was asked for first there may be no clips to train on: the cost of a step is still that.
    order = order_over([10, 10], [400, 100], batch_size=8, seed=0, usual_cost=100)
    assert [bucket.per_step for bucket in order.buckets] == [2, 8]
    assert order_over([10], [400], batch_size=8, seed=0, usual_cost=100).buckets == [Bucket(10, 2)]
    with pytest.raises(ValueError, match="got no buckets"):
        BucketOrder([])
    with pytest.raises(ValueError, match="step is -1"):
        order.batch(-1)


class Numbers:
    """Clips that are their own numbers."""

    def __init__(self, first: int, count: int) -> None:
        self.first, self.count, self.num_videos = first, count, 2

    def __len__(self) -> int:
        return self.count

    def batch(self, ids: np.ndarray) -> np.ndarray:
        return self.first + ids

    def places_of_clips(self) -> tuple[np.ndarray, np.ndarray]:
        return np.arange(self.count) % 2, np.arange(self.count)


def test_groups_are_numbered_one_behind_the_other() -> None:
    groups = ClipGroups([Numbers(0, 5), Numbers(100, 3)])
    assert len(groups) == 8 and groups.num_videos == 4
    assert groups.batch(np.array([4, 0])).tolist() == [4, 0]
    assert groups.batch(np.array([5, 7])).tolist() == [100, 102]
    assert [part.tolist() for part in groups.batches(np.array([0, 1, 3, 5, 6]), 2)] == [[0, 1], [3], [5, 6]]
    places = groups.places_of_clips()
    assert places is not None and places[0].tolist() == [0, 1, 0, 1, 0, 2, 3, 2]
    for ids in ([4, 5], [8], []):
        with pytest.raises(IndexError, match="expected some of one"):
            groups.part(np.array(ids, int))
