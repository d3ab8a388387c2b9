from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image, ImageFilter

from tokenreel.datasets import world_paddle
from tokenreel.datasets.video_writer import write_video
from tokenreel.datasets.world_balls import BACKGROUND, COLORS
from tokenreel.datasets.world_episode import Canvas
from tokenreel.datasets.worlds import Episode, simulate
from tokenreel.evaluation.tracking import position_error, track_bar, track_discs


def tracked(episode: Episode, frames: np.ndarray) -> np.ndarray:
    states = episode.states
    return track_discs(frames, states["colors"], states["background"], states["radius"])


def errors(episode: Episode, frames: np.ndarray) -> np.ndarray:
    return position_error(tracked(episode, frames), np.array(episode.states["positions"]), 64)


def blurred(frames: np.ndarray, sigma: float) -> np.ndarray:
    return np.stack([np.asarray(Image.fromarray(f).filter(ImageFilter.GaussianBlur(sigma))) for f in frames])


def noisy(frames: np.ndarray, sigma: float) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, sigma, frames.shape)
    return np.clip(frames + noise, 0, 255).astype(np.uint8)


def test_within_a_third_of_a_pixel_on_encoded_blurred_and_noisy_frames(tmp_path: Path) -> None:
    found: dict[str, list[np.ndarray]] = {"mp4": [], "blur": [], "noise": [], "both": []}
    for seed in range(8):
        episode = simulate("balls", seed, 64, 16)
        write_video(tmp_path / "clip.mp4", episode.frames, 10)
        with av.open(str(tmp_path / "clip.mp4")) as container:
            decoded = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
        found["mp4"].append(errors(episode, decoded))
        found["blur"].append(errors(episode, blurred(decoded, 2)))
        found["noise"].append(errors(episode, noisy(decoded, 20)))
        found["both"].append(errors(episode, noisy(blurred(decoded, 1.5), 15)))
    for case, error in found.items():
        assert np.mean(error) < 0.1, case
        assert np.max(error) < 0.35, case


@pytest.mark.parametrize("pair", [("red", "yellow"), ("red", "magenta"), ("green", "cyan"), ("blue", "cyan")])
def test_touching_discs_of_similar_colour_are_told_apart(pair: tuple[str, str]) -> None:
    angle = np.linspace(0, 2 * np.pi, 12)
    around = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    truth = np.stack([32.3 - 6 * around, 32.3 + 5.5 * around], axis=1)
    canvas = Canvas(12, 64, BACKGROUND)
    canvas.discs(truth[:, 0], 6, COLORS[pair[0]])
    canvas.discs(truth[:, 1], 5.5, COLORS[pair[1]])
    colors = np.array([COLORS[name] for name in pair])
    for frames in (canvas.finished(), blurred(canvas.finished(), 1.5), noisy(canvas.finished(), 15)):
        found = track_discs(frames, colors, BACKGROUND, np.array([6, 5.5]))
        assert position_error(found, truth, 64).max() < 0.35


def test_stains_of_the_same_colour_do_not_pull() -> None:
    episode = simulate("balls", 0, 64, 10)
    frames = episode.frames.copy()
    rng = np.random.default_rng(0)
    for frame in frames:
        for _ in range(12):
            y, x = rng.integers(0, 62, 2)
            if (frame[y : y + 2, x : x + 2] == BACKGROUND).all():
                frame[y : y + 2, x : x + 2] = episode.states["colors"][0]
    assert not np.array_equal(frames, episode.frames)
    assert errors(episode, frames).mean() < 0.35


def test_what_is_not_there_is_lost() -> None:
    canvas = Canvas(1, 64, BACKGROUND)
    canvas.discs(np.array([[20.0, 30.0]]), 6, COLORS["red"])
    canvas.boxes(np.array([40.0]), np.array([56.0]), 0, 64, (112, 112, 118))
    frames = noisy(canvas.finished(), 15)
    found = track_discs(frames, np.array(list(COLORS.values())), BACKGROUND, np.full(6, 6.0))
    assert np.flatnonzero(~np.isnan(found[0, :, 0])).tolist() == [list(COLORS).index("red")]
    assert track_discs(frames, np.zeros((0, 3)), BACKGROUND, np.zeros(0)).shape == (1, 0, 2)


def test_hidden_discs_are_lost_and_come_back() -> None:
    lost = 0
    for seed in range(6):
        episode = simulate("balls", seed, 64, 40, occluder=True)
        found = tracked(episode, episode.frames)
        fraction = np.array(episode.states["visible_fraction"])
        truth = np.array(episode.states["positions"])
        missing = np.isnan(found[..., 0])
        assert missing[fraction < 0.1].all() and not missing[fraction > 0.5].any()
        assert np.abs(found - truth)[fraction == 1].max() < 0.35
        lost += missing.sum()
    assert lost > 20


def test_losing_a_disc_costs_as_much_as_guessing() -> None:
    rng = np.random.default_rng(0)
    truth, guess = rng.uniform(0, 60, (2, 20000, 2, 2))
    blind = position_error(guess, truth, 60).mean()
    lost = position_error(np.full_like(truth, np.nan), truth, 60)
    assert (lost == 20).all() and blind == pytest.approx(20, rel=0.02)
    half = truth + np.array([3.0, -1.0])
    half[:, 1] = np.nan
    np.testing.assert_allclose(position_error(half, truth, 60), (3 + 1 + 20 + 20) / 4)


def test_hidden_truth_is_left_out() -> None:
    truth = np.array([[[1.0, 1.0], [np.nan, np.nan]], [[np.nan] * 2] * 2])
    found = np.array([[[2.0, 4.0], [9.0, 9.0]], [[1.0] * 2] * 2])
    error = position_error(found, truth, 64)
    assert error[0] == 2 and np.isnan(error[1])


def test_the_paddle_is_found_within_a_fraction_of_a_pixel() -> None:
    colors = [world_paddle.COLORS[name] for name in ("paddle", "ball", "wall")]
    width, rows = 2 * 0.13 * 64, (0.89 * 64, 0.94 * 64)
    for seed in range(6):
        episode = simulate("paddle", seed, 64, 40)
        truth = np.array(episode.states["paddle"])
        for frames, allowed in (
            (episode.frames, 0.2),
            (noisy(episode.frames, 15), 0.5),
            (blurred(episode.frames, 1), 1.2),
        ):
            error = np.abs(track_bar(frames, colors, world_paddle.BACKGROUND, width, rows) - truth)
            assert error.mean() < 0.15 and error.max() < allowed
    empty = np.full((2, 64, 64, 3), world_paddle.BACKGROUND, np.uint8)
    assert np.isnan(track_bar(empty, colors, world_paddle.BACKGROUND, width, rows)).all()


def test_bad_input() -> None:
    frames = np.zeros((2, 32, 32, 3), np.uint8)
    one = np.ones((1, 3))
    with pytest.raises(ValueError, match="expected uint8"):
        track_discs(frames / 255.0, one, one[0], np.ones(1))
    with pytest.raises(ValueError, match=r"expected \(n, 3\)"):
        track_discs(frames, one, one[0], np.ones(2))
    with pytest.raises(ValueError, match="expected_radius"):
        track_discs(frames, one, one[0], np.zeros(1))
    with pytest.raises(ValueError, match="twice"):
        position_error(np.zeros((2, 1, 2)), np.zeros((3, 1, 2)), 64)
