from typing import Any

import numpy as np
import pytest

from tokenreel.datasets.clip_record import ClipRecord
from tokenreel.datasets.condition_facts import condition_facts
from tokenreel.transformer.conditions import ConditionConfig, words

NAN = float("nan")


def video(name: str = "a.mp4", **told: Any) -> ClipRecord:
    return ClipRecord(name, name, "train", 0, 3, 8, 8, 10, 10, 3, "1/10", 0, "", **told)


def test_nothing_told_is_nothing_known() -> None:
    assert condition_facts([]) == condition_facts([video(), video(caption=" ")]) == {"labels": []}


def test_labels_and_words() -> None:
    captions = ["a red ball", "", "Donaudampfschifffahrt\u00a0über \n éééééééé!", None]
    facts = condition_facts(
        [video(caption=caption, label=label) for caption, label in zip(captions, "bba?", strict=True)]
    )
    assert facts == {"labels": ["?", "a", "b"], "captions": {"words": 5}}
    # The GPT splits captions by a rule of its own file: it must be the same one.
    assert max(len(words(caption or "")) for caption in captions) == 5


def test_discrete_actions() -> None:
    plain = condition_facts([video(actions=[0, 2.0, 1]), video(), video(actions=[4, True, 0])])
    assert plain["actions"] == {"names": ["0", "1", "2", "3", "4"]}
    names = ["stay", "left", "right"]
    named = [video(actions=[0, 1]), video(actions=[2], action_names=names), video(action_names=["other"])]
    assert condition_facts(named)["actions"] == {"names": names}


def test_vectors_have_the_mean_and_deviation_of_all_frames() -> None:
    rng = np.random.default_rng(0)
    parts = [rng.normal((1e6, -3, 7), (0.5, 2, 0), (n, 3)) for n in (1, 40, 7)]
    facts = condition_facts([video(), *(video(actions=part.tolist()) for part in parts)])["actions"]
    whole = np.concatenate(parts)
    assert facts["size"] == 3
    np.testing.assert_allclose(facts["mean"], whole.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(facts["std"], whole.std(axis=0), rtol=1e-6, atol=1e-12)


def test_a_number_that_never_changes_has_no_deviation() -> None:
    # Of unequal lengths, so that rounding leaves something of the constants' deviation.
    videos = [video(actions=[[float(k), 0.3, 1 / 3] for k in range(n)]) for n in (7, 16, 31, 48)]
    assert condition_facts(videos)["actions"]["std"][1:] == [0, 0]


def test_the_gpt_takes_them() -> None:
    facts = condition_facts([video(label="x", caption="two words", actions=[[1, 2], [3, 4.5]])])
    config = ConditionConfig.of_data(facts, ("labels", "captions", "actions"), 4, 0.1)
    assert config.kinds == ("labels", "captions", "actions") and config.caption_words == 8
    assert config.action_mean == (2, 3.25) and config.action_std == (1, 1.25)


@pytest.mark.parametrize(
    ("actions", "names", "message"),
    [
        ([0, -1], None, r"b.mp4: action 1 is -1, expected a whole number from 0 .*lists of numbers"),
        ([0.5], None, r"b.mp4: action 0 is 0.5, expected a whole number"),
        ([NAN], None, r"b.mp4: action 0 is nan, expected a whole number"),
        ([10**400], None, r"b.mp4: action 0 .* to 4095"),
        ([0, 3], None, r"b.mp4: action 3, expected 0 to 1, as there are 2 action_names in a.mp4"),
        ([2], ["go", "jump"], r"b.mp4: action 2, expected 0 to 1, as there are 2 action_names in b.mp4"),
        ([0, [1.0]], None, r"b.mp4: action 1 is \[1.0\], expected single numbers as in a.mp4"),
    ],
)
def test_bad_discrete_actions(actions: list, names: list | None, message: str) -> None:
    good = video(actions=[0, 1], action_names=["stop", "go"])
    with pytest.raises(ValueError, match=message):
        condition_facts([good, video("b.mp4", actions=actions, action_names=names)])


def test_names_that_differ_are_put_together() -> None:
    """As in a folder of recordings of several games; ``conditions`` translates each by its own names."""
    games = [
        video(actions=[0, 1], action_names=["stop", "go"]),
        video("b.mp4", actions=[2, 0], action_names=["go", "jump", "stop"]),
        video("c.mp4"),
    ]
    facts = condition_facts(games)
    assert facts["actions"] == {"names": ["stop", "go", "jump"]}
    config = ConditionConfig.of_data(facts, ("actions",), 4, 0.1)
    told = config.of_record({"actions": games[1].actions, "action_names": games[1].action_names})
    assert told.actions == [None, "stop"]
    with pytest.raises(ValueError, match=r"d.mp4: no action_names, expected some, as they differ"):
        condition_facts([*games, video("d.mp4", actions=[0])])


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        ([[1, 2, 3]], r"b.mp4: action 0 has 3 numbers, expected 2 as in a.mp4"),
        ([[1, 2], [1, NAN]], r"b.mp4: action 1 is \[1, nan\], expected finite numbers"),
        ([[1, 10**400]], r"b.mp4: action 0 is .*, expected finite numbers"),
        ([1], r"b.mp4: action 0 is 1, expected a list of numbers as in a.mp4"),
    ],
)
def test_bad_vectors(actions: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        condition_facts([video(actions=[[0, 1]]), video("b.mp4", actions=actions)])
    with pytest.raises(ValueError, match="expected at least 1"):
        condition_facts([video(actions=[[], []])])
