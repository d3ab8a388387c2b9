"""Drawing indices: filters, the distribution drawn from, seeds, batches."""

import math
from collections.abc import Callable
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
from tokenreel.transformer.filters import keep_top_k, keep_top_p, odds, pick
from tokenreel.transformer.sampling import sample_latent_frames
from tokenreel.transformer.static_decoder import StaticDecoder
from tokenreel.transformer.token_order import drawn_order, token_order

GRID = (3, 2, 2)
ChiSquare = Callable[[torch.Tensor, torch.Tensor], float]
K = 31


def random_gpt(
    grid: tuple[int, int, int] = GRID, codebook_size: int = K, factors: int = 1, infilling: float = 0.0
) -> VideoGPT:
    """A GPT whose weights are random everywhere: as made, head and branches are zero."""
    conditions = ConditionConfig(labels=("a", "b"))
    size = GPTSize(dim=64, depth=2)
    config = GPTConfig(codebook_size, grid, size, factors=factors, conditions=conditions, infilling=infilling)
    gpt = VideoGPT(config)
    for parameter in gpt.parameters():
        nn.init.normal_(parameter, std=0.2)
    return gpt.eval()


def scores(gpt: VideoGPT, indices: torch.Tensor, labels: torch.Tensor | None = None) -> torch.Tensor:
    """Logits of all indices at every place, by the full forward pass: (B, N, K)."""
    return gpt.hidden_states(indices, Conditions(labels), gpt.tables()) @ gpt.head.own.weight[:-1].T


def kept(logits: torch.Tensor) -> torch.Tensor:
    return torch.isfinite(logits)


# filters


def test_top_k_keeps_the_k_largest_and_ties_at_the_edge() -> None:
    logits = torch.tensor([[0.1, 3.0, -1.0, 2.0, 2.0], [5.0, 4.0, 3.0, 2.0, 1.0]])
    assert keep_top_k(logits, 2).tolist() == [
        [-math.inf, 3.0, -math.inf, 2.0, 2.0],
        [5.0, 4.0, -math.inf, -math.inf, -math.inf],
    ]
    for k in (0, 5, 99):
        assert torch.equal(keep_top_k(logits, k), logits)


@pytest.mark.parametrize("p", [1e-6, 0.1, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("sharp", [3, 9])  # the second: all rows' few likeliest suffice, and nothing is sorted
def test_top_p_keeps_the_smallest_set_that_reaches_p(p: float, sharp: float) -> None:
    logits = torch.randn(50, 80) * sharp
    filtered = keep_top_p(logits, p)
    assert torch.equal(filtered[kept(filtered)], logits[kept(filtered)])
    for row, mask in zip(logits.softmax(-1).double(), kept(filtered), strict=True):
        inside, outside = row[mask], row[~mask]
        assert inside.sum() > p - 1e-6
        assert inside.sum() - inside.min() < p + 1e-6, "a smaller set would do"
        assert len(outside) == 0 or outside.max() <= inside.min()


def test_top_p_of_one_row_is_that_of_many() -> None:
    logits = torch.randn(30, 80) * 9
    for p in (0.1, 0.5, 0.9, 0.999):
        alone = torch.cat([keep_top_p(row[None], p) for row in logits])
        assert torch.equal(alone, keep_top_p(logits, p))


def test_top_p_cuts_ties_and_p_1_keeps_all() -> None:
    even = torch.zeros(1, 8)
    assert kept(keep_top_p(even, 0.3)).sum() == 3
    assert kept(keep_top_p(even, 1e-9)).sum() == 1
    extreme = torch.tensor([[0.0, -1e4, -200.0]])
    assert torch.equal(keep_top_p(extreme, 1.0), extreme)


def test_temperature_comes_before_top_p_and_top_k_before_both() -> None:
    logits, uniform = torch.tensor([[2.0, 1.0, 0.0, -1.0]]), torch.tensor([0.999999], dtype=torch.float64)
    # At temperature 1 the first two hold 0.88; at 0.5 they hold 0.98, and the third is cut.
    assert pick(logits, SamplingSettings(top_p=0.95), uniform).item() == 2
    assert pick(logits, SamplingSettings(top_p=0.95, temperature=0.5), uniform).item() == 1
    # Among the first two alone the first holds 0.73 >= 0.7.
    assert pick(logits, SamplingSettings(top_p=0.7), uniform).item() == 1
    assert pick(logits, SamplingSettings(top_p=0.7, top_k=2), uniform).item() == 0


def test_sharpening_the_others_keeps_the_odds_of_the_likeliest() -> None:
    logits = torch.tensor([[0.1, 5.0, 1.0, 2.0, -1.0], [3.0, 2.9, -torch.inf, 0.0, 0.0]])
    settings = SamplingSettings(temperature=0.5, top_k=3, top_p=0.9, sharpen="others")
    plain, sharpened = logits.double().softmax(-1), odds(logits, settings)
    for row, (before, after) in enumerate(zip(plain, sharpened, strict=True)):
        first = int(before.argmax())
        others = [i for i in range(5) if i != first]
        assert after[first] == before[first] and after.sum() == pytest.approx(1)
        wanted = keep_top_p(keep_top_k(logits[row : row + 1, others] / 0.5, 3), 0.9).double().softmax(-1)
        torch.testing.assert_close(after[others], wanted[0] * (1 - before[first]))
    # What is unlikely at each place is so no longer over many: 64 places, 3 % at each.
    rare = torch.full((1, 101), math.log(0.03 / 100))
    rare[0, 7] = math.log(0.97)
    lost, kept = (1 - odds(rare, SamplingSettings(0.7, top_p=0.9, sharpen=what))[0, 7] for what in ("all", "others"))
    assert lost == 0 and kept == pytest.approx(0.03, rel=1e-4)


def test_sharpening_the_others_where_there_is_one_or_none() -> None:
    logits = torch.tensor([[-torch.inf, 0.0, -torch.inf], [-torch.inf, 1.0, 0.0]])
    for settings in (SamplingSettings(1e-30, sharpen="others"), SamplingSettings(top_k=1, top_p=0.1, sharpen="others")):
        torch.testing.assert_close(odds(logits, settings), logits.double().softmax(-1))
    assert pick(logits, SamplingSettings(0, sharpen="others"), torch.zeros(2, dtype=torch.float64)).tolist() == [1, 1]


# the draw


@pytest.mark.parametrize(
    "settings",
    [
        SamplingSettings(),
        SamplingSettings(temperature=0.6),
        SamplingSettings(temperature=1.7, top_k=5),
        SamplingSettings(top_p=0.8),
        SamplingSettings(temperature=1.3, top_k=6, top_p=0.9),
    ],
    ids=str,
)
def test_draws_follow_the_filtered_softmax(settings: SamplingSettings, chi_square: ChiSquare) -> None:
    logits = torch.tensor([0.3, -1.0, 1.2, 0.9, -0.5, 0.0, 1.1, -1.4])
    scaled = keep_top_p(keep_top_k(logits[None] / settings.temperature, settings.top_k), settings.top_p)[0]
    drawn = pick(logits.expand(20_000, -1), settings, torch.rand(20_000, dtype=torch.float64))
    # 7 degrees of freedom at most: 29.9 is exceeded once in 10,000 times.
    assert chi_square(drawn, scaled.softmax(-1)) < 29.9


@pytest.mark.parametrize("settings", [SamplingSettings(top_k=3), SamplingSettings(top_p=0.4)], ids=str)
def test_extreme_numbers_never_leave_the_set(settings: SamplingSettings) -> None:
    logits = torch.randn(2000, 40) * 4
    allowed = kept(keep_top_p(keep_top_k(logits, settings.top_k), settings.top_p))
    for number in (0.0, 1.0 - 2.0**-53):
        drawn = pick(logits, settings, torch.full((2000,), number, dtype=torch.float64))
        assert allowed.gather(1, drawn[:, None]).all()


@torch.no_grad()
def test_indices_follow_the_models_own_distribution(chi_square: ChiSquare) -> None:
    gpt = random_gpt(grid=(1, 1, 2), codebook_size=6)
    gpt.head.own.weight.mul_(0.3)  # so that every index is drawn often enough to count
    prompt, labels = torch.zeros(3000, 0, 1, 2, dtype=torch.int64), torch.ones(3000, dtype=torch.int64)
    drawn = sample_indices(gpt, prompt, 1, SamplingSettings(), range(3000), Conditions(labels))[:, 0, 0]
    often = int(drawn[:, 0].mode().values)
    first, second = scores(gpt, torch.tensor([[[[often, 0]]]]), labels[:1])[0].softmax(-1)
    # 5 degrees of freedom: 25.7 is exceeded once in 10,000 times.
    assert chi_square(drawn[:, 0], first) < 25.7
    assert chi_square(drawn[drawn[:, 0] == often, 1], second) < 25.7


# sampling a grid


@torch.no_grad()
def greedy_by_full_forward(gpt: VideoGPT, prompt: torch.Tensor) -> torch.Tensor:
    """The slow way: the whole forward pass for every index."""
    flat = torch.zeros(len(prompt), math.prod(GRID), dtype=torch.int64)
    start = prompt[0].numel()
    flat[:, :start] = prompt.flatten(1)
    for place in range(start, flat.shape[1]):
        flat[:, place] = scores(gpt, flat.view(-1, *GRID))[:, place].argmax(-1)
    return flat.view(-1, *GRID)


@pytest.mark.parametrize("prompt_length", [0, 1, 2])
def test_top_k_1_is_greedy_is_temperature_0_is_the_full_forward(prompt_length: int) -> None:
    gpt, prompt = random_gpt(), torch.randint(K, (3, prompt_length, *GRID[1:]))
    expected = greedy_by_full_forward(gpt, prompt)
    assert len(expected.unique()) > 3
    for settings in (SamplingSettings(temperature=0), SamplingSettings(top_k=1), SamplingSettings(top_p=1e-9)):
        assert torch.equal(sample_indices(gpt, prompt, 3 - prompt_length, settings, [5, 6, 7]), expected)


@pytest.mark.parametrize("prompt_length", [0, 1])
def test_a_row_depends_on_its_own_seed_and_prompt_alone(prompt_length: int) -> None:
    gpt, prompt = random_gpt(), torch.randint(K, (3, prompt_length, *GRID[1:]))
    labels, new = torch.tensor([0, 1, 2]), GRID[0] - prompt_length
    settings = SamplingSettings(temperature=0.9, top_k=20, top_p=0.95)
    together = sample_indices(gpt, prompt, new, settings, [7, 8, 9], Conditions(labels))
    assert torch.equal(together[:, :prompt_length], prompt)
    for i in range(3):
        alone = sample_indices(gpt, prompt[[i]], new, settings, [7 + i], Conditions(labels[[i]]))
        assert torch.equal(alone[0], together[i])
    reversed_rows = sample_indices(gpt, prompt.flip(0), new, settings, [9, 8, 7], Conditions(labels.flip(0)))
    assert torch.equal(reversed_rows.flip(0), together)
    other_seeds = sample_indices(gpt, prompt, new, settings, [17, 18, 19], Conditions(labels))
    assert (other_seeds[:, prompt_length:] != together[:, prompt_length:]).flatten(1).any(dim=1).all()


def test_a_longer_sample_starts_like_a_shorter_one_and_frames_come_as_they_are_made() -> None:
    gpt, prompt = random_gpt(), torch.randint(K, (2, 1, *GRID[1:]))
    short = sample_indices(gpt, prompt, 1, SamplingSettings(), [0, 1])
    long = sample_indices(gpt, prompt, 2, SamplingSettings(), [0, 1])
    frames = sample_latent_frames(gpt, prompt, 2, SamplingSettings(), [0, 1])
    assert torch.equal(long[:, :2], short)
    assert torch.equal(next(frames), long[:, 1])
    assert torch.equal(next(frames), long[:, 2])


# drafts


def counted_steps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Tokens of each pass through the decoder, noted as they happen."""
    steps: list[int] = []
    run = StaticDecoder._run

    def counted(self: StaticDecoder, x: torch.Tensor, *others: Any) -> torch.Tensor:
        steps.append(x.shape[1])
        return run(self, x, *others)

    monkeypatch.setattr(StaticDecoder, "_run", counted)
    return steps


@pytest.mark.parametrize("factors", [1, 2])
@pytest.mark.parametrize("guidance", [1.0, 2.0])
@pytest.mark.parametrize("t", [0, 1])
def test_drafts_change_nothing_but_the_number_of_steps(
    factors: int, guidance: float, t: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpt = random_gpt((3, 3, 4), factors=factors)
    steps = counted_steps(monkeypatch)
    prompt, labels = torch.randint(K, (3, t, 3, 4)), Conditions(torch.tensor([1, 2, 0]))
    made = {}
    for top_k in (1, 2):
        for speculative in ("auto", "off"):
            settings = SamplingSettings(top_k=top_k, guidance=guidance, speculative=speculative)
            steps.clear()
            made[top_k, speculative] = sample_indices(gpt, prompt, 6, settings, [5, 6, 7], labels)
            prefills = {1 + 12 * frames for frames in range(3)}
            assert any(n > 1 and n not in prefills for n in steps) == (speculative == "auto")
        assert torch.equal(made[top_k, "auto"], made[top_k, "off"])
    assert not torch.equal(made[1, "auto"], made[2, "auto"])


@pytest.mark.parametrize(("wrong", "top_p", "draws"), [(False, 0.9, 100_000), (False, 1, 20_000), (True, 1, 20_000)])
def test_drafts_leave_the_distribution_as_it_is(
    wrong: bool, top_p: float, draws: int, chi_square: ChiSquare, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A latent frame of three indices of three values: all 27 outcomes in many draws, against the exact odds."""
    gpt, settings = random_gpt((2, 1, 3), codebook_size=3), SamplingSettings(temperature=3, top_p=top_p)
    prompt, every = torch.tensor([[[[0, 2, 1]]]]), torch.cartesian_prod(*[torch.arange(3)] * 3)
    with torch.no_grad():
        logits = scores(gpt, torch.cat([prompt.expand(27, -1, -1, -1), every.view(27, 1, 1, 3)], dim=1))[:, 3:]
    odds = keep_top_p(logits / 3, top_p).softmax(-1).gather(-1, every[..., None])[..., 0].double().prod(dim=-1)
    assert odds.sum().item() == pytest.approx(1, abs=1e-5) and (odds > 0).sum() > 8
    monkeypatch.setattr("tokenreel.transformer.sliding_window.AHEAD", {10**5: 3})
    if wrong:  # as if every draft were right
        monkeypatch.setattr("tokenreel.transformer.sliding_window.valid", lambda drawn, draft: drawn[:, 0] * 0 + 3)
    drawn = []
    for begin in range(0, draws, 20_000):
        rows = prompt.expand(20_000, -1, -1, -1)
        drawn.append(sample_indices(gpt, rows, 1, settings, range(begin, begin + 20_000))[:, 1, 0])
    statistic = chi_square((torch.cat(drawn) * torch.tensor([9, 3, 1])).sum(dim=-1), odds)
    assert (statistic > 1000) if wrong else (statistic < 60)  # 26 degrees of freedom: 1 in 5,000 beyond 60


def test_where_nothing_moves_many_indices_are_drawn_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    gpt, steps = random_gpt((3, 4, 8)), counted_steps(monkeypatch)
    nn.init.zeros_(gpt.head.own.weight)  # greedy: always index 0
    sample_indices(gpt, torch.zeros(1, 1, 4, 8, dtype=torch.int64), 2, SamplingSettings(temperature=0), [0])
    assert steps == [gpt.config.prefix - 1 + 32, *[12] * 6]


def test_a_clip_goes_on_without_waiting_for_another(monkeypatch: pytest.MonkeyPatch) -> None:
    gpt, steps = random_gpt((3, 4, 8)), counted_steps(monkeypatch)
    nn.init.zeros_(gpt.head.own.weight)  # greedy: always index 0
    prompt = torch.zeros(8, 1, 4, 8, dtype=torch.int64)
    prompt[0, 0, 0, 3] = prompt[1, 0, 2, 4] = prompt[2, 0, 3, 6] = 1  # one wrong draft each, at another time
    made = sample_indices(gpt, prompt, 1, SamplingSettings(temperature=0), range(8))
    assert not made[:, 1].any() and steps[1:] == [8] * 5, "four passes and one more, not one more for each of the three"


# beyond the window


@pytest.mark.parametrize("overlap", [0, 1, 2])
def test_a_full_window_moves_on_to_what_its_last_frames_alone_would_give(overlap: int) -> None:
    gpt, prompt = random_gpt(), torch.randint(K, (2, 1, *GRID[1:]))
    settings, kept = SamplingSettings(temperature=0, overlap=overlap), overlap or 1
    long, seen = sample_indices(gpt, prompt, 8, settings, [0, 1]), prompt
    while seen.shape[1] < 9:  # greedy, so that no random number must be carried on
        last = seen[:, -kept:] if seen.shape[1] > 1 else seen
        seen = torch.cat([seen, greedy_by_full_forward(gpt, last)[:, last.shape[1] :]], dim=1)
    assert torch.equal(long, seen[:, :9]) and len(long[:, 3:].unique(dim=1)[0]) > 1


def test_a_prompt_may_fill_the_window() -> None:
    gpt, prompt = random_gpt(), torch.randint(K, (2, 3, *GRID[1:]))
    settings = SamplingSettings(temperature=0, overlap=2)
    assert torch.equal(
        sample_indices(gpt, prompt, 1, settings, [0, 1])[:, 3], greedy_by_full_forward(gpt, prompt[:, 1:])[:, 2]
    )


def test_endless_frames_cost_no_more_memory_and_rows_stay_their_own() -> None:
    gpt, prompt = random_gpt(), torch.randint(K, (2, 1, *GRID[1:]))
    endless = sample_latent_frames(gpt, prompt, None, SamplingSettings(), [3, 4])
    made = torch.stack([next(endless) for _ in range(20)], dim=1)
    assert torch.equal(sample_indices(gpt, prompt, 20, SamplingSettings(), [3, 4])[:, 1:], made)
    assert torch.equal(sample_indices(gpt, prompt[1:], 20, SamplingSettings(), [4])[:, 1:], made[1:])


# in between


@pytest.mark.parametrize("speculative", ["auto", "off"])
@pytest.mark.parametrize(("t", "new", "k"), [(1, 2, 1), (0, 3, 1), (2, 1, 1), (0, 1, 3), (1, 1, 1)])
def test_what_lies_between_is_drawn_from_the_full_forward_in_that_order(
    t: int, new: int, k: int, speculative: Any
) -> None:
    grid = (4, 3, 4)
    gpt, order = random_gpt(grid, infilling=0.5), token_order(grid, t + new, t + new + k)
    prompt, last = torch.randint(K, (2, t, 3, 4)), torch.randint(K, (2, k, 3, 4))
    settings = SamplingSettings(temperature=0, speculative=speculative)
    frames = sample_latent_frames(gpt, prompt, new, settings, [0, 1], Conditions(torch.tensor([1, 2])), last=last)
    made = torch.stack(list(frames), dim=1)
    assert made.shape == (2, new, 3, 4)
    clip = torch.zeros(2, *grid, dtype=torch.int64)
    clip[:, : t + new + k] = torch.cat([prompt, made, last], dim=1)
    with torch.no_grad():
        hidden = gpt.hidden_states(clip, Conditions(torch.tensor([1, 2])), gpt.tables(), order)
    likeliest = (hidden @ gpt.head.own.weight[:-1].T).argmax(-1)
    drawn = slice((k + t) * 12, (k + t + new) * 12)
    assert torch.equal(likeliest[:, drawn], made.flatten(1))
    other = sample_latent_frames(gpt, prompt, new, settings, [0, 1], Conditions(torch.tensor([1, 2])))
    assert not torch.equal(torch.stack(list(other), dim=1), made), "the last frames are not looked at"


def test_actions_of_the_whole_clip_are_looked_at_and_those_behind_it_are_not() -> None:
    known = ConditionConfig(action_names=("left", "right"), frames_per_latent=2)
    gpt = VideoGPT(GPTConfig(K, (4, 2, 2), GPTSize(dim=64, depth=2), conditions=known, infilling=0.5)).eval()
    for parameter in gpt.parameters():
        nn.init.normal_(parameter, std=0.2)
    prompt, actions = torch.randint(K, (1, 1, 2, 2)), torch.randint(1, 3, (1, 6, 2))

    def between(told: torch.Tensor) -> torch.Tensor:
        settings = SamplingSettings(temperature=0)
        frames = sample_latent_frames(gpt, prompt, 2, settings, [0], Conditions(actions=told), last=prompt)
        return torch.stack(list(frames), dim=1)

    made, changed = between(actions), actions.clone()
    changed[:, 4:] = 3 - changed[:, 4:]
    assert torch.equal(between(changed), made)
    changed[:, 3] = 3 - changed[:, 3]
    assert not torch.equal(between(changed), made), "what led to the last frames tells of those between"


def test_infilling_is_learned() -> None:
    """Clips whose middle is half of their first and half of their last frame: both must be looked at."""
    config = GPTConfig(8, (3, 1, 2), GPTSize(dim=64, depth=2), infilling=1.0)
    gpt = VideoGPT(config)
    optimizer = torch.optim.Adam(gpt.parameters(), lr=3e-3)

    def clips(count: int) -> torch.Tensor:
        first, last = torch.randint(8, (2, count, 1, 1, 2))
        middle = torch.stack([first[..., 0], last[..., 1]], dim=-1)
        return torch.cat([first, middle, last], dim=1)

    for _ in range(300):
        optimizer.zero_grad()
        gpt.train()(clips(64)).loss.backward()
        optimizer.step()
    truth = clips(200)
    settings, seeds = SamplingSettings(temperature=0), range(200)
    (middle,) = sample_latent_frames(gpt.eval(), truth[:, :1], 1, settings, seeds, last=truth[:, 2:])
    assert (middle == truth[:, 1]).float().mean() > 0.95


def test_orders_of_training_leave_no_index_out_and_tell_nothing_of_what_comes_later() -> None:
    grid, ahead = (4, 2, 3), set()
    for _ in range(200):
        order = drawn_order(grid, 0.7, drawn_chance(1, torch.device("cpu"))[:, 0])
        places = order.places.tolist()
        assert sorted(places) == list(range(25)) and places[-1] == 24
        for n, (place, earlier) in enumerate(zip(places[:-1], order.earlier.tolist()[:-1], strict=True)):
            assert earlier <= n, "the token would be told what it is to predict, or later"
            before = places[earlier - 1] if earlier else None
            assert before == (place - 6 if place >= 6 and place - 6 in places[:n] else None)
        ahead.add(tuple(dict.fromkeys(place // 6 for place in places[:-1])))
    # Three that end after the second frame or later, each with any number of frames but the first.
    assert ahead == {(0, 1, 2, 3), *((*range(a, b), *range(a), *range(b, 4)) for b in (2, 3, 4) for a in range(1, b))}


def test_requests_for_what_lies_between_that_do_not_fit() -> None:
    gpt, frame = random_gpt(infilling=0.5), torch.zeros(1, 1, *GRID[1:], dtype=torch.int64)
    settings = SamplingSettings()
    with pytest.raises(ValueError, match="trained without infilling"):
        sample_latent_frames(random_gpt(), frame, 1, settings, [0], last=frame)
    with pytest.raises(ValueError, match="prompt and new latent frames are 3, the last 1; expected at most 3"):
        sample_latent_frames(gpt, frame, 2, settings, [0], last=frame)
    with pytest.raises(ValueError, match="last needs a number of new latent frames"):
        sample_latent_frames(gpt, frame, None, settings, [0], last=frame)
    with pytest.raises(ValueError, match=r"last has shape \(2, 1, 2, 2\), expected \(1, k, 2, 2\)"):
        sample_latent_frames(gpt, frame, 1, settings, [0], last=frame.repeat(2, 1, 1, 1))
    with pytest.raises(ValueError, match="needs windows of at least 3 latent frames, these have 2"):
        random_gpt((2, 2, 2), infilling=0.5)


# errors


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"temperature": -0.1}, "temperature -0.1: expected 0"),
        ({"temperature": math.nan}, "temperature nan"),
        ({"top_k": -1}, "top_k -1: expected 0"),
        ({"top_p": 0.0}, "top_p 0.0: expected a probability"),
        ({"top_p": 1.5}, "top_p 1.5"),
        ({"top_p": math.nan}, "top_p nan"),
        ({"sharpen": "some"}, "sharpen 'some': expected one of all, others"),
        ({"top_k": 5.0}, "top_k 5.0: expected a whole number"),
        ({"speculative": "of"}, "speculative 'of': expected one of auto, off"),
        ({"precision": "fp16"}, "precision 'fp16': expected one of fp32, bf16, int8"),
    ],
)
def test_settings_out_of_range(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SamplingSettings(**values)


def test_requests_that_do_not_fit_the_model() -> None:
    gpt, prompt = random_gpt(), torch.zeros(2, 1, *GRID[1:], dtype=torch.int64)
    settings = SamplingSettings()
    with pytest.raises(ValueError, match="got 1 seeds for 2 prompts"):
        sample_indices(gpt, prompt, 1, settings, [0])
    for seed in (None, 1.5, -1, 2**63):
        with pytest.raises(ValueError, match=f"seed {seed}: expected a whole number"):
            sample_latent_frames(gpt, prompt, 1, settings, [0, seed])  # type: ignore[list-item]
    with pytest.raises(ValueError, match=r"overlap 3 of a window of 3 latent frames, expected 1 to 2"):
        sample_indices(gpt, prompt, 3, SamplingSettings(overlap=3), [0, 1])
    with pytest.raises(ValueError, match="window is one latent frame: it cannot go on"):
        sample_indices(random_gpt((1, 2, 2)), prompt, 1, settings, [0, 1])
    with pytest.raises(ValueError, match=r"prompt has shape \(2, 4, 2, 2\), expected .* with t up to 3"):
        sample_indices(gpt, prompt.repeat(1, 4, 1, 1), 1, settings, [0, 1])
    with pytest.raises(ValueError, match="0 new latent frames asked for, expected at least 1"):
        sample_indices(gpt, prompt, 0, settings, [0, 1])
    with pytest.raises(ValueError, match=r"prompt has shape \(2, 1, 4\), expected .* = \(2, 2\)"):
        sample_indices(gpt, prompt.flatten(2), 1, settings, [0, 1])
    with pytest.raises(ValueError, match="top_k 32 exceeds the codebook of 31"):
        sample_indices(gpt, prompt, 1, SamplingSettings(top_k=32), [0, 1])


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_damaged_weights_are_told(temperature: float) -> None:
    gpt = random_gpt()
    nn.init.constant_(gpt.head.own.weight, math.nan)
    prompt = torch.zeros(1, 1, *GRID[1:], dtype=torch.int64)
    with pytest.raises(ValueError, match=r"logits are not finite at index 7; the model's weights are damaged"):
        sample_indices(gpt, prompt, 1, SamplingSettings(temperature=temperature), [0])
