"""The table of corruptions: every metric goes the way it must, grade by grade."""

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from tokenreel.evaluation.corruptions import CORRUPTIONS, drop_object

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import corruptions

    return corruptions


def test_every_metric_goes_the_way_it_must(benchmark: ModuleType) -> None:
    table = benchmark.measured(benchmark.world_clips(10, 32))
    wrong = {
        (metric, name): [figures[metric] for figures in table[name]]
        for metric, wanted in benchmark.EXPECTED.items()
        for name, direction in wanted.items()
        if not benchmark.goes_right(table[name], metric, direction)
    }
    assert not wrong
    assert not benchmark.goes_right(table["freeze"], "flicker", benchmark.UP), "a table that cannot fail shows nothing"


def test_corruptions_do_what_they_say() -> None:
    random = np.random.default_rng(0)
    clips = random.integers(0, 256, (2, 8, 16, 16, 3), dtype=np.uint8)
    for name, corrupt in CORRUPTIONS.items():
        made = corrupt(clips, 1.0, random)
        assert made.shape == clips.shape and made.dtype == np.uint8 and not np.array_equal(made, clips), name
        assert np.array_equal(corrupt(clips, 0.0, random), clips), f"{name} at grade 0 changes nothing"
    assert (CORRUPTIONS["freeze"](clips, 1.0, random) == clips[:, :1]).all()
    half = CORRUPTIONS["freeze"](clips, 0.5, random)
    assert np.array_equal(half[:, :4], clips[:, :4]) and (half[:, 4:] == half[:, 4:5]).all()
    mixed = CORRUPTIONS["shuffle"](clips, 1.0, random)
    assert np.array_equal(np.sort(mixed.reshape(2, 8, -1).sum(-1)), np.sort(clips.reshape(2, 8, -1).sum(-1)))
    fast = CORRUPTIONS["speed-up"](clips, 1.0, random)
    assert np.array_equal(fast[:, :5], clips[:, [0, 2, 4, 6, 6]])
    places, gone = np.full((2, 8, 2), 8.0), np.array([1, 2, 3], np.uint8)
    dropped = drop_object(clips, places, np.array([2.0, 2.0]), gone, 0.25)
    assert np.array_equal(dropped[:, :6], clips[:, :6]) and (dropped[:, 6:, 7:9, 7:9] == gone).all()
    assert np.array_equal(dropped[:, 6:, :4], clips[:, 6:, :4])
