import itertools
import json
import math
import os
import re
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from tokenreel.datasets import worlds
from tokenreel.datasets.clip_record import ClipRecord
from tokenreel.datasets.world_balls import COLORS, PALETTE
from tokenreel.datasets.world_combinations import all_combinations, caption, held_out_combinations
from tokenreel.datasets.world_paddle import ACTION_NAMES, Game, play_on
from tokenreel.datasets.world_states import disc_states
from tokenreel.datasets.worlds import simulate, write_world


def read(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def write(out: Path, **changed: Any) -> bool:
    settings: dict[str, Any] = dict(world="balls", count=3, val_count=2, size=32, frames=5, fps=10, seed=0)
    return write_world(out=out, **(settings | changed))


@pytest.mark.parametrize("seed", range(12))
def test_balls_keep_energy_and_never_overlap_or_leave(seed: int) -> None:
    states = simulate("balls", seed, 64, 400).states
    places, speeds, radius = (np.array(states[key]) for key in ("positions", "velocities", "radius"))
    energy = (radius[:, None] ** 2 * speeds**2).sum(axis=(1, 2))
    np.testing.assert_allclose(energy, energy[0], rtol=1e-3)
    assert (places >= radius[:, None] - 1e-3).all() and (places <= 64 - radius[:, None] + 1e-3).all()
    for i in range(len(radius)):
        for j in range(i):
            gap = np.linalg.norm(places[:, i] - places[:, j], axis=1) - radius[i] - radius[j]
            assert gap.min() > -1e-3


def test_balls_do_collide_with_each_other_and_keep_momentum_then() -> None:
    """Between frames in which no wall is near, velocities change only together and by equal momentum."""
    hits = 0
    for seed in range(30):
        states = simulate("balls", seed, 64, 100).states
        places, speeds, radius = (np.array(states[key]) for key in ("positions", "velocities", "radius"))
        margin = np.minimum(places - radius[:, None], 64 - places - radius[:, None]).min(axis=(1, 2))
        momentum = (radius[:, None] ** 2 * speeds).sum(axis=1)
        for t in range(99):
            if margin[t] > 4 and not np.allclose(speeds[t], speeds[t + 1], atol=1e-3):
                hits += 1
                np.testing.assert_allclose(momentum[t], momentum[t + 1], atol=0.05)
    assert hits > 5


def test_same_seed_same_clip() -> None:
    for world in worlds.WORLDS:
        first, again, other = (simulate(world, seed, 32, 20) for seed in (7, 7, 8))
        assert np.array_equal(first.frames, again.frames) and first.states == again.states
        assert first.actions == again.actions
        assert not np.array_equal(first.frames, other.frames)
        # A longer clip is the same one, continued.
        assert np.array_equal(first.frames, simulate(world, 7, 32, 30).frames[:20])


def test_states_tell_what_the_pixels_show() -> None:
    for seed in range(8):
        episode = simulate("balls", seed, 64, 6)
        states = episode.states
        grid = np.arange(64) + 0.5
        for t, frame in enumerate(episode.frames.astype(int)):
            for color, (x, y), radius in zip(states["colors"], states["positions"][t], states["radius"], strict=True):
                exact = (frame == color).all(axis=-1)
                assert exact.sum() == pytest.approx(math.pi * (radius - 0.5) ** 2, rel=0.12)
                rows, columns = np.nonzero(exact)
                assert abs(grid[columns].mean() - x) < 0.3 and abs(grid[rows].mean() - y) < 0.3
            ring = np.array(states["background"])
            assert (frame == ring).all(axis=-1).mean() > 0.8
        json.dumps(states)


def test_captions_and_labels_follow_the_balls() -> None:
    seen = {}
    for seed in range(40):
        episode = simulate("balls", seed, 32, 1)
        names = episode.states["names"]
        assert names == sorted(set(names), key=list(COLORS).index)
        seen[len(names)] = (names, episode.caption, episode.label)
    assert sorted(seen) == [1, 2, 3]
    (a,), caption, label = seen[1]
    assert (caption, label) == (f"a {a} ball", "one ball")
    (a, b), caption, label = seen[2]
    assert (caption, label) == (f"a {a} ball and a {b} ball", "two balls")
    (a, b, c), caption, label = seen[3]
    assert (caption, label) == (f"a {a} ball, a {b} ball and a {c} ball", "three balls")


def test_golden_worlds() -> None:
    """The embedded worlds are what published figures were measured on: they must stay the same clips."""
    balls = simulate("balls", 0, 64, 3).states
    assert balls["names"] == ["green", "blue", "magenta"] and balls["radius"] == [5.1517, 6.6815, 6.8725]
    assert balls["positions"][2] == [[25.1063, 27.3814], [6.8752, 10.0817], [37.5825, 35.2534]]
    paddle = simulate("paddle", 0, 64, 3)
    assert paddle.states["ball"][2] == [34.5131, 10.4819] and paddle.states["paddle"][2] == 36.2646


def test_twins_are_counted_in_captions() -> None:
    assert caption(["red"]) == "a red ball" and caption(["orange", "red"]) == "an orange ball and a red ball"
    assert caption(["red", "red", "green"]) == "two red balls and a green ball"
    assert caption(["red", "blue", "blue"]) == "a red ball and two blue balls"
    assert caption(["blue"] * 3) == "three blue balls"
    drawn, swapped = Counter(), 0
    for seed in range(400):
        episode = simulate("balls", seed, 32, 1, twins=True)
        names = tuple(episode.states["names"])
        assert list(names) == sorted(names, key=list(COLORS).index)
        orders = {caption(sorted(names, key=order.index)) for order in itertools.permutations(set(names))}
        assert episode.caption in orders
        swapped += episode.caption != caption(names)
        assert [list(COLORS[name]) for name in names] == episode.states["colors"]
        drawn[names] += 1
    assert 100 < swapped < 300, "the same colours should be named in any order"
    numbers = Counter(len(names) for names in drawn.elements())
    assert len(all_combinations(list(COLORS), twins=True)) == 6 + 21 + 56 and len(drawn) > 75
    assert numbers[1] > 40 and numbers[2] > 90 and numbers[3] > 160, "every number of balls should be met often"


def test_more_and_fewer_colors(tmp_path: Path) -> None:
    drawn = {seed: simulate("balls", seed, 32, 1, twins=True, colors=8) for seed in range(200)}
    names = {name for episode in drawn.values() for name in episode.states["names"]}
    assert names == set(PALETTE) and len(PALETTE) == 8
    for episode in drawn.values():
        assert all(name in episode.caption for name in episode.states["names"])
    usual = simulate("balls", 3, 32, 2)
    assert np.array_equal(simulate("balls", 3, 32, 2, colors=6).frames, usual.frames)
    write(tmp_path, count=1, val_count=0, frames=1, options={"twins": True, "hold_out": 0.2, "colors": 4})
    told = json.loads((tmp_path / "world.json").read_text())
    assert list(told["colors"]) == list(PALETTE)[:4] and told["options"]["colors"] == 4
    assert {name for balls in told["options"]["held_out"] for name in balls} <= set(told["colors"])
    for wrong in (2, 9):
        with pytest.raises(ValueError, match=f"colors is {wrong}; expected 3 to 8"):
            simulate("balls", 0, 32, 1, colors=wrong)


@pytest.mark.parametrize("twins", [True, False])
@pytest.mark.parametrize("seed", range(5))
def test_what_is_held_out_is_new_only_as_a_combination(twins: bool, seed: int) -> None:
    everything = all_combinations(list(COLORS), twins)
    held_out = held_out_combinations(everything, 0.2, seed)
    assert held_out == held_out_combinations(everything, 0.2, seed) != held_out_combinations(everything, 0.2, seed + 1)
    sizes = Counter(map(len, held_out))
    assert sizes == ({2: 4, 3: 11} if twins else {2: 3, 3: 4})
    shown = [balls for balls in everything if balls not in held_out]
    for name in COLORS:
        assert {len(balls) for balls in shown if name in balls} == {1, 2, 3}
        assert {balls.count(name) for balls in shown} == {balls.count(name) for balls in everything}


def test_held_out_combinations_are_validation_and_nothing_else(tmp_path: Path) -> None:
    options = {"twins": True, "hold_out": 0.2}
    write(tmp_path, count=40, val_count=20, frames=1, options=options)
    told = json.loads((tmp_path / "world.json").read_text())["options"]
    assert set(told) == {"twins", "hold_out", "held_out"} and len(told["held_out"]) == 15
    for split, expected in (("train", False), ("val", True)):
        for file in (tmp_path / split).glob("*.json"):
            sidecar = json.loads(file.read_text())
            assert (sidecar["states"]["names"] in told["held_out"]) is expected
            assert sorted(re.findall(r"red|green|blue|yellow|magenta|cyan", sidecar["caption"])) == sorted(
                set(sidecar["states"]["names"])
            )
    assert write(tmp_path, count=40, val_count=20, frames=1, options=options) is False


def test_twins_have_no_states_by_colour(tmp_path: Path) -> None:
    record = ClipRecord("a", "val/00000.mp4", "val", 0, 5, 32, 32, 10, 10, 5, "1/10", 0, "")
    write(tmp_path / "plain")
    write(tmp_path / "twins", options={"twins": True})
    assert disc_states(tmp_path / "plain", record) is not None
    assert disc_states(tmp_path / "twins", record) is None


def test_other_actions_are_played_from_a_known_state() -> None:
    episode = simulate("paddle", 1, 64, 40)
    assert episode.actions is not None and episode.states["misses"][-1] == 0
    frames, paddle = play_on(episode.states, 4, episode.actions[4:-1], 64)
    np.testing.assert_allclose(paddle, episode.states["paddle"][5:], atol=1e-2)
    assert np.abs(frames.astype(int) - episode.frames[5:]).max() <= 2  # states are rounded to 4 digits
    for name, sign in (("left", -1), ("right", 1)):
        _, moved = play_on(episode.states, 4, [ACTION_NAMES.index(name)] * 3, 64)
        np.testing.assert_allclose(moved - episode.states["paddle"][4], sign * 2.88 * np.arange(1, 4), atol=1e-3)


def test_occluder_hides_what_the_flags_say() -> None:
    hidden, partly = 0, 0
    for seed in range(10):
        episode = simulate("balls", seed, 64, 60, occluder=True)
        states = episode.states
        assert states["positions"] == simulate("balls", seed, 64, 60).states["positions"]
        for t, frame in enumerate(episode.frames):
            for i, color in enumerate(states["colors"]):
                pixels = (np.abs(frame.astype(int) - color).sum(axis=-1) < 40).sum()
                fraction = states["visible_fraction"][t][i]
                area = math.pi * states["radius"][i] ** 2
                assert states["visible"][t][i] == (fraction > 0)
                assert abs(pixels / area - fraction) < 0.22
                hidden += fraction == 0
                partly += 0.1 < fraction < 0.9
    assert hidden > 20 and partly > 20


def test_actions_move_the_paddle_and_the_picture() -> None:
    used = set()
    for seed in range(6):
        episode = simulate("paddle", seed, 64, 80)
        states = episode.states
        assert episode.actions is not None and len(episode.actions) == len(episode.frames) == 80
        assert episode.action_names == ["stay", "left", "right"]
        low, high = min(states["paddle"]), max(states["paddle"])
        for action, (before, after) in zip(episode.actions[:-1], pairwise(states["paddle"]), strict=True):
            used.add(action)
            if low < before < high:
                assert np.sign(round(after - before, 3)) == (0, -1, 1)[action]
        for t, frame in enumerate(episode.frames):
            row, column = int(0.915 * 64), int(states["paddle"][t])
            assert frame[row, column].tolist() == states["paddle_color"]
    assert used == {0, 1, 2}


def test_paddle_game_is_fixed_by_state_and_action_except_for_a_missed_ball() -> None:
    catches = misses = 0
    for seed in range(20):
        states = simulate("paddle", seed, 64, 120).states
        balls, speeds = np.array(states["ball"]), np.array(states["velocity"])
        speed = np.linalg.norm(speeds, axis=1)
        np.testing.assert_allclose(speed, speed[0], rtol=1e-3)
        caught, missed = np.diff(states["catches"]), np.diff(states["misses"])
        assert set(caught) | set(missed) <= {0, 1}
        assert (speeds[1:, 1][caught == 1] < 0).all()
        assert (balls[1:, 1][missed == 1] < 8).all()
        catches, misses = catches + caught.sum(), misses + missed.sum()
    assert misses > 10 and 2 * misses < catches < 8 * misses, "the player should miss sometimes, not often"
    offsets = []
    for paddle in (0.4, 0.5, 0.6):  # Hit on its right, in its middle, on its left.
        game = Game(np.random.default_rng(0), x=0.5, y=0.82, vy=0.048, paddle=paddle)
        game.step(0)
        offsets.append(game.vx)
    assert offsets[0] > 0 == offsets[1] > offsets[2]


def test_written_world_is_complete(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    assert write(tmp_path / "w", world="paddle", progress=lambda done, total: calls.append((done, total)))
    assert calls == [(i, 5) for i in range(1, 6)]
    made = sorted(str(file.relative_to(tmp_path / "w")) for file in (tmp_path / "w").rglob("*.*"))
    pairs = [
        f"{split}/{i:05d}.{s}" for split, n in (("train", 3), ("val", 2)) for i in range(n) for s in ("json", "mp4")
    ]
    assert made == [*pairs, "world.json"]
    settings = json.loads((tmp_path / "w/world.json").read_text())
    assert (settings["world"], settings["size"], settings["format_version"]) == ("paddle", 32, 1)
    states = []
    for file in sorted((tmp_path / "w").rglob("0*.json")):
        sidecar = json.loads(file.read_text())
        assert set(sidecar) == {"caption", "label", "actions", "action_names", "states"}
        assert read(file.with_suffix(".mp4")).shape == (5, 32, 32, 3)
        assert len(sidecar["actions"]) == len(sidecar["states"]["ball"]) == 5
        states.append(json.dumps(sidecar["states"]))
    assert len(set(states)) == 5, "train and val must not share a clip"


def test_world_files_show_the_simulated_frames(tmp_path: Path) -> None:
    write(tmp_path, size=64)
    sidecar = json.loads((tmp_path / "train/00001.json").read_text())
    episode = simulate("balls", 1, 64, 5)
    assert sidecar["states"] == episode.states
    difference = read(tmp_path / "train/00001.mp4").astype(int) - episode.frames
    assert np.abs(difference).mean() < 2


def test_lossless_files_hold_every_pixel_and_are_another_world(tmp_path: Path) -> None:
    assert write(tmp_path / "exact", lossless=True) is True and write(tmp_path / "exact", lossless=True) is False
    assert sorted(file.name for file in (tmp_path / "exact/val").iterdir()) == [
        "00000.json", "00000.mkv", "00001.json", "00001.mkv",
    ]  # fmt: skip
    assert np.array_equal(read(tmp_path / "exact/train/00001.mkv"), simulate("balls", 1, 32, 5).frames)
    write(tmp_path / "usual")
    for folder, lossless in (("exact", False), ("usual", True)):
        with pytest.raises(ValueError, match=r"holds another world: options is"):
            write(tmp_path / folder, lossless=lossless)


def test_writing_again_is_free_and_other_settings_are_refused(tmp_path: Path) -> None:
    out = tmp_path / "w"
    assert write(out) is True
    stamp = (out / "train/00000.mp4").stat().st_mtime_ns
    assert write(out) is False and write(out, options={"occluder": False}) is False
    assert (out / "train/00000.mp4").stat().st_mtime_ns == stamp
    for changed in ({"frames": 6}, {"seed": 1}, {"world": "paddle"}, {"options": {"occluder": True}}):
        with pytest.raises(ValueError, match=r"holds another world.*--out"):
            write(out, **changed)


def test_interrupted_world_is_completed(tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    def stop(done: int, total: int) -> None:
        if done == 2:
            raise Stop

    out = tmp_path / "w"
    with pytest.raises(Stop):
        write(out, progress=stop)
    assert not (out / "world.json").exists()
    (out / "train/00001.json").unlink()  # Killed between a video and its sidecar.
    (out / "train/00001.mp4").write_bytes(b"half")
    with pytest.raises(ValueError, match="holds another world"):
        write(out, frames=6)
    assert write(out) is True
    write(tmp_path / "reference")
    for file in (tmp_path / "reference").rglob("*.*"):
        assert (out / file.relative_to(tmp_path / "reference")).read_bytes() == file.read_bytes()
    assert len(list(out.rglob("*.*"))) == 11


def test_folder_with_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "holiday.mp4").write_bytes(b"mine")
    with pytest.raises(ValueError, match="not empty"):
        write(tmp_path)
    assert os.listdir(tmp_path) == ["holiday.mp4"]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"world": "cubes"}, "unknown world 'cubes'; expected one of balls, paddle"),
        ({"size": 30}, "size is 30"),
        ({"size": 63}, "size is 63"),
        ({"frames": 0}, "frames is 0"),
        ({"count": 0}, "count is 0"),
        ({"val_count": -1}, "val_count is -1"),
        ({"fps": 0}, "fps is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"world": "paddle", "options": {"occluder": True}}, "no option 'occluder'"),
        ({"world": "paddle", "options": {"twins": True}}, "no option 'twins'; it knows: none"),
        ({"options": {"hold_out": 1.5}}, "hold_out is 1.5; expected a share between 0 and 1"),
        ({"options": {"hold_out": 0.9}}, "hold_out is 0.9.*expected at most 0.[4-8].*never be seen in training"),
    ],
)
def test_bad_settings_write_nothing(tmp_path: Path, changed: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        write(tmp_path / "w", **changed)
    assert not (tmp_path / "w").exists()


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from tokenreel.tools.make_world import main

    arguments = ["balls", "--out", str(tmp_path / "w"), "--count", "1", "--val-count", "1", "--size", "32"]
    main([*arguments, "--frames", "3", "--occluder"])
    assert "1 training and 1 validation clips, 32x32, 3 frames" in capsys.readouterr().out
    assert json.loads((tmp_path / "w/train/00000.json").read_text())["states"]["occluder"] is not None
    main([*arguments, "--frames", "3", "--occluder"])
    assert "already there" in capsys.readouterr().out
    main([*arguments[:2], str(tmp_path / "t"), *arguments[3:], "--frames", "3", "--twins", "--hold-out", "0.1"])
    options = json.loads((tmp_path / "t/world.json").read_text())["options"]
    main([*arguments[:2], str(tmp_path / "l"), *arguments[3:], "--frames", "3", "--lossless"])
    assert read(tmp_path / "l/train/00000.mkv").shape == (3, 32, 32, 3)
    assert options["twins"] is True and options["hold_out"] == 0.1 and len(options["held_out"]) == 8
    with pytest.raises(SystemExit) as stop:
        main([*arguments, "--frames", "4"])
    assert stop.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1
