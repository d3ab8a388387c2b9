"""Models that repeat their training clips are caught, healthy ones are not; diversity is what chance makes it."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from tokenreel.datasets.data_source import DataSettings
from tokenreel.datasets.world_balls import BACKGROUND, COLORS
from tokenreel.datasets.world_fork import fall_on
from tokenreel.datasets.worlds import simulate, write_world
from tokenreel.evaluation.diversity import BitsGap, diversity_figures, spread
from tokenreel.evaluation.memorization import memorization_of_pixels, memorization_of_tokens
from tokenreel.evaluation.nearest_clips import (
    mean_picture,
    nearest_pictures,
    nearest_tokens,
    normalised,
    small_pictures,
)
from tokenreel.tools import model_findings
from tokenreel.tools.model_findings import _thinned
from tokenreel.tools.training_clips import near_copy_strips, pixel_blocks, token_blocks, training_windows
from tokenreel.training.optimizer import build_optimizer
from tokenreel.transformer import GPTConfig, GPTSize, SamplingSettings, VideoGPT, sample_indices

TRAINING = 20


def clips(first: int, count: int, frames: int = 12) -> np.ndarray:
    return np.stack([simulate("balls", seed, 32, frames).frames for seed in range(first, first + count)])


def noisy(frames: np.ndarray) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, 12, frames.shape)
    return np.clip(frames + noise, 0, 255).astype(np.uint8)


def in_blocks(training: np.ndarray, size: int = 7) -> Iterator[np.ndarray]:
    return (training[begin : begin + size] for begin in range(0, len(training), size))


def colour_indices(frames: np.ndarray) -> np.ndarray:
    """A tokenizer by hand: the nearest colour of 4 x 4 pixels of every third frame, int64 (B, T / 3, H / 4, W / 4)."""
    palette = np.array([BACKGROUND, *COLORS.values()], dtype=np.float32)
    B, T, H, W, _ = frames.shape
    cells = frames[:, ::3].reshape(B, T // 3, H // 4, 4, W // 4, 4, 3).mean(axis=(3, 5), dtype=np.float32)
    return np.square(cells[..., None, :] - palette).sum(axis=-1).argmin(axis=-1)


@pytest.fixture(scope="module")
def training() -> np.ndarray:
    return clips(0, TRAINING)


@pytest.fixture(scope="module")
def held_out() -> np.ndarray:
    return clips(1000, 40)


def test_the_search_is_exact_and_blocks_are_no_matter(training: np.ndarray, held_out: np.ndarray) -> None:
    pictures = [small_pictures(part) for part in (training, held_out)]
    mean = mean_picture(in_blocks(pictures[0]))
    np.testing.assert_allclose(mean, pictures[0].mean(axis=0), rtol=1e-4)
    seen, asked = (normalised(part, mean) for part in pictures)
    every = np.linalg.norm(asked[:, None] - seen[None], axis=-1)
    for size in (1, 7, 100):
        found = nearest_pictures(asked, in_blocks(seen, size))
        np.testing.assert_allclose(found.distance, every.min(axis=1), atol=1e-3)
        assert (found.place == every.argmin(axis=1)).all()
    tokens, own = (colour_indices(part).reshape(len(part), -1) for part in (training, held_out))
    every = (own[:, None] != tokens[None]).mean(axis=-1)
    for size in (1, 7, 100):
        found = nearest_tokens(own, in_blocks(tokens, size))
        np.testing.assert_array_equal(found.distance, every.min(axis=1))
        assert (found.place == every.argmin(axis=1)).all()


def test_pictures_of_a_clip_are_near_whatever_blurs_or_dims_it(training: np.ndarray, held_out: np.ndarray) -> None:
    mean = mean_picture([small_pictures(training)])
    seen = normalised(small_pictures(training), mean)
    for spoiled in (noisy(training), (training * 0.8 + 20).astype(np.uint8)):
        found = nearest_pictures(normalised(small_pictures(spoiled), mean), [seen])
        assert (found.place == np.arange(TRAINING)).all()
    assert small_pictures(held_out[:, :, :5, :7]).shape == (40, 6 * 5 * 7 * 3)


@pytest.mark.parametrize("kind", ["pixels", "tokens"])
def test_repeated_clips_are_caught_and_new_ones_are_not(kind: str, training: np.ndarray, held_out: np.ndarray) -> None:
    def judge(samples: np.ndarray):  # type: ignore[no-untyped-def]
        if kind == "pixels":
            return memorization_of_pixels(samples, held_out, lambda: in_blocks(training))
        known = colour_indices(training)
        return memorization_of_tokens(colour_indices(samples), colour_indices(held_out), lambda: in_blocks(known))

    fresh = clips(2000, 40)
    drawn = np.random.default_rng(0).integers(0, TRAINING, 40)
    repeated, healthy = judge(noisy(training[drawn])), judge(fresh)
    half = judge(np.concatenate([fresh[:20], noisy(training[drawn[:20]])]))
    still, blank = judge(np.repeat(fresh[:, :1], 12, axis=1)), judge(np.full_like(fresh, 24))
    assert repeated.memorized and repeated.ratio < 0.3 and repeated.copies.all()
    assert (repeated.samples.place == drawn).all()
    assert half.memorized and half.copies[20:].all() and half.copies[:20].sum() <= 3
    assert not healthy.memorized and 0.8 < healthy.ratio < 1.25 and healthy.copies.mean() < 0.15
    low, high = healthy.ratio_interval
    assert low < healthy.ratio < high < 1.4
    assert not still.memorized and not (blank.memorized and kind == "pixels")
    assert "the model repeats training clips; add videos" in repeated.sentence and "no sign" in healthy.sentence
    pairs = half.nearest_pairs(3)
    assert all(sample < 20 or (clip == drawn[sample - 20] and distance < 1) for sample, clip, distance in pairs)
    assert half.plain()["memorized"] is True and half.plain()["samples"] == 40


def test_what_cannot_be_compared_is_refused(training: np.ndarray, held_out: np.ndarray) -> None:
    with pytest.raises(ValueError, match="expected at least one of each"):
        memorization_of_pixels(training[:, :4], held_out, lambda: [training])
    with pytest.raises(ValueError, match="no clip to take the mean of"):
        memorization_of_pixels(training, held_out, list)
    with pytest.raises(ValueError, match="clips of one length"):
        memorization_of_tokens(np.zeros((1, 4)), np.zeros((1, 4)), lambda: [np.zeros((1, 5))])


def test_training_clips_come_whole_and_near_copies_stand_beside_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_world("balls", tmp_path / "world", 5, 2, 32, 20, 10.0, 0)
    source = DataSettings(tmp_path / "world", size=32, cache=tmp_path / "clips")
    windows = training_windows(source, 8, hop=4)
    seen = np.concatenate(list(pixel_blocks(windows, 2)()))
    assert seen.shape == (5 * 4, 6, 32, 32, 3) and (seen[5] == windows[5][2:]).all()
    thinned = np.concatenate(list(token_blocks(windows, lambda clips: clips[:, ::4, 0, 0, 0], 1)()))
    assert _thinned(windows) is windows
    monkeypatch.setattr(model_findings, "MOST_ENCODED", 11)
    assert (_thinned(windows).hop, len(_thinned(windows))) == (8, 10), "clips that meet, of every video"
    assert (thinned == np.stack([windows[i][4:5, 0, 0, 0] for i in range(20)])).all()
    samples = noisy(seen[[7, 3, 12]])
    found = memorization_of_pixels(samples, clips(1000, 20, 6), pixel_blocks(windows, 2))
    rows = near_copy_strips(found, samples, windows, 2, most=2)
    assert found.samples.place.tolist() == [7, 3, 12] and len(rows) == 4
    nearest = int(found.samples.distance.argmin())
    assert rows[0][0].startswith(f"sample {nearest}: distance 0.") and (rows[0][1] == samples[nearest]).all()
    assert rows[1][0].startswith("nearest of training: train/0000")
    assert (rows[1][1] == seen[found.samples.place[nearest]]).all()


# diversity


def test_samples_are_as_diverse_as_chance_makes_them() -> None:
    true, other, always = [], [], []
    for seed in range(8):
        states = simulate("fork", seed, 32, 40).states
        met = int(np.flatnonzero(np.diff(states["drops"]))[0])
        ways = [fall_on(states, met, 8, 32, dice) for dice in range(24)]
        true.append(ways[:12])
        other.append(ways[12:])
        always.append([ways[0]] * 12)
    found = diversity_figures(np.array(true), np.array(other))
    assert found["diversity of the real"].value == pytest.approx(1, abs=0.25)
    assert 0.05 < found["diversity under one prompt"].value < 0.8
    same = diversity_figures(np.array(always), np.array(other))
    assert all(tally.value < 1e-4 for tally in same.values())
    unrelated = clips(0, 48).reshape(8, 6, 12, 32, 32, 3)
    assert diversity_figures(unrelated)["diversity under one prompt"].value == pytest.approx(1, abs=0.15)
    with pytest.raises(ValueError, match="at least 2 samples"):
        spread(np.zeros((2, 1, 3, 8, 8, 3), np.uint8))


def test_the_gap_of_bits_is_a_ratio_with_an_interval() -> None:
    rng = np.random.default_rng(0)
    gap = BitsGap(rng.normal(1, 0.1, 60), rng.normal(2, 0.1, 40))
    low, high = gap.ratio_interval
    assert 1.9 < low < gap.ratio < high < 2.1 and gap.plain()["ratio"] == gap.ratio
    assert BitsGap(np.ones(3), np.ones(2)).ratio_interval == (1, 1)


# a real GPT


def trained(batches: Iterator[np.ndarray]) -> VideoGPT:
    torch.manual_seed(0)
    gpt = VideoGPT(GPTConfig(codebook_size=7, grid=(2, 8, 8), size=GPTSize(dim=64, depth=2), fps=10, tokenizer=""))
    optimizer = build_optimizer(gpt, 3e-3, 0.0, torch.float32)
    for batch in batches:
        optimizer.zero_grad()
        gpt(torch.from_numpy(colour_indices(batch))).loss.backward()
        optimizer.step()
    return gpt.eval()


@pytest.mark.slow
def test_a_gpt_overfitted_on_20_clips_is_caught_and_a_healthy_one_is_not(
    training: np.ndarray, held_out: np.ndarray
) -> None:
    """Both train equally long: one on 20 clips again and again, one on clips that it sees once."""
    steps, batch = 250, 10
    training, held_out = training[:, :6], held_out[:, :6]
    rng, many = np.random.default_rng(0), clips(5000, steps * batch, 6)
    overfitted = trained(training[rng.permutation(TRAINING)[:batch]] for _ in range(steps))
    healthy = trained(in_blocks(many, batch))
    real = colour_indices(held_out)
    for gpt, seen, memorized in ((overfitted, training, True), (healthy, many, False)):
        nothing = torch.zeros((40, 0, 8, 8), dtype=torch.int64)
        with torch.no_grad():
            samples = sample_indices(gpt, nothing, 2, SamplingSettings(), range(40)).numpy()
            bits = [
                gpt(torch.from_numpy(colour_indices(part))).losses.flatten(1).mean(dim=1).numpy()
                for part in (seen[:40], held_out)
            ]
        known = colour_indices(seen)
        found = memorization_of_tokens(samples, real, lambda known=known: in_blocks(known, 64))
        assert found.memorized is memorized
        assert (BitsGap(*bits).ratio_interval.low > 1.5) is memorized
