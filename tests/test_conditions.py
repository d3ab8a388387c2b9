"""Conditions: what is said becomes tensors, reaches the right tokens, and steers the sampler."""

import json
import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn

from tokenreel.transformer import (
    ClipConditions,
    ConditionConfig,
    Conditions,
    GPTConfig,
    GPTSize,
    SamplingSettings,
    VideoGPT,
    sample_indices,
)
from tokenreel.transformer.clip_chance import drawn_chance
from tokenreel.transformer.condition_embedding import hide
from tokenreel.transformer.conditions import words
from tokenreel.transformer.context_noise import noisy
from tokenreel.transformer.sampling import sample_latent_frames

GRID, FRAME, K = (3, 2, 3), 6, 30
LABELS, CAPTIONS = {"labels": ("cat", "dog")}, {"caption_words": 3}
DISCRETE = {"action_names": ("stay", "left", "right")}
VECTORS = {"action_size": 2, "action_mean": (1.0, -2.0), "action_std": (2.0, 0.0)}
ENCODED = {"caption_words": 3, "text_encoder": "some/encoder", "text_dim": 5}
KINDS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "labels": LABELS,
    "captions": CAPTIONS,
    "encoded captions": ENCODED,
    "actions": DISCRETE,
    "vectors": VECTORS,
    "all": {**LABELS, **CAPTIONS, **DISCRETE},
    "all, encoded": {**LABELS, **ENCODED, **VECTORS},
}


def random_gpt(kind: str, factors: int = 1, **values: Any) -> VideoGPT:
    """A GPT whose weights are random everywhere: as made, head and branches are zero."""
    conditions = ConditionConfig(**KINDS[kind], frames_per_latent=2)
    gpt = VideoGPT(GPTConfig(K, GRID, GPTSize(dim=64, depth=2), conditions=conditions, factors=factors, **values))
    for parameter in gpt.parameters():
        nn.init.normal_(parameter, std=0.2)
    return gpt.eval()


def said(kind: str) -> Conditions:
    """Conditions of three clips; the third is told nothing."""
    config = ConditionConfig(**KINDS[kind], frames_per_latent=2)
    actions: list[Any] = [None, 1, 2, "left", 0, 1] if config.action_names else [None] + [[0.5, k] for k in range(5)]
    clips = [ClipConditions(), ClipConditions(), ClipConditions()]
    for i in (0, 1):
        clips[i] = ClipConditions(
            ("cat", "dog")[i] if config.labels else None,
            ("a red ball", "ball")[i] if config.caption_words else None,
            (actions, actions[::-1])[i] if "actions" in config.kinds else None,
        )
    vectors = None
    if config.text_encoder:
        vectors = torch.randn(3, 3, 5, generator=torch.Generator().manual_seed(0)).numpy()
        vectors[2] = 0
    return config.tensors(clips, 3, vectors)


@torch.no_grad()
def hidden_states(gpt: VideoGPT, indices: torch.Tensor, conditions: Conditions) -> torch.Tensor:
    return gpt.hidden_states(indices, conditions, gpt.tables())


# through the model


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("prefill", [0, 1, FRAME, 2 * FRAME + 2])
def test_cached_decoding_equals_the_full_forward_under_every_kind_of_condition(
    kind: str, prefill: int, cached_states: Callable[..., torch.Tensor]
) -> None:
    gpt, conditions = random_gpt(kind, context_noise=0.3), said(kind)
    indices = torch.randint(K, (3, *GRID))
    full = hidden_states(gpt, indices, conditions)
    torch.testing.assert_close(cached_states(gpt, indices, conditions, prefill), full, rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "nothing"])
def test_conditions_matter_row_by_row_and_nothing_said_is_none(kind: str) -> None:
    gpt, conditions = random_gpt(kind), said(kind)
    indices = torch.randint(K, (1, *GRID)).expand(3, -1, -1, -1)
    told, untold = hidden_states(gpt, indices, conditions), hidden_states(gpt, indices, Conditions())
    torch.testing.assert_close(told[2], untold[2])
    assert (told[0] - untold[0]).abs().max() > 0.01 and (told[0] - told[1]).abs().max() > 0.01
    changed = hidden_states(gpt, indices, Conditions(*(None if p is None else p[[2, 1, 0]] for p in conditions)))
    torch.testing.assert_close(changed[[2, 1, 0]], told)


@pytest.mark.parametrize("kind", ["actions", "vectors"])
def test_an_action_is_told_from_its_own_latent_frame_on_and_not_before(kind: str) -> None:
    gpt, conditions = random_gpt(kind), said(kind)
    indices = torch.randint(K, (3, *GRID))
    before = hidden_states(gpt, indices, conditions)
    for frame in range(3):
        assert conditions.actions is not None
        actions = conditions.actions.clone()
        actions[:, frame, 1] = (actions[:, frame, 1] + 1) % 4 if kind == "actions" else 0.123
        differs = (hidden_states(gpt, indices, Conditions(actions=actions)) != before).any(dim=-1)
        assert not differs[:, : frame * FRAME].any()
        assert differs[:, frame * FRAME :].all(), "an index of the frame is predicted without its actions"


def test_every_weight_of_the_conditions_learns() -> None:
    for kind in ("all", "all, encoded"):
        gpt, conditions = random_gpt(kind, context_noise=0.5), said(kind)
        gpt.train()
        for _ in range(8):  # a level of noise, or a hidden label, may be missing in one pass
            gpt(torch.randint(K, (3, *GRID)), *conditions).loss.backward()
        for name, parameter in gpt.named_parameters():
            assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


@torch.no_grad()
@pytest.mark.parametrize("factors", [1, 2])
def test_guidance_moves_the_scores_away_from_those_without_conditions(factors: int) -> None:
    gpt, conditions = random_gpt("all", factors), said("all")
    prompt = torch.randint(K, (3, 1, 2, 3))

    def made(guidance: float, conditions: Conditions | None) -> torch.Tensor:
        settings = SamplingSettings(temperature=0, guidance=guidance)
        return sample_indices(gpt, prompt, 2, settings, [0, 1, 2], conditions)

    plain, none = made(1.0, conditions), made(1.0, None)
    assert torch.equal(made(0.0, conditions), none) and not torch.equal(plain, none)
    for guidance in (2.0, 5.0):
        guided = made(guidance, conditions)
        assert torch.equal(guided[2], none[2]), "a clip that is told nothing has nothing to be guided by"
        expected = guided.flatten(1)
        told, untold = (hidden_states(gpt, guided, c) for c in (conditions, Conditions()))
        vectors = gpt.head.read()
        for place in range(FRAME, 3 * FRAME):
            both = torch.cat([told[:, place], untold[:, place]])
            if factors == 1:
                scores, without = (both @ vectors[0].T).chunk(2)
                picked = (without + guidance * (scores - without)).argmax(-1)
            else:
                picked = gpt.head.pick(
                    both, vectors, SamplingSettings(temperature=0, guidance=guidance), torch.zeros(3, 2)
                )
            assert torch.equal(picked, expected[:, place])
    assert not torch.equal(made(5.0, conditions), plain)


@torch.no_grad()
def test_guidance_leaves_values_out_that_cannot_be() -> None:
    """17 codes in two factors of 5 and 4 values: three pairs are no code, their scores minus infinity."""
    conditions = ConditionConfig(labels=("cat", "dog"))
    gpt = VideoGPT(GPTConfig(17, GRID, GPTSize(dim=64, depth=1), conditions=conditions, factors=2))
    for parameter in gpt.parameters():
        nn.init.normal_(parameter, std=0.2)
    nothing, labels = torch.zeros(64, 0, 2, 3, dtype=torch.int64), torch.ones(64, dtype=torch.int64)
    made = sample_indices(gpt.eval(), nothing, 3, SamplingSettings(guidance=2.0), range(64), Conditions(labels))
    assert made.max() < 17


def test_conditions_of_other_clips_are_refused() -> None:
    gpt, prompt = random_gpt("all"), torch.randint(K, (2, 1, 2, 3))
    known = gpt.config.conditions
    for clips, t_lat, message in (
        (1, 3, "labels are of 1 clips, expected those of 2 prompts"),
        (2, 1, "actions are of 1 latent frames, expected 3, those of prompt and new ones"),
    ):
        told = known.tensors([ClipConditions(actions=[0] * 6)] * clips, t_lat)
        with pytest.raises(ValueError, match=message):
            sample_indices(gpt, prompt, 2, SamplingSettings(), [0, 1], told)


@pytest.mark.parametrize("kind", ["actions", "vectors"])
@pytest.mark.parametrize("guidance", [1.0, 1.5])
def test_actions_move_on_with_the_window_and_may_come_live(kind: str, guidance: float) -> None:
    gpt, prompt = random_gpt(kind), torch.randint(K, (2, 1, *GRID[1:]))
    settings = SamplingSettings(temperature=0, guidance=guidance, overlap=2)
    per_frame = torch.arange(14).reshape(1, 7, 2).repeat(2, 1, 1) % 4
    actions = per_frame if kind == "actions" else torch.stack([per_frame, -per_frame], dim=-1) / 3.0
    made = sample_indices(gpt, prompt, 6, settings, [0, 1], Conditions(actions=actions))
    for first in range(5):  # a window of three, of which two are kept, sees each of these
        seen = actions[:, first : first + 3].clone()
        if first:  # nothing is known to lead to a window's first frame
            seen[:, 0, 0] = 0 if kind == "actions" else math.nan
        again = sample_indices(gpt, made[:, first : first + 2], 1, settings, [0, 1], Conditions(actions=seen))
        assert torch.equal(again[:, 2], made[:, first + 2])
    asked: list[int] = []

    def live() -> Iterator[torch.Tensor]:
        for frame in range(1, 6):
            asked.append(frame)
            yield actions[:, frame]

    prompts_own = Conditions(actions=actions[:, :1])
    frames = sample_latent_frames(gpt, prompt, None, settings, [0, 1], prompts_own, live())
    for frame in range(1, 6):
        assert torch.equal(next(frames), made[:, frame]) and asked == list(range(1, frame + 1))
    with pytest.raises(ValueError, match="the actions have ended before the clip"):
        next(frames)


def test_actions_equal_to_the_mean_are_something_said() -> None:
    assert said("nothing").empty and Conditions().empty and Conditions(labels=torch.zeros(2)).empty
    assert not Conditions(actions=torch.zeros(1, 3, 2, 2)).empty
    assert Conditions(actions=torch.full((1, 3, 2, 2), math.nan)).empty


def test_guidance_without_a_condition_is_refused() -> None:
    gpt, prompt = random_gpt("labels"), torch.randint(K, (1, 1, 2, 3))
    for conditions in (None, Conditions(), Conditions(labels=torch.tensor([0]))):
        with pytest.raises(ValueError, match=r"guidance 2.0 needs a condition .* got none; this model takes labels"):
            sample_indices(gpt, prompt, 1, SamplingSettings(guidance=2.0), [0], conditions)
    for value in (-1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match=r"guidance .*: expected 0"):
            SamplingSettings(guidance=value)


# hiding and noise


def test_hiding_takes_all_or_one_kind_or_the_beginning_of_the_actions() -> None:
    torch.manual_seed(0)
    B, t_lat = 4000, 4
    whole = Conditions(
        torch.ones(B, dtype=torch.int64), torch.ones(B, 2, 16, dtype=torch.int64), torch.ones(B, t_lat, 2)
    )
    labels, captions, actions = hide(whole, 0.2, drawn_chance(B, torch.device("cpu"))[:, 1])
    assert labels is not None and captions is not None and actions is not None
    no_label, no_caption, unknown = labels == 0, (captions == 0).all(dim=(1, 2)), actions.isnan()
    assert torch.equal(captions == 0, no_caption[:, None, None].expand_as(captions))
    assert torch.equal(unknown[..., 0], unknown[..., 1])
    known = (~unknown[..., 0]).long()
    assert (known.diff(dim=1) >= 0).all(), "actions are hidden from the beginning on"
    all_hidden = no_label & no_caption & unknown.all(dim=(1, 2))
    share = 1 - 0.8**2
    for found, expected in (
        (no_label, share),
        (no_caption, share),
        (all_hidden, 0.2 + 0.8 * 0.2**2 * (0.2 + 0.8 * 0.2 / t_lat)),
        (unknown[:, 0, 0], 1 - 0.8**3),
        (unknown[:, 3, 0], share + 0.8**2 * 0.2 / t_lat),
    ):
        assert found.float().mean().item() == pytest.approx(expected, abs=0.025)
    assert torch.equal(whole.labels, torch.ones(B, dtype=torch.int64)), "the caller's conditions were changed"


def test_noise_replaces_the_share_that_is_told_by_indices_of_the_same_clip() -> None:
    torch.manual_seed(0)
    past = torch.arange(4000)[:, None] * 1000 + torch.arange(50)
    numbers = drawn_chance(4000, past.device)[:, 1]
    seen, level = noisy(past, 0.5, numbers)
    replaced = (seen != past).float().mean(dim=1)
    assert sorted(level.unique().tolist()) == list(range(11)) and not replaced[level == 0].any()
    for step in (1, 5, 10):
        assert replaced[level == step].mean().item() == pytest.approx(0.05 * step * 49 / 50, abs=0.02)
    assert torch.equal(seen // 1000, past // 1000)
    assert noisy(past[:, :0], 0.5, numbers)[0].shape == (4000, 0)


@torch.no_grad()
def test_noise_is_of_training_alone_and_what_is_predicted_stays_true() -> None:
    gpt, clean = random_gpt("nothing", context_noise=0.9), torch.randint(K, (64, *GRID))
    torch.testing.assert_close(gpt(clean).losses, gpt(clean).losses)
    noised = gpt.train()(clean).losses
    # The first index of a clip has no past: only the level that is told can change what is thought of it.
    first = gpt(clean[:1].expand(64, -1, -1, -1)).losses[:, 0]
    assert 4 < len(first.unique()) <= 11
    assert not torch.equal(noised[:, 3:], gpt.eval()(clean).losses[:, 3:])
    assert noised.shape == (64, 18)
    with pytest.raises(ValueError, match=r"context_noise 1\.0: expected a share"):
        random_gpt("nothing", context_noise=1.0)


# from words to tensors


def test_captions_are_words_of_up_to_16_bytes() -> None:
    assert words("a  red\nball") == [b"a", b"red", b"ball"] and words(" ") == []
    assert words("é" * 9) == [("é" * 8).encode(), "é".encode()]
    captions = said("captions").captions
    assert captions is not None and captions.shape == (3, 3, 16)
    assert captions[1, 0, :5].tolist() == [*(1 + byte for byte in b"ball"), 0] and not captions[1, 1:].any()


def test_a_record_is_read_as_far_as_the_model_knows_of_such_things() -> None:
    record = {"label": "cat", "caption": "a red ball", "actions": [2, 1, 0, 0], "video": "x", "start": 0}
    everything = ConditionConfig(**KINDS["all"]).of_record(record)
    assert everything == ClipConditions("cat", "a red ball", [None, 2, 1, 0]), "an action is told to the frame after it"
    assert ConditionConfig().of_record(record) == ClipConditions()
    unknown = {"label": "bird", "caption": "one two three four"}
    assert ConditionConfig(**KINDS["all"]).of_record(unknown) == ClipConditions(caption="one two three")
    endless = {"caption": "a " + "\u732b" * 40}
    cut = ConditionConfig(**KINDS["all"]).of_record(endless).caption
    assert cut == "a " + "\u732b" * 10 and len(words(cut)) == 3, "two words of 16 bytes hold ten characters"
    assert ConditionConfig(**ENCODED).of_record(unknown).caption == "one two three four"
    renumbered = {"actions": [0, 2, 1], "action_names": ["right", "stay", "left"]}
    assert ConditionConfig(**DISCRETE).of_record(renumbered).actions == [None, "right", "left"]


def test_what_the_data_allows_becomes_the_configuration_and_survives_json() -> None:
    facts = {"labels": ["a"], "captions": {"words": 7}, "actions": {"size": 1, "mean": [0.0], "std": [1.0]}, "data": 1}
    config = ConditionConfig.of_data(facts, ("labels", "captions", "actions"), 4, 0.1)
    assert config.kinds == ("labels", "captions", "actions") and config.frames_per_latent == 4
    assert ConditionConfig.of_data(facts, ("actions",), 4, 0.1).kinds == ("actions",)
    assert ConditionConfig.of_data({}, ("labels", "captions", "actions"), 4, 0.1).kinds == ()
    assert GPTConfig(K, GRID, conditions=json.loads(json.dumps(vars(config)))).conditions == config


def test_vectors_are_told_in_the_units_of_the_training_data() -> None:
    actions = said("vectors").actions
    assert actions is not None and actions.shape == (3, 3, 2, 2)
    assert actions[0, 0, 0].isnan().all() and actions[2].isnan().all()
    assert actions[0, 0, 1].tolist() == [(0.5 - 1) / 2, 0 + 2]  # a number that never changed has no unit


@pytest.mark.parametrize(
    ("kind", "clip", "message"),
    [
        ("labels", ClipConditions("bird"), "label 'bird' is unknown to this model; it knows: cat, dog"),
        ("nothing", ClipConditions("cat"), "it was trained without labels"),
        ("labels", ClipConditions(None, "a ball"), "caption 'a ball': this model was trained without captions"),
        ("captions", ClipConditions(None, "a b c d"), "has 4 words, expected at most 3"),
        ("labels", ClipConditions(actions=[0] * 6), "got actions, but this model was trained without any"),
        ("actions", ClipConditions(actions=[0] * 5), "got actions for 5 frames, expected 6"),
        ("actions", ClipConditions(actions=[0, 3, 0, 0, 0, 0]), "action 3 is unknown .* 0 to 2: stay, left, right"),
        ("actions", ClipConditions(actions=[0, -1, 0, 0, 0, 0]), "action -1 is unknown"),
        ("actions", ClipConditions(actions=[0, "jump", 0, 0, 0, 0]), "action 'jump' is unknown"),
        ("actions", ClipConditions(actions=[0, 0.5, 0, 0, 0, 0]), "action 0.5 is unknown"),
        ("actions", ClipConditions(actions=[0, [1.0], 0, 0, 0, 0]), r"action \[1.0\] is unknown"),
        ("vectors", ClipConditions(actions=[[0.0, 1.0]] * 5 + [[1.0]]), r"action \[1.0\], expected a list of 2"),
        ("vectors", ClipConditions(actions=[[0.0, math.nan]] * 6), "is not finite"),
        ("vectors", ClipConditions(actions=[1] * 6), "action 1, expected a list of 2 numbers"),
        ("vectors", ClipConditions(actions=[["left", 0.3]] * 6), "expected a list of 2 numbers"),
        ("vectors", ClipConditions(actions=[{"x": 1, "y": 2}] * 6), "expected a list of 2 numbers"),  # type: ignore[list-item]
        ("actions", ClipConditions(actions=[math.inf] * 6), "action inf is unknown"),
        ("actions", ClipConditions(actions=[math.nan] * 6), "action nan is unknown"),
        ("actions", ClipConditions(actions=[True] * 6), "action True is unknown"),
    ],
)
def test_conditions_that_a_model_does_not_know(kind: str, clip: ClipConditions, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ConditionConfig(**KINDS[kind], frames_per_latent=2).tensors([clip], 3)


def test_configurations_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="either discrete actions or vectors"):
        ConditionConfig(**DISCRETE, **VECTORS)
    with pytest.raises(ValueError, match="actions of 2 numbers have 1 means"):
        ConditionConfig(action_size=2, action_mean=(1.0,), action_std=(1.0, 1.0))
