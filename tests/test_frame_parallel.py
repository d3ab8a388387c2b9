"""Whole latent frames at a time: who sees whom, what is learned, how it is sampled."""

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import nn

from tokenreel.transformer import (
    ConditionConfig,
    Conditions,
    GPTConfig,
    GPTSize,
    SamplingSettings,
    VideoGPT,
    sample_indices,
)
from tokenreel.transformer.clip_chance import drawn_chance
from tokenreel.transformer.frame_parallel import Hidden, frame_states, hide_indices
from tokenreel.transformer.frame_window import FrameWindow
from tokenreel.transformer.sampling import sample_latent_frames
from tokenreel.transformer.token_order import TokenOrder, token_order

GRID, FRAME, ALL = (3, 2, 3), 6, 18
K = 31


def random_gpt(grid: tuple[int, int, int] = GRID, **values: Any) -> VideoGPT:
    """A GPT in which everything matters."""
    known = ConditionConfig(labels=("a", "b"), action_names=("left", "right"), frames_per_latent=2)
    config = GPTConfig(K, grid, GPTSize(dim=128, depth=2), conditions=known, decoding="frame", **values)
    gpt = VideoGPT(config)
    for parameter in gpt.parameters():
        nn.init.normal_(parameter, std=0.2)
    return gpt.eval()


def said(clips: int = 2) -> Conditions:
    return Conditions(torch.arange(clips) % 3, None, torch.randint(3, (clips, 3, 2)))


def hidden_at(*places: int, clips: int = 2) -> Hidden:
    where = torch.zeros(clips, ALL, dtype=torch.bool)
    where[:, list(places)] = True
    return Hidden(where, where.float())


@torch.no_grad()
def states(
    gpt: VideoGPT, indices: torch.Tensor, conditions: Conditions, hidden: Hidden, order: TokenOrder | None = None
) -> torch.Tensor:
    return frame_states(gpt, indices, conditions, gpt.tables(), order or gpt.layout().order, hidden)


def test_an_index_is_predicted_from_earlier_frames_and_what_is_shown_of_its_own() -> None:
    gpt, indices, conditions = random_gpt(), torch.randint(K, (2, *GRID)), said()
    hidden = hidden_at(0, 3, 6, 7, 8, 9, 10, 11, 14)
    before = states(gpt, indices, conditions, hidden)
    for place in range(ALL):
        changed = indices.flatten(1).clone()
        changed[:, place] = (changed[:, place] + 1) % K
        differs = (states(gpt, changed.view(2, *GRID), conditions, hidden) != before).any(dim=-1).all(dim=0)
        frame = place // FRAME
        expected = torch.arange(ALL) >= (frame + 1) * FRAME
        if not hidden.where[0, place]:
            expected |= torch.arange(ALL) // FRAME == frame
        assert torch.equal(differs, expected), f"index {place}"


def test_actions_of_a_frame_reach_it_and_what_follows() -> None:
    gpt, indices, conditions = random_gpt(), torch.randint(K, (2, *GRID)), said()
    assert conditions.actions is not None
    for frame in range(3):
        actions = conditions.actions.clone()
        actions[:, frame, 0] = (actions[:, frame, 0] + 1) % 3
        changed = states(gpt, indices, conditions._replace(actions=actions), hidden_at(0, 7, 14))
        differs = (changed != states(gpt, indices, conditions, hidden_at(0, 7, 14))).any(dim=-1).all(dim=0)
        assert torch.equal(differs, torch.arange(ALL) >= frame * FRAME)


@pytest.mark.parametrize("guidance", [1.0, 2.0])
@pytest.mark.parametrize("ahead", [None, 1])
def test_every_pass_of_the_sampler_equals_the_full_forward(
    guidance: float, ahead: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpt, conditions, seen = random_gpt(infilling=0.5), said(), []
    run = FrameWindow._frame_states

    def noted(self: FrameWindow, begin: int, shown: torch.Tensor, told: Any) -> torch.Tensor:
        seen.append((begin, shown, run(self, begin, shown, told)))
        return seen[-1][2]

    monkeypatch.setattr(FrameWindow, "_frame_states", noted)
    prompt = torch.randint(K, (2, 1, 2, 3))
    settings = SamplingSettings(passes=3, guidance=guidance)
    if ahead is None:
        order, clip = gpt.layout().order, sample_indices(gpt, prompt, 2, settings, [0, 1], conditions)
    else:
        order, last = token_order(GRID, 2, 3), torch.randint(K, (2, 1, 2, 3))
        (made,) = sample_latent_frames(gpt, prompt, 1, settings, [0, 1], conditions, last=last)
        clip = torch.cat([prompt, made[:, None], last], dim=1)
    passes = [(begin, shown, hidden) for begin, shown, hidden in seen if (shown == K).any()]
    assert len(passes) == 3 * (2 if ahead is None else 1)
    for begin, shown, hidden in passes:
        part = slice(begin, begin + FRAME)
        where = torch.zeros(2, ALL, dtype=torch.bool)
        where[:, part] = shown == K
        ordered = clip.flatten(1)[:, order.places[:-1]].clone()
        ordered[:, part] = torch.where(shown == K, ordered[:, part], shown)
        clip_then = ordered[:, order.places[:-1].argsort()].view(2, *GRID)
        full = states(gpt, clip_then, conditions, Hidden(where, where.float()), order)[:, part]
        torch.testing.assert_close(hidden[:2], full, rtol=0, atol=1e-4)
        if guidance != 1:
            untold = states(gpt, clip_then, Conditions(), Hidden(where, where.float()), order)[:, part]
            torch.testing.assert_close(hidden[2:], untold, rtol=0, atol=1e-4)


def test_every_number_of_hidden_indices_is_as_likely_and_each_frame_counts_alike() -> None:
    hidden = hide_indices(torch.zeros(2000, *GRID, dtype=torch.int64), drawn_chance(2000, torch.device("cpu"))[:, 1])
    number = hidden.where.view(-1, FRAME).sum(dim=1)
    counts = torch.bincount(number, minlength=FRAME + 1)
    assert counts[0] == 0 and ((counts[1:] - 1000).abs() < 150).all()
    assert ((hidden.where.float().mean(dim=0) - 3.5 / 6).abs() < 0.05).all(), "some places are hidden more often"
    torch.testing.assert_close(hidden.weight.view(-1, FRAME).sum(dim=1), torch.full((6000,), float(FRAME)))
    assert not hidden.weight[~hidden.where].any()


def test_validation_hides_the_same_every_time_and_training_does_not() -> None:
    gpt, indices = random_gpt(), torch.randint(K, (4, *GRID))
    with torch.no_grad():
        assert gpt(indices).loss == gpt(indices).loss
        assert gpt(indices).losses.shape == (4, ALL)
        gpt.train()
        assert gpt(indices).loss != gpt(indices).loss


def test_validation_does_not_hang_on_how_many_clips_are_judged_at_once() -> None:
    clips = torch.randint(K, (64, 3, 4, 4))
    for batch in (2, 8, 16, 64):
        shares = [hide_indices(part).where.float().mean() for part in clips.split(batch)]
        assert torch.stack(shares).mean() == pytest.approx(17 / 32, abs=0.02)
        masks = [hide_indices(part).where for part in clips.split(batch)]
        assert len(masks) == 1 or not torch.equal(masks[0], masks[1]), "the same places in every batch"


def trained_on(picture: Any) -> VideoGPT:
    """Trained on clips of two frames, the pictures of one index 0 .. 7 each."""
    gpt = VideoGPT(GPTConfig(8, (2, 2, 2), GPTSize(dim=64, depth=2), decoding="frame"))
    optimizer = torch.optim.Adam(gpt.parameters(), lr=3e-3)
    for _ in range(300):
        optimizer.zero_grad()
        gpt.train()(picture(torch.randint(8, (32, 1, 1, 1)))).loss.backward()
        optimizer.step()
    return gpt.eval()


def test_bits_are_those_of_one_index_after_another_and_more_passes_agree_better() -> None:
    """A frame of four equal indices is told by the first of them, in whatever order: 3 bits a clip of 8 indices."""
    gpt = trained_on(lambda index: index.expand(-1, 2, 2, 2))
    with torch.no_grad():
        bits = gpt(torch.arange(8).view(8, 1, 1, 1).expand(-1, 2, 2, 2).repeat(50, 1, 1, 1)).loss / math.log(2)
    assert bits == pytest.approx(3 / 8, abs=0.06)
    whole = {}
    for passes in (1, 4):
        nothing = torch.zeros(300, 0, 2, 2, dtype=torch.int64)
        made = sample_indices(gpt, nothing, 1, SamplingSettings(passes=passes), range(300)).flatten(1)
        whole[passes] = float((made == made[:, :1]).all(dim=1).float().mean())
        counts = torch.bincount(made[:, 0], minlength=8)
        assert (counts > 5).all(), "some pictures are never drawn"
    assert whole[4] > 0.9 and whole[1] < 0.1


def test_clips_depend_on_their_own_seed_alone_and_go_on_beyond_the_window() -> None:
    gpt, prompt = random_gpt(), torch.randint(K, (3, 1, 2, 3))
    settings = SamplingSettings(passes=4, top_k=5)
    together = sample_indices(gpt, prompt, 6, settings, [5, 6, 7])
    assert together.shape == (3, 7, 2, 3)
    for row in range(3):
        assert torch.equal(sample_indices(gpt, prompt[[row]], 6, settings, [5 + row])[0], together[row])
    assert not torch.equal(sample_indices(gpt, prompt, 6, settings, [8, 9, 10]), together)


def test_temperature_0_leaves_nothing_to_chance() -> None:
    gpt, prompt = random_gpt(), torch.randint(K, (2, 1, 2, 3))
    settings = SamplingSettings(temperature=0, passes=4)
    assert torch.equal(
        sample_indices(gpt, prompt, 2, settings, [0, 1]), sample_indices(gpt, prompt, 2, settings, [7, 8])
    )


def test_every_pass_keeps_something(monkeypatch: pytest.MonkeyPatch) -> None:
    gpt, hidden = random_gpt((3, 4, 4)), []
    run = FrameWindow._frame_states

    def noted(self: FrameWindow, begin: int, shown: torch.Tensor, told: Any) -> torch.Tensor:
        hidden.append(int((shown == K).sum()))
        return run(self, begin, shown, told)

    monkeypatch.setattr(FrameWindow, "_frame_states", noted)
    for passes in (1, 3, 15, 16, 99):
        hidden.clear()
        sample_indices(gpt, torch.zeros(1, 0, 4, 4, dtype=torch.int64), 1, SamplingSettings(passes=passes), [0])
        assert hidden[0] == 16 and hidden[-1] == 0 and len(hidden) == min(passes, 16) + 1
        assert all(later < earlier for earlier, later in pairwise(hidden))


def test_settings_that_do_not_go_together() -> None:
    with pytest.raises(ValueError, match="passes 0: expected at least 1"):
        SamplingSettings(passes=0)
    with pytest.raises(ValueError, match="decoding 'frames': expected 'token' or 'frame'"):
        GPTConfig(8, GRID, decoding="frames")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="context_noise works with decoding 'token' alone"):
        GPTConfig(8, GRID, decoding="frame", context_noise=0.1)


def test_every_weight_learns() -> None:
    gpt = random_gpt()
    gpt.train()
    for _ in range(4):
        gpt(torch.randint(K, (6, *GRID)), torch.arange(6) % 3, None, torch.randint(3, (6, 3, 2))).loss.backward()
    for name, parameter in gpt.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name
