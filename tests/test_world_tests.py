"""Judges of the worlds: full marks for the world itself, none for what breaks one of its rules."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from tokenreel.datasets.world_balls import BACKGROUND, COLORS, OCCLUDER, PALETTE, moved
from tokenreel.datasets.world_episode import Canvas, Episode
from tokenreel.datasets.world_fork import fall_on
from tokenreel.datasets.worlds import simulate
from tokenreel.evaluation.chance import chi_square_tail, judge_chance, side_taken, wilson_interval
from tokenreel.evaluation.disc_tests import disc_figures
from tokenreel.evaluation.orders import OrderedMotion
from tokenreel.evaluation.tally import Tally, joined
from tokenreel.evaluation.world_tests import STILL, TOKENIZER, WORLD, WorldTest, continued, run_world_test
from tokenreel.tools.world_cases import law_of_balls, scene_of, world_tests

SIZE, FRAMES = 64, 36


def painted(episode: Episode, places: np.ndarray) -> np.ndarray:
    """The balls of a clip at other places (T, n, 2)."""
    canvas = Canvas(len(places), SIZE, BACKGROUND)
    for i, name in enumerate(episode.states["names"]):
        canvas.discs(places[:, i], episode.states["radius"][i], COLORS[name])
    return canvas.finished()


def judged(episodes: Sequence[Episode], clips: Sequence[np.ndarray], prompt: int = 3) -> dict[str, Tally]:
    scenes = [scene_of(episode) for episode in episodes]
    return disc_figures(clips, scenes, prompt, [law_of_balls(scene, SIZE) for scene in scenes])


@pytest.fixture(scope="module")
def busy() -> list[Episode]:
    """Clips of three balls, in which much happens."""
    some = (simulate("balls", seed, SIZE, FRAMES) for seed in range(30))
    return [episode for episode in some if len(episode.states["names"]) == 3][:4]


def values(figures: dict[str, Tally]) -> dict[str, float]:
    return {name: tally.value for name, tally in figures.items()}


def test_the_world_itself_obeys_all_its_rules(busy: list[Episode]) -> None:
    found = judged(busy, [episode.frames for episode in busy])
    assert found["position error"].value < 0.1 and found["right discs"].value == 1
    assert found["wall bounces obeyed"].value == 1 and found["wall bounces obeyed"].cases.sum() > 5
    assert found["collisions obeyed"].value == 1 and found["collisions obeyed"].cases.sum() >= 3
    assert found["straight flight kept"].value > 0.99
    assert found["position error"].curve.shape == (33,) and found["position error"].per_clip.shape == (4,)


def test_balls_that_fly_through_each_other_break_one_rule_alone(busy: list[Episode]) -> None:
    clips = []
    for episode in busy:
        states = {key: np.array(episode.states[key]) for key in ("positions", "velocities", "radius")}
        alone = [
            moved(states["positions"][0][[i]], states["velocities"][0][[i]], states["radius"][[i]], SIZE, FRAMES)[0][
                :, 0
            ]
            for i in range(3)
        ]
        clips.append(painted(episode, np.stack(alone, axis=1)))
    found = values(judged(busy, clips))
    assert found["collisions obeyed"] < 0.1 and found["wall bounces obeyed"] > 0.9
    assert found["straight flight kept"] > 0.95 and found["position error"] > 3


def test_balls_that_stick_to_walls_break_that_rule(busy: list[Episode]) -> None:
    clips = []
    for episode in busy:
        place, speed = (np.array(episode.states[key])[0] for key in ("positions", "velocities"))
        radius = np.array(episode.states["radius"])[:, None]
        clips.append(
            painted(episode, np.stack([np.clip(place + t * speed, radius, SIZE - radius) for t in range(FRAMES)]))
        )
    assert values(judged(busy, clips))["wall bounces obeyed"] < 0.3


def test_balls_that_turn_aside_or_change_colour_are_noticed(busy: list[Episode]) -> None:
    swerving, recoloured = [], []
    for episode in busy:
        t = np.arange(FRAMES)[:, None, None]
        places = np.array(episode.states["positions"][0]) + 6 * np.sin(0.3 * t + np.array([0, np.pi / 2]))
        swerving.append(painted(episode, places))
        other = episode.frames.copy()
        one = (np.abs(other.astype(int) - episode.states["colors"][0]).sum(axis=-1) < 60) & (t >= 20)
        other[one] = next(color for color in COLORS.values() if list(color) not in episode.states["colors"])
        recoloured.append(other)
    assert values(judged(busy, swerving))["straight flight kept"] < 0.5
    right = judged(busy, recoloured)["right discs"].curve
    assert (right[:17] == 1).all() and (right[17:] == 0).all()


def test_balls_come_back_from_behind_the_bar() -> None:
    episodes = [simulate("balls", seed, SIZE, 60, occluder=True) for seed in (0, 2, 3, 5, 7)]
    forgetful = []
    for episode in episodes:
        places, seen = (np.array(episode.states[key]) for key in ("positions", "visible_fraction"))
        for i, shown in enumerate(seen.T):
            if (shown < 0.02).any():  # once out of sight, gone for good
                places[np.argmax(shown < 0.02) :, i] = -30
        frames, (left, right) = painted(episode, places), episode.states["occluder"]
        frames[:, :, int(np.ceil(left)) : int(right)] = OCCLUDER
        forgetful.append(frames)
    scenes = [scene_of(episode) for episode in episodes]
    true = disc_figures([episode.frames for episode in episodes], scenes, 3)
    lost = disc_figures(forgetful, scenes, 3)
    name = "discs back from behind the bar"
    # Two that meet behind the bar may stay there longer.
    assert true[name].value >= 0.7 and true[name].cases.sum() >= 2 and true["right discs"].value == 1
    assert lost[name].value == 0 and lost["position error"].value > 5 * true["position error"].value
    assert "wall bounces obeyed" not in true


def test_a_lost_paddle_is_no_success() -> None:
    due = np.full((2, 3), 30.0)
    lost = OrderedMotion(np.where([[True], [False]], np.nan, due), due, due[:, 0]).figures(64, 2.88)
    expected = {"displacement per frame": 0, "position error": pytest.approx(64 / 6), "moved as told": 0.5}
    assert values(lost) == expected


# chance


def test_the_fork_is_what_it_says() -> None:
    sides, pairs = [], []
    for seed in range(90):
        episode = simulate("fork", seed, SIZE, 40)
        states = episode.states
        met = np.flatnonzero(np.diff(states["drops"]))
        begin = int(met[0]) + 1
        color, ground = (np.array(states[key], dtype=np.uint8) for key in ("color", "background"))
        clip = episode.frames[begin : begin + 8]
        pairs.append((side_taken(clip, color, ground, states["radius"], states["peg"]), states["sides"][0]))
        sides += states["sides"]
        before = fall_on(states, begin - 3, 3, SIZE, seed=9)
        assert np.abs(before.astype(int) - episode.frames[begin - 2 : begin + 1]).max() <= 1
    assert all(seen == true for seen, true in pairs)
    assert judge_chance(sides, {"left": 0.3, "right": 0.7}).in_proportion
    assert not judge_chance(sides, {"left": 0.5, "right": 0.5}).in_proportion
    state = simulate("fork", 0, SIZE, 40)
    before = int(np.flatnonzero(np.diff(state.states["drops"]))[0])
    ways = {fall_on(state.states, before, 6, SIZE, seed)[-1].tobytes() for seed in range(12)}
    assert len(ways) == 2, "from one state the ball should go either way"


def test_a_ball_in_two_places_or_in_none_has_taken_no_side() -> None:
    canvas = Canvas(4, SIZE, BACKGROUND)
    for x in (16.0, 48.0):
        canvas.discs(np.tile([x, 40.0], (4, 1)), 4.8, COLORS["red"])
    red, ground = np.array(COLORS["red"], np.uint8), np.array(BACKGROUND, np.uint8)
    assert side_taken(canvas.finished(), red, ground, 4.8, (32, 30)) is None
    assert side_taken(np.full((4, 64, 64, 3), BACKGROUND, np.uint8), red, ground, 4.8, (32, 30)) is None


def test_chance_is_judged_by_known_statistics() -> None:
    # The usual table's 5 % and 1 % points.
    assert chi_square_tail(3.841, 1) == pytest.approx(0.05, abs=1e-4)
    assert chi_square_tail(9.210, 2) == pytest.approx(0.01, abs=1e-4)
    low, high = wilson_interval(7, 10)
    assert (low, high) == (pytest.approx(0.3968, abs=1e-4), pytest.approx(0.8922, abs=1e-4))
    always = judge_chance(["right"] * 60, {"left": 0.3, "right": 0.7})
    assert not always.in_proportion and always.plain()["shares"] == {"left": 0, "right": 1}
    few = judge_chance(["right", None], {"left": 0.3, "right": 0.7})
    assert np.isnan(few.p_value) and few.undecided == 1 and few.in_proportion
    assert few.plain()["in_proportion"] is None, "too few to say"
    with pytest.raises(ValueError, match="expected odds of each outcome"):
        judge_chance(["up"], {"left": 0.3, "right": 0.7})


# any model that continues frames


def still(prompt: np.ndarray, new_frames: int, told: Sequence[Any], seeds: Sequence[int]) -> np.ndarray:
    return np.repeat(prompt[:, -1:], new_frames, axis=1)


@pytest.mark.parametrize("world", ["balls", "paddle", "fork"])
def test_the_world_itself_beats_a_still_picture_in_every_test(world: str) -> None:
    for test in world_tests({"world": world, "options": {}}, 16, 4, 4, 64):
        if not test.prompt_frames:
            continue
        found = run_world_test(test, {"a still picture": still}, lambda clips: clips)
        assert list(found) == ["a still picture", WORLD, TOKENIZER, STILL]
        assert found[WORLD].plain() == found[TOKENIZER].plain()
        assert found["a still picture"].plain() == found[STILL].plain()
        world_figures, still_figures = (found[name].figures for name in (WORLD, STILL))
        if world == "fork":
            assert world_figures["went to one side"].value == 1 and still_figures["went to one side"].value == 0
            continue
        error = "position error" if world == "balls" else "position error of the ball"
        assert world_figures[error].value < 0.1 and still_figures[error].value > 3
        assert len(found[WORLD].plain()["figures"][error]["curve"]) == 12


def test_obedience_to_captions_is_told_from_their_neglect() -> None:
    options = {"twins": True, "held_out": [["red", "red"], ["blue", "green"]]}
    _, shown, held_out = world_tests({"world": "balls", "options": options}, 4, 3, 6, 64)
    told = {clip["caption"] for clip in held_out.told}
    assert held_out.name.endswith("held out") and told < {
        *("two red balls", "a blue ball and a green ball", "a green ball and a blue ball")
    }
    neglected = dataclasses.replace(shown, told=shown.told[::-1], truth=shown.truth[::-1])
    assert shown.judge(shown.truth).figures["colours and counts right"].value == 1
    assert neglected.judge(neglected.truth).figures["colours and counts right"].value < 0.4


@pytest.mark.parametrize("colors", [3, 8])
def test_worlds_of_fewer_and_more_colors_are_judged_by_their_own(colors: int) -> None:
    known = list(PALETTE)[:colors]
    options = {"twins": True, "colors": colors, "hold_out": 0.01, "held_out": [[known[-1]], [known[0], known[-1]]]}
    tests = world_tests({"world": "balls", "options": options}, 4, 3, 12, 64)
    for test in tests:
        found = test.judge(test.truth).figures
        right = "right discs" if test.name == "balls" else "colours and counts right"
        assert found[right].value == 1, test.name
    seen = {name for test in tests for told in test.told for name in PALETTE if name in told["caption"]}
    assert seen == set(known)


def test_orders_reach_the_model_and_the_wrong_ones_show() -> None:
    tests = {test.name: test for test in world_tests({"world": "paddle", "options": {}}, 16, 4, 4, 64)}
    left, right = tests["paddle, left"], tests["paddle, right"]
    assert left.told[0]["actions"][3:] == [1] * 13 and left.told[0]["action_names"][1] == "left"
    assert left.judge(left.truth).figures["moved as told"].value == 1
    assert left.judge(right.truth).figures["moved as told"].value < 0.4


def test_what_a_model_must_return_is_checked() -> None:
    prompts, told = np.zeros((3, 2, 32, 32, 3), np.uint8), [{}] * 3
    assert continued(still, prompts, 5, told).shape == (3, 7, 32, 32, 3)
    with pytest.raises(ValueError, match=r"made uint8 \(3, 7, 32, 32, 3\), expected.*new frames alone"):
        continued(lambda p, n, t, s: np.repeat(p[:, :1], 2 + n, axis=1), prompts, 5, told)
    with pytest.raises(ValueError, match="leave nothing to judge"):
        WorldTest("x", prompts, 2, told, lambda clips: None)  # type: ignore[arg-type, return-value]


# figures over clips


def test_a_tally_is_the_ratio_of_all_sums_to_all_cases() -> None:
    tally = Tally([1, 0, 9], [1, 0, 18], "share")
    assert tally.value == 10 / 19 and np.isnan(tally.per_clip[1]) and tally.plain()["clips"] == 2
    both = joined([{"a": tally}, {"a": Tally([4], [4], "share")}])["a"]
    assert both.value == 14 / 23
    assert np.isnan(Tally([0], [0], "px").value) and Tally([0], [0], "px").plain()["value"] is None
    with pytest.raises(ValueError, match="twice"):
        Tally([1], [1, 2], "px")


def test_the_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    rng, held = np.random.default_rng(0), 0
    for i in range(200):
        low, high = Tally.of(rng.normal(5, 2, (40, 3)) + rng.normal(0, 2, (40, 1)), "px").interval(200, seed=i)
        held += low <= 5 <= high
    assert 178 <= held <= 198
    assert Tally.of(np.ones(5), "px").interval() == (1, 1)
